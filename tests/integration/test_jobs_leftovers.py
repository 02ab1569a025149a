"""What reconciliation leaves alone: everything that a job still needs, will come to, or let go of a moment ago."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.jobs_fakes import Attempt, unavailable
from tests.jobs_house import FAST, JobsHouse, sqlite_url

AGE_S = 0.4


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[JobsHouse]:
    async with JobsHouse(sqlite_url(tmp_path), timing=replace(FAST, reconcile_age_s=AGE_S)) as started:
        yield started


async def found(house: JobsHouse) -> dict[str, int]:
    return {name: n for name, n in (await house.engine.reconciler.reconcile()).items() if n}


async def grown_old() -> None:
    await asyncio.sleep(AGE_S + 0.1)


async def on_its_second_attempt(house: JobsHouse) -> str:
    job_id = (await house.create("k1", prompt="rotate slow")).job_id
    async with asyncio.timeout(10):
        while (await house.get(job_id)).attempts < 2:
            await asyncio.sleep(0.01)
    await house.until_state(job_id, jobs.JOB_STATE_RUNNING)
    return job_id


async def test_only_the_attempt_that_a_job_has_left_behind_is_closed(house: JobsHouse) -> None:
    job_id = await on_its_second_attempt(house)
    await grown_old()
    house.pool.open_attempts = {f"{job_id}:{number}": job_id for number in (1, 2, 3)}
    assert await found(house) == {"attempt_without_answer": 1}
    assert sorted(house.pool.open_attempts) == [f"{job_id}:2", f"{job_id}:3"]
    assert await found(house) == {}
    await house.pool.finish(job_id)
    assert (await house.ended(job_id)).state == jobs.JOB_STATE_COMPLETED


async def test_only_the_lease_that_a_job_has_left_behind_is_given_back(house: JobsHouse) -> None:
    job_id = await on_its_second_attempt(house)
    house.pool.leases[f"{job_id}:1"] = Attempt("acc_1")
    await grown_old()
    assert await found(house) == {"lease_without_job": 1}
    assert list(house.pool.leases) == [f"{job_id}:2"]
    await house.pool.finish(job_id)
    await house.ended(job_id)


async def test_what_a_job_let_go_of_a_moment_ago_is_on_its_way_and_not_amiss(house: JobsHouse) -> None:
    job = await house.ended((await house.create("k1")).job_id)
    attempt_id = f"{job.job_id}:1"
    long_ago_ms = 1
    house.pool.leases[attempt_id] = Attempt("acc_1", created_at_ms=long_ago_ms)
    house.pool.open_attempts[attempt_id] = job.job_id
    house.billing.holds[job.job_id].state = billing.HOLD_STATE_OPEN
    house.billing.holds[job.job_id].created_at_ms = long_ago_ms
    assert await found(house) == {}
    await grown_old()
    assert await found(house) == {
        "attempt_without_answer": 1,
        "hold_of_ended_job": 1,
        "lease_without_job": 1,
    }
    assert await found(house) == {}


async def test_a_job_that_waits_keeps_the_lease_that_it_will_ask_for_again(house: JobsHouse) -> None:
    await house.pool.open_slots(0)
    job = await house.create("k1")
    house.pool.leases[f"{job.job_id}:1"] = Attempt("acc_1", "a cat", created_at_ms=1)
    await grown_old()
    assert await found(house) == {}
    assert (await house.ended(job.job_id)).state == jobs.JOB_STATE_COMPLETED


async def test_a_job_that_waits_without_a_hold_is_counted(house: JobsHouse) -> None:
    await house.pool.open_slots(0)
    job = await house.create("k1")
    house.billing.holds[job.job_id].state = billing.HOLD_STATE_EXPIRED
    assert await found(house) == {}
    await grown_old()
    # While it is offered to the pool, now and then, it is in nobody's line.
    async with asyncio.timeout(5):
        while await found(house) != {"job_without_hold": 1}:
            await asyncio.sleep(0.02)


async def test_a_comparison_that_was_interrupted_is_made_again_soon(tmp_path: Path) -> None:
    timing = replace(FAST, reconcile_s=3600.0, retry_reconcile_s=0.1)
    house = JobsHouse(sqlite_url(tmp_path), timing=timing)
    house.pool.before["ListLeases"] = unavailable()
    house.pool.open_attempts["job_gone:1"] = "job_gone"
    async with house:
        async with asyncio.timeout(5):
            while house.pool.calls["ListLeases"] < 3:
                await asyncio.sleep(0.02)
        del house.pool.before["ListLeases"]
        async with asyncio.timeout(5):
            while house.pool.open_attempts:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        before = house.pool.calls["ListLeases"]
        await asyncio.sleep(0.5)
        assert house.pool.calls["ListLeases"] == before
