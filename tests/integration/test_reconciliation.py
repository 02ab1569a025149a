"""Every kind of damage that reconciliation knows, made for real on both engines: found, counted, mended, and then quiet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import insert, update

from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.jobs.job import JobState, Settlement
from services.jobs.schema import CUSTOMER_LOAD, JOBS
from services.jobs.store.rows import all_columns
from tests.integration.pool_process import picture
from tests.integration.reconciled import Scene, gauge, scene
from tests.jobs_rows import a_job

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(params=["sqlite", "postgresql"], scope="module", loop_scope="module")
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    services = ("billing", "pool", "jobs")
    if request.param == "sqlite":
        urls = {name: f"sqlite:///{folder / name}.db" for name in services}
    else:
        server = request.getfixturevalue("postgres")
        urls = {name: server.create_database() for name in services}
    async with scene(folder, urls) as made:
        yield made


async def is_quiet(house: Scene) -> None:
    assert await house.found() == {}


async def ended_row(
    house: Scene, job_id: str, customer: str, settlement: Settlement, charged_millis: int
) -> None:
    """A job that has ended, with what was counted with its end."""
    state = JobState.COMPLETED if settlement is Settlement.CAPTURE else JobState.FAILED
    job = a_job(
        job_id,
        customer_id=customer,
        state=state,
        owner=None,
        updated_at_ms=1,
        ended_at_ms=1,
        settlement=settlement,
        settle_millis=charged_millis,
        charged_millis=charged_millis,
    )
    await house.change(insert(JOBS).values(**all_columns(job)))
    counters = {"waiting": 0, "running": 0, "completed_jobs": 1, "failed_jobs": 0}
    await house.change(
        insert(CUSTOMER_LOAD).values(
            customer_id=customer, mode="test", charged_millis=charged_millis, **counters
        )
    )


async def test_a_hold_without_a_job_is_released(house: Scene) -> None:
    customer = await house.customer()
    await house.hold(customer, f"job_{customer}")
    await is_quiet(house)
    await house.grown_old()
    before = gauge("atelier_jobs_reconcile_found_total", finding="hold_without_job")
    assert await house.found() == {"hold_without_job": 1}
    assert gauge("atelier_jobs_reconcile_found_total", finding="hold_without_job") == before + 1
    await is_quiet(house)
    assert [hold.state for hold in await house.holds(f"job_{customer}")] == [billing.HOLD_STATE_RELEASED]


async def test_the_open_hold_of_a_completed_job_is_charged_as_its_customer_was_told(house: Scene) -> None:
    customer = await house.customer()
    job_id = f"job_{customer}"
    held_millis = await house.hold(customer, job_id)
    await ended_row(house, job_id, customer, Settlement.CAPTURE, held_millis)
    await house.grown_old()
    assert await house.found() == {"hold_of_ended_job": 1}
    await is_quiet(house)
    (hold,) = await house.holds(job_id)
    assert (hold.state, hold.captured_millis) == (billing.HOLD_STATE_CAPTURED, held_millis)


async def test_the_open_hold_of_a_failed_job_is_released(house: Scene) -> None:
    customer = await house.customer()
    job_id = f"job_{customer}"
    await house.hold(customer, job_id)
    await ended_row(house, job_id, customer, Settlement.RELEASE, 0)
    await house.grown_old()
    assert await house.found() == {"hold_of_ended_job": 1}
    await is_quiet(house)
    assert [hold.state for hold in await house.holds(job_id)] == [billing.HOLD_STATE_RELEASED]


async def test_a_running_job_without_a_hold_is_counted_until_it_has_ended(house: Scene) -> None:
    customer = await house.customer()
    # Long enough for two rounds beside much else.
    job = await house.create(customer, marks="[sandbox:pace=5]")
    await house.running(job.job_id, customer)
    await house.release(customer, job.job_id)
    await house.grown_old()
    assert await house.found() == {"job_without_hold": 1}
    assert await house.found() == {"job_without_hold": 1}
    end = await house.ended(job.job_id, customer)
    assert (end.state, end.charged_millis) == (jobs.JOB_STATE_COMPLETED, 0)
    await is_quiet(house)


async def test_a_lease_without_a_job_is_given_back(house: Scene) -> None:
    await house.pool.lease("job_gone:1", mode=pool.MODE_TEST)
    await is_quiet(house)
    await house.grown_old()
    assert await house.found() == {"lease_without_job": 1}
    await is_quiet(house)
    assert list((await house.pool.stub.ListLeases(pool.ListLeasesRequest())).leases) == []


async def test_a_job_of_an_owner_that_nobody_knows_is_freed_and_ends(house: Scene) -> None:
    customer = await house.customer()
    job = await house.create(customer, marks="[sandbox:pace=1]")
    await house.running(job.job_id, customer)
    await house.change(update(JOBS).where(JOBS.c.job_id == job.job_id).values(owner="ghost"))
    assert await house.found() == {"job_of_unknown_owner": 1}
    await is_quiet(house)
    assert (await house.ended(job.job_id, customer)).state == jobs.JOB_STATE_COMPLETED


async def test_a_job_that_its_owner_has_not_in_mind_is_taken_up_within_moments(house: Scene) -> None:
    customer = await house.customer()
    before = gauge("atelier_jobs_reconcile_found_total", finding="job_out_of_mind")
    job = await house.create(customer, marks="[sandbox:pace=1]")
    await house.running(job.job_id, customer)
    house.engine.runner.drop_all()
    assert (await house.ended(job.job_id, customer)).state == jobs.JOB_STATE_COMPLETED
    assert gauge("atelier_jobs_reconcile_found_total", finding="job_out_of_mind") == before + 1


async def test_counters_that_drifted_are_set_to_what_the_jobs_say(house: Scene) -> None:
    customer = await house.customer()
    job = await house.create(customer)
    await house.ended(job.job_id, customer)
    await house.change(
        update(CUSTOMER_LOAD).where(CUSTOMER_LOAD.c.customer_id == customer).values(waiting=7, running=2)
    )
    assert await house.found() == {"load_drift": 1}
    await is_quiet(house)


async def test_a_job_that_runs_into_its_deadline_takes_its_attempt_with_it(house: Scene) -> None:
    customer = await house.customer()
    job = await house.create(customer, marks="[sandbox:stuck]")
    assert (await house.ended(job.job_id, customer)).state == jobs.JOB_STATE_FAILED
    async with asyncio.timeout(5):
        while await house.open_attempts():
            await asyncio.sleep(0.02)
    await house.grown_old()
    await is_quiet(house)
    closed = await house.attempt(f"{job.job_id}:1")
    # Its provider was told, and says what that saved.
    assert (closed.state, closed.failure.charged) == (pool.ATTEMPT_STATE_FAILED, pool.CHARGED_NO)
    assert closed.cost_millis == 0


@pytest.mark.parametrize(
    ("marks", "becomes", "stays_booked"),
    [
        # A task that runs is canceled at its provider, which takes nothing for it; one that may be nowhere cannot be.
        ("[sandbox:stuck]", pool.ATTEMPT_STATE_FAILED, False),
        ("[sandbox:lost]", pool.ATTEMPT_STATE_ABANDONED, True),
    ],
)
async def test_an_attempt_whose_job_ended_without_a_word_to_the_pool_is_closed(
    house: Scene, monkeypatch: pytest.MonkeyPatch, marks: str, becomes: int, stays_booked: bool
) -> None:
    # Killed between the job's last commit and the call that follows it.
    monkeypatch.setattr(house.engine._returns, "close_attempt", lambda job: None)
    customer = await house.customer()
    job = await house.create(customer, marks=marks)
    assert (await house.ended(job.job_id, customer)).failure == jobs.FAILURE_REASON_TIMED_OUT
    await house.grown_old()
    assert await house.open_attempts() == [f"{job.job_id}:1"]
    booked = (await house.attempt(f"{job.job_id}:1")).cost_millis
    assert await house.found() == {"attempt_without_answer": 1}
    await is_quiet(house)
    closed = await house.attempt(f"{job.job_id}:1")
    assert (closed.state, closed.cost_millis) == (becomes, booked if stays_booked else 0)
    assert booked > 0


async def test_the_gauge_of_doubt_comes_down_when_the_job_of_a_lost_attempt_has_ended(house: Scene) -> None:
    customer = await house.customer()
    job = await house.create(customer, marks="[sandbox:lost]")
    await house.ended(job.job_id, customer)
    async with asyncio.timeout(15):
        while "atelier_pool_unknown_attempts 0.0" not in await house.pool.metrics():
            await asyncio.sleep(0.2)
    assert await house.open_attempts() == []


async def test_an_amount_that_billing_does_not_know_of_is_exported_until_it_is_put_right(
    house: Scene,
) -> None:
    customer = await house.customer()
    job = await house.create(customer)
    charged = (await house.ended(job.job_id, customer)).charged_millis
    await is_quiet(house)
    row = update(CUSTOMER_LOAD).where(CUSTOMER_LOAD.c.customer_id == customer)
    await house.change(row.values(charged_millis=charged + 250))
    for _ in range(2):
        assert await house.found() == {"charge_difference": 1}
        assert gauge("atelier_jobs_charged_difference_millis", mode="test") == 250
        assert gauge("atelier_jobs_charged_difference_millis", mode="live") == 0
    await house.change(row.values(charged_millis=charged))
    await is_quiet(house)
    assert gauge("atelier_jobs_charged_difference_millis", mode="test") == 0


async def test_a_charge_for_a_job_that_its_customer_never_had_is_exported(house: Scene) -> None:
    customer = await house.customer()
    job = await house.create(customer)
    await house.ended(job.job_id, customer)
    taken = await house.hold(customer, f"job_{customer}")
    await house.billing.stub.Capture(
        billing.CaptureRequest(
            job_id=f"job_{customer}", customer_id=customer, mode=billing.MODE_TEST, amount_millis=taken
        )
    )
    assert await house.found() == {"charge_difference": 1}
    assert gauge("atelier_jobs_charged_difference_millis", mode="test") == taken
    # The customer is told of it after all.
    row = update(CUSTOMER_LOAD).where(CUSTOMER_LOAD.c.customer_id == customer)
    await house.change(row.values(charged_millis=CUSTOMER_LOAD.c.charged_millis + taken))
    await is_quiet(house)


async def test_under_load_nothing_that_is_needed_is_touched_and_no_amount_differs(house: Scene) -> None:
    customers = [await house.customer() for _ in range(3)]
    made: list[tuple[str, str]] = []

    async def orders(customer: str) -> None:
        for turn in range(40):
            marks = "[sandbox:pace=0.3]" if turn % 4 else "[sandbox:fail]"
            made.append(((await house.create(customer, f"k{turn}", marks)).job_id, customer))

    async def looks() -> None:
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s:
            assert await house.found() == {}

    await asyncio.gather(looks(), *map(orders, customers))
    ends = [(await house.ended(job_id, customer)).state for job_id, customer in made]
    assert ends.count(jobs.JOB_STATE_COMPLETED) == 90
    assert ends.count(jobs.JOB_STATE_FAILED) == 30
    await house.grown_old()
    await is_quiet(house)


async def test_leftovers_are_found_across_pages_among_jobs_that_go_on(house: Scene) -> None:
    customer, count = await house.customer(), 1_030
    kept = [await house.create(customer, f"k{turn}", "[sandbox:pace=2.5]") for turn in range(5)]
    for start in range(0, count, 103):
        part = range(start, start + 103)
        await asyncio.gather(
            *(house.hold(customer, f"job_{customer}_{turn:04}") for turn in part),
            *(
                house.pool.lease(f"job_{customer}_{turn:04}:1", mode=pool.MODE_TEST, generation=picture())
                for turn in part
            ),
        )
    await house.grown_old()
    assert await house.found() == {"hold_without_job": count, "lease_without_job": count}
    await is_quiet(house)
    ends = [await house.ended(job.job_id, customer) for job in kept]
    assert [end for end in ends if end.state != jobs.JOB_STATE_COMPLETED] == []


async def test_attempts_of_no_job_are_closed_across_pages(house: Scene) -> None:
    customer, count = await house.customer(), 520
    names = [f"job_{customer}_{turn:04}:1" for turn in range(count)]
    for start in range(0, count, 52):
        await asyncio.gather(*(house.pool.begin(name, "stuck") for name in names[start : start + 52]))
    await house.grown_old()
    assert await house.found() == {"attempt_without_answer": count, "lease_without_job": count}
    await is_quiet(house)
    assert await house.open_attempts() == []
