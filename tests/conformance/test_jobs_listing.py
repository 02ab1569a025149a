"""Lists of jobs, on each engine: what is in them, in which order, and that filters agree with counts."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from services.jobs import job as rules
from services.jobs.job import Job, JobState, Kind, Stage
from services.jobs.store import JobFilter, JobStore, Wish
from tests.conformance.jobs_shelf import ended, opened_store, queued, running
from tests.jobs_rows import NOW_MS, a_job

_ENDS = (None, JobState.COMPLETED, JobState.FAILED, JobState.CANCELED)
_MINE = JobFilter(customer_id="cus_a", mode="test")


@pytest.fixture
async def store(engine_url: str) -> AsyncIterator[JobStore]:
    async with opened_store(engine_url) as opened:
        yield opened


async def a_history(store: JobStore) -> list[Job]:
    """Jobs of cus_a in test mode, newest first: every end with every kind of two and with and without a project."""
    found: list[Job] = []
    several = itertools.product(_ENDS, (Kind.IMAGE, Kind.MUSIC), ("", "mine"), range(2))
    for n, (end, kind, project, _) in enumerate(several):
        made = {
            "generation": replace(a_job().generation, kind=kind),
            "project_id": project,
            # Two jobs of each moment: their ids decide.
            "created_at_ms": NOW_MS + n // 2,
        }
        job = await queued(store, f"job_{n:03}", **made)
        if end is None and n % 2:
            job = await running_on(store, job)
        found.append(job if end is None else await ended(store, job, end))
    deleted = await queued(store, "job_gone", project_id="mine")
    await store.wish(Wish(deleted.job_id, "cus_a", "test", True, NOW_MS))
    await queued(store, "job_theirs", customer_id="cus_b")
    await running(store, "job_live", mode="live", admission_key="live")
    await store.admit(a_job("job_admitting"), 1000)
    return sorted(found, key=lambda job: (job.created_at_ms, job.job_id), reverse=True)


async def running_on(store: JobStore, job: Job) -> Job:
    job = await store.commit(job, rules.leased(job, "acc_1", 1000, NOW_MS))
    job = await store.commit(job, rules.moved(job, JobState.SUBMITTING, NOW_MS))
    return await store.commit(job, rules.moved(job, JobState.RUNNING, NOW_MS))


def matching(history: list[Job], wanted: JobFilter) -> list[Job]:
    return [
        job
        for job in history
        if (not wanted.stages or job.stage in wanted.stages)
        and wanted.kind in (None, job.generation.kind)
        and wanted.project_id in ("", job.project_id)
        and wanted.state in (None, job.state)
    ]


async def test_every_filter_lists_and_counts_what_matches_page_by_page(store: JobStore) -> None:
    history = await a_history(store)
    stage_sets = (
        frozenset[Stage](),
        {Stage.WAITING},
        {Stage.AT_PROVIDER, Stage.ENDED_BADLY},
        {Stage.ENDED_WELL},
    )
    several = itertools.product(stage_sets, (None, Kind.IMAGE, Kind.VOICE), ("", "mine", "none"))
    for stages, kind, project in several:
        wanted = JobFilter("cus_a", "test", stages=frozenset(stages), kind=kind, project_id=project, limit=3)
        expected = matching(history, wanted)
        assert await store.count_jobs(wanted) == len(expected)
        listed: list[Job] = []
        while page := await store.list_jobs(
            JobFilter("cus_a", "test", None, (), "", 3, wanted.stages, kind, project, len(listed))
        ):
            listed += page
        assert listed == expected


async def test_a_list_goes_on_after_its_last_job(store: JobStore) -> None:
    history = await a_history(store)
    listed: list[Job] = []
    before = ""
    while page := await store.list_jobs(JobFilter("cus_a", "test", before_job_id=before, limit=5)):
        listed += page
        before = page[-1].job_id
    assert listed == history


async def test_a_cursor_that_is_no_job_of_the_customer_s_leads_nowhere(store: JobStore) -> None:
    await a_history(store)
    for cursor in ("job_none", "job_theirs"):
        assert await store.list_jobs(JobFilter("cus_a", "test", before_job_id=cursor)) == []


async def test_a_state_restricts_like_a_stage(store: JobStore) -> None:
    history = await a_history(store)
    for state in (JobState.RUNNING, JobState.CANCELED):
        wanted = JobFilter("cus_a", "test", state)
        assert await store.list_jobs(wanted) == matching(history, wanted)
        assert await store.count_jobs(wanted) == len(matching(history, wanted))


async def test_both_modes_and_all_customers_can_be_listed(store: JobStore) -> None:
    history = await a_history(store)
    mine = await store.list_jobs(JobFilter("cus_a"))
    assert {job.job_id for job in mine} == {job.job_id for job in history} | {"job_live"}
    everybody = await store.list_jobs(JobFilter())
    assert {job.job_id for job in everybody} == {job.job_id for job in mine} | {"job_theirs"}
    assert await store.count_jobs(JobFilter()) == len(everybody)


async def test_an_empty_history_is_an_empty_list(store: JobStore) -> None:
    assert await store.list_jobs(_MINE) == []
    assert await store.count_jobs(_MINE) == 0
