"""Cancelling over gRPC: whatever a job is doing, it ends once, and what was held for it is given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.chassis.errors import ServiceError
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.jobs_fakes import PRICE_MILLIS, FakeServers, a_reference, unavailable
from tests.jobs_house import JobsHouse, ended, sqlite_url
from tests.jobs_process import JobsProcess


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[JobsHouse]:
    async with JobsHouse(sqlite_url(tmp_path)) as started:
        yield started


def wish(job_id: str, customer: str = "cus_a") -> jobs.CancelJobRequest:
    return jobs.CancelJobRequest(job_id=job_id, customer_id=customer, mode=jobs.MODE_TEST)


async def until_called(house: JobsHouse, method: str) -> None:
    async with asyncio.timeout(15):
        while not house.pool.calls[method]:
            await asyncio.sleep(0.005)


async def canceled(house: JobsHouse, job_id: str) -> jobs.Job:
    """The end of a job that was canceled: nothing is charged, held, leased or going on for it."""
    job = await house.ended(job_id)
    assert (job.state, job.stage) == (jobs.JOB_STATE_CANCELED, jobs.STAGE_ENDED_BADLY)
    assert (job.charged_millis, job.refunded_millis) == (0, PRICE_MILLIS)
    assert job.failure == jobs.FAILURE_REASON_CANCELED
    await house.all_returned()
    assert house.billing.captures == {}
    async with asyncio.timeout(5):
        while job.attempts and f"{job_id}:{job.attempts}" not in house.pool.closed:
            await asyncio.sleep(0.01)
    assert await house.store.load_drift() == {}
    return job


async def test_a_waiting_job_is_canceled_and_nothing_was_ever_submitted(house: JobsHouse) -> None:
    house.pool.slots = 0
    job = await house.create("k1")
    answer = await house.stub.CancelJob(wish(job.job_id))
    assert answer.job.cancel_asked
    assert (await canceled(house, job.job_id)).attempts == 0
    assert house.pool.submits == {}


async def test_a_running_job_is_canceled_long_before_its_next_poll(house: JobsHouse) -> None:
    house.pool.poll_after_ms = 60_000
    job = await house.create("k1", prompt="slow")
    await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
    await house.stub.CancelJob(wish(job.job_id))
    await canceled(house, job.job_id)


@pytest.mark.parametrize(
    "method, prompt",
    [("PrepareReferences", "cat"), ("Poll", "slow"), ("Collect", "cat"), ("ResolveUnknown", "lost")],
)
async def test_what_a_job_waits_for_does_not_hold_up_its_cancelling(
    house: JobsHouse, method: str, prompt: str
) -> None:
    house.pool.delay_s[method] = 60
    references = [a_reference()] if method == "PrepareReferences" else []
    job = await house.create("k1", prompt=prompt, references=references)
    await until_called(house, method)
    await house.stub.CancelJob(wish(job.job_id))
    await canceled(house, job.job_id)


async def test_a_submission_under_way_is_waited_for_and_the_job_ends_after_its_answer(
    house: JobsHouse,
) -> None:
    house.pool.delay_s["Submit"] = 0.5
    job = await house.create("k1", prompt="slow")
    async with asyncio.timeout(15):
        while not house.pool.submits:
            await asyncio.sleep(0.005)
    await house.stub.CancelJob(wish(job.job_id))
    await canceled(house, job.job_id)
    states = await house.states(job.job_id)
    assert jobs.JOB_STATE_RUNNING in states
    assert states[-2:] == [jobs.JOB_STATE_SETTLING, jobs.JOB_STATE_CANCELED]


async def test_a_job_with_an_account_that_is_not_sent_yet_is_never_sent(house: JobsHouse) -> None:
    house.pool.delay_s["PrepareReferences"] = 60
    job = await house.create("k1", references=[a_reference()])
    await until_called(house, "PrepareReferences")
    await house.stub.CancelJob(wish(job.job_id))
    await canceled(house, job.job_id)
    assert house.pool.submits == {}
    assert house.pool.dropped[job.job_id] != ()


async def test_a_job_that_rests_before_its_next_attempt_is_canceled_at_once(house: JobsHouse) -> None:
    job = await house.create("k1", prompt="retry")
    await house.until_state(job.job_id, jobs.JOB_STATE_QUEUED)
    await house.stub.CancelJob(wish(job.job_id))
    end = await canceled(house, job.job_id)
    assert end.attempts == 1


async def test_a_job_that_is_settling_ends_as_was_decided(house: JobsHouse) -> None:
    house.billing.delay_s["Capture"] = 0.5
    job = await house.create("k1")
    await house.until_state(job.job_id, jobs.JOB_STATE_SETTLING)
    await house.stub.CancelJob(wish(job.job_id))
    end = await house.ended(job.job_id)
    assert (end.state, end.charged_millis) == (jobs.JOB_STATE_COMPLETED, PRICE_MILLIS)


async def test_an_ended_job_stays_as_it_is_and_a_repeated_wish_is_answered(house: JobsHouse) -> None:
    job = await house.create("k1")
    end = await house.ended(job.job_id)
    for _ in range(2):
        assert (await house.stub.CancelJob(wish(job.job_id))).job.state == jobs.JOB_STATE_COMPLETED
    assert await house.get(job.job_id) == end


async def test_only_its_own_customer_and_an_operator_may_cancel_a_job(house: JobsHouse) -> None:
    job = await house.create("k1", prompt="slow")
    for request in (wish(job.job_id, "cus_b"), wish("job_none")):
        with pytest.raises(ServiceError) as refusal:
            await house.stub.CancelJob(request)
        assert refusal.value.reason == "JOB_NOT_FOUND"
    await house.stub.CancelJob(jobs.CancelJobRequest(job_id=job.job_id))
    await canceled(house, job.job_id)


async def test_a_cancelled_job_waits_for_a_billing_service_that_is_away(house: JobsHouse) -> None:
    job = await house.create("k1", prompt="slow")
    await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
    house.billing.before["Release"] = unavailable()
    await house.stub.CancelJob(wish(job.job_id))
    await house.until_state(job.job_id, jobs.JOB_STATE_SETTLING)
    house.billing.before.clear()
    await canceled(house, job.job_id)


async def test_many_jobs_canceled_while_they_end_have_each_one_end_that_agrees_with_the_money(
    house: JobsHouse,
) -> None:
    created = await asyncio.gather(*(house.create(f"k{n}") for n in range(40)))

    async def cancel_in_a_while(job_id: str, n: int) -> None:
        await asyncio.sleep(0.008 * n)
        await house.stub.CancelJob(wish(job_id))

    await asyncio.gather(*(cancel_in_a_while(job.job_id, n) for n, job in enumerate(created)))
    ends = [await house.ended(job.job_id) for job in created]
    await house.all_returned()
    for end in ends:
        charged = house.billing.captures[end.job_id]
        assert charged == (end.state == jobs.JOB_STATE_COMPLETED)
        assert end.charged_millis == charged * PRICE_MILLIS
    assert await house.store.load_drift() == {}


async def test_a_wish_that_nobody_lived_to_act_on_is_acted_on_by_the_next_owner(tmp_path: Path) -> None:
    async with FakeServers() as fakes:
        fakes.pool.delay_s["Submit"] = 60
        async with JobsProcess(sqlite_url(tmp_path), fakes) as process:
            job = await process.create("k1", prompt="slow")
            async with asyncio.timeout(15):
                while not fakes.pool.submits:
                    await asyncio.sleep(0.005)
            await process.stub.CancelJob(wish(job.job_id))
            await process.kill()
            fakes.pool.delay_s.clear()
            await process.start()
            assert (await ended(process.stub, job.job_id)).state == jobs.JOB_STATE_CANCELED
    assert fakes.pool.submits == {f"{job.job_id}:1": 1}
    assert fakes.billing.captures == {}


async def test_a_wish_is_found_by_an_owner_that_is_another_replica(postgres_url: str) -> None:
    async with JobsHouse(postgres_url) as owner, JobsHouse(postgres_url) as other:
        owner.pool.poll_after_ms = 60_000
        job = await owner.create("k1", prompt="slow")
        await owner.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
        await other.stub.CancelJob(wish(job.job_id))
        await canceled(owner, job.job_id)
