"""Asking providers about accounts: before they are added, for an operator, and by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.chassis.database import Database, migrate, write_together
from services.chassis.errors import ServiceError
from services.chassis.settings import Secret
from services.provider_pool.accounts import checking
from services.provider_pool.accounts.checking import Checks
from services.provider_pool.accounts.registry import Terms
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import AccountAccess, AccountStatus, Context, Submission
from services.provider_pool.attempts.states import AttemptState
from services.provider_pool.selection import health
from services.provider_pool.selection.health import Breaker, BreakerState, Fault, FaultKind
from services.provider_pool.selection.pool import Account, booked
from services.provider_pool.settings import MIGRATIONS
from services.provider_pool.store import accounts as store
from tests.clocks import HandClock
from tests.unit.test_pool_calls import Parts, ToyAdapter

TOLD = AccountStatus(ok=True, balance_millis=7_000, renews_at_ms=99, concurrency_limit=4)


class AskedAdapter(ToyAdapter):
    """One whose checks a test answers, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[AccountAccess] = []
        self.answer: AccountStatus | Exception = TOLD

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        self.asked.append(account)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Desk(Parts):
    """A pool with checks, and a clock that a test moves."""

    adapter: AskedAdapter

    def __init__(self, database: Database) -> None:
        super().__init__(database, AskedAdapter())
        self.database, self.time = database, HandClock()
        self.accounts._clock = self.time
        self.checks = Checks(self.accounts, self.catalog, self.leasing.ceilings, self.time)

    async def added(self, label: str = "one", **changes: Any) -> Account:
        key = {"api_key": Secret("canary-1")}
        terms = Terms(serves_live=True, **({"concurrency_limit": 0} | changes))
        return (await self.checks.create("toy", label, key, terms, unchecked=False)).account

    async def now(self, account: Account) -> Account:
        return (await self.accounts.load())[account.account_id]

    async def asked_for(self, seconds: float) -> int:
        """How often the adapter is asked in rounds over this time."""
        before, end_ms = len(self.adapter.asked), self.time.at_ms + round(seconds * 1000)
        while self.time.at_ms < end_ms:
            self.time.at_ms += 5_000
            await self.checks.run()
        return len(self.adapter.asked) - before


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="test")
    yield database
    await database.close()


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    desk = Desk(database)
    yield desk
    await desk.close()


async def test_an_account_is_added_with_what_its_provider_tells_of_it(desk: Desk) -> None:
    account = await desk.added()
    assert (account.balance_millis, account.renews_at_ms, account.slots) == (7_000, 99, 4)
    assert account.balance_read_at_ms == desk.time.at_ms
    (asked,) = desk.adapter.asked
    assert asked.secrets == {"api_key": Secret("canary-1")}


async def test_an_operator_s_limit_stays_the_operator_s(desk: Desk) -> None:
    account = await desk.added(concurrency_limit=2)
    assert (account.slots, account.concurrency_told) == (2, 4)


@pytest.mark.parametrize(
    "answer",
    [
        interface.AuthFailed("no such key: canary-1"),
        interface.AccountRestricted("closed"),
        AccountStatus(ok=False, detail="no such key"),
    ],
    ids=str,
)
async def test_credentials_that_the_provider_refuses_leave_nothing_behind(
    desk: Desk, answer: AccountStatus | Exception
) -> None:
    desk.adapter.answer = answer
    with pytest.raises(ServiceError) as refusal:
        await desk.added()
    assert refusal.value.reason == "CREDENTIALS_REFUSED"
    assert "canary" not in str(refusal.value) + refusal.value.message + str(refusal.value.metadata)
    assert await desk.accounts.list() == []


@pytest.mark.parametrize(
    "answer", [interface.TransientFailure("503"), interface.ProtocolViolation("HTML")], ids=str
)
async def test_a_provider_that_cannot_be_asked_is_told_with_the_way_round_it(
    desk: Desk, answer: Exception
) -> None:
    desk.adapter.answer = answer
    with pytest.raises(ServiceError) as refusal:
        await desk.added()
    assert (refusal.value.kind, refusal.value.reason) == ("UNAVAILABLE", "PROVIDER_UNREACHABLE")
    assert "unchecked" in refusal.value.message
    assert await desk.accounts.list() == []


