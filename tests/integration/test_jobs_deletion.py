"""Deleting over gRPC: a job is hidden at once, ends if it had not, and is then forgotten but for what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.chassis.errors import ServiceError
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.jobs.job import Job, JobState
from tests.jobs_fakes import PRICE_MILLIS, create_request, unavailable
from tests.jobs_house import JobsHouse, sqlite_url


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[JobsHouse]:
    async with JobsHouse(sqlite_url(tmp_path)) as started:
        yield started


def deletion(job_id: str, customer: str = "cus_a") -> jobs.DeleteJobRequest:
    return jobs.DeleteJobRequest(job_id=job_id, customer_id=customer, mode=jobs.MODE_TEST)


async def create(house: JobsHouse, key: str, prompt: str) -> jobs.Job:
    request = create_request(key, prompt=prompt)
    request.echo, request.project_id, request.numbered = b'{"prompt": "a secret"}', "mine", True
    request.callback_url = "https://example.com/hook?token=secret"
    return (await house.stub.CreateJob(request)).job


async def forgotten(house: JobsHouse, job_id: str) -> Job:
    """The row of a deleted job once it has been scrubbed."""
    async with asyncio.timeout(15):
        while True:
            job = await house.store.job(job_id)
            assert job is not None
            if job.scrubbed_at_ms:
                return job
            await asyncio.sleep(0.02)


async def is_hidden(house: JobsHouse, job: jobs.Job) -> bool:
    by_id = jobs.GetJobRequest(job_id=job.job_id, customer_id="cus_a", mode=jobs.MODE_TEST)
    by_number = jobs.GetJobRequest(
        public_number=job.public_number, storefront="leonardo", customer_id="cus_a", mode=jobs.MODE_TEST
    )
    for request in (by_id, by_number):
        with pytest.raises(ServiceError) as refusal:
            await house.stub.GetJob(request)
        assert refusal.value.reason == "JOB_NOT_FOUND"
    listed = await house.stub.ListJobs(
        jobs.ListJobsRequest(customer_id="cus_a", mode=jobs.MODE_TEST, count=True)
    )
    return not listed.jobs and listed.total == 0


async def test_a_completed_job_is_hidden_at_once_and_then_forgotten_but_for_what_it_cost(
    house: JobsHouse,
) -> None:
    job = await create(house, "k1", "a cat in a hat")
    await house.ended(job.job_id)
    await house.stub.DeleteJob(deletion(job.job_id))
    assert await is_hidden(house, job)
    row = await forgotten(house, job.job_id)
    assert house.pool.deleted_keys == [f"{job.job_id}/0.png"]
    assert (row.generation.prompt, row.echo, row.outputs, row.callback_url, row.project_id) == (
        "",
        "",
        (),
        "",
        "",
    )
    assert (row.state, row.charged_millis) == (JobState.COMPLETED, PRICE_MILLIS)
    assert (await house.engine.reconciler.reconcile())["charge_difference"] == 0


async def test_a_running_job_is_hidden_at_once_canceled_and_forgotten(house: JobsHouse) -> None:
    job = await create(house, "k1", "slow")
    await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
    await house.stub.DeleteJob(deletion(job.job_id))
    assert await is_hidden(house, job)
    row = await forgotten(house, job.job_id)
    assert (row.state, row.charged_millis, row.generation.prompt) == (JobState.CANCELED, 0, "")
    await house.all_returned()


async def test_a_job_that_is_deleted_while_it_settles_stays_hidden_however_long_that_takes(
    house: JobsHouse,
) -> None:
    house.billing.before["Capture"] = unavailable()
    job = await create(house, "k1", "cat")
    await house.until_state(job.job_id, jobs.JOB_STATE_SETTLING)
    await house.stub.DeleteJob(deletion(job.job_id))
    # Twice the time after which wishes are looked for.
    await asyncio.sleep(2.2)
    assert await is_hidden(house, job)
    house.billing.before.clear()
    row = await forgotten(house, job.job_id)
    assert (row.state, row.charged_millis) == (JobState.COMPLETED, PRICE_MILLIS)


async def test_a_deletion_may_be_repeated_and_is_no_one_elses(house: JobsHouse) -> None:
    job = await create(house, "k1", "cat")
    await house.ended(job.job_id)
    with pytest.raises(ServiceError) as refusal:
        await house.stub.DeleteJob(deletion(job.job_id, "cus_b"))
    assert refusal.value.reason == "JOB_NOT_FOUND"
    for _ in range(2):
        await house.stub.DeleteJob(deletion(job.job_id))


async def test_the_idempotency_key_of_a_deleted_job_stays_used(house: JobsHouse) -> None:
    job = await create(house, "k1", "cat")
    await house.ended(job.job_id)
    await house.stub.DeleteJob(deletion(job.job_id))
    await forgotten(house, job.job_id)
    again = await house.stub.CreateJob(create_request("k1", prompt="cat"))
    assert (again.replayed, again.job.job_id) == (True, job.job_id)


async def test_media_that_could_not_be_deleted_are_deleted_later_and_only_then_forgotten(
    house: JobsHouse,
) -> None:
    job = await create(house, "k1", "cat")
    await house.ended(job.job_id)
    house.pool.before["DeleteMedia"] = unavailable()
    await house.stub.DeleteJob(deletion(job.job_id))
    async with asyncio.timeout(10):
        while not house.pool.calls["DeleteMedia"]:
            await asyncio.sleep(0.01)
    kept = await house.store.job(job.job_id)
    assert kept is not None
    assert (kept.scrubbed_at_ms, len(kept.outputs)) == (0, 1)
    house.pool.before.clear()
    assert (await forgotten(house, job.job_id)).outputs == ()


async def test_a_job_has_a_number_by_which_its_customer_finds_it(house: JobsHouse) -> None:
    job = await create(house, "k1", "cat")
    assert 0 < job.public_number < 2**53
    request = jobs.GetJobRequest(
        public_number=job.public_number, storefront="leonardo", customer_id="cus_a", mode=jobs.MODE_TEST
    )
    found = (await house.stub.GetJob(request)).job
    assert (found.job_id, found.echo, found.project_id) == (job.job_id, b'{"prompt": "a secret"}', "mine")
    request.storefront = "imaginelab"
    with pytest.raises(ServiceError) as refusal:
        await house.stub.GetJob(request)
    assert refusal.value.reason == "JOB_NOT_FOUND"


@pytest.mark.parametrize(
    "storefront, told, reason",
    [
        ("leonardo", True, "JOB_OF_ANOTHER_CUSTOMER"),
        ("leonardo", False, "JOB_NOT_FOUND"),
        ("seedance2pro", True, "JOB_NOT_FOUND"),
    ],
)
async def test_another_customers_job_is_told_apart_only_where_its_storefront_asks(
    house: JobsHouse, storefront: str, told: bool, reason: str
) -> None:
    job = await house.create("k1", prompt="slow")
    request = jobs.GetJobRequest(
        job_id=job.job_id,
        customer_id="cus_b",
        mode=jobs.MODE_TEST,
        storefront=storefront,
        tell_of_others=told,
    )
    with pytest.raises(ServiceError) as refusal:
        await house.stub.GetJob(request)
    assert refusal.value.reason == reason
