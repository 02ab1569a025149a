"""Thousands of running jobs are a few calls and no writes; and whatever a poll brings, each job gets its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.jobs import runner
from services.jobs.answers import AttemptStatus
from services.jobs.steps import Outcome, View, after_poll
from tests.jobs_house import JobsHouse, sqlite_url


async def test_polls_of_many_jobs_travel_together_and_write_nothing(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path)) as house:
        made = await asyncio.gather(*(house.create(f"k{n}", prompt="slow") for n in range(100)))
        job_ids = [job.job_id for job in made]
        for job_id in job_ids:
            await house.until_state(job_id, jobs.JOB_STATE_RUNNING)
        async with asyncio.timeout(20):
            while any(job.progress < 90 for job in (await house.store.jobs(job_ids)).values()):
                await asyncio.sleep(0.1)
        before = {job.job_id: job.version for job in (await house.store.jobs(job_ids)).values()}
        polls, calls = house.pool.calls["Poll"], house.pool.calls["PollMany"]
        async with asyncio.timeout(20):
            while house.pool.calls["Poll"] < polls + 500:
                await asyncio.sleep(0.05)
        assert (house.pool.calls["PollMany"] - calls) * 3 < house.pool.calls["Poll"] - polls
        assert {job.job_id: job.version for job in (await house.store.jobs(job_ids)).values()} == before


async def test_of_jobs_polled_together_each_goes_its_own_way(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path)) as house:
        prompts = {"well": "a cat", "refused": "refused", "slow": "slow", "again": "retry"}
        made = {name: await house.create(name, prompt=prompt) for name, prompt in prompts.items()}
        # The pool forgets the attempt of one of them.
        lost = await house.create("lost", prompt="slow")
        await house.until_state(lost.job_id, jobs.JOB_STATE_RUNNING)
        del house.pool.leases[f"{lost.job_id}:1"]
        assert (await house.ended(made["well"].job_id)).state == jobs.JOB_STATE_COMPLETED
        refused = await house.ended(made["refused"].job_id)
        assert refused.failure == jobs.FAILURE_REASON_CONTENT_REFUSED
        assert (await house.ended(lost.job_id)).state == jobs.JOB_STATE_FAILED
        assert (await house.get(made["slow"].job_id)).state == jobs.JOB_STATE_RUNNING
        await house.pool.finish(made["slow"].job_id)
        for name in ("slow", "again"):
            assert (await house.ended(made[name].job_id)).state == jobs.JOB_STATE_COMPLETED


async def test_an_answer_that_meets_a_bug_costs_neither_its_job_nor_those_asked_about_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with JobsHouse(sqlite_url(tmp_path)) as house:
        made = await asyncio.gather(*(house.create(f"k{n}", prompt="slow") for n in range(8)))
        for job in made:
            await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
        met: set[str] = set()

        def stumbles_once(view: View, status: AttemptStatus, answered_at_ms: int) -> Outcome:
            if view.job.job_id not in met:
                met.add(view.job.job_id)
                raise RuntimeError("a bug")
            return after_poll(view, status, answered_at_ms)

        monkeypatch.setattr(runner, "after_poll", stumbles_once)
        await house.pool.finish(*(job.job_id for job in made))
        for job in made:
            assert (await house.ended(job.job_id, within_s=5)).state == jobs.JOB_STATE_COMPLETED


async def test_a_hint_ends_a_job_long_before_its_next_poll(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path)) as house:
        house.pool.poll_after_ms = 50_000
        job = await house.create("k1", prompt="slow")
        await house.until_state(job.job_id, jobs.JOB_STATE_RUNNING)
        polls = house.pool.calls["Poll"]
        await house.pool.finish(job.job_id)
        # Of a job of somebody else's, and of an attempt that this job has left behind: neither is asked about.
        for named in ("job_of_another:1", f"{job.job_id}:0"):
            house.pool.hints.put_nowait(named)
        await asyncio.sleep(0.3)
        assert house.pool.calls["Poll"] == polls
        house.pool.hints.put_nowait(f"{job.job_id}:1")
        assert (await house.ended(job.job_id, within_s=5)).state == jobs.JOB_STATE_COMPLETED


async def test_a_hint_has_a_job_in_doubt_looked_for_at_once(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path)) as house:
        house.pool.resolve_after_ms = 50_000
        job = await house.create("k1", prompt="lost")
        await house.until_state(job.job_id, jobs.JOB_STATE_UNKNOWN)
        async with asyncio.timeout(10):
            while (await house.get(job.job_id)).state != jobs.JOB_STATE_COMPLETED:
                house.pool.hints.put_nowait(f"{job.job_id}:1")
                await asyncio.sleep(0.1)
