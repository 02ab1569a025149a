"""Spend limits: what is counted is what holds cost, in the day and the month in which they were made."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from services.billing.ledger import Receipt
from services.billing.operations import WalletId
from services.billing.schema import SPENDING
from services.billing.spending import SpendLimits
from services.billing.store import keys as key_rows
from services.billing.store import ledger, spending
from services.chassis.errors import ServiceError
from tests.conformance.billing_house import Books
from tests.unit.billing_books import ANN, BEN, HOUR_MS, capture, expire, hold, release, top_up
from tests.unit.billing_keys import key

DAY_MS = 24 * HOUR_MS


async def limited(books: Books, day: int, month: int = 0, wallet: WalletId = ANN) -> None:
    limits = SpendLimits(day, month)
    await books.database.write(lambda c: spending.limit(c, wallet.customer_id, limits, books.clock.now_ms()))


async def counts(books: Books, period: str, line: str = "") -> int:
    named = select(SPENDING.c.spent_millis).where(SPENDING.c.period == period, SPENDING.c.key_id == line)
    return await books.database.read(lambda c: c.execute(named).scalar_one())


def reached(period: str, limit: int, *, spent: int, asked: int) -> dict[str, str]:
    told = {
        "limit_millis": limit,
        "spent_millis": spent,
        "required_millis": asked,
        "available_millis": limit - spent,
    }
    return {"period": period} | {name: str(number) for name, number in told.items()}


async def refusal(books: Books, *args: object, **more: object) -> dict[str, str]:
    [answer] = await books.run(hold(*args, **more))  # type: ignore[arg-type]  # handed on as they are
    assert isinstance(answer, ServiceError), answer
    assert (answer.kind, answer.reason) == ("FAILED_PRECONDITION", "SPEND_LIMIT_REACHED")
    return dict(answer.metadata)


async def test_a_hold_beyond_the_day_is_refused_with_the_numbers_and_refused_again(books: Books) -> None:
    await books.run(top_up("start", 1_000))
    await limited(books, day=10)
    [held] = await books.run(hold("j1", 7))
    assert isinstance(held, Receipt)
    told = reached("day", 10, spent=7, asked=4)
    assert await refusal(books, "j2", 4) == told
    await books.run(release("j1"))
    assert await refusal(books, "j2", 4) == told
    [exact] = await books.run(hold("j3", 10))
    assert isinstance(exact, Receipt)
    assert await books.findings() == set()


async def test_a_free_job_passes_a_limit_that_is_used_up(books: Books) -> None:
    await books.run(top_up("start", 1_000))
    await limited(books, day=5)
    held = await books.run(hold("j1", 5), hold("j2", 0))
    assert all(isinstance(one, Receipt) for one in held)


async def test_captures_count_what_was_captured_and_expiries_nothing(books: Books) -> None:
    await books.run(top_up("start", 1_000))
    await limited(books, day=100)
    await books.run(hold("j1", 30, ttl_ms=DAY_MS), hold("j2", 20, ttl_ms=1), hold("j3", 5, ttl_ms=1))
    books.clock.at_ms += 10
    await books.run(capture("j1", 12), expire("j2"), expire("j3"))
    assert await counts(books, "1970-01-01") == 12
    await books.run(capture("j3", 5))
    assert await counts(books, "1970-01-01") == await counts(books, "1970-01") == 17
    assert await books.findings() == set()


async def test_what_is_given_back_belongs_to_the_day_on_which_it_was_held(books: Books) -> None:
    await books.run(top_up("start", 1_000))
    await limited(books, day=10, month=15)
    await books.run(hold("old", 9, ttl_ms=3 * DAY_MS))
    books.clock.at_ms += DAY_MS
    assert await refusal(books, "new", 7) == reached("month", 15, spent=9, asked=7)
    await books.run(hold("small", 6, ttl_ms=3 * DAY_MS), release("old"))
    assert await counts(books, "1970-01-01") == 0
    assert await counts(books, "1970-01-02") == await counts(books, "1970-01") == 6
    books.clock.at_ms += 31 * DAY_MS
    [next_month] = await books.run(hold("next", 10))
    assert isinstance(next_month, Receipt)
    assert await books.findings() == set()


async def test_a_new_limit_counts_what_was_spent_before_it(books: Books) -> None:
    await books.run(top_up("start", 1_000), top_up("start", 1_000, BEN))
    await books.run(hold("yesterday", 50, ttl_ms=10 * DAY_MS), hold("hers", 9, BEN))
    books.clock.at_ms += DAY_MS
    await books.run(hold("today", 7, ttl_ms=DAY_MS), hold("charged", 9), capture("charged", 2))
    await limited(books, day=10, month=100)
    assert (await counts(books, "1970-01-02"), await counts(books, "1970-01")) == (9, 59)
    assert await refusal(books, "more", 2) == reached("day", 10, spent=9, asked=2)
    assert await books.findings() == set()


async def test_a_new_limit_finds_this_month_in_a_long_journal(books: Books) -> None:
    await books.run(top_up("start", 100_000))
    for turn in range(40):
        await books.run(*(hold(f"j{turn}_{n}", 1, ttl_ms=100 * DAY_MS) for n in range(5)))
        books.clock.at_ms += DAY_MS
    await limited(books, day=1_000)
    assert await counts(books, "1970-02") == 5 * (40 - 31)
    assert await books.findings() == set()


async def test_without_a_limit_nothing_is_counted_and_a_limit_set_again_counts_anew(books: Books) -> None:
    await books.run(top_up("start", 1_000))
    await limited(books, day=10)
    await books.run(hold("j1", 5))
    await limited(books, day=0)
    assert await books.count("spending") == 0
    await books.run(hold("j2", 50), release("j1"))
    await limited(books, day=60)
    assert await counts(books, "1970-01-01") == 50
    assert await books.findings() == set()


async def test_five_hundred_holds_at_once_on_a_limit_for_a_hundred_make_a_hundred(books: Books) -> None:
    await books.run(top_up("start", 10_000))
    await limited(books, day=300)
    tasks = (books.bookkeeper.submit(hold(f"j{n}", 3)) for n in range(500))
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(answer, Receipt) for answer in answers) == 100
    assert await counts(books, "1970-01-01") == 300
    assert await books.findings() == set()


async def test_a_key_spends_against_its_own_limit_and_its_successor_goes_on_with_it(books: Books) -> None:
    limits = SpendLimits(10, 0)
    await books.database.write(lambda c: key_rows.add(c, key("key_1", limits), "d1"))
    successor, storefront = await books.database.write(
        lambda c: key_rows.rotate(c, "key_1", "key_2", books.clock.now_ms(), HOUR_MS)
    )
    assert (storefront, successor.rules.spend_limits, successor.line) == ("shop", limits, "key_1")
    await books.database.write(lambda c: key_rows.add(c, successor, "d2"))
    await books.run(top_up("start", 1_000))
    await books.run(hold("j1", 6, key_id="key_1"), hold("j2", 900))
    told = reached("day", 10, spent=6, asked=5)
    assert await refusal(books, "j3", 5, key_id="key_2") == told
    await books.run(release("j1"))
    [held] = await books.run(hold("j4", 10, key_id="key_2"))
    assert isinstance(held, Receipt)
    assert await counts(books, "1970-01-01", "key_1") == 10
    assert await books.findings() == set()


async def test_a_limited_key_of_somebody_else_pays_for_nobody(books: Books) -> None:
    await books.database.write(lambda c: key_rows.add(c, key("key_1", SpendLimits(10, 0)), "d1"))
    await books.run(top_up("start", 1_000, BEN))
    [answer] = await books.run(hold("j1", 1, BEN, key_id="key_1"))
    assert isinstance(answer, ServiceError)
    assert (answer.reason, answer.metadata["field"]) == ("INVALID_REQUEST", "key_id")
    assert await books.count("journal") == 1


@pytest.mark.parametrize("with_limit", [False, True])
async def test_only_who_has_a_limit_pays_for_it_with_statements(
    books: Books, monkeypatch: pytest.MonkeyPatch, with_limit: bool
) -> None:
    await books.run(top_up("start", 1_000))
    if with_limit:
        await limited(books, day=100)
    seen: list[str] = []
    for name in ("_SPENT", "_LINES"):
        monkeypatch.setattr(spending, name, _Told(getattr(spending, name), name, seen))
    await books.database.write(
        lambda c: ledger.commit(c, [hold("j1", 5), release("j0"), capture("j1", 5)], books.clock.now_ms)
    )
    assert seen == (["_SPENT"] if with_limit else [])


class _Told:
    """A statement that says when it runs."""

    def __init__(self, inner: object, name: str, seen: list[str]) -> None:
        self._inner, self._name, self._seen = inner, name, seen

    def rows(self, *args: object, **values: object) -> object:
        self._seen.append(self._name)
        return self._inner.rows(*args, **values)  # type: ignore[attr-defined]  # a Prepared
