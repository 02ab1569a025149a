"""Durable creates over HTTP, against a bare aiohttp server that answers 202 in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.bare import bare_server
from tests.bench.findings import Chart, Finding, Section, of_slices
from tests.bench.plan import Plan
from tests.bench.processes import cpu_s, sync_ms
from tests.bench.scene import Counters, Engine, Scene, counters, scene, spent_s
from tests.bench.slices import Rounds, alternate, quiet_moment
from tests.bench.wrk import Load, Request, Wrk, load_generator, write_script

CONNECTIONS: Final = 64
# The example, as a customer would send it.
BODY: Final = '{"prompt": "cinematic product photo", "quality": "LOW", "size": "16:9_SMALL"}'
# Longer than a run: what an accepted job goes on to do is measured by other rows.
_REST_S: Final = 6 * 3600
_FLOORS: Final[Mapping[Engine, float]] = {"SQLite": 0.20, "PostgreSQL": 0.15}
_TAIL: Final = 4.0
_ALONE: Final = 50.0
# Each commit is one append to a log and one sync.
_SYNCS: Final = 4


@dataclass(frozen=True)
class Seen:
    """One slice: what the load generator saw, and what the processes spent and counted meanwhile."""

    load: Load
    spent: Counters

    def __str__(self) -> str:
        each = {name: 1_000 * spent / self.load.requests for name, spent in self.spent.cpu_s.items()}
        return f"{self.load}, CPU ms each: " + ", ".join(f"{name} {ms:.3f}" for name, ms in each.items())


async def measure(plan: Plan, engines: tuple[Engine, ...] = ("SQLite", "PostgreSQL")) -> list[Section]:
    """Sixty-four connections and one, on each engine, with accepted jobs resting before their first step."""
    wrk = await load_generator()
    return [await _on(wrk, engine, plan) for engine in engines]


async def measure_followed(plan: Plan) -> list[Section]:
    """The same on SQLite while every accepted job is submitted and polled as well."""
    wrk = await load_generator()
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(bare_server())
        place = await stack.enter_async_context(
            scene(plan.folder, "SQLite", account_options=RUNNING, environment=RUNNING_ENVIRONMENT)
        )
        script = write_script(plan.folder / "create.lua", creates(place.keys))
        many = partial(slice_of, wrk, script, plan, connections=CONNECTIONS)
        cases = {
            "bare aiohttp": partial(many, bare.base_url, pid=bare.pid),
            "creates, followed": partial(many, place.house.base_url, place=place),
        }
        rounds = await alternate(cases, plan)
    shares = rounds.ratios("creates, followed", "bare aiohttp", lambda seen: seen.load.per_s)
    words = "Meanwhile every accepted job is submitted to the sandbox, recorded as running, and polled."
    text = f"{words}\n\n{loads(rounds)}\n\n{costs(rounds, 'creates, followed')}\n\n{rounds.trust()}"
    return [Section("Creates whose jobs go on at once", (of_slices("share of bare aiohttp", shares),), text)]


# Accepted jobs wait for their first step for longer than any measurement, and may.
RESTING: Final = {
    "ATELIER_JOBS_FIRST_STEP_S": str(_REST_S),
    "ATELIER_JOBS_IMAGE_DEADLINE_S": str(2 * _REST_S),
}
# Jobs that run for longer than any measurement, and may.
RUNNING: Final = {"render": "instant", "pace_ms": "3600000"}
RUNNING_ENVIRONMENT: Final = {"ATELIER_JOBS_IMAGE_DEADLINE_S": str(_REST_S)}


def creates(keys: tuple[str, ...]) -> list[Request]:
    """One create request for each customer, sent in turn, each time under a new idempotency key."""
    return [
        Request(
            "POST",
            "/v1/images/generate",
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            BODY,
            keyed=True,
        )
        for key in keys
    ]


async def slice_of(
    wrk: Wrk,
    script: Path,
    plan: Plan,
    base: str,
    *,
    connections: int,
    place: Scene | None = None,
    pid: int = 0,
) -> Seen:
    """One slice of load on a house (`place`) or on the one process `pid`."""
    before = await _counted(place, pid)
    if place is not None:
        # Without what reading the counters has just cost.
        before = replace(before, cpu_s=spent_s(place))
    load = await wrk.run(script, base, connections=connections, seconds=plan.seconds)
    after = await _counted(place, pid)
    return Seen(load, after.minus(before))


async def _counted(place: Scene | None, pid: int) -> Counters:
    return Counters({"server": cpu_s(pid)}, {}) if place is None else await counters(place)


async def _on(wrk: Wrk, engine: Engine, plan: Plan) -> Section:
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(bare_server())
        place = await stack.enter_async_context(scene(plan.folder, engine, environment=RESTING))
        script = write_script(plan.folder / "create.lua", creates(place.keys))
        many = partial(slice_of, wrk, script, plan, connections=CONNECTIONS)
        alone = partial(slice_of, wrk, script, plan, connections=1)
        cases = {
            "bare, 64 connections": partial(many, bare.base_url, pid=bare.pid),
            "creates, 64 connections": partial(many, place.house.base_url, place=place),
            "bare, 1 connection": partial(alone, bare.base_url, pid=bare.pid),
            "creates, 1 connection": partial(alone, place.house.base_url, place=place),
        }
        await quiet_moment(plan.patience_s)
        synced_ms = sync_ms(plan.folder)
        rounds = await alternate(cases, plan)
    return _section(engine, rounds, synced_ms)


def _section(engine: Engine, rounds: Rounds[Seen], synced_ms: float) -> Section:
    many, bare = "creates, 64 connections", "bare, 64 connections"
    shares = rounds.ratios(many, bare, lambda seen: seen.load.per_s)
    tails = [seen.load.p99_ms / seen.load.p50_ms for seen in rounds.of(many)]
    waits = rounds.ratios("creates, 1 connection", "bare, 1 connection", lambda seen: seen.load.p50_ms)
    findings: list[Finding] = [
        of_slices("creates a second, 64 connections, of bare aiohttp", shares, target=_FLOORS[engine]),
        of_slices("CPU of one create, of bare aiohttp's", cpu_ratios(rounds, many, bare), "×"),
        of_slices("p99 of p50, 64 connections", tails, "×", target=_TAIL, at_least=False),
    ]
    if engine == "SQLite":
        findings.append(
            of_slices("p50 at one connection, of bare aiohttp's", waits, "×", target=_ALONE, at_least=False)
        )
    else:
        findings.append(of_slices("p50 at one connection, of bare aiohttp's", waits, "×"))
    parts = (_MEANWHILE, loads(rounds), _disk(synced_ms), costs(rounds, many), batches(rounds, many))
    text = "\n\n".join((*parts, rounds.trust()))
    bars = [(name, rounds.median(name, lambda seen: seen.load.per_s)) for name in (bare, many)]
    chart = Chart(f"creates-{engine.lower()}", f"Creates a second on {engine}", "/s", bars)
    return Section(f"Durable creates on {engine}", tuple(findings), text, (chart,))


_MEANWHILE: Final = (
    "In the slice: the key's check, the idempotency key, the job's row as an intent, the hold in billing, the lease "
    "in the provider pool, and the row as leased; each behind a commit that the disk has confirmed. Nothing is done "
    "for the accepted jobs (`ATELIER_JOBS_FIRST_STEP_S`), whose number grows all the while; heartbeats, renewals of "
    "leases and holds, and reconciliation go on as always. The access log and the other logs are written as by "
    "default."
)


def _disk(synced_ms: float) -> str:
    return (
        f"Before the slices one append and sync took {synced_ms:.2f} ms in this folder. A create waits for four in turn "
        f"(intent, hold, lease, leased): {_SYNCS * synced_ms:.2f} ms, which nobody shares with it at one connection."
    )


def cpu_ratios(rounds: Rounds[Seen], name: str, base: str) -> list[float]:
    """CPU per request, round by round: moves far less than the wall clock when others use the machine."""
    return rounds.ratios(name, base, lambda seen: sum(seen.spent.cpu_s.values()) / seen.load.requests)


def loads(rounds: Rounds[Seen]) -> str:
    lines = ["| case | a second | p50 ms | p90 ms | p99 ms |", "|---|---|---|---|---|"]
    for name in rounds.slices:
        rate, *times = (
            rounds.median(name, number)
            for number in (
                lambda seen: seen.load.per_s,
                lambda seen: seen.load.p50_ms,
                lambda seen: seen.load.p90_ms,
                lambda seen: seen.load.p99_ms,
            )
        )
        lines.append(f"| {name} | {rate:,.0f} | " + " | ".join(f"{ms:.2f}" for ms in times) + " |")
    return "\n".join(lines)


def costs(rounds: Rounds[Seen], name: str) -> str:
    """What one request of a case costs each process."""
    each = {}
    for process in rounds.of(name)[0].spent.cpu_s:
        spent = [1_000 * seen.spent.cpu_s[process] / seen.load.requests for seen in rounds.of(name)]
        each[process] = statistics.median(spent)
    parts = ", ".join(f"{process} {ms:.3f}" for process, ms in each.items())
    return f"CPU of one request in ms: {parts}; together {sum(each.values()):.3f}."


def batches(rounds: Rounds[Seen], name: str) -> str:
    seen = rounds.of(name)
    together = seen[0].spent
    for other in seen[1:]:
        together = together.plus(other.spent)
    requests = sum(one.load.requests for one in seen)
    lines = ["| what shares a batch | items each | batches for 1,000 creates |", "|---|---|---|"]
    lines += [
        f"| {what} | {items / count:.1f} | {1_000 * count / requests:.1f} |"
        for what, (count, items) in together.batches().items()
    ]
    return "\n".join(lines)
