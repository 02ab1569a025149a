"""Twenty thousand jobs in flight, each of which its provider wants to be asked about every five seconds."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.creates import CONNECTIONS, RUNNING, RUNNING_ENVIRONMENT, creates
from tests.bench.findings import Finding, Section, of_slices
from tests.bench.plan import Plan, say
from tests.bench.processes import cpu_s, pss_bytes
from tests.bench.scene import Engine, Scene, scene
from tests.bench.slices import Rounds, alternate
from tests.bench.wrk import load_generator, write_script

JOBS: Final = 20_000
# Two rounds of polls.
_SLICE_S: Final = 10.0
_LAG_S: Final = 1.0
_CORE: Final = 0.60
# Until the jobs of the last creates are submitted, and the rhythm of the polls is their own.
_SETTLE_S: Final = 20.0
_ARRIVAL_S: Final = 300.0
_PROCESSES: Final = ("jobs", "provider_pool")
_LAG: Final = "atelier_jobs_poll_lag_seconds_bucket"
_POLLED: Final = "atelier_pool_polled_attempts_total"


@dataclass(frozen=True)
class Polled:
    """One slice of nothing but polling."""

    cores: Mapping[str, float]
    polls_per_s: float
    lag_p99_s: float

    def __str__(self) -> str:
        used = ", ".join(f"{name} {share:.1%} of a core" for name, share in self.cores.items())
        return f"{self.polls_per_s:,.0f} polls/s, lag p99 {1_000 * self.lag_p99_s:.0f} ms, {used}"


async def measure(plan: Plan, engine: Engine = "SQLite") -> list[Section]:
    """Brings the jobs in flight by real creates over HTTP, then watches for some slices."""
    wrk = await load_generator()
    async with scene(plan.folder, engine, account_options=RUNNING, environment=RUNNING_ENVIRONMENT) as place:
        empty = _memory(place)
        script = write_script(plan.folder / "create.lua", creates(place.keys))
        made, seconds = 0, 2.0
        while made < JOBS:
            load = await wrk.run(script, place.house.base_url, connections=CONNECTIONS, seconds=seconds)
            made += load.requests
            seconds = min(10.0, max(1.0, (JOBS - made) / load.per_s))
            say(f"{made:,} of {JOBS:,} jobs created")
        running = await _all_running(place, made)
        full = _memory(place)

        async def watch() -> Polled:
            return await _slice(place)

        rounds = await alternate({"polling": watch}, plan)
    return [_section(rounds, running, {name: full[name] - empty[name] for name in _PROCESSES})]


async def _all_running(place: Scene, made: int) -> int:
    began_s = time.monotonic()
    while (running := await _running(place)) < made and time.monotonic() - began_s < _ARRIVAL_S:
        await asyncio.sleep(1)
    await asyncio.sleep(_SETTLE_S)
    return running


async def _running(place: Scene) -> int:
    read = await _metrics(place, "jobs")
    return int(read.get(("atelier_jobs_owned", "running"), 0))


def _memory(place: Scene) -> dict[str, int]:
    return {name: pss_bytes(pid) for name, pid in place.pids().items()}


async def _slice(place: Scene) -> Polled:
    pids = {name: place.house.pid_of(name) for name in _PROCESSES}
    lag, asked = await _metrics(place, "jobs"), await _metrics(place, "provider_pool")
    spent = {name: cpu_s(pid) for name, pid in pids.items()}
    began_s = time.perf_counter()
    await asyncio.sleep(_SLICE_S)
    passed_s = time.perf_counter() - began_s
    cores = {name: (cpu_s(pid) - spent[name]) / passed_s for name, pid in pids.items()}
    lag_after, asked_after = await _metrics(place, "jobs"), await _metrics(place, "provider_pool")
    buckets = {
        float(bound): count - lag.get((name, bound), 0.0)
        for (name, bound), count in lag_after.items()
        if name == _LAG
    }
    polls = sum(count - asked.get(key, 0.0) for key, count in asked_after.items() if key[0] == _POLLED)
    return Polled(cores, polls / passed_s, quantile(buckets, 0.99))


async def _metrics(place: Scene, process: str) -> dict[tuple[str, str], float]:
    """By name and first label."""
    address = place.house.demo["operations"][process]
    async with aiohttp.ClientSession() as session, session.get(f"{address}/metrics") as answer:
        text = await answer.text()
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def quantile(buckets: Mapping[float, float], share: float) -> float:
    """Of a histogram's counts by upper bound: where `share` of them lies, evenly spread within a bucket."""
    wanted = share * max(buckets.values(), default=0.0)
    below, low = 0.0, 0.0
    for bound in sorted(buckets):
        if buckets[bound] >= wanted:
            if math.isinf(bound) or buckets[bound] == below:
                return low
            return low + (bound - low) * (wanted - below) / (buckets[bound] - below)
        below, low = buckets[bound], bound
    return low


def _section(rounds: Rounds[Polled], running: int, grown_bytes: Mapping[str, int]) -> Section:
    seen = rounds.of("polling")
    interval_s = running / rounds.median("polling", lambda one: one.polls_per_s)
    findings: list[Finding] = [
        of_slices("poll lag, p99", [one.lag_p99_s for one in seen], "s", target=_LAG_S, at_least=False),
        of_slices(
            "jobs and pool together, of one core",
            [sum(one.cores.values()) for one in seen],
            target=_CORE,
            at_least=False,
        ),
        Finding("seconds between two polls of a job", interval_s, "s"),
        Finding("memory of a job in flight", sum(grown_bytes.values()) / running / 1024, "KiB"),
    ]
    each = ", ".join(
        f"{name} {statistics.median(one.cores[name] for one in seen):.2f}" for name in _PROCESSES
    )
    memory = ", ".join(f"{name} {grown / running / 1024:.1f} KiB" for name, grown in grown_bytes.items())
    text = (
        f"{running:,} jobs, created over HTTP, wait for the sandbox, which wants to be asked again after five seconds "
        "and answers for a hundred of its tasks at a time. Lag is how much later than it was due a job was asked about. "
        "Heartbeats, renewals and reconciliation of all these jobs go on meanwhile; slices are "
        f"{_SLICE_S:.0f} s long. Cores: {each}. Memory that the processes grew by (PSS), for each job: {memory}; the "
        f"sandbox's own memory of its tasks is in the pool's.\n\n{rounds.trust()}"
    )
    return Section(f"{running:,} jobs in flight", tuple(findings), text)
