"""How long a customer's webhooks take, alone and beside customers whose receivers hang, fail, redirect or answer a gigabyte."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from random import Random
from statistics import median, quantiles
from typing import Any, Final

import aiohttp

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.bench.findings import Finding, Section, of_slices
from tests.bench.finishing import INSTANT
from tests.bench.other_receivers import OtherReceivers
from tests.bench.plan import Plan
from tests.bench.scene import Engine, Scene, scene
from tests.bench.slices import Rounds, alternate
from tests.house import Customer
from tests.webhook_receiver import Received, Receiver, allowed

_BAD: Final = ("hangs", "answers 500", "redirects", "answers a gigabyte")
_GOOD: Final = ("is fine",) * len(_BAD)
# Jobs a second: of the customer that is watched, and of each of the others. Together a fifth of what two cores make: near
# all that they make, a webhook waits for a processor, and what anybody does delays everybody.
_WATCHED_PER_S: Final = 8.0
_OTHER_PER_S: Final = 1.0
# Three times as long as a receiver that hangs is waited for, and long enough for a p99 that is not one unlucky webhook.
_SLICE_S: Final = 30.0
# What hangs is given up after the contract's ten seconds, and then sent again.
_PATIENCE_S: Final = 60.0
_LOOK_S: Final = 0.1
_LISTED: Final = 1000
_TARGET: Final = 1.1


@dataclass(frozen=True)
class Delays:
    """One slice: milliseconds from each job's end to its webhook's arrival; and what the others' receivers were sent."""

    ms: tuple[float, ...]
    others: int

    @property
    def p99_ms(self) -> float:
        return p99(self.ms)

    def __str__(self) -> str:
        return f"p50 {median(self.ms):.0f} ms, p99 {self.p99_ms:.0f} ms, {self.others} requests to others"


def p99(values: tuple[float, ...]) -> float:
    return quantiles(values, n=100)[98]


@dataclass
class _Place:
    """A house, the receiver that is watched, and those of the other customers."""

    house: Scene
    session: aiohttp.ClientSession
    watched: Receiver
    others: OtherReceivers
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def customer(self, number: int) -> Customer:
        """The first one is watched."""
        return Customer(self.session, self.house.house.base_url, self.house.keys[number])

    async def tell(self, number: int, url: str) -> None:
        request = jobs.SetWebhookEndpointRequest(customer_id=self.house.customer_ids[number], url=url)
        await self.house.inside.jobs.SetWebhookEndpoint(request)

    async def drained(self) -> None:
        """Until nothing is to be sent any more: what failed is sent now, and not in the middle of a later slice."""
        await self.others.answer(_GOOD)
        sent_again: set[str] = set()
        async with asyncio.timeout(_PATIENCE_S):
            while waiting := await self._waiting():
                await asyncio.gather(*(self._send_again(one) for one in waiting - sent_again))
                sent_again |= waiting
                await asyncio.sleep(_LOOK_S)

    async def _waiting(self) -> set[str]:
        request = jobs.ListDeliveriesRequest(state=jobs.DELIVERY_STATE_WAITING, limit=_LISTED)
        return {one.delivery_id for one in (await self.house.inside.jobs.ListDeliveries(request)).deliveries}

    async def _send_again(self, delivery_id: str) -> None:
        await self.house.inside.jobs.ResendDelivery(jobs.ResendDeliveryRequest(delivery_id=delivery_id))


