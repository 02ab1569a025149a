"""Jobs that nobody else would come for: an admission that cannot be written, a life of the worker that is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from sqlalchemy import update

from services.chassis.errors import Kind, ServiceError, internal_error
from services.chassis.storage_failures import commit_outcome_unknown
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.jobs.job import Job
from services.jobs.schema import JOBS
from services.jobs.store import Admitted, Load
from tests.jobs_fakes import unavailable
from tests.jobs_house import JobsHouse, sqlite_url


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[JobsHouse]:
    async with JobsHouse(sqlite_url(tmp_path)) as started:
        yield started


async def change_row(house: JobsHouse, job_id: str, **values: object) -> None:
    change = update(JOBS).where(JOBS.c.job_id == job_id).values(**values)
    await house.store._database.write(lambda connection: connection.execute(change).rowcount)


async def nothing_remains(house: JobsHouse) -> None:
    await house.all_returned()
    async with asyncio.timeout(5):
        while await house.store.load(("cus_a", "test")) != Load() or house.engine._intake.busy():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("verb", ["commit", "remove"])
async def test_an_admission_that_cannot_be_written_is_undone_and_its_key_is_free(
    house: JobsHouse, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    async def broken(*_given: object) -> None:
        raise internal_error()

    monkeypatch.setattr(house.store, verb, broken)
    house.pool.incapable = verb == "remove"
    with pytest.raises(ServiceError):
        await house.create("k1")
    monkeypatch.undo()
    house.pool.incapable = False
    await nothing_remains(house)
    job = await house.create("k1")
    assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED


async def test_a_duplicate_does_not_wait_for_an_admission_that_stumbled(
    house: JobsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def stumbles(*_given: object) -> None:
        arrived.set()
        await go_on.wait()
        raise RuntimeError("a bug")

    monkeypatch.setattr(house.engine._intake, "_pay_and_place", stumbles)
    first = asyncio.create_task(house.create("k1"))
    await arrived.wait()
    second = asyncio.create_task(house.create("k1"))
    await asyncio.sleep(0.2)
    go_on.set()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(first, second, return_exceptions=True)
    assert all(isinstance(answer, ServiceError) for answer in answers)


async def test_a_job_claimed_anew_is_driven_under_its_new_epoch(house: JobsHouse) -> None:
    job = await house.create("k1", prompt="slow")
    await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
    row = await house.store.job(job.job_id)
    assert row is not None
    await change_row(house, job.job_id, epoch=row.epoch + 1)
    anew = await house.store.job(job.job_id)
    assert anew is not None
    house.engine.runner.adopt([anew])
    await house.pool.finish(job.job_id)
    assert (await house.ended(job.job_id, within_s=5)).state == jobs.JOB_STATE_COMPLETED


async def test_a_worker_that_fences_itself_shows_the_row_and_not_its_memory(
    house: JobsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await house.create("k1", prompt="slow")
    await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
    monkeypatch.setattr(house.engine.ownership, "may_act", lambda: False)
    await change_row(house, job.job_id, attempt_number=3)
    assert (await house.get(job.job_id)).attempts == 3


async def test_a_repair_that_is_refused_for_good_does_not_keep_later_ones_from_being_made(
    house: JobsHouse,
) -> None:
    hold = billing.HoldRequest(job_id="job_gone", customer_id="cus_a", mode=billing.MODE_TEST, quantity=1)
    await house.billing.Hold(hold, None)
    await house.pool.Lease(pool.LeaseRequest(attempt_id="job_gone:1", job_id="job_gone"), None)
    house.billing.before["Release"] = ServiceError(Kind.FAILED_PRECONDITION, "HOLD_CAPTURED", "captured")
    await asyncio.sleep(0.3)
    found = await house.engine.reconciler.reconcile()
    assert (found["hold_without_job"], found["lease_without_job"]) == (1, 1)
    assert not house.pool.leases


async def test_an_admission_whose_commit_went_through_unheard_is_taken_back_within_moments(
    house: JobsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit = house.store.admit

    async def unheard(job: Job, queued_limit: int, *, numbered: bool = False) -> tuple[Job, int]:
        await admit(job, queued_limit)
        raise commit_outcome_unknown()

    monkeypatch.setattr(house.store, "admit", unheard)
    with pytest.raises(ServiceError) as refusal:
        await house.create("k1")
    assert refusal.value.kind is Kind.UNAVAILABLE
    monkeypatch.undo()
    # The same key is met by the row until that is gone, and then accepted: long before the usual look.
    async with asyncio.timeout(5):
        job = await house.create("k1")
    assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED
    await house.all_returned()
    load = await house.store.load(("cus_a", "test"))
    assert (load.waiting, load.running, load.completed_jobs) == (0, 0, 1)


async def test_a_doubted_admission_that_could_not_be_read_at_the_first_try_is_still_taken_back_within_moments(
    house: JobsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit, read = house.store.admit, house.store.jobs
    tries: list[set[str]] = []

    async def unheard(job: Job, queued_limit: int, *, numbered: bool = False) -> Admitted:
        await admit(job, queued_limit)
        raise commit_outcome_unknown()

    async def away_once(job_ids: Iterable[str]) -> dict[str, Job]:
        tries.append(set(job_ids))
        if len(tries) == 1:
            raise unavailable()
        return await read(tries[-1])

    monkeypatch.setattr(house.store, "admit", unheard)
    monkeypatch.setattr(house.store, "jobs", away_once)
    with pytest.raises(ServiceError):
        await house.create("k1")
    monkeypatch.setattr(house.store, "admit", admit)
    async with asyncio.timeout(5):
        job = await house.create("k1")
    assert len(tries) > 1
    assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED


async def test_an_admission_that_was_refused_is_not_looked_for(house: JobsHouse) -> None:
    kept = await house.create("k1", prompt="slow", running=1)
    with pytest.raises(ServiceError, match="CONCURRENCY_LIMITED"):
        await house.create("k2", running=1)
    assert house.engine.recall._doubted == {}
    await house.pool.finish(kept.job_id)
    await house.ended(kept.job_id)


async def test_one_service_that_is_away_keeps_no_other_comparison_from_being_made(house: JobsHouse) -> None:
    house.billing.before["ListHolds"] = unavailable()
    house.pool.open_attempts["job_gone:1"] = "job_gone"
    found = await house.engine.reconciler.reconcile()
    assert "hold_without_job" not in found
    assert found["attempt_without_answer"] == 1
    assert house.pool.open_attempts == {}


@pytest.mark.parametrize(("prompt", "closed"), [("hopeless", True), ("a cat", False)])
async def test_a_job_that_fails_closes_its_attempt_and_one_that_went_well_asks_for_nothing(
    house: JobsHouse, prompt: str, closed: bool
) -> None:
    job = await house.create("k1", prompt=prompt)
    end = await house.ended(job.job_id)
    async with asyncio.timeout(5):
        while house.engine._returns:
            await asyncio.sleep(0.01)
    assert house.pool.closed == ([f"{job.job_id}:{end.attempts}"] if closed else [])


async def test_a_worker_declared_dead_while_it_gives_a_lease_back_asks_for_no_other(house: JobsHouse) -> None:
    house.pool.delay_s["ReleaseLease"] = 0.5
    job = await house.create("k1", prompt="rotate slow")
    await house.until_state(job.job_id, jobs.JOB_STATE_QUEUED)
    await house.store.register("heir", "there")
    await house.store.hand_over(house.engine.ownership.worker_id)
    await change_row(house, job.job_id, owner="heir")
    await house.engine.ownership.beat()
    await asyncio.sleep(0.8)
    assert f"{job.job_id}:2" not in house.pool.leases
