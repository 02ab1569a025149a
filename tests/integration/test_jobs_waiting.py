"""Queued jobs are offered for as long as they wait: no missed word, no neighbour and no retry holds them up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.jobs.store import Customer, Load
from tests.jobs_fakes import unavailable
from tests.jobs_house import FAST, JobsHouse, sqlite_url


async def until(condition: Callable[[], object], within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_jobs_that_keep_arriving_do_not_hide_that_an_announcement_was_wasted(tmp_path: Path) -> None:
    async with JobsHouse(sqlite_url(tmp_path), slots=0) as house:
        await house.create("first")
        house.pool.before["Lease"] = unavailable()
        asked = house.pool.calls["Lease"]
        await house.pool.open_slots(10)
        await until(lambda: house.pool.calls["Lease"] > asked)
        house.pool.before.clear()
        for n in range(20):
            await house.create(f"k{n}")
            await asyncio.sleep(FAST.dispatch_s / 4)
        assert house.pool.order


async def test_a_job_tried_again_waits_while_its_customer_has_as_much_running_as_it_may(
    tmp_path: Path,
) -> None:
    async with JobsHouse(sqlite_url(tmp_path)) as house:
        again = await house.create("again", prompt="retry slow", running=1)
        await house.until_state(again.job_id, jobs.JOB_STATE_QUEUED)
        other = await house.create("other", prompt="slow", running=1)
        await house.until_state(other.job_id, jobs.JOB_STATE_RUNNING)
        await asyncio.sleep(3.5)
        assert (await house.get(again.job_id)).state == jobs.JOB_STATE_QUEUED
        await house.pool.finish(other.job_id, again.job_id)
        assert (await house.ended(again.job_id)).state == jobs.JOB_STATE_COMPLETED


async def test_a_job_that_avoids_the_free_account_does_not_stand_before_its_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with JobsHouse(sqlite_url(tmp_path), slots=1) as house:
        lease = house.pool.grant

        async def picky(request: pool.LeaseRequest, context: object) -> pool.LeaseResponse:
            if request.avoid_account_ids:
                return pool.LeaseResponse(outcome=pool.LeaseResponse.OUTCOME_BUSY)
            return await lease(request, context)

        monkeypatch.setattr(house.pool, "grant", picky)
        stuck = await house.create("stuck", prompt="rotate")
        await house.until_state(stuck.job_id, jobs.JOB_STATE_QUEUED)
        for customer in ("cus_a", "cus_b"):
            job = await house.create("k1", customer=customer)
            assert (await house.ended(job.job_id, customer=customer)).state == jobs.JOB_STATE_COMPLETED
        assert stuck.job_id in house.engine._dispatcher.job_ids()
        monkeypatch.undo()
        assert (await house.ended(stuck.job_id)).state == jobs.JOB_STATE_COMPLETED


async def test_a_job_whose_deadline_passes_while_the_database_is_away_fails_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = replace(FAST, queue_deadline_s=0.3)
    async with JobsHouse(sqlite_url(tmp_path), slots=0, timing=hasty) as house:
        job = await house.create("k1")

        async def away(job_ids: object) -> None:
            raise unavailable()

        monkeypatch.setattr(house.store, "jobs", away)
        await asyncio.sleep(1.0)
        monkeypatch.undo()
        assert (await house.ended(job.job_id, within_s=5)).failure == jobs.FAILURE_REASON_TIMED_OUT


async def test_a_job_that_arrives_while_another_is_about_to_be_offered_counts_it_as_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with JobsHouse(sqlite_url(tmp_path), slots=0) as house:
        await house.create("waits", prompt="slow", running=1)
        loads, about_to_offer, go_on = house.store.loads, asyncio.Event(), asyncio.Event()

        async def slow(customers: Iterable[Customer]) -> dict[Customer, Load]:
            found = await loads(customers)
            about_to_offer.set()
            await go_on.wait()
            return found

        monkeypatch.setattr(house.store, "loads", slow)
        await house.pool.open_slots(2)
        await about_to_offer.wait()
        await house.create("arrives", prompt="slow", running=1)
        go_on.set()
        await asyncio.sleep(FAST.dispatch_s * 2)
        assert len(house.pool.leases) == 1
