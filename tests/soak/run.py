"""One soak: a house with two replicas of jobs and of the pool on the simulated providers, while everything breaks."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.scene import Engine, Scene, fault_scene, said
from tests.faults.verdict import judge
from tests.soak import weather
from tests.soak.accounts import furnish, keep_sandbox_out
from tests.soak.buyers import Buyers, share_that_ended_well
from tests.soak.hints import hints_heard
from tests.soak.simulator import Simulator, simulator_of
from tests.soak.truth import Findings, compared

# How often somebody who watches is told how far it is.
_TOLD_EVERY_S: Final = 10.0
# Of so many jobs every fault of the weather happens to some; a fault that never did was not tried.
_ALL_FAULTS_FROM: Final = 10_000
# Every job has ended when a house comes to rest here; what is left are attempts that nobody waits for any more.
_SETTLED_WITHIN_S: Final = 400.0
_SETTINGS: Final = {
    # Simulated providers reach this machine, so that they are told where to send their webhooks.
    "ATELIER_PROVIDERS": "simulated",
    "ATELIER_JOBS_POLL_INTERVAL_MS": "250",
    "ATELIER_POOL_TASK_CEILING_S": "60",
    # Every provider that can make it competes, whatever it costs: a soak is there to use them all.
    "ATELIER_POOL_PRICE_BAND": "10",
    "ATELIER_GATEWAY_ACCESS_LOG": "off",
}


@dataclass(frozen=True)
class Soak:
    """What is asked for. between_kills_s: None kills nothing."""

    jobs: int
    accounts: int
    seed: int
    at_once: int = 120
    between_kills_s: tuple[float, float] | None = (10.0, 30.0)
    engine: Engine = "postgresql"
    is_faulty: bool = True


@dataclass
class Report:
    """What came of it."""

    soak: Soak
    findings: Findings
    seconds: float = 0.0
    kills: int = 0
    account_deaths: int = 0
    completed_share: float = 0.0
    hits: dict[str, int] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    last_words: dict[str, Any] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        return self.findings.wrong

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.soak.seed,
            "seconds": round(self.seconds, 1),
            "jobs_per_s": round(self.findings.jobs / self.seconds, 2) if self.seconds else 0,
            "kills": self.kills,
            "account_deaths": self.account_deaths,
            "completed_share": round(self.completed_share, 4),
            "faults": self.hits,
            "hints": self.heard,
            **self.findings.as_json(),
            "last_words": self.last_words if self.wrong else {},
        }


async def soaked(soak: Soak, tell: Callable[[str], None] = lambda line: None) -> Report:
    """Plays it, waits until all has come to rest, and judges. tell: is told now and then how far it is."""
    chance = random.Random(soak.seed)
    async with (
        fault_scene(soak.engine, **_SETTINGS) as scene,
        simulator_of(scene, seed=soak.seed, pace=1.0) as simulator,
    ):
        names = await _replicas(scene, soak.engine)
        await keep_sandbox_out(scene)
        accounts = await furnish(scene, simulator, chance, soak.accounts)
        buyers = await Buyers.of(scene)
        if soak.is_faulty:
            await weather.break_everything(simulator)
        began_s = time.monotonic()
        async with (
            _weather(soak, scene, simulator, names, chance, accounts) as seen,
            _progress(soak, buyers, tell),
        ):
            await buyers.ask_for(soak.jobs, soak.at_once, chance)
        tell("every job has ended; waiting for what nobody asks about any more")
        report = Report(soak, Findings(), time.monotonic() - began_s, seen.kills, len(seen.deaths))
        report.completed_share = share_that_ended_well(buyers.promises)
        report.hits = dict(await simulator.hits())
        report.heard = await hints_heard(scene)
        await simulator.clear_faults()
        unrest = await _rest(scene)
        report.findings = await compared(scene, simulator, accounts, seen.deaths)
        report.findings.wrong += unrest or await judge(scene)
        report.findings.wrong += _untried(soak, report.hits)
        report.last_words = said(scene)
        return report


def _untried(soak: Soak, hits: Mapping[str, int]) -> list[str]:
    if not soak.is_faulty or soak.jobs < _ALL_FAULTS_FROM:
        return []
    return [f"the fault {fault} never happened" for fault, times in hits.items() if times == 0]


@asynccontextmanager
async def _progress(soak: Soak, buyers: Buyers, tell: Callable[[str], None]) -> AsyncIterator[None]:
    began_s = time.monotonic()

    async def telling() -> None:
        while True:
            await asyncio.sleep(_TOLD_EVERY_S)
            rate = buyers.ended / (time.monotonic() - began_s)
            tell(f"{buyers.ended:,} of {soak.jobs:,} jobs have ended, {rate:.1f} a second")

    task = asyncio.create_task(telling())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _rest(scene: Scene) -> list[str]:
    try:
        await scene.quiet(deadline_s=_SETTLED_WITHIN_S)
    except AssertionError as error:
        return [str(error)]
    return []


async def _replicas(scene: Scene, engine: Engine) -> list[str]:
    """A second pool, and a second jobs that works with it; SQLite allows one process a file."""
    if engine == "sqlite":
        return ["jobs", "provider_pool"]
    second = await scene.add(
        "provider_pool-2",
        "provider_pool",
        ATELIER_POOL_GRPC_LISTEN="127.0.0.1:0",
        ATELIER_POOL_OPERATIONS_LISTEN="127.0.0.1:0",
    )
    # Its callers keep the address that it has now, also after it was killed.
    second.environ = {**second.environ, "ATELIER_POOL_GRPC_LISTEN": second.addresses["grpc"]}
    await scene.add(
        "jobs-2",
        "jobs",
        ATELIER_JOBS_GRPC_LISTEN="127.0.0.1:0",
        ATELIER_JOBS_OPERATIONS_LISTEN="127.0.0.1:0",
        ATELIER_JOBS_POOL_ADDRESS=second.addresses["grpc"],
    )
    return ["jobs", "jobs-2", "provider_pool", "provider_pool-2"]


@dataclass
class _Seen:
    kills: int = 0
    deaths: list[weather.Death] = field(default_factory=list)


@asynccontextmanager
async def _weather(
    soak: Soak, scene: Scene, simulator: Simulator, names: list[str], chance: random.Random, accounts: Any
) -> AsyncIterator[_Seen]:
    stop = asyncio.Event()
    seen = _Seen()
    dying = asyncio.create_task(
        weather.accounts_die(simulator, accounts, random.Random(chance.random()), stop)
        if soak.is_faulty
        else _nobody()
    )
    killing = asyncio.create_task(
        weather.processes_die(scene, names, soak.between_kills_s, random.Random(chance.random()), stop)
        if soak.between_kills_s
        else _never()
    )
    try:
        yield seen
    finally:
        stop.set()
        seen.deaths, seen.kills = await asyncio.gather(dying, killing)


async def _nobody() -> list[weather.Death]:
    return []


async def _never() -> int:
    return 0
