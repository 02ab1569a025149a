"""A jobs' store on one engine, and jobs in every state that history can leave them in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.chassis.database import Database
from services.chassis.schema_migration import migrate
from services.jobs import job as rules
from services.jobs.job import FailureReason, Job, JobState
from services.jobs.settings import MIGRATIONS
from services.jobs.store import JobStore
from tests.jobs_rows import NOW_MS, a_job


@asynccontextmanager
async def opened_store(engine_url: str) -> AsyncIterator[JobStore]:
    """A migrated store with one worker, w1."""
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="jobs")
    opened = JobStore(database)
    await opened.register("w1", "here")
    yield opened
    await opened.close()
    await database.close()


async def queued(store: JobStore, job_id: str = "job_1", **given: object) -> Job:
    """A job that was accepted, with 500 millis held."""
    job, _ = await store.admit(a_job(job_id, **given), 100_000)
    return await store.commit(job, rules.moved(job, JobState.QUEUED, job.created_at_ms, quoted_millis=500))


async def running(store: JobStore, job_id: str = "job_1", **given: object) -> Job:
    job = await queued(store, job_id, **given)
    job = await store.commit(job, rules.leased(job, "acc_1", 1000, NOW_MS))
    for state in (JobState.SUBMITTING, JobState.RUNNING):
        job = await store.commit(job, rules.moved(job, state, NOW_MS))
    return job


async def ended(store: JobStore, job: Job, end: JobState, charged_millis: int = 500) -> Job:
    """The job, driven from where it is to this end."""
    if end is JobState.COMPLETED:
        if job.state is JobState.QUEUED:
            job = await store.commit(job, rules.leased(job, "acc_1", 1000, NOW_MS))
        while job.state is not JobState.COLLECTING:
            onward = {JobState.LEASED: JobState.SUBMITTING, JobState.SUBMITTING: JobState.RUNNING}
            job = await store.commit(
                job, rules.moved(job, onward.get(job.state, JobState.COLLECTING), NOW_MS)
            )
        job = await store.commit(job, rules.succeeding(job, (), 1000, NOW_MS))
    else:
        canceled = end is JobState.CANCELED
        reason = FailureReason.CANCELED if canceled else FailureReason.TIMED_OUT
        job = await store.commit(job, rules.failing(job, reason, "", NOW_MS))
        charged_millis = 0
    done = rules.released(rules.finished(job, charged_millis, NOW_MS))
    assert done.state is end
    return await store.commit(job, done)