async def test_a_provider_that_never_answers_is_given_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(context: Context, account: AccountAccess) -> AccountStatus:
        await asyncio.sleep(60)
        return TOLD

    monkeypatch.setattr(checking, "CHECK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(desk.adapter, "check", hangs)
    with pytest.raises(ServiceError, match="PROVIDER_UNREACHABLE"):
        await desk.added()


async def test_an_unchecked_account_is_added_without_a_question_and_needs_a_limit(desk: Desk) -> None:
    terms = Terms(serves_live=True, concurrency_limit=3, balance_millis=500)
    record = await desk.checks.create("toy", "one", {}, terms, unchecked=True)
    assert (record.account.slots, record.account.balance_millis, desk.adapter.asked) == (3, 500, [])
    with pytest.raises(ServiceError, match="INVALID_REQUEST"):
        await desk.checks.create(
            "toy", "two", {}, Terms(serves_live=True, concurrency_limit=0), unchecked=True
        )


async def test_other_credentials_are_proven_first_and_close_the_breakers_that_waited_for_them(
    desk: Desk,
) -> None:
    account = await desk.added()
    await desk.accounts.faulted(account.account_id, Fault(FaultKind.OUT, "auth_failed", desk.time.at_ms))
    new = {"api_key": Secret("canary-2")}
    desk.adapter.answer = interface.AuthFailed("no such key")
    with pytest.raises(ServiceError, match="CREDENTIALS_REFUSED"):
        await desk.checks.replace_credentials(account.account_id, new, unchecked=False)
    assert (await desk.accounts.access(account.account_id)).secrets == {"api_key": Secret("canary-1")}
    assert (await desk.now(account)).breakers[""].is_out
    desk.adapter.answer = TOLD
    await desk.checks.replace_credentials(account.account_id, new, unchecked=False)
    assert (await desk.accounts.access(account.account_id)).secrets == new
    assert (await desk.now(account)).breakers == {}


async def test_a_check_that_an_operator_asks_for_closes_what_waited_for_one(desk: Desk) -> None:
    account = await desk.added()
    desk.adapter.answer = interface.AuthFailed("withdrawn")
    found = await desk.checks.check(account.account_id)
    assert (found.passed, found.detail) == (False, "auth_failed: withdrawn")
    assert (await desk.now(account)).breakers[""].is_out
    desk.adapter.answer = telling(TOLD, 50)
    found = await desk.checks.check(account.account_id)
    assert (found.passed, found.record.account.balance_millis) == (True, 50)
    assert found.record.account.breakers == {}


def telling(status: AccountStatus, millis: int) -> AccountStatus:
    return AccountStatus(True, millis, "", status.renews_at_ms, status.concurrency_limit)


async def test_a_dead_account_is_found_before_a_job_finds_it(desk: Desk) -> None:
    account = await desk.added()
    desk.adapter.answer = interface.AuthFailed("withdrawn")
    await desk.asked_for(400)
    assert (await desk.now(account)).breakers[""].cause == "auth_failed"


async def test_a_provider_in_trouble_says_nothing_of_its_accounts(desk: Desk) -> None:
    account = await desk.added()
    desk.adapter.answer = interface.TransientFailure("503")
    assert await desk.asked_for(400) >= 1
    assert (await desk.now(account)).breakers == {}


async def test_balances_are_read_every_five_minutes(desk: Desk) -> None:
    await desk.added()
    assert 10 <= await desk.asked_for(3_600) <= 14


async def test_an_account_that_runs_low_is_asked_about_soon_after_something_was_booked(desk: Desk) -> None:
    account = await desk.added()
    desk.leasing.ceilings.note({"toy": 6_500}, desk.time.at_ms)
    assert await desk.asked_for(60) == 0
    desk.adapter.answer = telling(TOLD, 6_000)
    await book(desk, account, 1_000)
    assert await desk.asked_for(20) == 1
    assert (await desk.now(account)).balance_millis == 6_000
    assert await desk.asked_for(200) == 0


async def book(desk: Desk, account: Account, millis: int) -> None:
    """As a finished attempt does."""
    after = booked(await desk.now(account), millis)
    await desk.database.write(lambda connection: write_together(connection, (store.balances_step([after]),)))


async def test_a_check_that_passes_lets_one_job_try_an_account_that_was_out(desk: Desk) -> None:
    async def unpaid(reference: str) -> Submission:
        raise interface.InsufficientBalance("402")

    desk.adapter.answer = AccountStatus(ok=True)
    account = await desk.added(concurrency_limit=9, balance_millis=10_000)
    desk.adapter.submitting = unpaid
    assert await desk.submit("job_1:1") is AttemptState.FAILED
    desk.time.at_ms = desk.clock.now_ms()
    assert await desk.asked_for(10) == 1
    breaker = (await desk.now(account)).breakers[""]
    assert health.state_of(breaker, desk.time.at_ms) is BreakerState.HALF_OPEN


def test_each_trial_that_fails_after_a_check_makes_the_next_check_wait_longer() -> None:
    def due_after_ms(failures: int) -> int:
        return health.check_due_ms(Breaker(failures, 1_000, 0)) - 1_000

    assert [due_after_ms(failures) for failures in (1, 2, 3, 4)] == [5_000, 15_000, 30_000, 60_000]
    assert due_after_ms(50) == 3_600_000
    out = health.after_fault(
        health.after_check(Breaker(1, 1_000, 0, "", "insufficient_balance"), 2_000),
        Fault(FaultKind.OUT, "insufficient_balance", 3_000),
        3_000,
    )
    assert (out.failures, out.is_out) == (2, True)


async def test_an_account_that_stays_out_is_asked_about_less_and_less(desk: Desk) -> None:
    account = await desk.added()
    desk.adapter.answer = interface.AuthFailed("withdrawn")
    await desk.checks.check(account.account_id)
    first_minutes, later = await desk.asked_for(120), 0
    await desk.asked_for(3_600)
    later = await desk.asked_for(3_600)
    assert 3 <= first_minutes <= 8
    assert later <= 13


async def test_a_check_with_a_bug_does_not_keep_other_accounts_from_theirs(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await desk.added("one"), await desk.added("two")
    check = desk.adapter.check

    async def broken(context: Context, account: AccountAccess) -> AccountStatus:
        if account.account_id == first.account_id:
            raise RuntimeError("a bug")
        return await check(context, account)

    monkeypatch.setattr(desk.adapter, "check", broken)
    desk.adapter.answer = telling(TOLD, 5)
    await desk.asked_for(400)
    assert [(await desk.now(one)).balance_millis for one in (first, second)] == [7_000, 5]


async def test_a_booking_between_question_and_answer_stays_off_the_balance(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await desk.added()
    check = desk.adapter.check

    async def meanwhile(context: Context, access: AccountAccess) -> AccountStatus:
        await book(desk, account, 300)
        return await check(context, access)

    monkeypatch.setattr(desk.adapter, "check", meanwhile)
    await desk.checks.check(account.account_id)
    assert (await desk.now(account)).balance_millis == 6_700
