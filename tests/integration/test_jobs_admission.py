"""Accepting jobs: one for each key, within the customer's limits, and nothing left of what was refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.jobs.store import Load
from tests.jobs_fakes import create_request, unavailable
from tests.jobs_house import JobsHouse, sqlite_url


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[JobsHouse]:
    async with JobsHouse(sqlite_url(tmp_path)) as started:
        yield started


async def nothing_remains(house: JobsHouse, within_s: float = 5) -> None:
    """Waits until no hold is open, no lease is out and no row is left."""
    await house.all_returned(within_s)
    async with asyncio.timeout(within_s):
        while (await house.store.loads([("cus_a", "test")]))[("cus_a", "test")] != Load():
            await asyncio.sleep(0.01)
    assert not (await house.stub.ListJobs(jobs.ListJobsRequest())).jobs


async def test_two_hundred_identical_requests_make_one_job_and_one_hold(house: JobsHouse) -> None:
    house.billing.delay_s["Hold"] = 0.1
    answers = await asyncio.gather(
        *(house.stub.CreateJob(create_request("same"), timeout=20) for _ in range(200))
    )
    assert len({answer.job.job_id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert house.billing.calls["Hold"] == 1


async def test_a_replay_after_the_end_answers_the_ended_job(house: JobsHouse) -> None:
    job = await house.ended((await house.create("k1")).job_id)
    answer = await house.stub.CreateJob(create_request("k1"))
    assert answer.replayed
    assert answer.job == job


async def test_the_same_key_with_another_request_is_refused(house: JobsHouse) -> None:
    await house.create("k1")
    with pytest.raises(ServiceError) as refusal:
        await house.create("k1", prompt="a dog")
    assert (refusal.value.kind, refusal.value.reason) == (Kind.ALREADY_EXISTS, "IDEMPOTENCY_KEY_CONFLICT")


async def test_a_refused_hold_passes_through_and_leaves_nothing(house: JobsHouse) -> None:
    poor = ServiceError(
        Kind.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS", "too poor", {"required_millis": "20000"}
    )
    house.billing.before["Hold"] = poor
    with pytest.raises(ServiceError) as refusal:
        await house.create("k1")
    assert refusal.value == poor
    await nothing_remains(house)
    del house.billing.before["Hold"]
    assert (await house.create("k1")).state == jobs.JOB_STATE_LEASED


async def test_no_capable_account_is_unavailable_and_leaves_nothing(house: JobsHouse) -> None:
    house.pool.incapable = True
    with pytest.raises(ServiceError) as refusal:
        await house.create("k1")
    assert (refusal.value.kind, refusal.value.reason) == (Kind.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
    assert int(refusal.value.metadata["retry_after_s"]) > 0
    assert house.billing.open_holds() == []
    await nothing_remains(house)


async def test_a_full_queue_is_refused_with_its_numbers_and_leaves_nothing(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path), slots=0) as house:
        await house.create("k1", queued=1)
        with pytest.raises(ServiceError) as refusal:
            await house.create("k2", queued=1)
        assert (refusal.value.kind, refusal.value.reason) == (Kind.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert refusal.value.metadata == {"limit": "1", "current": "1"}
        assert len(house.billing.open_holds()) == 1


async def test_as_many_running_jobs_as_allowed_refuse_another_until_one_ends(house: JobsHouse) -> None:
    first = await house.create("k1", prompt="slow", running=1)
    with pytest.raises(ServiceError) as refusal:
        await house.create("k2", running=1)
    assert (refusal.value.kind, refusal.value.reason) == (Kind.RESOURCE_EXHAUSTED, "CONCURRENCY_LIMITED")
    await house.pool.finish(first.job_id)
    await house.ended(first.job_id)
    assert (await house.create("k2", running=1)).state == jobs.JOB_STATE_LEASED


async def test_simultaneous_requests_never_run_more_than_the_customer_may(house: JobsHouse) -> None:
    await asyncio.gather(
        *(house.create(f"k{n}", prompt="slow", running=3) for n in range(12)), return_exceptions=True
    )
    await asyncio.sleep(0.7)
    assert len(house.pool.leases) == 3


@pytest.mark.parametrize("method", ["Hold", "Lease"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_answer_that_never_came_is_undone_and_the_key_is_free(
    house: JobsHouse, method: str, moment: str
) -> None:
    fake = house.billing if method == "Hold" else house.pool
    getattr(fake, moment)[method] = unavailable()
    with pytest.raises(ServiceError) as refusal:
        await house.create("k1")
    assert refusal.value.kind is Kind.UNAVAILABLE
    await nothing_remains(house)
    getattr(fake, moment).clear()
    await house.ended((await house.create("k1")).job_id)


async def test_what_is_undone_while_billing_is_down_is_undone_when_it_is_back(house: JobsHouse) -> None:
    house.pool.after["Lease"] = unavailable()
    house.billing.before["Release"] = unavailable()
    with pytest.raises(ServiceError):
        await house.create("k1")
    assert len(house.billing.open_holds()) == 1
    house.billing.before.clear()
    await nothing_remains(house)


async def test_a_client_that_leaves_midway_does_not_stop_the_admission(house: JobsHouse) -> None:
    house.billing.delay_s["Hold"] = 0.2
    request = asyncio.create_task(house.create("k1"))
    await asyncio.sleep(0.1)
    request.cancel()
    await asyncio.sleep(0.5)
    answer = await house.stub.CreateJob(create_request("k1"))
    assert answer.replayed
    assert house.billing.calls["Hold"] == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("customer_id", ""),
        ("customer_id", "a b"),
        ("idempotency_key", "x" * 256),
        ("idempotency_key", "\n"),
        ("mode", jobs.MODE_UNSPECIFIED),
        ("quantity", 0),
        ("id_prefix", "job_"),
        ("sku", ""),
    ],
)
async def test_a_field_that_cannot_be_used_is_named(house: JobsHouse, field: str, value: object) -> None:
    request = create_request("k1")
    setattr(request, field, value)
    with pytest.raises(ServiceError) as refusal:
        await house.stub.CreateJob(request)
    assert (refusal.value.reason, refusal.value.metadata) == ("INVALID_REQUEST", {"field": field})
