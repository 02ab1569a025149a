"""What the store promises about wishes, deletions and public numbers, on each engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from services.chassis.errors import ServiceError
from services.jobs import job as rules
from services.jobs.job import FailureReason, Job, JobState
from services.jobs.store import Asked, JobStore, Wish, admissions
from tests.conformance.jobs_shelf import ended, opened_store, queued, running
from tests.jobs_rows import NOW_MS, a_job


@pytest.fixture
async def store(engine_url: str) -> AsyncIterator[JobStore]:
    async with opened_store(engine_url) as opened:
        yield opened


def cancel(job_id: str = "job_1", customer_id: str = "cus_a", mode: str = "test") -> Wish:
    return Wish(job_id, customer_id, mode, False, NOW_MS)


def delete(job_id: str = "job_1", customer_id: str = "cus_a") -> Wish:
    return Wish(job_id, customer_id, "test", True, NOW_MS)


async def refused(store: JobStore, wish: Wish) -> str:
    with pytest.raises(ServiceError) as refusal:
        await store.wish(wish)
    return refusal.value.reason


# ---- wishes ----


async def test_a_wish_needs_no_ownership_and_outlives_every_transition(store: JobStore) -> None:
    job = await running(store)
    assert (await store.wish(cancel())).cancel_asked_at_ms == NOW_MS
    # Its owner has not heard of it, and its next commit must neither fail for it nor take it back.
    after = await store.commit(job, rules.touched(job, NOW_MS, progress=40))
    row = await store.job("job_1")
    assert row == replace(after, cancel_asked_at_ms=NOW_MS)


async def test_a_wish_is_stored_once_and_stays_as_it_was(store: JobStore) -> None:
    await queued(store)
    first = await store.wish(cancel())
    later = await store.wish(cancel()._replace(at_ms=NOW_MS + 5))
    assert first == later


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED, JobState.CANCELED])
async def test_what_has_ended_is_not_asked_to_end(store: JobStore, state: JobState) -> None:
    job = await ended(store, await queued(store), state)
    assert await store.wish(cancel()) == job
    assert await store.asked_of("w1") == []


async def test_nobody_else_s_wish_is_heard_but_an_operator_s(store: JobStore) -> None:
    await queued(store)
    assert await refused(store, cancel(customer_id="cus_b")) == "JOB_NOT_FOUND"
    assert await refused(store, cancel(mode="live")) == "JOB_NOT_FOUND"
    assert await refused(store, cancel("job_2")) == "JOB_NOT_FOUND"
    assert (await store.wish(cancel(customer_id="", mode=""))).cancel_asked_at_ms == NOW_MS


async def test_a_job_that_is_being_admitted_is_not_there_yet(store: JobStore) -> None:
    await store.admit(a_job(), 10)
    assert await refused(store, cancel()) == "JOB_NOT_FOUND"


async def test_each_owner_is_told_of_its_own_unfinished_jobs_only(store: JobStore) -> None:
    await store.register("w2", "there")
    for job_id, owner in (("job_1", "w1"), ("job_2", "w2"), ("job_3", "w1")):
        await queued(store, job_id, owner=owner)
    for job_id in ("job_1", "job_2"):
        await store.wish(cancel(job_id))
    assert [asked.job_id for asked in await store.asked_of("w1")] == ["job_1"]
    assert [asked.job_id for asked in await store.asked_of("w2")] == ["job_2"]
    assert await store.wishes_waiting() == (2, 0)


async def test_the_owner_of_a_job_that_is_deleted_while_it_settles_is_told_until_it_has_ended(
    store: JobStore,
) -> None:
    job = await running(store)
    settling = await store.commit(job, rules.failing(job, FailureReason.TIMED_OUT, "", NOW_MS))
    await store.wish(delete())
    assert await store.asked_of("w1") == [Asked("job_1", True)]
    done = rules.released(rules.finished(settling, 0, NOW_MS))
    assert (await store.commit(settling, done)).state is JobState.FAILED
    assert await store.asked_of("w1") == []


async def test_a_claim_brings_the_wish_with_the_job(store: JobStore) -> None:
    await queued(store)
    await store.wish(cancel())
    await store.hand_over("w1")
    await store.register("w2", "there")
    [claimed] = await store.claim("w2", 10, NOW_MS)
    assert rules.canceling(claimed, NOW_MS) is not None


async def test_a_parked_job_that_is_to_end_may_be_claimed_at_once(store: JobStore) -> None:
    job = await queued(store)
    later = replace(rules.touched(job, NOW_MS, run_at_ms=NOW_MS + 60_000), owner=None)
    await store.commit(job, later)
    assert await store.claim("w1", 10, NOW_MS) == []
    await store.wish(cancel())
    assert [claimed.job_id for claimed in await store.claim("w1", 10, NOW_MS)] == ["job_1"]


async def test_wishes_and_ends_at_the_same_time_leave_one_end_each(store: JobStore) -> None:
    jobs = [await queued(store, f"job_{n}") for n in range(20)]

    async def ends(job: Job) -> None:
        await ended(store, job, JobState.FAILED)

    await asyncio.gather(*(ends(job) for job in jobs), *(store.wish(cancel(job.job_id)) for job in jobs))
    found = await store.jobs(job.job_id for job in jobs)
    assert {job.state for job in found.values()} == {JobState.FAILED}
    assert await store.asked_of("w1") == []
    assert await store.load_drift() == {}


# ---- deletions ----


async def test_only_what_has_ended_is_forgotten_and_only_once(store: JobStore) -> None:
    job = await queued(store, echo="{}", callback_url="https://example.com/", project_id="p")
    await store.wish(delete())
    assert await store.to_scrub(10) == []
    await store.scrub(["job_1"], NOW_MS)
    unfinished = await store.job("job_1")
    assert unfinished is not None
    assert unfinished.generation.prompt != ""
    await ended(store, job, JobState.CANCELED)
    assert [one.job_id for one in await store.to_scrub(10)] == ["job_1"]
    await store.scrub(["job_1"], NOW_MS + 1)
    await store.scrub(["job_1"], NOW_MS + 2)
    row = await store.job("job_1")
    assert row is not None
    assert (row.generation.prompt, row.echo, row.callback_url, row.project_id) == ("", "", "", "")
    assert (row.scrubbed_at_ms, row.refunded_millis) == (NOW_MS + 1, 500)
    assert await store.to_scrub(10) == []
    assert await store.wishes_waiting() == (0, 0)


async def test_a_deleted_job_can_be_deleted_again_and_not_be_canceled_by_its_customer(
    store: JobStore,
) -> None:
    await queued(store)
    first = await store.wish(delete())
    assert (first.deleted_at_ms, first.cancel_asked_at_ms) == (NOW_MS, NOW_MS)
    assert await store.wish(delete()) == first
    assert await refused(store, cancel()) == "JOB_NOT_FOUND"


# ---- public numbers ----


async def test_numbers_are_drawn_until_they_are_free(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter([5, 5, 5, 7, 7, 5, 9])
    monkeypatch.setattr(admissions, "draw_number", lambda: next(drawn))
    for n, number in enumerate((5, 7, 9)):
        admitted = await store.admit(a_job(f"job_{n}"), 10, numbered=True)
        assert admitted.job.public_number == number
        found = await store.numbered(("leonardo", number))
        assert found is not None
        assert found.job_id == f"job_{n}"
    assert await store.numbered(("imaginelab", 5)) is None
    assert await store.numbered(("leonardo", 6)) is None


async def test_jobs_admitted_together_have_numbers_of_their_own_and_a_replay_keeps_its_number(
    store: JobStore,
) -> None:
    jobs = [a_job(f"job_{n}") for n in range(50)]
    admitted = await asyncio.gather(*(store.admit(job, 100, numbered=True) for job in jobs))
    numbers = [one.job.public_number for one in admitted]
    assert len(set(numbers)) == 50
    assert all(0 < number < 2**53 for number in numbers)
    again = await store.admit(a_job("job_0"), 100, numbered=True)
    assert again.job.public_number == numbers[0]


async def test_a_job_without_a_number_has_none(store: JobStore) -> None:
    jobs = [(await store.admit(a_job(f"job_{n}"), 10)).job for n in range(3)]
    assert {job.public_number for job in jobs} == {0}
    assert await store.numbered(("leonardo", 0)) is None
