from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import Executable, delete, select, update
from sqlalchemy.exc import DBAPIError

from services.billing import customers, upkeep
from services.billing.customers import Changes, Customer
from services.billing.ledger import Receipt
from services.billing.operations import Grant, Hold, Operation, WalletId
from services.billing.prices import Limits, Price, Storefront
from services.billing.schema import JOURNAL, METADATA, UNBILLED, WALLETS
from services.billing.settings import MIGRATIONS
from services.billing.store import customers as customer_rows
from services.billing.store import holds, wallets
from services.chassis.database import schema_drift
from services.chassis.errors import ServiceError
from tests.conformance.billing_house import Books
from tests.unit.billing_books import (
    ANN,
    BEN,
    EVE,
    T0_MS,
    MemoryBooks,
    capture,
    expire,
    hold,
    release,
    shown,
    starting_wallets,
    top_up,
)

SHOP = Storefront(
    "shop", "Shop", "1+cafe", "s_live_", "s_test_", Limits(1, 2, 3), 500, {"a": Price("a", "A", "a", 5)}
)


async def test_the_migrations_lead_to_the_declared_schema(engine_url: str) -> None:
    assert await schema_drift(engine_url, MIGRATIONS, METADATA) == []


def _random_history(seed: int) -> list[list[Operation]]:
    """The same operations on every engine: drawn by a seeded generator, not by the test run."""
    chance = random.Random(seed)
    owners, jobs = [ANN, ANN, BEN, EVE], [f"j{n}" for n in range(40)]

    def operation() -> Operation:
        owner, job, amount = chance.choice(owners), chance.choice(jobs), chance.randint(0, 9)
        match chance.randint(0, 9):
            case 0 | 1 | 2 | 3:
                return hold(job, amount, owner, ttl_ms=chance.choice([1, 100, 10_000]))
            case 4 | 5:
                return capture(job, amount, owner)
            case 6:
                return release(job, owner)
            case 7:
                return expire(job, owner)
            case 8:
                return top_up(f"k{chance.randint(0, 30)}", amount + 1, owner)
        return Grant(owner, "adjust", chance.choice([-5, -1, 3]), f"a{chance.randint(0, 30)}", "note")

    return [[operation() for _ in range(chance.choice([1, 3, 40]))] for _ in range(60)]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_history_gets_the_answers_that_the_rules_give(books: Books, seed: int) -> None:
    memory = MemoryBooks(starting_wallets())
    for batch in _random_history(seed):
        books.clock.at_ms += 40
        expected = memory.run(*batch, now_ms=books.clock.at_ms)
        assert shown(await books.run(*batch)) == shown(expected)
    assert await books.findings() == set()
    for row in memory.wallets.values():
        assert await books.money(row.id) == (row.balance_millis, row.reserved_millis)
    assert await books.count("unbilled") == len(memory.unbilled)
    assert await books.count("journal") == len(memory.journal)


async def test_five_hundred_holds_on_money_for_a_hundred_make_a_hundred(books: Books) -> None:
    await books.run(top_up("start", 300))
    tasks = (books.bookkeeper.submit(hold(f"j{n}", 3)) for n in range(500))
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, Receipt)]
    reasons = {answer.reason for answer in answers if isinstance(answer, ServiceError)}
    assert (len(made), reasons) == (100, {"INSUFFICIENT_CREDITS"})
    assert await books.money() == (300, 300)
    entries = await books.database.read(lambda c: wallets.journal_page(c, ANN, 0, 1_000))
    assert [entry.sequence for entry in entries] == list(range(501, 0, -1))
    assert await books.findings() == set()


async def test_ten_holds_of_three_on_a_balance_of_three_make_one(books: Books) -> None:
    await books.run(top_up("start", 3))
    tasks = (books.bookkeeper.submit(hold(f"j{n}", 3)) for n in range(10))
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(answer, Receipt) for answer in answers) == 1


