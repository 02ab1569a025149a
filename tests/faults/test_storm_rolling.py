"""Orderly replacement under load: SIGTERM hands over at once, and nobody notices more than a 503."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import Connection, func, select

from services.jobs.schema import JOBS
from tests.faults.scene import Scene, fault_scene
from tests.faults.storm_load import load, seeded, settled
from tests.faults.storm_wiring import replica_ports

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

# Production's. Whoever waited for it would be seen at once.
_WORKER_TTL_MS = 15_000
_JOBS = 30
_PACE_S = 8
# What a drain may take, and a replica until it claims what was freed, on a machine that does other things too.
_HANDED_OVER_WITHIN_S = 6.0


def _owners(connection: Connection) -> dict[str | None, int]:
    query = (
        select(JOBS.c.owner, func.count()).where(JOBS.c.state == "running", JOBS.c.ended_at_ms == 0)
    ).group_by(JOBS.c.owner)
    return {row[0]: row[1] for row in connection.execute(query)}


async def _owned(scene: Scene, count: int, *, other_than: str = "", within_s: float = 30.0) -> str:
    """Waits until one worker owns all of so many running jobs; its id."""
    async with asyncio.timeout(within_s):
        while True:
            owners = await scene.readers["jobs"](_owners)
            if len(owners) == 1 and owners.get(other_than) is None:
                (owner, owned), *_ = owners.items()
                if owner is not None and owned == count:
                    return owner
            await asyncio.sleep(0.02)


async def test_a_replica_that_is_asked_to_stop_hands_its_jobs_over_without_waiting_for_its_lease() -> None:
    async with fault_scene("postgresql", ATELIER_JOBS_WORKER_TTL_MS=str(_WORKER_TTL_MS)) as scene:
        leaving = scene.processes["jobs"]
        _ = await scene.add("jobs-2", "jobs", **replica_ports())
        await scene.inside.set_concurrency(_JOBS)
        customer = await scene.customer(1_000_000)
        prompts = [f"boat {n} [sandbox:pace={_PACE_S}]" for n in range(_JOBS)]
        made = await asyncio.gather(*(customer.image(prompt, prompt) for prompt in prompts))
        owner = await _owned(scene, _JOBS)
        asked_s = time.monotonic()
        assert await leaving.terminate() == 0
        await _owned(scene, _JOBS, other_than=owner)
        assert time.monotonic() - asked_s < _HANDED_OVER_WITHIN_S
        await leaving.start()
        ended = [await customer.ended(answer.json["jobId"]) for answer in made]
        assert {job["status"] for job in ended} == {"complete"}
        assert await settled(scene) == []


async def test_each_service_replaced_in_turn_under_load_loses_nothing() -> None:
    async with fault_scene("sqlite") as scene:
        async with load(scene, seeded()) as asked:
            for name in ("billing", "provider_pool", "jobs", "gateway"):
                await asyncio.sleep(0.5)
                assert await scene.processes[name].terminate() == 0, name
                await scene.processes[name].start()
            await asyncio.sleep(0.5)
        assert asked.promised
        await asked.kept()
        assert await settled(scene) == []


@pytest.mark.faults_full
async def test_three_replicas_replaced_one_after_the_other_under_load_lose_nothing() -> None:
    async with fault_scene("postgresql", ATELIER_JOBS_WORKER_TTL_MS=str(_WORKER_TTL_MS)) as scene:
        for name in ("jobs-2", "jobs-3"):
            await scene.add(name, "jobs", **replica_ports())
        async with load(scene, seeded()) as asked:
            for name in ("jobs", "jobs-2", "jobs-3", "jobs"):
                await asyncio.sleep(0.5)
                assert await scene.processes[name].terminate() == 0
                await scene.processes[name].start()
        await asked.kept()
        assert await settled(scene) == []
