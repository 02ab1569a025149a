"""A house under measurement: started as `make run` starts it, with customers and accounts that are never the limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.processes import cpu_s, tree_cpu_s
from tests.house import House, Inside, inside, running_house
from tests.postgres import Postgres

Engine = Literal["SQLite", "PostgreSQL"]
PROCESSES: Final = ("gateway", "jobs", "provider_pool", "billing")
# A house's traffic is not one customer's, and fairness between customers is part of what a request costs.
CUSTOMERS: Final = 32
CREDITS: Final = 900_000_000
_LIMITS: Final = {"queued_jobs": 4_000_000, "running_jobs": 4_000_000, "requests_per_minute": 1_000_000}
# A million places an account: no job of a run waits for one.
_PLACES: Final = 1_000_000


@dataclass(frozen=True)
class Scene:
    """A running house, what is inside of it, and its customers' live keys."""

    engine: Engine
    house: House
    inside: Inside
    keys: tuple[str, ...]
    customer_ids: tuple[str, ...]
    postgres: Postgres | None = None

    def pids(self) -> dict[str, int]:
        return {name: self.house.pid_of(name) for name in PROCESSES}


@asynccontextmanager
async def scene(
    folder: Path,
    engine: Engine,
    *,
    customers: int = CUSTOMERS,
    account_options: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Scene]:
    """Starts all of it, and stops it on the way out."""
    changes = dict(environment or {})
    with ExitStack() as stack:
        server = None
        if engine == "PostgreSQL":
            server = await asyncio.to_thread(stack.enter_context, Postgres(durable=True))
            changes["ATELIER_DATABASE_URL"] = server.url("atelier")
        async with running_house(folder / f"var-{engine}", **changes) as house, inside(house) as services:
            await services.set_account_options(**(account_options or {}))
            await services.set_concurrency(_PLACES)
            made = [await services.customer(CREDITS, limits=_LIMITS) for _ in range(customers)]
            keys = tuple(live_key for _, live_key, _ in made)
            ids = tuple(customer_id for customer_id, _, _ in made)
            yield Scene(engine, house, services, keys, ids, server)


@dataclass(frozen=True)
class Counters:
    """What the processes of a house have counted and spent so far."""

    cpu_s: Mapping[str, float]
    # (process, metric, label) → value
    metrics: Mapping[tuple[str, str, str], float]

    def minus(self, before: Counters) -> Counters:
        return Counters(
            {name: spent - before.cpu_s[name] for name, spent in self.cpu_s.items()},
            {key: value - before.metrics.get(key, 0.0) for key, value in self.metrics.items()},
        )

    def plus(self, other: Counters) -> Counters:
        keys = self.metrics.keys() | other.metrics.keys()
        return Counters(
            {name: spent + other.cpu_s[name] for name, spent in self.cpu_s.items()},
            {key: self.metrics.get(key, 0.0) + other.metrics.get(key, 0.0) for key in keys},
        )

    def batches(self) -> dict[str, tuple[float, float]]:
        """Every group commit and stream that was used: (batches, items in them)."""
        found: dict[str, tuple[float, float]] = {}
        for (process, metric, label), count in sorted(self.metrics.items()):
            family = metric.removesuffix("_count")
            if metric == family or not count or family not in _BATCHES:
                continue
            name = f"{process} {_BATCHES[family]} {label}"
            found[name] = (count, self.metrics[process, family + "_sum", label])
        return found


_BATCHES: Final = {
    "atelier_group_commit_batch_items": "commits",
    "atelier_rpc_dispatch_batch_items": "calls",
}


def spent_s(scene: Scene) -> dict[str, float]:
    """CPU seconds of each service, and of the database server."""
    spent = {name: cpu_s(pid) for name, pid in scene.pids().items()}
    if scene.postgres is not None:
        spent["postgresql"] = tree_cpu_s(scene.postgres.pid)
    return spent


async def counters(scene: Scene) -> Counters:
    """Read before and after a slice, never during it: a scrape costs milliseconds, which `cpu_s` has not yet."""
    spent = spent_s(scene)
    metrics: dict[tuple[str, str, str], float] = {}
    async with aiohttp.ClientSession() as session:
        for name, address in scene.house.demo["operations"].items():
            async with session.get(f"{address}/metrics") as answer:
                text = await answer.text()
            for family in text_string_to_metric_families(text):
                if family.name in _BATCHES:
                    for sample in family.samples:
                        if not sample.name.endswith("_bucket"):
                            metrics[name, sample.name, next(iter(sample.labels.values()), "")] = sample.value
    return Counters(spent, metrics)