async def test_the_same_request_sent_fifty_times_at_once_happens_once(books: Books) -> None:
    receipts = await asyncio.gather(*(books.bookkeeper.submit(top_up("k", 7)) for _ in range(50)))
    assert sorted(receipt.replayed for receipt in receipts) == [False] + [True] * 49
    assert await books.money() == (7, 0)


async def test_capture_and_release_at_once_leave_one_winner(books: Books) -> None:
    await books.run(top_up("start", 1_000), *(hold(f"j{n}", 10) for n in range(20)))
    both = [op for n in range(20) for op in (capture(f"j{n}", 10), release(f"j{n}"))]
    answers = await asyncio.gather(*map(books.bookkeeper.submit, both), return_exceptions=True)
    assert sum(isinstance(answer, Receipt) for answer in answers) == 20
    assert await books.findings() == set()


@pytest.mark.parametrize("statement", [update(JOURNAL).values(amount_millis=0), delete(JOURNAL)])
async def test_nobody_changes_the_journal(books: Books, statement: Executable) -> None:
    await books.run(top_up("start", 3))
    with pytest.raises((ServiceError, DBAPIError)):
        await books.execute(statement)
    assert await books.findings() == set()
    assert await books.count("journal") == 1


async def test_an_overdraft_is_refused_by_the_database_itself(books: Books) -> None:
    await books.run(top_up("start", 3))
    overdraft = update(WALLETS).where(WALLETS.c.balance_millis == 3).values(reserved_millis=4)
    with pytest.raises((ServiceError, DBAPIError)):
        await books.execute(overdraft)
    assert await books.money() == (3, 0)


async def test_one_poisonous_operation_does_not_fail_its_neighbours(books: Books) -> None:
    await books.run(top_up("start", 100))
    poison = Hold(ANN, "bad", "shop", "thing", 2**70, hold("x", 1).quote, 1_000)
    batch = [hold("j1", 1), poison, hold("j2", 1)]
    answers = await asyncio.gather(*map(books.bookkeeper.submit, batch), return_exceptions=True)
    assert [isinstance(answer, Receipt) for answer in answers] == [True, False, True]
    assert await books.money() == (100, 2)


async def test_the_sweep_closes_what_is_over_and_waits_for_the_next(books: Books) -> None:
    await books.run(top_up("start", 100), hold("j1", 1, ttl_ms=10), hold("j2", 2, ttl_ms=1_500))
    books.clock.at_ms += 10
    pause_s = await upkeep.expire_holds(books.database, books.bookkeeper, books.clock)
    assert await books.money() == (100, 2)
    assert pause_s == pytest.approx(1.49)
    assert await books.findings() == set()


async def test_an_extended_hold_does_not_expire(books: Books) -> None:
    await books.run(top_up("start", 100), hold("j1", 1, ttl_ms=10), hold("j2", 2, ttl_ms=10), release("j3"))
    not_open = await books.database.write(
        lambda c: holds.extend(c, ["j3", "j1", "nothing", "j1"], T0_MS + 5_000)
    )
    books.clock.at_ms += 20
    await upkeep.expire_holds(books.database, books.bookkeeper, books.clock)
    assert not_open == ["j3", "nothing"]
    assert await books.money() == (100, 1)


async def test_an_extension_never_shortens_a_hold(books: Books) -> None:
    await books.run(top_up("start", 100), hold("j1", 1, ttl_ms=10_000))
    await books.database.write(lambda c: holds.extend(c, ["j1"], T0_MS + 1))
    [row] = await books.database.read(lambda c: holds.page(c, holds.Filter("open", 0, [], "", 10)))
    assert row.expires_at_ms == T0_MS + 10_000


