"""What the jobs' store promises, on each engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from msgspec.structs import replace

from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.chassis.schema_migration import migrate, schema_drift
from services.jobs import job as rules
from services.jobs.errors import LeaseLostError
from services.jobs.job import FailureReason, Job, JobState, Output
from services.jobs.reference import Reference, ReferenceLimits, Role, Strength
from services.jobs.schema import CUSTOMER_LOAD, JOBS, METADATA
from services.jobs.settings import MIGRATIONS
from services.jobs.store import JobFilter, JobStore, Load, rows
from tests.jobs_rows import NOW_MS, a_job

OUTPUT = Output(1, "job_1/0.png", "image/png", 10, "00", 64, 64, 0)
EMPTY = Load()


@pytest.fixture
async def store(engine_url: str) -> AsyncIterator[JobStore]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="jobs")
    opened = JobStore(database)
    await opened.register("w1", "here")
    yield opened
    await opened.close()
    await database.close()


async def load_of(store: JobStore, customer_id: str = "cus_a") -> Load:
    return (await store.loads([(customer_id, "test")]))[(customer_id, "test")]


async def queued(store: JobStore, job_id: str = "job_1", **given: object) -> Job:
    job, _ = await store.admit(a_job(job_id, **given), 1000)
    return await store.commit(job, rules.moved(job, JobState.QUEUED, NOW_MS, quoted_millis=500))


async def settled(store: JobStore, job_id: str = "job_1") -> Job:
    """A job that has been driven to its end."""
    job = await queued(store, job_id)
    for state in (JobState.SUBMITTING, JobState.RUNNING, JobState.COLLECTING):
        if job.state is JobState.QUEUED:
            job = await store.commit(job, rules.leased(job, "acc_1", 1000, NOW_MS))
        job = await store.commit(job, rules.moved(job, state, NOW_MS))
    job = await store.commit(job, rules.succeeding(job, (OUTPUT,), 1000, NOW_MS))
    return await store.commit(job, rules.released(rules.finished(job, 500, NOW_MS)))


async def test_the_migrations_lead_to_the_declared_tables(engine_url: str) -> None:
    await migrate(engine_url, MIGRATIONS)
    assert await schema_drift(engine_url, MIGRATIONS, METADATA) == []


async def test_a_job_reads_back_as_it_was_written(store: JobStore) -> None:
    job, _ = await store.admit(a_job(), 10)
    assert await store.job("job_1") == job == a_job()
    after = rules.moved(job, JobState.QUEUED, NOW_MS, quoted_millis=2**40, avoid_account_ids=("a", "b"))
    await store.commit(job, after)
    assert (await store.jobs(["job_1", "job_2"])) == {"job_1": after}


async def test_a_jobs_references_read_back_as_they_were_written(store: JobStore) -> None:
    following = replace(
        a_job().generation,
        references=(
            Reference(Role.IMAGE, Strength.HIGH, url='https://example.com/a?b="c"'),
            Reference(Role.IMAGE, Strength.LOW, reference_id="ref_1"),
        ),
        reference_limits=ReferenceLimits(("png", "jpeg"), 2**40, 9, first_frame_of_animations=True),
    )
    job = a_job(generation=following)
    await store.admit(job, 10)
    assert await store.job("job_1") == job
    assert following.reference_ids == ("ref_1",)


async def test_a_job_from_before_there_were_references_reads_back_without_any(store: JobStore) -> None:
    job, _ = await store.admit(a_job(), 10)
    written = msgspec.json.decode(rows.all_columns(job)["generation"])
    before = {name: value for name, value in written.items() if not name.startswith("reference")}
    assert before != written
    old = JOBS.update().values(generation=msgspec.json.encode(before).decode())
    await store._database.write(lambda connection: connection.execute(old))
    assert await store.job("job_1") == job


async def test_an_ended_job_reads_back_with_its_outputs(store: JobStore) -> None:
    end = await settled(store)
    assert await store.job("job_1") == end
    assert (end.outputs, end.charged_millis, end.owner) == ((OUTPUT,), 500, None)


# ---- admission ----


async def test_one_of_many_simultaneous_admissions_of_a_key_wins(store: JobStore) -> None:
    key = "cus_a test same"
    jobs = [a_job(f"job_{n}", admission_key=key) for n in range(100)]
    found = await asyncio.gather(*(store.admit(job, 1000) for job in jobs))
    assert len({admitted.job.job_id for admitted in found}) == 1
    assert (await load_of(store)).waiting == 1


async def test_repeating_an_admission_answers_the_same_row(store: JobStore) -> None:
    first = await store.admit(a_job(), 10)
    assert await store.admit(a_job(), 10) == first
    assert (await load_of(store)).waiting == 1


async def test_admissions_of_one_batch_do_not_pass_the_limit(store: JobStore) -> None:
    results = await asyncio.gather(
        *(store.admit(a_job(f"job_{n}"), 3) for n in range(10)), return_exceptions=True
    )
    refusals = [result for result in results if isinstance(result, ServiceError)]
    assert len(refusals) == 7
    assert {(error.reason, error.metadata["limit"]) for error in refusals} == {("QUEUE_FULL", "3")}
    assert (await load_of(store)).waiting == 3


async def test_running_jobs_at_the_limit_refuse_another(store: JobStore) -> None:
    job = await queued(store)
    await store.commit(job, rules.leased(job, "acc_1", 1000, NOW_MS))
    with pytest.raises(ServiceError) as refusal:
        await store.admit(a_job("job_2", running_limit=1), 10)
    assert refusal.value.reason == "CONCURRENCY_LIMITED"


async def test_a_replay_is_answered_even_beyond_the_limits(store: JobStore) -> None:
    job = await queued(store)
    assert (await store.admit(a_job("job_9", admission_key=job.admission_key), 0)).job.job_id == "job_1"


async def test_a_worker_that_was_declared_dead_admits_nothing(store: JobStore) -> None:
    with pytest.raises(ServiceError) as refusal:
        await store.admit(a_job(owner="w9"), 10)
    assert refusal.value.reason == "UNAVAILABLE"
    assert await store.job("job_1") is None


async def test_a_removed_admission_leaves_nothing_and_frees_the_key(store: JobStore) -> None:
    job, _ = await store.admit(a_job(), 10)
    await store.remove(job)
    await store.remove(job)
    assert await store.job("job_1") is None
    assert await store.list_events("job_1") == []
    assert await load_of(store) == EMPTY
    again, _ = await store.admit(a_job("job_2", admission_key=job.admission_key), 10)
    assert again.job_id == "job_2"


# ---- transitions ----


async def test_the_whole_road_counts_load_and_usage(store: JobStore) -> None:
    await settled(store)
    assert await load_of(store) == Load(completed_jobs=1, charged_millis=500)
    job = await queued(store, "job_2")
    assert (await load_of(store)).waiting == 1
    failing = await store.commit(job, rules.failing(job, FailureReason.TIMED_OUT, "", NOW_MS))
    assert (await load_of(store)).running == 1
    await store.commit(failing, rules.released(rules.finished(failing, 0, NOW_MS)))
    assert await load_of(store) == Load(completed_jobs=1, failed_jobs=1, charged_millis=500)
    assert await store.load_drift() == {}


async def test_events_are_numbered_without_gaps(store: JobStore) -> None:
    await settled(store)
    events = await store.list_events("job_1")
    assert [event.sequence for event in events] == list(range(1, 9))
    assert events[0].state is JobState.ADMITTING
    assert events[-1].state is JobState.COMPLETED
    assert {event.worker_id for event in events} == {"w1"}


async def test_a_commit_whose_answer_was_lost_may_be_repeated_without_effect(store: JobStore) -> None:
    job = await queued(store)
    after = rules.leased(job, "acc_1", 1000, NOW_MS)
    await store.commit(job, after)
    await store.commit(job, after)
    assert await load_of(store) == Load(running=1)
    assert len(await store.list_events("job_1")) == 3


@pytest.mark.parametrize("stale", ["owner", "epoch", "version"])
async def test_a_commit_under_a_stale_fence_changes_nothing(store: JobStore, stale: str) -> None:
    job = await queued(store)
    believed = {
        "owner": replace(job, owner="w2"),
        "epoch": replace(job, epoch=7),
        "version": replace(job, version=9),
    }[stale]
    with pytest.raises(LeaseLostError):
        await store.commit(believed, rules.leased(believed, "acc_1", 1000, NOW_MS))
    assert await store.job("job_1") == job
    assert await load_of(store) == Load(waiting=1)


async def test_one_stale_commit_does_not_fail_its_neighbours(store: JobStore) -> None:
    jobs = [await queued(store, f"job_{n}") for n in range(20)]
    jobs[7] = replace(jobs[7], epoch=9)
    results = await asyncio.gather(
        *(store.commit(job, rules.leased(job, "acc_1", 1000, NOW_MS)) for job in jobs), return_exceptions=True
    )
    assert [isinstance(result, LeaseLostError) for result in results] == [n == 7 for n in range(20)]


# ---- ownership ----


async def test_a_dead_workers_jobs_are_freed_and_claimed_under_a_higher_epoch(store: JobStore) -> None:
    job = await queued(store)
    await asyncio.sleep(0.05)
    await store.register("w2", "there")
    assert await store.reap(40) == ["w1"]
    assert not await store.beat("w1")
    [claimed] = await store.claim("w2", 10, NOW_MS)
    assert (claimed.owner, claimed.epoch) == ("w2", job.epoch + 1)
    with pytest.raises(LeaseLostError):
        await store.commit(job, rules.leased(job, "acc_1", 1000, NOW_MS))


async def test_a_worker_that_beats_is_not_reaped(store: JobStore) -> None:
    await asyncio.sleep(0.05)
    assert await store.beat("w1")
    assert await store.reap(40) == []


async def test_nobody_claims_what_is_owned_parked_or_ended(store: JobStore) -> None:
    await queued(store, "job_owned")
    await settled(store, "job_ended")
    job = await queued(store, "job_parked")
    later = replace(rules.touched(job, NOW_MS, run_at_ms=NOW_MS + 1000), owner=None)
    await store.commit(job, later)
    await store.register("w2", "there")
    assert await store.claim("w2", 10, NOW_MS) == []
    assert [job.job_id for job in await store.claim("w2", 10, NOW_MS + 1000)] == ["job_parked"]


async def test_a_worker_without_a_row_claims_nothing(store: JobStore) -> None:
    await queued(store)
    await store.hand_over("w1")
    assert await store.claim("w1", 10, NOW_MS) == []
    await store.register("w2", "there")
    assert len(await store.claim("w2", 10, NOW_MS)) == 1


async def test_claimers_at_the_same_time_share_the_jobs_out(store: JobStore) -> None:
    for n in range(30):
        await queued(store, f"job_{n:02}")
    await store.hand_over("w1")
    workers = [f"w{n}" for n in range(2, 8)]
    for worker in workers:
        await store.register(worker, "there")
    claimed = await asyncio.gather(*(store.claim(worker, 10, NOW_MS) for worker in workers))
    ids = [job.job_id for jobs in claimed for job in jobs]
    assert len(ids) == len(set(ids))
    rest = await store.claim("w2", 100, NOW_MS)
    assert len(ids) + len(rest) == 30


async def test_claims_without_a_step_done_are_counted_but_not_those_of_waiting_jobs(store: JobStore) -> None:
    job = await queued(store, "job_leased")
    await store.commit(job, rules.leased(job, "acc_1", 1000, NOW_MS))
    await queued(store, "job_queued")
    for worker in ("w2", "w3"):
        await store.register(worker, "there")
        await store.take_over(worker)
        await store.claim(worker, 10, NOW_MS)
    found = await store.jobs(["job_leased", "job_queued"])
    assert found["job_leased"].idle_claims == 2
    assert found["job_queued"].idle_claims == 0


async def test_orphans_are_freed(store: JobStore) -> None:
    job = await queued(store)
    await store.commit(job, replace(rules.touched(job, NOW_MS), owner="nobody"))
    assert await store.free_orphans() == 1
    assert len(await store.claim("w1", 10, NOW_MS)) == 1


# ---- reads ----


async def test_lists_leave_out_what_is_not_accepted(store: JobStore) -> None:
    await store.admit(a_job("job_2"), 10)
    job = await queued(store)
    assert await store.list_jobs(JobFilter()) == [job]
    assert await store.list_jobs(JobFilter(state=JobState.RUNNING)) == []
    assert await store.list_jobs(JobFilter(mode="live")) == []


async def test_drifted_counters_are_found_and_mended(store: JobStore) -> None:
    await queued(store)
    await store._database.write(
        lambda connection: connection.execute(CUSTOMER_LOAD.update().values(waiting=7))
    )
    assert list(await store.load_drift()) == [("cus_a", "test")]
    await store.mend_loads([("cus_a", "test")])
    assert await store.load_drift() == {}
    assert (await load_of(store)).waiting == 1
