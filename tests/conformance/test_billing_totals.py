"""What wallets were charged in all: always the sum over their journal, however it is added up."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import select

from services.billing.operations import Operation, WalletId
from services.billing.schema import CHARGED_TOTALS, JOURNAL
from services.billing.store.totals import Total
from services.billing.totals import REMEMBERED_FROM, charged_totals, topped_up_millis
from services.chassis.errors import ServiceError
from tests.conformance.billing_house import Books
from tests.unit.billing_books import ANN, BEN, EVE, STRANGER, adjust, capture, expire, hold, release, top_up


async def sums(books: Books, wallet: WalletId) -> tuple[int, int]:
    """Captured and unbilled, by reading every entry."""
    entries = select(JOURNAL.c.applied, JOURNAL.c.outcome, JOURNAL.c.amount_millis).where(
        JOURNAL.c.customer_id == wallet.customer_id,
        JOURNAL.c.mode == wallet.mode,
        JOURNAL.c.kind == "capture",
    )
    rows = await books.database.read(lambda connection: connection.execute(entries).all())
    captured = sum(amount for applied, _, amount in rows if applied)
    return captured, sum(amount for _, outcome, amount in rows if outcome == "UNBILLED")


async def remembered(books: Books) -> dict[str, int]:
    rows = select(CHARGED_TOTALS.c.customer_id, CHARGED_TOTALS.c.sequence)
    found = await books.database.read(lambda connection: connection.execute(rows).all())
    return {row[0]: row[1] for row in found}


def amounts(totals: list[Total]) -> dict[WalletId, tuple[int, int]]:
    assert not any(total.behind for total in totals)
    return {total.wallet: (total.captured_millis, total.unbilled_millis) for total in totals}


def some_history(seed: int, length: int) -> list[Operation]:
    chance = random.Random(seed)
    history: list[Operation] = []
    for turn in range(length):
        owner, job = chance.choice([ANN, BEN]), f"j{seed}_{turn}"
        history.append(hold(job, chance.randint(1, 50), owner, ttl_ms=chance.choice([1, 10**9])))
        ending = chance.randint(0, 4)
        if ending < 3:
            history.append(capture(job, chance.randint(0, 1), owner))
        elif ending == 3:
            history.append(release(job, owner))
    return history


async def test_totals_equal_the_journal_after_every_part_of_a_history(books: Books) -> None:
    await books.run(top_up("a", 10_000, ANN), top_up("b", 10_000, BEN))
    sold = [0]
    for seed in range(6):
        await books.run(*some_history(seed, 40))
        totals = amounts(await charged_totals(books.database, [ANN, BEN, EVE, STRANGER]))
        assert totals == {wallet: await sums(books, wallet) for wallet in (ANN, BEN, EVE)}
        sold.append(totals[ANN][0])
    assert sold == sorted(set(sold))


async def test_a_late_capture_counts_and_one_that_nobody_could_pay_is_told_apart(books: Books) -> None:
    await books.run(top_up("a", 100, ANN), hold("late", 40, ANN, ttl_ms=1), hold("poor", 60, ANN, ttl_ms=1))
    books.clock.at_ms += 10
    await books.run(expire("late"), expire("poor"), hold("other", 50, ANN, ttl_ms=10**9))
    await books.run(capture("late", 40), capture("poor", 60), capture("other", 50))
    assert amounts(await charged_totals(books.database, [ANN])) == {ANN: (90, 60)}


async def test_a_long_history_is_added_up_a_part_a_call_and_never_twice(books: Books) -> None:
    await books.run(top_up("a", 10_000, ANN), top_up("b", 10_000, BEN))
    await books.run(*some_history(7, 100))
    whole = {wallet: await sums(books, wallet) for wallet in (ANN, BEN)}
    calls, reached = 0, -1
    while any(total.behind for total in await charged_totals(books.database, [ANN, BEN], 17)):
        calls += 1
        progress = sum((await remembered(books)).values())
        assert progress > reached
        reached = progress
    assert calls >= 5
    assert amounts(await charged_totals(books.database, [ANN, BEN], 17)) == whole


async def test_a_short_advance_is_not_worth_a_commit_and_a_long_one_is(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    await books.run(top_up("a", 10_000, ANN), hold("j", 5), capture("j", 5))
    await charged_totals(books.database, [ANN])
    assert await remembered(books) == {}
    monkeypatch.setattr("services.billing.totals.REMEMBERED_FROM", 3)
    await charged_totals(books.database, [ANN])
    assert await remembered(books) == {"ann": 3}
    assert REMEMBERED_FROM > 3


async def test_a_wallet_with_a_long_history_is_not_kept_back_by_busy_ones(books: Books) -> None:
    await books.run(top_up("a", 10_000, ANN), top_up("b", 10_000, BEN))
    await books.run(*[op for n in range(40) for op in (hold(f"a{n}", 1, ANN), capture(f"a{n}", 1, ANN))])
    behind: list[int] = []
    while 0 not in behind:
        await books.run(hold(f"b{len(behind)}", 2, BEN), capture(f"b{len(behind)}", 2, BEN))
        totals = {total.wallet: total for total in await charged_totals(books.database, [ANN, BEN], 10)}
        behind.append(totals[ANN].behind)
        assert not totals[BEN].behind
    assert behind == sorted(set(behind), reverse=True)
    assert amounts(await charged_totals(books.database, [ANN, BEN], 10))[ANN] == (40, 0)


async def test_what_was_bought_and_given_is_counted_and_what_was_taken_away_is_not(books: Books) -> None:
    await books.run(
        top_up("a", 100),
        adjust("given", 7),
        adjust("taken", -30),
        adjust("too much", -500),
        top_up("b", 40, BEN),
    )
    assert await topped_up_millis(books.database, ANN) == 107
    assert await topped_up_millis(books.database, BEN) == 40
    assert await topped_up_millis(books.database, EVE) == 0


async def test_what_was_topped_up_is_added_up_to_its_end_however_long_the_journal(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.billing.totals.ENTRIES_A_CALL", 7)
    await books.run(*[top_up(f"k{n}", n + 1) for n in range(50)])
    assert await topped_up_millis(books.database, ANN) == sum(range(51))
    assert await remembered(books) == {"ann": 49}


async def test_nobody_was_ever_given_what_is_asked_of_a_stranger(books: Books) -> None:
    with pytest.raises(ServiceError, match="CUSTOMER_NOT_FOUND"):
        await topped_up_millis(books.database, STRANGER)