async def test_late_work_that_nobody_can_pay_is_kept_for_the_operator(books: Books) -> None:
    await books.run(top_up("start", 5), hold("j1", 5, ttl_ms=1))
    books.clock.at_ms += 1
    await books.run(expire("j1"), hold("j2", 5), capture("j1", 4))
    owed = await books.database.read(
        lambda c: [tuple(row) for row in c.execute(select(UNBILLED.c.job_id, UNBILLED.c.amount_millis))]
    )
    totals = await books.database.read(lambda c: holds.totals(c, 0))
    assert owed == [("j1", 4)]
    assert (totals.open_holds, totals.held_millis, totals.unbilled_jobs, totals.unbilled_millis) == (
        1,
        5,
        1,
        4,
    )


async def test_holds_are_listed_page_by_page(books: Books) -> None:
    await books.run(top_up("start", 100), hold("b", 1), hold("a", 1))
    books.clock.at_ms += 1
    await books.run(hold("d", 1), hold("c", 1), capture("c", 1))

    async def listed(**changes: Any) -> list[str]:
        wanted = holds.Filter("", 0, [], "", 10)._replace(**changes)
        return [row.job_id for row in await books.database.read(lambda c: holds.page(c, wanted))]

    assert await listed() == ["a", "b", "c", "d"]
    assert await listed(limit=2) == ["a", "b"]
    assert await listed(after_job_id="b") == ["c", "d"]
    assert await listed(state="open") == ["a", "b", "d"]
    assert await listed(state="captured") == ["c"]
    assert await listed(created_before_ms=T0_MS + 1) == ["a", "b"]
    assert await listed(job_ids=["d", "a", "nothing"]) == ["a", "d"]
    with pytest.raises(ServiceError, match="INVALID_REQUEST"):
        await listed(after_job_id="nothing")


async def test_the_journal_is_listed_page_by_page(books: Books) -> None:
    await books.run(*(top_up(f"k{n}", 1) for n in range(5)))
    first = await books.database.read(lambda c: wallets.journal_page(c, ANN, 0, 3))
    second = await books.database.read(lambda c: wallets.journal_page(c, ANN, first[-1].sequence, 3))
    assert [entry.sequence for entry in first + second] == [5, 4, 3, 2, 1]


def _opened(key: str = "", name: str = "Ann") -> customers.NewCustomer:
    return customers.opened(SHOP, name, None, key, 0, T0_MS)


async def _open(books: Books, new: customers.NewCustomer) -> Customer:
    return await books.database.write(lambda c: customer_rows.open_customer(c, new, books.clock.now_ms))


async def test_a_new_customer_has_two_wallets_and_play_credit(books: Books) -> None:
    made = await _open(books, _opened())
    assert await books.money(WalletId(made.customer_id, "live")) == (0, 0)
    assert await books.money(WalletId(made.customer_id, "test")) == (500, 0)
    assert made.limits == SHOP.limits
    assert await books.findings() == set()


async def test_a_creation_repeated_at_once_makes_one_customer(books: Books) -> None:
    made = await asyncio.gather(*(_open(books, _opened("key")) for _ in range(8)))
    assert len({customer.customer_id for customer in made}) == 1
    with pytest.raises(ServiceError, match="IDEMPOTENCY_KEY_CONFLICT"):
        await _open(books, _opened("key", name="Somebody else"))


async def test_customers_are_listed_changed_and_not_found(books: Books) -> None:
    made = await _open(books, _opened())
    changed = await books.database.write(
        lambda c: customer_rows.change(
            c, made.customer_id, Changes(state="suspended", limits=Limits(0, 0, 9)), T0_MS
        )
    )
    assert (changed.name, changed.state, changed.limits) == ("Ann", "suspended", Limits(0, 0, 9))
    assert await books.database.read(lambda c: customer_rows.find(c, made.customer_id)) == changed
    page = await books.database.read(lambda c: customer_rows.page(c, "shop", "ann", 2))
    assert [customer.customer_id for customer in page] == ["ben", made.customer_id]
    assert await books.database.read(lambda c: customer_rows.page(c, "elsewhere", "", 9)) == []
    with pytest.raises(ServiceError, match="CUSTOMER_NOT_FOUND"):
        await books.database.write(lambda c: customer_rows.change(c, "nobody", Changes(), T0_MS))
