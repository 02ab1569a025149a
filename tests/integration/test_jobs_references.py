"""References of a job: ready before it is submitted, kept until it has ended, let go of then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from tests.jobs_fakes import PRICE_MILLIS, STAGED_ID, a_reference, create_request, unavailable
from tests.jobs_house import FAST, JobsHouse, sqlite_url

URL = "https://example.com/cat.png?token=hidden"
BOTH = (a_reference(), a_reference(url=URL))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[JobsHouse]:
    async with JobsHouse(sqlite_url(tmp_path)) as started:
        yield started


async def until(condition: Callable[[], object], within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def given_back(house: JobsHouse, job_id: str) -> None:
    """Waits until the job has no hold, no lease and no references any more."""
    await house.all_returned()
    await until(lambda: job_id in house.pool.dropped)


def failure(reason: int, step: int = pool.NEXT_STEP_FAIL) -> pool.Failure:
    return pool.Failure(reason=pool.FailureReason.ValueType(reason), next_step=pool.NextStep.ValueType(step))


# ---- the road ----


async def test_references_are_made_ready_under_the_lease_before_the_submission(house: JobsHouse) -> None:
    house.pool.delay_s["PrepareReferences"] = 0.3
    job = await house.create("k1", references=BOTH)
    await until(lambda: house.pool.calls["PrepareReferences"])
    preparing = await house.get(job.job_id)
    assert (preparing.state, preparing.stage) == (jobs.JOB_STATE_LEASED, jobs.STAGE_ACCOUNT_CHOSEN)
    assert not house.pool.submits
    assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED
    [asked] = house.pool.prepared
    assert (asked.attempt_id, asked.job_id) == (f"{job.job_id}:1", job.job_id)
    sources = [(one.url, one.reference_id, one.strength) for one in asked.generation.references]
    mid = pool.Reference.STRENGTH_MID
    assert sources == [("", STAGED_ID, mid), (URL, "", mid)]
    limits = asked.generation.reference_limits
    assert (list(limits.image_formats), limits.image_bytes, limits.images) == (["jpeg", "png"], 1000, 9)


async def test_the_road_of_a_job_with_references_has_the_same_states(house: JobsHouse) -> None:
    plain, following = await house.create("k1"), await house.create("k2", references=BOTH)
    for job in (plain, following):
        await house.ended(job.job_id)
    assert await house.states(plain.job_id) == await house.states(following.job_id)


async def test_a_job_without_references_makes_no_call_about_any(house: JobsHouse) -> None:
    for prompt in ("a cat", "refused", "rotate"):
        await house.ended((await house.create(prompt, prompt=prompt)).job_id)
    await house.all_returned()
    assert house.pool.calls["PrepareReferences"] == house.pool.calls["DropReferences"] == 0
    assert house.pool.calls["Submit"] == 4


async def test_an_attempt_on_another_account_is_prepared_again(house: JobsHouse) -> None:
    job = await house.create("k1", prompt="rotate", references=BOTH)
    assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED
    assert [asked.attempt_id for asked in house.pool.prepared] == [f"{job.job_id}:1", f"{job.job_id}:2"]


async def test_the_lease_and_the_hold_are_renewed_while_references_are_made_ready(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path), timing=replace(FAST, renewal_s=0.1)) as house:
        house.pool.delay_s["PrepareReferences"] = 1.0
        job = await house.create("k1", references=BOTH)
        await until(lambda: house.pool.calls["RenewLeases"] and house.billing.calls["ExtendHolds"])
        assert (await house.get(job.job_id)).state == jobs.JOB_STATE_LEASED


# ---- what may go wrong ----


@pytest.mark.parametrize(
    "reason",
    [
        pool.FAILURE_REASON_INVALID_REFERENCE,
        pool.FAILURE_REASON_REFERENCE_UNAVAILABLE,
    ],
)
async def test_a_reference_that_is_no_use_fails_the_job_with_its_reason_and_one_release(
    house: JobsHouse, reason: int
) -> None:
    # The advice to go elsewhere must not be taken: the reference is the same there.
    house.pool.unready = failure(reason, pool.NEXT_STEP_ROTATE)
    job = await house.ended((await house.create("k1", references=BOTH)).job_id)
    assert (job.state, job.failure, job.attempts) == (jobs.JOB_STATE_FAILED, reason, 1)
    assert (job.charged_millis, job.refunded_millis) == (0, PRICE_MILLIS)
    assert house.billing.calls["Release"] == 1
    assert not house.pool.submits
    await given_back(house, job.job_id)


async def test_a_reference_that_one_provider_does_not_take_is_offered_to_every_other_account_once(
    house: JobsHouse,
) -> None:
    house.pool.unready = failure(pool.FAILURE_REASON_REFERENCE_UNSUITABLE, pool.NEXT_STEP_ROTATE)
    job = await house.ended((await house.create("k1", references=BOTH)).job_id)
    # Three accounts, and then the first once more.
    unsuitable = jobs.FAILURE_REASON_REFERENCE_UNSUITABLE
    assert (job.state, job.failure, job.attempts) == (jobs.JOB_STATE_FAILED, unsuitable, 4)
    assert house.pool.avoided[3] == ("acc_1", "acc_2", "acc_3")
    assert (job.charged_millis, job.refunded_millis) == (0, PRICE_MILLIS)
    assert not house.pool.submits
    await given_back(house, job.job_id)


async def test_a_failing_account_is_changed_before_anything_is_submitted(house: JobsHouse) -> None:
    house.pool.unready = failure(pool.FAILURE_REASON_PROVIDER_UNAVAILABLE, pool.NEXT_STEP_ROTATE)
    job = await house.ended((await house.create("k1", references=BOTH)).job_id)
    assert (job.failure, job.attempts) == (jobs.FAILURE_REASON_PROVIDER_UNAVAILABLE, 4)
    assert house.pool.avoided[1] == ("acc_1",)
    assert not house.pool.submits
    await given_back(house, job.job_id)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.RESOURCE_EXHAUSTED])
async def test_a_pool_that_does_not_answer_is_asked_again_under_the_same_attempt(
    house: JobsHouse, moment: str, kind: Kind
) -> None:
    getattr(house.pool, moment)["PrepareReferences"] = ServiceError(kind, kind.value, "later")
    job = await house.create("k1", references=BOTH)
    await until(lambda: house.pool.calls["PrepareReferences"] >= 2)
    assert (await house.get(job.job_id)).state == jobs.JOB_STATE_LEASED
    getattr(house.pool, moment).clear()
    assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED
    assert {asked.attempt_id for asked in house.pool.prepared} == {f"{job.job_id}:1"}
    assert house.pool.submits == {f"{job.job_id}:1": 1}


async def test_a_lease_that_ended_meanwhile_is_followed_by_another_attempt(house: JobsHouse) -> None:
    house.pool.delay_s["PrepareReferences"] = 0.2
    job = await house.create("k1", references=BOTH)
    await until(lambda: house.pool.calls["PrepareReferences"])
    await house.pool.ReleaseLease(pool.ReleaseLeaseRequest(attempt_id=f"{job.job_id}:1"), None)
    ended = await house.ended(job.job_id)
    assert (ended.state, ended.attempts) == (jobs.JOB_STATE_COMPLETED, 2)
    assert house.pool.submits == {f"{job.job_id}:2": 1}


async def test_a_refused_preparation_fails_the_job_and_gives_everything_back(house: JobsHouse) -> None:
    house.pool.before["PrepareReferences"] = ServiceError(Kind.INVALID_ARGUMENT, "INVALID_REQUEST", "no")
    job = await house.ended((await house.create("k1", references=BOTH)).job_id)
    assert (job.failure, job.refunded_millis) == (jobs.FAILURE_REASON_REQUEST_REJECTED, PRICE_MILLIS)
    await given_back(house, job.job_id)


async def test_the_deadline_of_the_job_ends_a_preparation_that_takes_too_long(tmp_path: Path) -> None:
    hasty = replace(FAST, image_deadline_s=0.5)
    async with JobsHouse(sqlite_url(tmp_path), timing=hasty) as house:
        house.pool.delay_s["PrepareReferences"] = 30
        job = await house.ended((await house.create("k1", references=BOTH)).job_id, within_s=5)
        assert (job.failure, job.refunded_millis) == (jobs.FAILURE_REASON_TIMED_OUT, PRICE_MILLIS)
        assert not house.pool.submits
        await given_back(house, job.job_id)


# ---- letting go ----


async def test_references_are_kept_until_the_job_has_ended_and_dropped_once_then(house: JobsHouse) -> None:
    job = await house.create("k1", prompt="slow", references=BOTH)
    await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
    house.billing.before["Capture"] = unavailable()
    await house.pool.finish(job.job_id)
    await house.until_state(job.job_id, jobs.JOB_STATE_SETTLING)
    await asyncio.sleep(0.2)
    assert house.pool.calls["DropReferences"] == 0
    house.billing.before.clear()
    await house.ended(job.job_id)
    await given_back(house, job.job_id)
    assert house.pool.dropped == {job.job_id: (STAGED_ID,)}
    assert house.pool.calls["DropReferences"] == 1


async def test_references_of_a_job_that_never_got_an_account_are_dropped(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path), slots=0, timing=replace(FAST, queue_deadline_s=0.3)) as house:
        job = await house.ended((await house.create("k1", references=BOTH)).job_id)
        assert job.failure == jobs.FAILURE_REASON_TIMED_OUT
        await given_back(house, job.job_id)
        assert house.pool.calls["PrepareReferences"] == 0


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_drop_delays_no_end_and_is_repeated_until_acknowledged(house: JobsHouse, moment: str) -> None:
    getattr(house.pool, moment)["DropReferences"] = unavailable()
    job = await house.create("k1", references=BOTH)
    assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED
    await until(lambda: house.pool.calls["DropReferences"] >= 2)
    getattr(house.pool, moment).clear()
    await given_back(house, job.job_id)
    await until(lambda: not len(house.engine._returns))
    calls = house.pool.calls["DropReferences"]
    await asyncio.sleep(0.5)
    assert house.pool.calls["DropReferences"] == calls


async def test_references_of_a_refused_admission_are_left_to_the_caller(house: JobsHouse) -> None:
    house.pool.incapable = True
    with pytest.raises(ServiceError):
        await house.create("k1", references=BOTH)
    await house.all_returned()
    await asyncio.sleep(0.1)
    assert house.pool.calls["DropReferences"] == 0


# ---- who is told what ----


async def test_the_same_call_made_twice_is_no_replay_and_another_one_is(house: JobsHouse) -> None:
    first = await house.stub.CreateJob(create_request("k1", prompt="slow", references=BOTH))
    repeated = await house.stub.CreateJob(create_request("k1", prompt="slow", references=BOTH))
    staged_anew = (a_reference(reference_id=f"ref_{'1' * 26}"), BOTH[1])
    again = await house.stub.CreateJob(create_request("k1", prompt="slow", references=staged_anew))
    assert {first.job.job_id} == {repeated.job.job_id, again.job.job_id}
    assert (first.replayed, repeated.replayed, again.replayed) == (False, False, True)


async def test_no_log_holds_the_address_of_a_reference(
    house: JobsHouse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    house.pool.before["PrepareReferences"] = unavailable()
    house.pool.before["DropReferences"] = ServiceError(Kind.INVALID_ARGUMENT, "INVALID_REQUEST", "no")
    job = await house.create("k1", references=BOTH)
    await until(lambda: house.pool.calls["PrepareReferences"] >= 2)
    del house.pool.before["PrepareReferences"]
    await house.ended(job.job_id)
    await until(lambda: "debt.refused" in caplog.messages)
    written = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "hidden" not in written
    assert STAGED_ID not in written


def _with(**changes: object) -> jobs.Generation:
    generation = create_request("k1", references=BOTH).generation
    for path, value in changes.items():
        target = generation.reference_limits if path.startswith("image") else generation.references[0]
        setattr(target, path, value)
    return generation


def _without(field: str) -> jobs.Generation:
    generation = create_request("k1", references=BOTH).generation
    target: Any = generation if field == "reference_limits" else generation.references[0]
    target.ClearField(field)
    return generation


def _many(count: int) -> jobs.Generation:
    generation = create_request("k1", references=[a_reference()] * count).generation
    generation.reference_limits.images = 1000
    return generation


@pytest.mark.parametrize(
    ("generation", "field"),
    [
        (_without("reference_limits"), "generation.reference_limits"),
        (_without("reference_id"), "generation.references"),
        (_without("role"), "generation.references"),
        (_without("strength"), "generation.references"),
        (_with(strength=9), "generation.references"),
        (_with(url=""), "generation.references.url"),
        (_with(url="https://example.com/" + "x" * 2048), "generation.references.url"),
        (_with(reference_id="ref_../../etc/passwd"), "generation.references.reference_id"),
        (_with(reference_id=f"{STAGED_ID}\n"), "generation.references.reference_id"),
        (_with(image_bytes=0), "generation.reference_limits.image_bytes"),
        (_with(images=1), "generation.references"),
        (_many(33), "generation.references"),
    ],
)
async def test_a_reference_that_cannot_be_used_is_named_before_anything_is_held(
    house: JobsHouse, generation: jobs.Generation, field: str
) -> None:
    request = create_request("k1")
    request.generation.CopyFrom(generation)
    with pytest.raises(ServiceError) as refusal:
        await house.stub.CreateJob(request)
    assert (refusal.value.reason, refusal.value.metadata) == ("INVALID_REQUEST", {"field": field})
    assert "example.com" not in refusal.value.message
    assert house.billing.calls["Hold"] == 0
