"""What customers were told that they paid, beside what billing says: every difference is found, and no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from sqlalchemy import insert

from services.chassis.database import Database
from services.chassis.schema_migration import migrate
from services.chassis.set_statements import insert_rows
from services.jobs.charges import Charges
from services.jobs.job import JobState, Settlement
from services.jobs.schema import CUSTOMER_LOAD, JOBS
from services.jobs.settings import MIGRATIONS
from services.jobs.store import Customer, JobStore
from services.jobs.store.rows import all_columns
from tests.jobs_rows import a_job

ANN: Customer = ("ann", "test")


class Till:
    """Billing as far as it is asked for sums."""

    def __init__(self) -> None:
        self.billed: dict[Customer, int] = {}
        self.behind: set[Customer] = set()
        self.asked: list[list[Customer]] = []

    async def charged_totals(self, wallets: Sequence[Customer]) -> dict[Customer, int]:
        self.asked.append(list(wallets))
        return {name: self.billed.get(name, 0) for name in wallets if name not in self.behind}


@pytest.fixture
async def store(engine_url: str) -> AsyncIterator[JobStore]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="jobs")
    opened = JobStore(database)
    yield opened
    await opened.close()
    await database.close()


async def told(store: JobStore, amounts: dict[Customer, int]) -> None:
    counters = {"waiting": 0, "running": 0, "completed_jobs": 0, "failed_jobs": 0}
    rows = [
        {"customer_id": customer, "mode": mode, "charged_millis": amount} | counters
        for (customer, mode), amount in amounts.items()
    ]
    await store._database.write(lambda connection: insert_rows(connection, CUSTOMER_LOAD, rows))


async def settling(store: JobStore, job_id: str, millis: int, owner: str | None, **given: Any) -> None:
    fields = {"state": JobState.SETTLING, "settlement": Settlement.CAPTURE, "settle_millis": millis} | given
    job = a_job(job_id, customer_id="ann", owner=owner, **fields)
    statement = insert(JOBS).values(**all_columns(job))
    await store._database.write(lambda connection: connection.execute(statement).close())


def charges(store: JobStore, till: Till) -> Charges:
    billing: Any = till
    return Charges(store, billing)


async def test_customers_that_agree_are_not_asked_about_again_until_they_change(store: JobStore) -> None:
    till = Till()
    names = [(f"cus_{number:04}", mode) for number in range(1_100) for mode in ("live", "test")]
    till.billed = dict.fromkeys(names, 5)
    await told(store, till.billed)
    compared = charges(store, till)
    assert await compared.compare() == {}
    assert [len(page) for page in till.asked] == [500, 500, 500, 500, 200]
    assert {name for page in till.asked for name in page} == set(names)
    till.asked.clear()
    assert await compared.compare() == {}
    # All but a share that is asked about again, so that nobody is trusted for ever.
    assert sum(map(len, till.asked)) == 500


@pytest.mark.parametrize(("billed", "difference"), [(90, -10), (100, 0), (130, 30)])
async def test_a_customer_at_rest_is_compared_exactly(store: JobStore, billed: int, difference: int) -> None:
    till = Till()
    till.billed = {ANN: billed}
    await told(store, {ANN: 100})
    compared = charges(store, till)
    wanted = {ANN: difference} if difference else {}
    assert [await compared.compare() for _ in range(2)] == [wanted, wanted]


@pytest.mark.parametrize("owner", ["w1", None])
@pytest.mark.parametrize(("billed", "difference"), [(99, -1), (100, 0), (140, 0), (141, 1)])
async def test_jobs_that_are_settling_may_be_charged_already(
    store: JobStore, owner: str | None, billed: int, difference: int
) -> None:
    till = Till()
    till.billed = {ANN: billed}
    await told(store, {ANN: 100})
    await settling(store, "job_1", 40, owner)
    await settling(store, "job_2", 7, owner, settlement=Settlement.RELEASE)
    await settling(store, "job_3", 9, owner, state=JobState.RUNNING)
    assert await charges(store, till).compare() == ({ANN: difference} if difference else {})


async def test_a_sum_that_is_still_added_up_is_no_difference_and_is_asked_for_again(store: JobStore) -> None:
    till = Till()
    till.behind = {ANN}
    await told(store, {ANN: 100})
    compared = charges(store, till)
    assert [await compared.compare() for _ in range(2)] == [{}, {}]
    assert till.asked == [[ANN], [ANN]]
    till.behind.clear()
    assert await compared.compare() == {ANN: -100}
