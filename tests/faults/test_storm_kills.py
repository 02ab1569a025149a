"""kill -9 of whichever process chance names, again and again, under load. SOAK=minutes for longer, SEED= to repeat."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.faults.armed_process import ArmedProcess
from tests.faults.scene import Scene, fault_scene
from tests.faults.storm_load import load, seeded, settled, soak_s
from tests.faults.storm_wiring import replica_ports

# An hour of SOAK and the settling after it.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(2 * 3600)]

# Without SOAK: so many deaths, however slow the machine is that day.
_DEATHS = 5
# Between two deaths: now while the last one is still being recovered from, now after all is well again.
_BETWEEN_S = (0.1, 2.5)
# Before a kill, now and then somebody stands still first: for a moment, or beyond a worker's 1.5 s of life.
_FREEZES = 0.25
_FROZEN_S = (0.2, 2.5)


async def _rage(scene: Scene, chance: random.Random, deaths: int) -> None:
    """Kills and restarts, two at once now and then, for SOAK minutes and at least `deaths` times."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + soak_s()
    while deaths > 0 or loop.time() < until_s:
        if chance.random() < _FREEZES:
            await _freeze(scene.processes[chance.choice(sorted(scene.processes))], chance)
        names = chance.sample(sorted(scene.processes), 2 if chance.random() < 0.2 else 1)
        await asyncio.gather(*(scene.processes[name].kill() for name in names))
        await asyncio.sleep(chance.uniform(0, 0.5))
        await asyncio.gather(*(scene.processes[name].start() for name in names))
        deaths -= len(names)
        await asyncio.sleep(chance.uniform(*_BETWEEN_S))


async def _freeze(process: ArmedProcess, chance: random.Random) -> None:
    process.stop()
    await asyncio.sleep(chance.uniform(*_FROZEN_S))
    process.cont()


async def _storm(scene: Scene, deaths: int) -> None:
    chance = seeded()
    async with load(scene, chance) as asked:
        await _rage(scene, chance, deaths)
    assert asked.promised
    await asked.kept()
    assert await settled(scene) == []


async def test_on_sqlite_nothing_is_lost_whatever_is_killed() -> None:
    async with fault_scene("sqlite") as scene:
        await _storm(scene, _DEATHS)


@pytest.mark.faults_full
async def test_on_postgresql_with_three_replicas_of_jobs_nothing_is_lost_whatever_is_killed() -> None:
    async with fault_scene("postgresql") as scene:
        for name in ("jobs-2", "jobs-3"):
            await scene.add(name, "jobs", **replica_ports())
        await _storm(scene, 2 * _DEATHS)
