"""The jobs service over gRPC, between a billing service and a pool that do as they are told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from tests.jobs_fakes import PRICE_MILLIS, FakeBilling, FakePool, unavailable
from tests.jobs_house import FAST, JobsHouse, sqlite_url


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[JobsHouse]:
    async with JobsHouse(sqlite_url(tmp_path)) as started:
        yield started


# ---- the main road ----


async def test_a_job_is_charged_once_and_shows_its_output_when_it_completes(house: JobsHouse) -> None:
    created = await house.create("k1")
    assert (created.state, created.stage) == (jobs.JOB_STATE_LEASED, jobs.STAGE_ACCOUNT_CHOSEN)
    assert created.quoted_millis == PRICE_MILLIS
    job = await house.ended(created.job_id)
    assert (job.state, job.charged_millis, job.refunded_millis) == (jobs.JOB_STATE_COMPLETED, PRICE_MILLIS, 0)
    assert [output.object_key for output in job.outputs] == [f"{job.job_id}/0.png"]
    assert job.media_expires_at_ms > job.ended_at_ms > 0
    assert house.billing.captures == {job.job_id: 1}
    await house.all_returned()


async def test_every_state_is_recorded_in_order(house: JobsHouse) -> None:
    job = await house.create("k1")
    await house.ended(job.job_id)
    assert await house.states(job.job_id) == [
        jobs.JOB_STATE_ADMITTING,
        jobs.JOB_STATE_LEASED,
        jobs.JOB_STATE_SUBMITTING,
        jobs.JOB_STATE_RUNNING,
        jobs.JOB_STATE_COLLECTING,
        jobs.JOB_STATE_SETTLING,
        jobs.JOB_STATE_COMPLETED,
    ]


async def test_watching_shows_stages_that_never_go_backwards_until_the_end(house: JobsHouse) -> None:
    job = await house.create("k1", prompt="rotate")
    request = jobs.WatchJobRequest(job_id=job.job_id, customer_id="cus_a", mode=jobs.MODE_TEST)
    seen = [answer.job async for answer in house.stub.WatchJob(request)]
    assert [one.stage for one in seen] == sorted(one.stage for one in seen)
    assert [one.progress for one in seen] == sorted(one.progress for one in seen)
    assert seen[-1].state == jobs.JOB_STATE_COMPLETED


async def test_usage_counts_what_ended_in_the_transaction_of_the_end(house: JobsHouse) -> None:
    for key, prompt in (("k1", "a cat"), ("k2", "refused")):
        await house.ended((await house.create(key, prompt=prompt)).job_id)
    load = (await house.store.loads([("cus_a", "test")]))[("cus_a", "test")]
    assert (load.completed_jobs, load.failed_jobs, load.charged_millis) == (1, 1, PRICE_MILLIS)
    assert (load.waiting, load.running) == (0, 0)


async def test_many_jobs_at_once_all_end_with_one_charge_each(house: JobsHouse) -> None:
    created = await asyncio.gather(*(house.create(f"k{n}") for n in range(300)))
    for job in created:
        await house.ended(job.job_id, within_s=40)
    assert set(house.billing.captures.values()) == {1}
    assert len(house.billing.captures) == 300
    assert not await house.store.load_drift()


# ---- who sees what ----


async def test_another_customers_and_another_modes_job_is_not_found(house: JobsHouse) -> None:
    job = await house.create("k1")
    strangers = [("cus_b", jobs.MODE_TEST), ("cus_a", jobs.MODE_LIVE)]
    for customer, mode in strangers:
        request = jobs.GetJobRequest(job_id=job.job_id, customer_id=customer, mode=mode)
        with pytest.raises(ServiceError) as refusal:
            await house.stub.GetJob(request)
        assert refusal.value.reason == "JOB_NOT_FOUND"


async def test_an_admitting_job_is_not_visible(house: JobsHouse) -> None:
    house.billing.delay_s["Hold"] = 0.3
    request = asyncio.create_task(house.create("k1"))
    await asyncio.sleep(0.15)
    [job_id] = house.engine._intake.busy()
    with pytest.raises(ServiceError) as refusal:
        await house.get(job_id)
    assert refusal.value.reason == "JOB_NOT_FOUND"
    assert not (await house.stub.ListJobs(jobs.ListJobsRequest())).jobs
    assert (await request).job_id == job_id


async def test_listing_pages_newest_first_and_filters(house: JobsHouse) -> None:
    made = [(await house.create(f"k{n}", customer=f"cus_{n % 2}")).job_id for n in range(6)]
    first = await house.stub.ListJobs(jobs.ListJobsRequest(customer_id="cus_0", limit=2))
    assert [job.job_id for job in first.jobs] == [made[4], made[2]]
    rest = await house.stub.ListJobs(jobs.ListJobsRequest(customer_id="cus_0", before_job_id=made[2]))
    assert [job.job_id for job in rest.jobs] == [made[0]]
    picked = await house.stub.ListJobs(jobs.ListJobsRequest(job_ids=[made[1], made[0]]))
    assert [job.job_id for job in picked.jobs] == [made[1], made[0]]


# ---- synchronised reads ----


async def test_simultaneous_synchronising_readers_share_one_question(tmp_path: Path) -> None:
    calm = replace(FAST, poll_interval_s=30.0)
    async with JobsHouse(sqlite_url(tmp_path), timing=calm) as house:
        job = await house.create("k1", prompt="slow")
        await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
        house.pool.delay_s["Poll"] = 0.1
        await asyncio.sleep(calm.sync_interval_s)
        await asyncio.gather(*(house.get(job.job_id, sync=True) for _ in range(50)))
        assert house.pool.calls["Poll"] == 1


async def test_a_synchronised_read_shows_the_end_once_the_last_answer_is_old_enough(tmp_path: Path) -> None:
    calm = replace(FAST, poll_interval_s=30.0)
    async with JobsHouse(sqlite_url(tmp_path), timing=calm) as house:
        job = await house.create("k1", prompt="slow")
        await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
        await house.pool.finish(job.job_id)
        assert (await house.get(job.job_id, sync=True)).state == jobs.JOB_STATE_RUNNING
        await asyncio.sleep(calm.sync_interval_s)
        assert (await house.get(job.job_id, sync=True)).state == jobs.JOB_STATE_COMPLETED


async def test_a_silent_provider_is_covered_by_a_young_answer_and_then_admitted(tmp_path: Path) -> None:
    calm = replace(FAST, poll_interval_s=30.0, sync_interval_s=0.05, stale_after_s=1.0)
    async with JobsHouse(sqlite_url(tmp_path), timing=calm) as house:
        job = await house.create("k1", prompt="slow")
        await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
        house.pool.before["Poll"] = unavailable()
        await asyncio.sleep(0.1)
        assert (await house.get(job.job_id, sync=True)).state == jobs.JOB_STATE_RUNNING
        await asyncio.sleep(1.1)
        with pytest.raises(ServiceError) as refusal:
            await house.get(job.job_id, sync=True)
        assert (refusal.value.kind, refusal.value.reason) == (Kind.UNAVAILABLE, "STATUS_UNAVAILABLE")


# ---- what may go wrong at the provider ----


async def test_a_failing_account_is_avoided_by_the_next_attempt(house: JobsHouse) -> None:
    job = await house.ended((await house.create("k1", prompt="rotate")).job_id)
    assert (job.state, job.attempts) == (jobs.JOB_STATE_COMPLETED, 2)
    assert house.pool.avoided == [(), ("acc_1",)]
    await house.all_returned()


async def test_a_job_that_fails_everywhere_is_refunded_after_four_attempts(house: JobsHouse) -> None:
    job = await house.ended((await house.create("k1", prompt="hopeless")).job_id)
    assert (job.state, job.attempts) == (jobs.JOB_STATE_FAILED, 4)
    assert (job.failure, job.refunded_millis) == (jobs.FAILURE_REASON_PROVIDER_UNAVAILABLE, PRICE_MILLIS)
    assert set(house.pool.submits.values()) == {1}
    await house.all_returned()


async def test_refused_content_is_never_taken_elsewhere(house: JobsHouse) -> None:
    job = await house.ended((await house.create("k1", prompt="refused")).job_id)
    assert (job.failure, job.attempts) == (jobs.FAILURE_REASON_CONTENT_REFUSED, 1)
    assert (job.charged_millis, job.refunded_millis) == (0, PRICE_MILLIS)


async def test_a_doubtful_submission_that_is_found_completes_without_a_second_one(house: JobsHouse) -> None:
    job = await house.ended((await house.create("k1", prompt="lost")).job_id)
    assert job.state == jobs.JOB_STATE_COMPLETED
    assert jobs.JOB_STATE_UNKNOWN in await house.states(job.job_id)
    assert house.pool.submits == {f"{job.job_id}:1": 1}


async def test_a_doubtful_submission_that_is_never_found_is_refunded(house: JobsHouse) -> None:
    job = await house.ended((await house.create("k1", prompt="abandoned")).job_id)
    assert (job.failure, job.refunded_millis) == (jobs.FAILURE_REASON_SUBMISSION_UNKNOWN, PRICE_MILLIS)
    assert house.pool.submits == {f"{job.job_id}:1": 1}


async def test_a_submission_whose_answer_was_lost_is_asked_for_again_under_its_key(house: JobsHouse) -> None:
    house.pool.after["Submit"] = unavailable()
    job = await house.create("k1")
    await asyncio.sleep(0.5)
    house.pool.after.clear()
    assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED
    assert house.pool.calls["Submit"] > 1
    assert house.pool.submits == {f"{job.job_id}:1": 1}


# ---- deadlines ----


async def test_a_job_that_waits_too_long_fails_and_is_refunded(tmp_path: Path) -> None:
    hasty = replace(FAST, queue_deadline_s=0.5)
    async with JobsHouse(sqlite_url(tmp_path), slots=0, timing=hasty) as house:
        created = await house.create("k1")
        assert created.state == jobs.JOB_STATE_QUEUED
        job = await house.ended(created.job_id)
        assert (job.failure, job.refunded_millis) == (jobs.FAILURE_REASON_TIMED_OUT, PRICE_MILLIS)
        assert house.billing.open_holds() == []


async def test_a_job_that_runs_too_long_fails_and_its_slot_is_given_back(tmp_path: Path) -> None:
    hasty = replace(FAST, image_deadline_s=0.4)
    async with JobsHouse(sqlite_url(tmp_path), timing=hasty) as house:
        job = await house.ended((await house.create("k1", prompt="slow")).job_id)
        assert (job.failure, job.refunded_millis) == (jobs.FAILURE_REASON_TIMED_OUT, PRICE_MILLIS)
        await house.all_returned()


# ---- others that are away ----


async def test_settling_waits_for_billing_and_charges_once(house: JobsHouse) -> None:
    house.billing.after["Capture"] = unavailable()
    job = await house.create("k1")
    await house.until_state(job.job_id, jobs.JOB_STATE_SETTLING)
    await asyncio.sleep(0.5)
    assert (await house.get(job.job_id)).state == jobs.JOB_STATE_SETTLING
    house.billing.after.clear()
    assert (await house.ended(job.job_id)).charged_millis == PRICE_MILLIS
    assert house.billing.captures == {job.job_id: 1}


async def test_a_charge_that_could_not_be_made_any_more_still_completes_the_job(house: JobsHouse) -> None:
    job = await house.create("k1", prompt="slow")
    house.billing.expired.add(job.job_id)
    await house.pool.finish(job.job_id)
    ended = await house.ended(job.job_id)
    assert (ended.state, ended.charged_millis) == (jobs.JOB_STATE_COMPLETED, 0)


async def test_a_pool_that_restarts_is_polled_again_and_told_of_the_end(house: JobsHouse) -> None:
    job = await house.create("k1", prompt="slow")
    await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
    for method in ("Poll", "ReleaseLease"):
        house.pool.before[method] = unavailable()
    await asyncio.sleep(0.4)
    await house.pool.finish(job.job_id)
    del house.pool.before["Poll"]
    assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED
    assert house.pool.leases
    del house.pool.before["ReleaseLease"]
    await house.all_returned()


# ---- waiting ----


async def test_queued_jobs_start_as_slots_open(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path), slots=0) as house:
        waiting = [await house.create(f"k{n}") for n in range(5)]
        await house.pool.open_slots(2)
        for job in waiting:
            assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED
        assert house.pool.order == [job.job_id for job in waiting]


async def test_five_thousand_jobs_of_one_delay_the_single_job_of_another_by_one(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path), slots=0) as house:
        for start in range(0, 5000, 500):
            await asyncio.gather(*(house.create(f"a{start + n}") for n in range(500)))
        await house.create("b", customer="cus_b")
        await house.pool.open_slots(1)
        async with asyncio.timeout(20):
            while len(house.pool.order) < 4:
                await asyncio.sleep(0.01)
        customers = [(await house.store.jobs([i]))[i].customer_id for i in house.pool.order[:3]]
        assert "cus_b" in customers[:2]


async def test_a_customer_at_its_limit_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path), slots=0) as house:
        mine = [await house.create(f"a{n}", prompt="slow", running=1) for n in range(3)]
        other = await house.create("b", customer="cus_b")
        await house.pool.open_slots(10)
        await house.ended(other.job_id, customer="cus_b")
        assert len(house.pool.leases) <= 2
        for job in mine:
            await house.pool.finish(job.job_id)
        for job in mine:
            await house.ended(job.job_id)


# ---- leftovers ----


async def test_reconciliation_gives_back_what_no_job_will_come_back_for(house: JobsHouse) -> None:
    kept = await house.create("kept", prompt="slow")
    await house.billing.Hold(
        billing.HoldRequest(job_id="job_gone", customer_id="cus_a", mode=billing.MODE_TEST, quantity=1), None
    )
    await house.pool.Lease(pool.LeaseRequest(attempt_id="job_gone:1", job_id="job_gone"), None)
    await asyncio.sleep(0.3)
    found = await house.engine.reconciler.reconcile()
    assert (found["hold_without_job"], found["lease_without_job"]) == (1, 1)
    assert house.billing.open_holds() == [kept.job_id]
    assert list(house.pool.leases) == [f"{kept.job_id}:1"]


async def test_reconciliation_charges_the_open_hold_of_a_completed_job(house: JobsHouse) -> None:
    job = await house.ended((await house.create("k1")).job_id)
    house.billing.holds[job.job_id].state = 1
    await asyncio.sleep(0.3)
    found = await house.engine.reconciler.reconcile()
    assert found["hold_of_ended_job"] == 1
    assert house.billing.open_holds() == []
    assert house.billing.holds[job.job_id].captured_millis == PRICE_MILLIS


async def test_renewal_extends_the_holds_and_leases_of_all_that_live(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path), slots=1, timing=replace(FAST, renewal_s=0.2)) as house:
        await house.create("k1", prompt="slow")
        await house.create("k2")
        await asyncio.sleep(0.5)
        assert house.billing.calls["ExtendHolds"] >= 1
        assert house.pool.calls["RenewLeases"] >= 1


async def test_nothing_is_lost_when_every_answer_may_be(house: JobsHouse) -> None:
    chance = random.Random(7)
    methods: list[tuple[FakeBilling | FakePool, str]] = [
        (house.billing, "Hold"),
        (house.billing, "Capture"),
        (house.billing, "Release"),
    ]
    methods += [(house.pool, name) for name in ("Lease", "Submit", "Poll", "Collect", "ReleaseLease")]
    stop = asyncio.Event()

    async def disturb() -> None:
        while not stop.is_set():
            fake, method = chance.choice(methods)
            where = chance.choice([fake.before, fake.after])
            where[method] = unavailable()
            await asyncio.sleep(0.02)
            where.clear()

    disturber = asyncio.create_task(disturb())
    made = await asyncio.gather(
        *(
            house.create(f"k{n}", prompt=chance.choice(["a cat", "rotate", "refused", "lost"]))
            for n in range(80)
        ),
        return_exceptions=True,
    )
    await asyncio.sleep(1)
    stop.set()
    await disturber
    accepted = [job for job in made if isinstance(job, jobs.Job)]
    assert accepted
    for job in accepted:
        await house.ended(job.job_id, within_s=40)
    await house.all_returned(within_s=20)
    listed = (await house.stub.ListJobs(jobs.ListJobsRequest(limit=1000))).jobs
    assert {job.job_id for job in listed} == {job.job_id for job in accepted}
    completed = {job.job_id for job in listed if job.state == jobs.JOB_STATE_COMPLETED}
    assert set(house.billing.captures) == completed
    assert set(house.pool.submits.values()) == {1}
    assert not await house.store.load_drift()
