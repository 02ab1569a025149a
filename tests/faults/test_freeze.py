"""Processes that stand still (SIGSTOP) for longer than their lease or their callers' patience, and then wake up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from services.jobs.schema import JOBS
from tests.faults.armed_process import ArmedProcess
from tests.faults.scene import Scene, fault_scene
from tests.faults.storm_load import load, seeded, settled
from tests.faults.storm_wiring import replica_ports
from tests.faults.verdict import judge

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

# What a worker does for a job, as its callers' crash points name it. Reading lists to reconcile them is no effect.
_EFFECTS = {
    "billing": ("Hold", "Capture", "Release", "ExtendHolds"),
    "provider_pool": (
        *("Lease", "ReleaseLease", "RenewLeases", "PrepareReferences", "DropReferences"),
        *("Submit", "Poll", "PollMany", "ResolveUnknown", "Collect", "CloseAttempts"),
    ),
}
_EFFECT_POINTS = frozenset(
    f"call.{service}.{method}.before" for service, methods in _EFFECTS.items() for method in methods
)
# Where the call is decided on and has not left.
_INSIDE = (
    "call.billing.Hold.before",
    "call.provider_pool.Lease.before",
    "call.provider_pool.Submit.before",
    "call.provider_pool.Collect.before",
    "call.billing.Capture.before",
    "commit.settling.before",
)
# The scene's workers are declared dead after this.
_TTL_S = 1.5
# Renewals, polls and beats of a scene come several times in this.
_WATCHED_S = 3.0
_JOBS = 12
_WITHIN_S = 30.0
# Longer than any deadline of a call between services but the providers' own.
_BEYOND_DEADLINES_S = 7.0


async def _until(scene: Scene, look: Callable[[Connection], bool]) -> None:
    async with asyncio.timeout(_WITHIN_S):
        while not await scene.readers["jobs"](look):
            await asyncio.sleep(0.05)


def _all_running(connection: Connection) -> bool:
    states = connection.execute(select(JOBS.c.state, func.count()).group_by(JOBS.c.state))
    return {row[0]: row[1] for row in states} == {"running": _JOBS}


def _owners(connection: Connection) -> set[str]:
    return set(connection.scalars(select(JOBS.c.owner).where(JOBS.c.owner.is_not(None))))


def _inherited(connection: Connection, dead: str) -> bool:
    free = select(func.count()).where(JOBS.c.owner.is_(None), JOBS.c.ended_at_ms == 0)
    return dead not in _owners(connection) and connection.execute(free).scalar_one() == 0


def _effects(process: ArmedProcess) -> Counter[str]:
    return Counter({point: times for point, times in process.passed().items() if point in _EFFECT_POINTS})


async def _running_jobs(scene: Scene, pace_s: float) -> list[str]:
    await scene.inside.set_concurrency(_JOBS)
    customer = await scene.customer(1_000_000)
    prompts = [f"boat {n} [sandbox:pace={pace_s}]" for n in range(_JOBS)]
    made = await asyncio.gather(*(customer.image(prompt, prompt) for prompt in prompts))
    await _until(scene, _all_running)
    return [answer.json["jobId"] for answer in made]


async def _frozen(process: ArmedProcess) -> None:
    process.stop()
    await _until_it_stands_still(process)


async def _until_it_stands_still(process: ArmedProcess) -> None:
    async with asyncio.timeout(_WITHIN_S):
        while not _stands_still(process.pid):
            await asyncio.sleep(0.01)


def _stands_still(pid: int) -> bool:
    # The state follows the name, which is in brackets and may hold anything (proc(5)).
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


async def test_a_worker_that_wakes_up_beyond_its_lease_begins_no_call_and_every_job_ends_once() -> None:
    """On PostgreSQL another replica has taken its jobs over; the woken one learns that it was declared dead."""
    async with fault_scene("postgresql") as scene:
        frozen = scene.processes["jobs"]
        heir = await scene.add("jobs-2", "jobs", **replica_ports())
        job_ids = await _running_jobs(scene, pace_s=12)
        (owner,) = await scene.readers["jobs"](_owners)
        await _frozen(frozen)
        await _until(scene, lambda connection: _inherited(connection, owner))
        before = _effects(frozen)
        assert not await _ended(scene)
        frozen.cont()
        await asyncio.sleep(_WATCHED_S)
        assert not await _ended(scene), "the jobs ended too early for this test to show anything"
        assert _effects(frozen) - before == Counter()
        assert "worker.declared_dead" in frozen.log.read_text()
        assert await settled(scene) == []
        assert len(job_ids) == _JOBS
        assert _effects(heir)["call.billing.Capture.before"] == _JOBS
        assert _effects(frozen) - before == Counter()
        # And it is a worker again, under another name.
        customer = await scene.customer(1000)
        again = await customer.image("after", "a boat")
        assert (await customer.ended(again.json["jobId"]))["status"] == "complete"


async def _ended(scene: Scene) -> int:
    query = select(func.count()).where(JOBS.c.ended_at_ms > 0)
    return await scene.readers["jobs"](lambda connection: int(connection.execute(query).scalar_one()))


async def test_the_only_worker_of_a_sqlite_house_goes_on_after_a_freeze_and_repeats_nothing() -> None:
    async with fault_scene("sqlite") as scene:
        process = scene.processes["jobs"]
        await _running_jobs(scene, pace_s=1)
        await _frozen(process)
        # The jobs finish at the provider meanwhile, and the lease runs out more than twice.
        await asyncio.sleep(2.5 * _TTL_S)
        process.cont()
        await scene.quiet()
        assert process.alive
        assert process.deaths == 0
        assert await judge(scene) == []
        counts = _effects(process)
        assert (counts["call.billing.Capture.before"], counts["call.provider_pool.Submit.before"]) == (
            _JOBS,
            _JOBS,
        )


@pytest.mark.faults_full
async def test_a_worker_that_stood_still_inside_a_call_finds_it_refused_or_already_made() -> None:
    """The pause that no self-fence can see: permission was given, and the call leaves long after the lease has ended."""
    async with fault_scene("postgresql") as scene:
        frozen = scene.processes["jobs"]
        _ = await scene.add("jobs-2", "jobs", **replica_ports())
        customer = await scene.customer(1_000_000)
        for point in _INSIDE:
            await frozen.arm(point, act="stop")
            asking = asyncio.create_task(customer.image(point, point))
            await _until_it_stands_still(frozen)
            # The other replica brings everything to its end, or takes it back, as if this one were dead.
            await scene.quiet()
            frozen.cont()
            answer = await asking
            assert answer.status == 202, answer.body
            await customer.ended(answer.json["jobId"])
            assert await settled(scene) == []


@pytest.mark.faults_full
@pytest.mark.parametrize("service", ["billing", "provider_pool", "jobs", "gateway"])
async def test_a_service_that_stands_still_for_longer_than_every_deadline_loses_nothing(service: str) -> None:
    async with fault_scene("sqlite") as scene:
        process = scene.processes[service]
        async with load(scene, seeded()) as asked:
            for _ in range(2):
                await asyncio.sleep(1)
                await _frozen(process)
                await asyncio.sleep(_BEYOND_DEADLINES_S)
                process.cont()
            await asyncio.sleep(1)
        await asked.kept()
        assert await settled(scene) == []
