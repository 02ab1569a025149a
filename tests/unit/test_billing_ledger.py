from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from services.billing import ledger
from services.billing.ledger import Receipt
from services.billing.operations import Operation
from tests.unit.billing_books import (
    ANN,
    BEN,
    EVE,
    HISTORIES,
    STRANGER,
    T0_MS,
    MemoryBooks,
    adjust,
    capture,
    expire,
    hold,
    release,
    starting_wallets,
    top_up,
    wallet,
)


@given(HISTORIES)
def test_inputs_are_left_as_they_were(history: list[tuple[int, list[Operation]]]) -> None:
    books, now_ms = MemoryBooks(starting_wallets()), T0_MS
    for step_ms, batch in history:
        now_ms += step_ms
        wallets, holds, seen = dict(books.wallets), dict(books.holds), dict[Any, Any]()
        ledger.apply(batch, wallets, holds, seen, now_ms)
        assert (wallets, holds, seen) == (books.wallets, books.holds, {})
        books.run(*batch, now_ms=now_ms)


def rich(balance_millis: int = 100) -> MemoryBooks:
    books = MemoryBooks([wallet(ANN), wallet(BEN), wallet(EVE, active=False)])
    books.one(top_up("start", balance_millis))
    return books


def test_ten_holds_of_three_on_a_balance_of_three_make_one() -> None:
    books = rich(3)
    results = books.run(*(hold(f"j{n}", 3) for n in range(10)))
    assert [isinstance(result, Receipt) for result in results] == [True] + [False] * 9
    assert books.money() == (3, 3)


def test_open_holds_count_against_the_next_hold() -> None:
    books = rich(10)
    books.one(hold("j1", 7))
    assert books.refusal(hold("j2", 4)) == "INSUFFICIENT_CREDITS"
    assert books.one(hold("j3", 3)).reserved_millis == 10


def test_insufficient_credits_names_what_is_needed_and_what_is_there() -> None:
    books = rich(10)
    books.one(hold("j1", 7))
    [refusal] = books.run(hold("j2", 4))
    assert not isinstance(refusal, Receipt)
    assert refusal.metadata == {"required_millis": "4", "available_millis": "3"}


def test_a_refused_hold_stays_refused_with_the_same_numbers() -> None:
    books = rich(10)
    first = books.run(hold("j1", 11))
    books.one(top_up("more", 100))
    assert books.run(hold("j1", 11)) == first
    assert books.one(hold("j2", 11)).amount_millis == 11


def test_a_refused_hold_cannot_be_captured() -> None:
    books = rich(1)
    assert books.refusal(hold("j1", 2)) == "INSUFFICIENT_CREDITS"
    books.one(top_up("more", 100))
    assert books.refusal(capture("j1", 2)) == "HOLD_NOT_FOUND"
    assert books.money() == (101, 0)


def test_two_captures_in_one_batch_charge_once() -> None:
    books = rich()
    books.one(hold("j1", 10))
    first, second = books.run(capture("j1", 10), capture("j1", 10))
    assert isinstance(first, Receipt)
    assert second == replace(first, replayed=True)
    assert books.money() == (90, 0)


def test_a_second_capture_of_another_amount_is_refused() -> None:
    books = rich()
    books.run(hold("j1", 10), capture("j1", 10))
    assert books.refusal(capture("j1", 9)) == "IDEMPOTENCY_KEY_CONFLICT"
    assert books.money() == (90, 0)


def test_capture_gives_the_rest_back() -> None:
    books = rich()
    books.one(hold("j1", 10))
    receipt = books.one(capture("j1", 4))
    assert (receipt.amount_millis, receipt.released_millis) == (4, 6)
    assert books.money() == (96, 0)


def test_nobody_captures_more_than_was_held() -> None:
    books = rich()
    books.one(hold("j1", 10))
    assert books.refusal(capture("j1", 11)) == "AMOUNT_EXCEEDS_HOLD"
    assert books.one(capture("j1", 10)).amount_millis == 10


def test_a_hold_can_be_released_twice_and_comes_back_once() -> None:
    books = rich()
    books.one(hold("j1", 10))
    first = books.one(release("j1"))
    assert books.one(release("j1")) == replace(first, replayed=True)
    assert books.money() == (100, 0)


def test_a_released_hold_cannot_be_captured() -> None:
    books = rich()
    books.run(hold("j1", 10), release("j1"))
    assert books.refusal(capture("j1", 10)) == "HOLD_RELEASED"


def test_a_captured_hold_cannot_be_released() -> None:
    books = rich()
    books.run(hold("j1", 10), capture("j1", 10))
    assert books.refusal(release("j1")) == "HOLD_CAPTURED"
    assert books.money() == (90, 0)


def test_release_before_hold_leaves_a_tombstone_that_refuses_the_hold() -> None:
    books = rich()
    assert books.one(release("j1")).outcome == ledger.TOMBSTONE
    assert books.refusal(hold("j1", 10)) == "HOLD_RELEASED"
    assert books.one(release("j1")).replayed
    assert books.money() == (100, 0)


def test_a_repeated_hold_keeps_its_price_when_prices_change() -> None:
    books = rich()
    first = books.one(hold("j1", 10))
    dearer = replace(hold("j1", 10), quote=None, ttl_ms=9)
    assert books.one(dearer) == replace(first, replayed=True)


