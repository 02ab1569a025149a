"""Mistakes that other ledgers made, each with the rule that forbids it. Where the requests come at once, they do here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from services.billing.ledger import LATE, UNBILLED, Receipt
from services.billing.operations import Operation
from services.chassis.errors import ServiceError
from tests.conformance.billing_house import Books
from tests.unit.billing_books import adjust, capture, expire, hold, release, top_up

Told = list[Receipt | BaseException]


async def _at_once(books: Books, operations: Sequence[Operation]) -> Told:
    return await asyncio.gather(*map(books.bookkeeper.submit, operations), return_exceptions=True)


def _reasons(told: Told) -> list[str]:
    return [answer.reason for answer in told if isinstance(answer, ServiceError)]


def _done(told: Told) -> list[Receipt]:
    return [answer for answer in told if isinstance(answer, Receipt) and not answer.replayed]


async def test_money_on_hold_cannot_be_held_again(books: Books) -> None:
    # Blnk #181: debits in flight were not counted in the balance check.
    await books.run(top_up("start", 10), hold("j1", 8))
    told = await _at_once(books, [hold("j2", 3), adjust("fee", -3)])
    assert sorted(_reasons(told)) == ["BALANCE_TOO_LOW", "INSUFFICIENT_CREDITS"]
    assert await books.money() == (10, 8)


async def test_captures_at_once_charge_one_hold_once(books: Books) -> None:
    # Blnk #171: concurrent commits read the same amount left.
    await books.run(top_up("start", 10), hold("j1", 10))
    told = await _at_once(books, [capture("j1", amount) for amount in (4, 4, 6, 10)])
    assert len(_done(told)) == 1
    assert _reasons(told) == ["IDEMPOTENCY_KEY_CONFLICT"] * 2
    assert await books.money() == (6, 0)


async def test_a_hold_given_back_many_times_comes_back_once(books: Books) -> None:
    # Blnk #41, #43: a void could be repeated, and each gave the money back.
    await books.run(top_up("start", 10), hold("j1", 8), hold("j2", 2))
    told = await _at_once(books, [release("j1")] * 5)
    assert len(_done(told)) == 1
    assert await books.money() == (10, 2)


async def test_a_hold_that_was_refused_cannot_be_captured(books: Books) -> None:
    # Blnk #182: a rejected hold could be committed by its queued id.
    await books.run(top_up("start", 5))
    told = await _at_once(books, [hold("j1", 6), top_up("more", 100), capture("j1", 6)])
    assert _reasons(told) == ["INSUFFICIENT_CREDITS", "HOLD_NOT_FOUND"]
    assert await books.money() == (105, 0)


async def test_a_repeated_release_undoes_nothing(books: Books) -> None:
    # Blnk #374: a repeated refund was answered with a conflict and reversed the first.
    await books.run(top_up("start", 10), hold("j1", 8))
    [first] = await books.run(release("j1"))
    for _ in range(3):
        [again] = await books.run(release("j1"))
        assert isinstance(first, Receipt)
        assert again == replace(first, replayed=True)
        assert await books.money() == (10, 0)


async def test_paid_credit_is_granted_once_however_close_its_notices_come(books: Books) -> None:
    # Lago #3618: the same payment settled twice within milliseconds.
    told = await _at_once(books, [top_up("invoice-7", 25)] * 20)
    assert len(_done(told)) == 1
    assert await books.money() == (25, 0)


async def test_contention_is_never_an_error_and_no_entry_lacks_its_balance(books: Books) -> None:
    # Lago #3895: a stale object became an error 500, and left a transaction without its change of the balance.
    await books.run(top_up("start", 1))
    told = await _at_once(books, [top_up(f"k{n}", 1) for n in range(300)])
    assert len(_done(told)) == 300
    assert await books.money() == (301, 0)
    assert await books.findings() == set()


async def test_ten_requests_of_three_on_a_balance_of_three_start_one(books: Books) -> None:
    # Fluid #82.
    await books.run(top_up("start", 3))
    told = await _at_once(books, [hold(f"j{n}", 3) for n in range(10)])
    assert len(_done(told)) == 1
    assert _reasons(told) == ["INSUFFICIENT_CREDITS"] * 9


async def test_work_done_after_its_hold_expired_is_charged_or_written_down(books: Books) -> None:
    # openstory #1310: the charge was skipped where the wallet was short, and nobody knew.
    await books.run(top_up("start", 10), hold("j1", 5, ttl_ms=1), hold("j2", 5, ttl_ms=1))
    books.clock.at_ms += 1
    await books.run(expire("j1"), expire("j2"), adjust("spent elsewhere", -4))
    told = await _at_once(books, [capture("j1", 5), capture("j2", 5), capture("j2", 5)])
    outcomes = [answer.outcome for answer in told if isinstance(answer, Receipt)]
    assert sorted(outcomes) == [LATE, UNBILLED, UNBILLED]
    assert await books.money() == (1, 0)
    assert await books.count("unbilled") == 1


async def test_a_job_that_outlives_its_hold_is_never_charged_twice(books: Books) -> None:
    # matrix-os #1454: refund or charge of an expired hold must be one policy, whoever comes first.
    await books.run(top_up("start", 10), hold("j1", 5, ttl_ms=1))
    books.clock.at_ms += 1
    told = await _at_once(books, [expire("j1"), capture("j1", 5), capture("j1", 5), release("j1")])
    assert await books.money() == (5, 0)
    assert "HOLD_CAPTURED" in _reasons(told)
    assert await books.findings() == set()
