"""Memory of all processes of a house: idle, and over minutes of customers who order, wait and fetch."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.findings import Finding, Line, Section
from tests.bench.plan import Plan, say
from tests.bench.processes import pss_bytes, tree
from tests.bench.scene import PROCESSES, Scene, scene
from tests.house import ROOT, running_house

_CEILING_MB: Final = 350.0
# What a quarter of the minutes may add: a leak of one small object a job adds more in a run of thirty minutes.
_GROWTH: Final = 0.05
_IDLE_S: Final = 15.0
_ORDERING: Final = 128
_SAMPLES: Final = 120
_PACE: Final = {"render": "instant", "pace_ms": "500"}
_MB: Final = 1_000_000


@dataclass(frozen=True)
class Sample:
    """Proportional memory at one moment, in MB."""

    at_s: float
    each: Mapping[str, float]

    @property
    def all(self) -> float:
        return sum(self.each.values())


async def measure(plan: Plan) -> list[Section]:
    """The idle house first, as `make run` starts it; then another under load."""
    async with running_house(plan.folder / "idle") as house:
        await asyncio.sleep(_IDLE_S)
        idle = _sample(house.process.pid, {name: house.pid_of(name) for name in PROCESSES}, 0.0)
    async with scene(plan.folder, "SQLite", account_options=_PACE) as place:
        samples, finished = await _under_load(place, plan)
    return [_section(idle, samples, finished, plan)]


async def _under_load(place: Scene, plan: Plan) -> tuple[list[Sample], int]:
    seconds = 60 * plan.minutes
    customers = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.customers", place.house.base_url, str(seconds), str(_ORDERING)),
        *place.keys,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    samples: list[Sample] = []
    try:
        began_s = time.monotonic()
        while (passed_s := time.monotonic() - began_s) < seconds:
            samples.append(_sample(place.house.process.pid, place.pids(), passed_s))
            if len(samples) % 10 == 1:
                say(f"after {passed_s:.0f} of {seconds:.0f} s: {samples[-1].all:.0f} MB")
            await asyncio.sleep(seconds / _SAMPLES)
        text = (await customers.communicate())[0].decode()
    finally:
        if customers.returncode is None:
            customers.kill()
            await customers.wait()
    if customers.returncode:
        raise RuntimeError("a customer was not served; what it met is above")
    return samples, int(json.loads(text)["finished"])


def _sample(root: int, named: Mapping[str, int], at_s: float) -> Sample:
    """`root` is the keeper of the house; what none of the services is, belongs to it or to them."""
    each = {name: pss_bytes(pid) / _MB for name, pid in named.items()}
    others = set(tree(root)) - set(named.values())
    each["keeper and workers"] = sum(pss_bytes(pid) for pid in others) / _MB
    return Sample(at_s, each)


def _section(idle: Sample, samples: Sequence[Sample], finished: int, plan: Plan) -> Section:
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    before, after = (statistics.median(sample.all for sample in some) for some in (early, late))
    findings = (
        Finding("memory of the idle house, all processes (PSS)", idle.all, "MB", _CEILING_MB, at_least=False),
        Finding(
            f"growth under load, last quarter of {plan.minutes:g} minutes to the second",
            after / before - 1,
            "",
            _GROWTH,
            at_least=False,
        ),
    )
    lines = ["| process | idle MB | second quarter MB | last quarter MB |", "|---|---|---|---|"]
    for name, rest in idle.each.items():
        means = [statistics.median(sample.each[name] for sample in some) for some in (early, late)]
        lines.append(f"| {name} | {rest:.1f} | {means[0]:.1f} | {means[1]:.1f} |")
    lines.append(f"| all | {idle.all:.1f} | {before:.1f} | {after:.1f} |")
    rate = finished / (60 * plan.minutes)
    words = (
        f"Idle: {_IDLE_S:.0f} s after a first start, nobody asking. Load: {_ORDERING} customers who order an image, read "
        f"its status every half second, fetch result and file, and order again: {finished:,} jobs, {rate:.0f} a second. "
        "Shared pages are counted once, divided among those who share them. The first quarter is left out: caches, "
        "statement plans and allocators fill then."
    )
    points = [(sample.at_s / 60, sample.all) for sample in samples]
    line = Line("memory", "Memory of the house under load", "minutes", "MB", points)
    return Section("Memory", findings, f"{words}\n\n" + "\n".join(lines), (line,))
