"""Coalesced calls against unary calls of the same handlers in the same processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.bench.creates import RUNNING, RUNNING_ENVIRONMENT
from tests.bench.findings import Section, of_slices
from tests.bench.plan import Plan
from tests.bench.processes import cpu_s
from tests.bench.reads import running_jobs
from tests.bench.scene import scene
from tests.bench.slices import Rounds, alternate
from tests.house import ROOT

_CALLERS: Final = 64
_FASTER: Final = 5.0
_FASTER_WHEN_SLOW: Final = 2.5
_HANDLERS: Final = {
    "GetJob": ("`GetJob` of running jobs, synchronised, in the jobs service", _FASTER),
    "empty": ("a handler that does nothing", _FASTER),
    "slow": ("a handler of 2 ms, of which 1 % takes 100 ms", _FASTER_WHEN_SLOW),
}


@dataclass(frozen=True)
class Calls:
    """What the callers of one slice saw."""

    per_s: float
    p50_ms: float
    p99_ms: float
    caller_cpu_ms: float
    server_cpu_ms: float

    def __str__(self) -> str:
        cpu = f"CPU ms each {self.caller_cpu_ms:.3f} + {self.server_cpu_ms:.3f}"
        return f"{self.per_s:,.0f}/s, p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, {cpu}"


async def measure(plan: Plan) -> list[Section]:
    """Sixty-four callers in one process, the handlers in another."""
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(
            scene(plan.folder, "SQLite", account_options=RUNNING, environment=RUNNING_ENVIRONMENT)
        )
        waiting = await stack.enter_async_context(_waiting_service())
        job_ids = await running_jobs(place)
        read = [name for pair in zip(job_ids, place.customer_ids, strict=True) for name in pair]
        jobs_address = place.house.demo["grpc"]["jobs"]
        cases = {}
        for what in _HANDLERS:
            server, names = (
                ((jobs_address, place.house.pid_of("jobs")), read) if what == "GetJob" else (waiting, [])
            )
            for how in ("coalesced", "unary"):
                cases[f"{what}, {how}"] = partial(_slice, plan, how, what, server, names)
        rounds = await alternate(cases, plan)
    return [_section(rounds)]


def _section(rounds: Rounds[Calls]) -> Section:
    findings = [
        of_slices(
            f"coalesced against unary calls: {name}",
            rounds.ratios(f"{what}, coalesced", f"{what}, unary", lambda seen: seen.per_s),
            "×",
            target=target,
        )
        for what, (name, target) in _HANDLERS.items()
    ]
    lines = [
        "| case | calls a second | p50 ms | p99 ms | CPU ms, caller | CPU ms, server |",
        "|---|---|---|---|---|---|",
    ]
    for name in rounds.slices:
        rate = rounds.median(name, lambda seen: seen.per_s)
        times = [
            rounds.median(name, number)
            for number in (
                lambda seen: seen.p50_ms,
                lambda seen: seen.p99_ms,
                lambda seen: seen.caller_cpu_ms,
                lambda seen: seen.server_cpu_ms,
            )
        ]
        lines.append(f"| {name} | {rate:,.0f} | " + " | ".join(f"{ms:.3f}" for ms in times) + " |")
    words = (
        f"{_CALLERS} callers in one process, each asking again as soon as it is answered. Both ways go through the "
        "chassis as the services use it: context, deadlines, errors and metrics of every call. The first row is the "
        "jobs service of a house, with a running job of each customer; the others are a process that has one handler."
    )
    return Section("Coalesced calls", tuple(findings), "\n\n".join((words, "\n".join(lines), rounds.trust())))


async def _slice(plan: Plan, how: str, what: str, server: tuple[str, int], names: list[str]) -> Calls:
    address, pid = server
    spent_s = cpu_s(pid)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.calling", "call", how, what, address),
        *(str(plan.seconds), str(_CALLERS), *names),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    text = (await process.communicate())[0].decode()
    if process.returncode:
        raise RuntimeError(f"the callers failed: {what}, {how}")
    seen: dict[str, float] = json.loads(text)
    # The server's time holds the warm-up as well, whose calls the callers do not count: a tenth at most.
    calls = seen["per_s"] * plan.seconds
    return Calls(**seen, server_cpu_ms=1_000 * (cpu_s(pid) - spent_s) / calls)


@asynccontextmanager
async def _waiting_service() -> AsyncIterator[tuple[str, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.calling", "serve", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
