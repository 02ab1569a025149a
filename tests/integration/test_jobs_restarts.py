"""The jobs service as a process that is killed at every stage: its jobs end once, and are charged once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.chassis.errors import ServiceError
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.jobs_fakes import STAGED_ID, FakeServers, a_reference
from tests.jobs_house import ended, sqlite_url
from tests.jobs_process import JobsProcess


@pytest.fixture
async def fakes() -> AsyncIterator[FakeServers]:
    async with FakeServers() as started:
        yield started


async def until(condition: object, within_s: float = 15) -> None:
    assert callable(condition)
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


# The call during which the process dies: it has arrived, and its answer never will.
@pytest.mark.parametrize("method", ["Submit", "Poll", "Collect", "Capture", "ReleaseLease"])
async def test_killed_while_it_waits_for_an_answer_the_job_still_ends_once(
    tmp_path: Path, fakes: FakeServers, method: str
) -> None:
    fake = fakes.billing if method == "Capture" else fakes.pool
    fake.delay_s[method] = 0.8
    # A lease whose return died with the process is found by reconciliation.
    often = {"RECONCILE_S": "0.3", "RECONCILE_AGE_S": "0.5"}
    async with JobsProcess(sqlite_url(tmp_path), fakes, **often) as process:
        job = await process.create("k1")
        await until(lambda: fake.calls[method])
        await process.kill()
        fake.delay_s.clear()
        await process.start()
        end = await ended(process.stub, job.job_id)
        assert end.state == jobs.JOB_STATE_COMPLETED
        await until(lambda: not fakes.pool.leases and not fakes.billing.open_holds())
    assert fakes.billing.captures == {job.job_id: 1}
    assert fakes.pool.submits == {f"{job.job_id}:1": 1}


async def test_killed_while_references_are_made_ready_they_are_made_ready_again(
    tmp_path: Path, fakes: FakeServers
) -> None:
    fakes.pool.delay_s["PrepareReferences"] = 30
    async with JobsProcess(sqlite_url(tmp_path), fakes) as process:
        job = await process.create("k1", references=[a_reference()])
        await until(lambda: fakes.pool.calls["PrepareReferences"])
        await process.kill()
        fakes.pool.delay_s.clear()
        await process.start()
        assert (await ended(process.stub, job.job_id)).state == jobs.JOB_STATE_COMPLETED
        await until(lambda: not fakes.pool.leases and fakes.pool.dropped)
    assert {asked.attempt_id for asked in fakes.pool.prepared} == {f"{job.job_id}:1"}
    assert len(fakes.pool.prepared) == 2
    assert fakes.pool.dropped == {job.job_id: (STAGED_ID,)}
    assert fakes.pool.submits == {f"{job.job_id}:1": 1}
    assert fakes.billing.captures == {job.job_id: 1}


async def test_told_to_stop_while_references_are_made_ready_it_hands_the_job_over(
    tmp_path: Path, fakes: FakeServers
) -> None:
    fakes.pool.delay_s["PrepareReferences"] = 30
    async with JobsProcess(sqlite_url(tmp_path), fakes, WORKER_TTL_MS="60000") as process:
        job = await process.create("k1", references=[a_reference()])
        await until(lambda: fakes.pool.calls["PrepareReferences"])
        started_s = time.monotonic()
        assert await process.terminate() == 0
        assert time.monotonic() - started_s < 4
        fakes.pool.delay_s.clear()
        await process.start()
        end = await ended(process.stub, job.job_id)
        await until(lambda: not fakes.pool.leases and fakes.pool.dropped)
    assert (end.state, end.attempts) == (jobs.JOB_STATE_COMPLETED, 1)
    assert fakes.pool.submits == {f"{job.job_id}:1": 1}


@pytest.mark.parametrize("method", ["Hold", "Lease"])
async def test_killed_while_it_admits_everything_is_undone_and_the_key_is_free(
    tmp_path: Path, fakes: FakeServers, method: str
) -> None:
    fake = fakes.billing if method == "Hold" else fakes.pool
    fake.delay_s[method] = 0.8
    async with JobsProcess(sqlite_url(tmp_path), fakes) as process:
        request = asyncio.create_task(process.create("k1"))
        await until(lambda: fake.calls[method])
        await asyncio.sleep(0.1)
        await process.kill()
        with pytest.raises(ServiceError):
            await request
        fake.delay_s.clear()
        await process.start()
        job = await process.create("k1")
        assert (await ended(process.stub, job.job_id)).state == jobs.JOB_STATE_COMPLETED
        await until(lambda: not fakes.pool.leases and not fakes.billing.open_holds())
    assert fakes.billing.captures == {job.job_id: 1}


async def test_killed_with_jobs_in_every_state_all_of_them_end_once(
    tmp_path: Path, fakes: FakeServers
) -> None:
    fakes.pool.slots = 30
    prompts = ["a cat", "slow", "rotate", "refused", "lost", "abandoned"]
    often = {"RECONCILE_S": "0.3", "RECONCILE_AGE_S": "0.5"}
    async with JobsProcess(sqlite_url(tmp_path), fakes, **often) as process:
        made = [await process.create(f"k{n}", prompt=prompts[n % len(prompts)]) for n in range(60)]
        for _ in range(3):
            await asyncio.sleep(0.3)
            await process.kill()
            await process.start()
        await fakes.pool.finish(*(job.job_id for job in made))
        ends = [await ended(process.stub, job.job_id, within_s=40) for job in made]
        await until(lambda: not fakes.pool.leases and not fakes.billing.open_holds())
    completed = {job.job_id for job in ends if job.state == jobs.JOB_STATE_COMPLETED}
    assert len(completed) == 40
    assert fakes.billing.captures == dict.fromkeys(completed, 1)
    assert set(fakes.pool.submits.values()) == {1}


async def test_told_to_stop_it_hands_its_jobs_over_within_three_seconds(
    tmp_path: Path, fakes: FakeServers
) -> None:
    async with JobsProcess(sqlite_url(tmp_path), fakes, WORKER_TTL_MS="60000") as process:
        made = [await process.create(f"k{n}", prompt="slow") for n in range(20)]
        started_s = time.monotonic()
        assert await process.terminate() == 0
        assert time.monotonic() - started_s < 4
        await process.start()
        await fakes.pool.finish(*(job.job_id for job in made))
        for job in made:
            assert (await ended(process.stub, job.job_id)).state == jobs.JOB_STATE_COMPLETED
    assert set(fakes.billing.captures.values()) == {1}


async def test_another_replica_takes_over_from_a_killed_one(
    tmp_path: Path, fakes: FakeServers, postgres_url: str
) -> None:
    async with JobsProcess(postgres_url, fakes) as first, JobsProcess(postgres_url, fakes) as second:
        made = [await first.create(f"k{n}", prompt="slow") for n in range(10)]
        await first.kill()
        await fakes.pool.finish(*(job.job_id for job in made))
        for job in made:
            assert (await ended(second.stub, job.job_id)).state == jobs.JOB_STATE_COMPLETED
    assert fakes.billing.captures == {job.job_id: 1 for job in made}


async def test_a_frozen_replica_that_wakes_begins_nothing_that_is_not_its_own(
    tmp_path: Path, fakes: FakeServers, postgres_url: str
) -> None:
    async with JobsProcess(postgres_url, fakes) as first, JobsProcess(postgres_url, fakes) as second:
        made = [await first.create(f"k{n}", prompt="slow") for n in range(10)]
        await until(lambda: len(fakes.pool.submits) == 10)
        first.signal(signal.SIGSTOP)
        await asyncio.sleep(3)
        await fakes.pool.finish(*(job.job_id for job in made))
        for job in made:
            assert (await ended(second.stub, job.job_id)).state == jobs.JOB_STATE_COMPLETED
        first.signal(signal.SIGCONT)
        await asyncio.sleep(1)
        later = await first.create("later")
        assert (await ended(first.stub, later.job_id)).state == jobs.JOB_STATE_COMPLETED
        events = await second.stub.ListJobEvents(jobs.ListJobEventsRequest(job_id=made[0].job_id))
        states = [event.state for event in events.events]
        assert states.count(jobs.JOB_STATE_COMPLETED) == 1
    assert set(fakes.billing.captures.values()) == {1}
    assert set(fakes.pool.submits.values()) == {1}


async def test_a_duplicate_that_reaches_another_replica_gets_the_same_job(
    tmp_path: Path, fakes: FakeServers, postgres_url: str
) -> None:
    fakes.billing.delay_s["Hold"] = 0.3
    async with JobsProcess(postgres_url, fakes) as first, JobsProcess(postgres_url, fakes) as second:
        answers = await asyncio.gather(*(one.create("same") for one in (first, second) * 20))
    assert len({job.job_id for job in answers}) == 1
    assert fakes.billing.calls["Hold"] == 1


async def test_a_job_of_another_replica_is_watched_and_read_in_step(
    tmp_path: Path, fakes: FakeServers, postgres_url: str
) -> None:
    async with JobsProcess(postgres_url, fakes) as first, JobsProcess(postgres_url, fakes) as second:
        job = await first.create("k1", prompt="slow")
        request = jobs.WatchJobRequest(job_id=job.job_id, customer_id="cus_a", mode=jobs.MODE_TEST)

        async def watch() -> list[int]:
            return [answer.job.state async for answer in second.stub.WatchJob(request)]

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.5)
        await fakes.pool.finish(job.job_id)
        async with asyncio.timeout(10):
            assert (await watching)[-1] == jobs.JOB_STATE_COMPLETED


async def test_a_database_in_use_is_refused_with_a_sentence(
    tmp_path: Path, fakes: FakeServers, capfd: pytest.CaptureFixture[str]
) -> None:
    async with JobsProcess(sqlite_url(tmp_path), fakes):
        other = JobsProcess(sqlite_url(tmp_path), fakes)
        with pytest.raises(AssertionError):
            await other.start()
    assert "in use" in capfd.readouterr().err