async def measure(plan: Plan, engine: Engine = "SQLite") -> list[Section]:
    """One house; the same jobs of five customers in every slice, and only the receivers of four of them differ."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        watched, others = await enter(Receiver()), await enter(OtherReceivers(len(_BAD)))
        environment = {
            "ATELIER_EGRESS_ALLOW": allowed(watched.port, *others.ports),
        }
        house = await enter(
            scene(
                plan.folder,
                engine,
                customers=1 + len(_BAD),
                account_options=INSTANT,
                environment=environment,
            )
        )
        session = await enter(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        place = _Place(house, session, watched, others)
        await place.tell(0, watched.url())
        cases: dict[str, Callable[[], Any]] = {
            "alone": partial(_slice, place, plan, itertools.count(), ()),
            "beside four good ones": partial(_slice, place, plan, itertools.count(), _GOOD),
            "beside four bad ones": partial(_slice, place, plan, itertools.count(), _BAD),
        }
        rounds: Rounds[Delays] = await alternate(cases, plan)
    return [_section(engine, rounds)]


async def _slice(place: _Place, plan: Plan, rounds: Iterator[int], answers: tuple[str, ...]) -> Delays:
    """Everybody's jobs for some seconds; `answers`: what the others' receivers do, none where they have none.

    rounds: a count of its own for every case, so that in one round all cases ask at the same moments.
    """
    others_before = await place.others.answer(answers or _GOOD)
    for number, url in enumerate(place.others.urls, start=1):
        await place.tell(number, url if answers else "")
    before = len(place.watched.received)
    seconds, dice = max(plan.seconds, _SLICE_S), Random(next(rounds))
    expected = round(_WATCHED_PER_S * seconds)
    counts = (expected, *(round(_OTHER_PER_S * seconds) for _ in _BAD))
    moments = [sorted(dice.uniform(0, seconds) for _ in range(count)) for count in counts]
    await asyncio.gather(*(_ask(place, number, at_s) for number, at_s in enumerate(moments)))
    arrived = await place.watched.until(before + expected, within_s=_PATIENCE_S)
    sent = await place.others.answer(answers or _GOOD) - others_before
    await place.drained()
    return Delays(tuple(map(_delay_ms, arrived[before:])), sent)


async def _ask(place: _Place, number: int, at_s: list[float]) -> None:
    """At these moments, whatever the answers take."""
    customer, started_s = place.customer(number), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for moment_s in at_s:
            await asyncio.sleep(max(0.0, started_s + moment_s - time.monotonic()))
            group.create_task(_make(customer, f"bench-{next(place.numbers)}"))


async def _make(customer: Customer, key: str) -> None:
    made = await customer.image(key, "a harbour at dawn")
    if made.status != 202:
        raise RuntimeError(f"a job of the benchmark was refused: {made.body!r}")


def _delay_ms(received: Received) -> float:
    if received.json["status"] != "complete":
        raise RuntimeError(f"a job of the benchmark failed: {received.json['error']}")
    ended_s = datetime.fromisoformat(received.json["completedAt"]).timestamp()
    arrived_s = time.time() - (time.monotonic() - received.at_s)
    return 1_000 * (arrived_s - ended_s)


def _section(engine: Engine, rounds: Rounds[Delays]) -> Section:
    together = {name: tuple(ms for delays in rounds.of(name) for ms in delays.ms) for name in rounds.slices}
    bad, good = "beside four bad ones", "beside four good ones"

    def share(name: str, base: str) -> Finding:
        slices = rounds.ratios(name, base, lambda delays: delays.p99_ms)
        return of_slices(f"p99 {name}, of p99 {base}", slices, "×", target=_TARGET, at_least=False)

    findings = (
        share(bad, "alone"),
        share(bad, good),
        *(Finding(f"p99 {name}, all slices together", p99(ms), "ms") for name, ms in together.items()),
        *(Finding(f"p50 {name}, all slices together", median(ms), "ms") for name, ms in together.items()),
    )
    others = round(median(delays.others for delays in rounds.of(bad)))
    text = (
        f"From the moment a job has ended to the arrival of its webhook, which is signed and sent over a connection of its "
        f"own. In every slice of a round the same jobs are made at the same moments, which are drawn by lot: "
        f"{_WATCHED_PER_S:.0f} a second of the customer that is watched and "
        f"{_OTHER_PER_S:.0f} a second of each of four others. Alone: the others have no receivers. Beside four bad ones: "
        f"of theirs one {', one '.join(_BAD)}; they are sent to again as the contract says, first after five seconds; "
        f"they were sent {others} requests a slice. The others' receivers are a process that "
        f"computes only when nobody else does: elsewhere they are other machines.\n\n{rounds.trust()}"
    )
    return Section(
        f"Webhooks beside receivers that hang, fail, redirect and flood, on {engine}", findings, text
    )
