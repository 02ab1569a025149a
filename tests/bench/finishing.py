"""Jobs that go the whole way, request to final credits, against creates alone in the same run."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.creates import CONNECTIONS, creates
from tests.bench.findings import Finding, Section, of_slices
from tests.bench.plan import Plan
from tests.bench.scene import Counters, Engine, Scene, counters, scene
from tests.bench.slices import Rounds, alternate
from tests.bench.wrk import Wrk, load_generator, write_script

# The sandbox is finished by the first poll, and gives constant bytes.
INSTANT: Final = {"render": "instant", "pace_ms": "0"}
_REST_S: Final = 6 * 3600
_SHARE: Final = 0.3
_PATIENCE_S: Final = 300.0
_LOOK_S: Final = 0.05


@dataclass(frozen=True)
class Gone:
    """One slice: how many jobs, how long until the last of them had ended, and what that cost."""

    jobs: int
    seconds: float
    spent: Counters

    @property
    def per_s(self) -> float:
        return self.jobs / self.seconds

    def __str__(self) -> str:
        each = ", ".join(
            f"{name} {1_000 * spent / self.jobs:.2f}" for name, spent in self.spent.cpu_s.items()
        )
        return f"{self.per_s:,.0f} jobs/s, CPU ms each: {each}"


async def measure(plan: Plan, engine: Engine = "SQLite") -> list[Section]:
    """Two houses take turns: in one accepted jobs rest, in the other they are made, stored, charged and ended."""
    wrk = await load_generator()
    async with AsyncExitStack() as stack:
        rest = {"ATELIER_JOBS_FIRST_STEP_S": str(_REST_S), "ATELIER_JOBS_IMAGE_DEADLINE_S": str(2 * _REST_S)}
        resting = await stack.enter_async_context(scene(plan.folder / "resting", engine, environment=rest))
        whole = await stack.enter_async_context(scene(plan.folder / "whole", engine, account_options=INSTANT))
        cases = {
            "creates alone": partial(_created, wrk, _script(plan, "resting", resting), plan, resting),
            "whole jobs": partial(_finished, wrk, _script(plan, "whole", whole), plan, whole),
        }
        rounds = await alternate(cases, plan)
    return [_section(engine, rounds)]


def _script(plan: Plan, name: str, place: Scene) -> Path:
    return write_script(plan.folder / f"{name}.lua", creates(place.keys))


async def _created(wrk: Wrk, script: Path, plan: Plan, place: Scene) -> Gone:
    before = await counters(place)
    load = await wrk.run(script, place.house.base_url, connections=CONNECTIONS, seconds=plan.seconds)
    after = await counters(place)
    return Gone(load.requests, load.requests / load.per_s, after.minus(before))


async def _finished(wrk: Wrk, script: Path, plan: Plan, place: Scene) -> Gone:
    """The same load, and then nothing until the last of its jobs has ended; all of that time counts."""
    before, ended = await counters(place), await _ended(place)
    began_s = time.perf_counter()
    load = await wrk.run(script, place.house.base_url, connections=CONNECTIONS, seconds=plan.seconds)
    async with asyncio.timeout(_PATIENCE_S):
        while (done := await _ended(place) - ended) < load.requests:
            await asyncio.sleep(_LOOK_S)
    return Gone(done, time.perf_counter() - began_s, (await counters(place)).minus(before))


async def _ended(place: Scene) -> int:
    """How many jobs have ended. Raises RuntimeError when one of them did not end well."""
    address = place.house.demo["operations"]["jobs"]
    async with aiohttp.ClientSession() as session, session.get(f"{address}/metrics") as answer:
        text = await answer.text()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    ends = [one for one in samples if one.name == "atelier_jobs_finished_total"]
    bad = [one for one in ends if one.labels["state"] != "completed"]
    if bad:
        raise RuntimeError(f"jobs of the benchmark failed: {bad}")
    return int(sum(one.value for one in ends))


def _section(engine: Engine, rounds: Rounds[Gone]) -> Section:
    shares = rounds.ratios("whole jobs", "creates alone", lambda gone: gone.per_s)
    findings = (
        of_slices("jobs finished a second, of creates a second", shares, target=_SHARE),
        Finding("jobs finished a second", rounds.median("whole jobs", lambda gone: gone.per_s), "/s"),
        Finding("creates a second", rounds.median("creates alone", lambda gone: gone.per_s), "/s"),
    )
    text = (
        f"{CONNECTIONS} connections create jobs for some seconds; the clock runs until the last of them has ended, so "
        "that a job's create is in its time. After its create each job is submitted, polled a second later, its picture "
        "copied to the media store and synced, its hold captured, its end committed with the counters, and its lease "
        "given back. The sandbox draws nothing: it has finished by the first poll, and gives constant bytes.\n\n"
        f"{_costs(rounds)}\n\n{_commits(rounds)}\n\n{rounds.trust()}"
    )
    return Section(f"Whole jobs on {engine}", findings, text)


def _costs(rounds: Rounds[Gone]) -> str:
    lines = [
        "| CPU ms of one job | gateway | jobs | provider_pool | billing | all |",
        "|---|---|---|---|---|---|",
    ]
    for case in rounds.slices:
        names = ("gateway", "jobs", "provider_pool", "billing")
        each = [
            rounds.median(case, lambda gone, name=name: 1_000 * gone.spent.cpu_s[name] / gone.jobs)  # type: ignore[misc]
            for name in names
        ]
        lines.append(f"| {case} | " + " | ".join(f"{ms:.2f}" for ms in [*each, sum(each)]) + " |")
    return "\n".join(lines)


def _commits(rounds: Rounds[Gone]) -> str:
    seen = rounds.of("whole jobs")
    together = seen[0].spent
    for other in seen[1:]:
        together = together.plus(other.spent)
    jobs = sum(gone.jobs for gone in seen)
    lines = [
        "| what shares a batch | items of a job | items each | batches for 1,000 jobs |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {what} | {items / jobs:.2f} | {items / count:.1f} | {1_000 * count / jobs:.1f} |"
        for what, (count, items) in together.batches().items()
    ]
    return "\n".join(lines)