def test_a_repeated_hold_of_another_thing_is_refused() -> None:
    books = rich()
    books.one(hold("j1", 10))
    assert books.refusal(hold("j1", 11)) == "IDEMPOTENCY_KEY_CONFLICT"


@pytest.mark.parametrize("operation", [capture("j1", 1, BEN), release("j1", BEN)])
def test_another_customers_hold_is_as_if_it_were_not_there(operation: Operation) -> None:
    books = rich()
    books.one(hold("j1", 10))
    assert books.refusal(operation) == "HOLD_NOT_FOUND"
    assert books.money() == (100, 10)


def test_a_job_has_one_hold_whoever_asks() -> None:
    books = rich()
    books.run(top_up("b", 100, BEN), hold("j1", 10))
    assert books.refusal(hold("j1", 10, BEN)) == "IDEMPOTENCY_KEY_CONFLICT"
    assert books.money(BEN) == (100, 0)


def test_a_hold_expires_when_its_time_is_over_and_not_before() -> None:
    books = rich()
    books.one(hold("j1", 10, ttl_ms=100))
    books.one(expire("j1"), now_ms=T0_MS + 99)
    assert books.money() == (100, 10)
    books.one(expire("j1"), now_ms=T0_MS + 100)
    assert books.money() == (100, 0)


def test_a_hold_past_its_time_is_captured_as_long_as_nobody_closed_it() -> None:
    books = rich(10)
    books.one(hold("j1", 10, ttl_ms=100))
    receipt = books.one(capture("j1", 10), now_ms=T0_MS + 5_000)
    assert (receipt.outcome, books.money()) == ("", (0, 0))


def expired() -> MemoryBooks:
    books = rich(10)
    books.one(hold("j1", 10, ttl_ms=1))
    books.one(expire("j1"), now_ms=T0_MS + 1)
    return books


def test_a_capture_after_expiry_takes_what_is_available() -> None:
    books = expired()
    assert books.one(capture("j1", 8)).outcome == ledger.LATE
    assert books.money() == (2, 0)


def test_a_capture_after_expiry_that_nobody_can_pay_is_written_down_once() -> None:
    books = expired()
    books.one(hold("j2", 5))
    receipt = books.one(capture("j1", 8))
    assert (receipt.outcome, receipt.amount_millis) == (ledger.UNBILLED, 0)
    assert books.one(capture("j1", 8)) == replace(receipt, replayed=True)
    assert [(entry.job_id, entry.amount_millis) for entry in books.unbilled] == [("j1", 8)]
    assert books.money() == (10, 5)


def test_a_release_after_expiry_gives_nothing_and_closes_the_hold() -> None:
    books = expired()
    assert books.one(release("j1")).amount_millis == 0
    assert books.refusal(capture("j1", 8)) == "HOLD_RELEASED"
    assert books.money() == (10, 0)


def test_the_same_top_up_twice_in_a_batch_counts_once() -> None:
    books = MemoryBooks([wallet(ANN)])
    first, second = books.run(top_up("k", 10), top_up("k", 10))
    assert isinstance(first, Receipt)
    assert second == replace(first, replayed=True)
    assert books.money() == (10, 0)


def test_a_key_used_for_a_top_up_cannot_be_used_for_an_adjustment() -> None:
    books = MemoryBooks([wallet(ANN)])
    books.one(top_up("k", 10))
    assert books.refusal(adjust("k", 10)) == "IDEMPOTENCY_KEY_CONFLICT"
    assert books.refusal(top_up("k", 10, note="another invoice")) == "IDEMPOTENCY_KEY_CONFLICT"


def test_the_same_key_of_two_customers_does_not_collide() -> None:
    books = MemoryBooks([wallet(ANN), wallet(BEN)])
    books.run(top_up("k", 10), top_up("k", 20, BEN))
    assert (books.money(ANN), books.money(BEN)) == ((10, 0), (20, 0))


def test_an_adjustment_never_takes_what_is_reserved() -> None:
    books = rich(10)
    books.one(hold("j1", 7))
    assert books.refusal(adjust("k", -4)) == "BALANCE_TOO_LOW"
    assert books.one(adjust("k2", -3)).balance_millis == 7


def test_a_balance_has_an_upper_bound() -> None:
    books = rich(1)
    assert books.refusal(top_up("k", ledger.MAX_BALANCE_MILLIS)) == "INVALID_REQUEST"
    assert books.one(top_up("k", ledger.MAX_BALANCE_MILLIS - 1)).balance_millis == ledger.MAX_BALANCE_MILLIS


def test_a_suspended_customer_may_not_hold() -> None:
    books = rich()
    books.one(top_up("k", 10, EVE))
    assert books.refusal(hold("j1", 1, EVE)) == "CUSTOMER_INACTIVE"


def test_nothing_is_recorded_of_a_customer_that_is_not_there() -> None:
    books = rich()
    assert books.refusal(hold("j1", 1, STRANGER)) == "CUSTOMER_NOT_FOUND"
    assert len(books.journal) == 1


def test_a_refusal_is_an_entry_without_effect() -> None:
    books = rich(1)
    books.refusal(hold("j1", 2))
    entry = books.journal[-1]
    assert (entry.sequence, entry.applied, entry.debit_account, entry.credit_account) == (2, False, "", "")
