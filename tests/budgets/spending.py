"""Reads what the processes of a house have counted, and says what a number of requests cost each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.house import House

# Where a kind of cost is counted, and the labels that tell whose it is.
_SAMPLES: Final = {
    "atelier_database_statements_total": ("statements", ("batch",)),
    "atelier_group_commit_batch_items_count": ("commits", ("batch",)),
    "atelier_rpc_server_requests_total": ("calls", ("method",)),
    "atelier_rpc_dispatch_batch_items_count": ("messages", ("peer",)),
    "atelier_rpc_dispatch_bytes_total": ("bytes", ("peer", "direction")),
}
# The stream itself, and what a house does whether or not anybody asks it for anything.
_BESIDE: Final = {"Dispatch", "WatchCapacity", "RenewLeases", "ExtendHolds", "Check", "Watch", "none"}


@dataclass(frozen=True)
class Spending:
    """By kind of cost and by whose it is (`jobs admissions`): how much so far, or how much for each of some requests."""

    by: dict[str, defaultdict[str, float]]

    def of(self, kind: str) -> dict[str, float]:
        """What was spent, without what costs nothing."""
        return {whose: amount for whose, amount in sorted(self.by[kind].items()) if amount}

    def total(self, kind: str, whose: Iterable[str] = ()) -> float:
        """The sum over all of a kind, or over those named."""
        chosen = set(whose) or self.by[kind].keys()
        return sum(amount for name, amount in self.by[kind].items() if name in chosen)

    def each(self, before: Spending, requests: int) -> Spending:
        """The difference, divided among so many requests."""
        return Spending(
            {
                kind: defaultdict(
                    float,
                    {name: (amount - before.by[kind][name]) / requests for name, amount in now.items()},
                )
                for kind, now in self.by.items()
            }
        )


async def spending(house: House, session: aiohttp.ClientSession) -> Spending:
    """What the house has spent so far."""
    by: dict[str, defaultdict[str, float]] = {kind: defaultdict(float) for kind, _ in _SAMPLES.values()}
    for service, address in house.demo["operations"].items():
        async with session.get(f"{address}/metrics") as answer:
            text = await answer.text()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                kind, labels = _SAMPLES.get(sample.name, ("", ()))
                if kind and _BESIDE.isdisjoint(sample.labels.values()):
                    whose = " ".join((service, *(sample.labels[label] for label in labels)))
                    by[kind][whose] += sample.value
    return Spending(by)
