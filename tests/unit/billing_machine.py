"""A machine that asks ledgers anything, in any order and any company, and holds every answer to the oracle's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from services.billing import ledger
from services.billing.audit import Fold
from services.billing.ledger import Entry, HoldRow, Result, Wallet
from services.billing.operations import Capture, Expire, Grant, Hold, Operation, Release, WalletId
from services.billing.spending import SpendId, SpendLimits
from tests.unit.billing_books import (
    ANN,
    BEN,
    EVE,
    HOUR_MS,
    LINES,
    OPERATIONS,
    T0_MS,
    MemoryBooks,
    adjust,
    capture,
    hold,
    release,
    starting_wallets,
    top_up,
)
from tests.unit.billing_oracle import Oracle, as_reply


class Rows(NamedTuple):
    """Everything that a ledger has stored, in an order of its own."""

    wallets: list[Wallet]
    holds: list[HoldRow]
    journal: list[Entry]
    unbilled: dict[str, int]
    # Without those that are 0.
    spent: dict[SpendId, int]


class Ledger(Protocol):
    """One ledger under test, whatever keeps its rows."""

    def run(self, batch: Sequence[Operation], now_ms: int) -> list[Result]:
        """Apply a batch in one transaction."""

    def extend(self, job_ids: Sequence[str], until_ms: int) -> list[str]:
        """Let open holds live longer; returns the jobs that have none."""

    def due(self, now_ms: int) -> list[Expire]:
        """What a sweep would close."""

    def set_active(self, customer_id: str, active: bool) -> None:
        """Suspend a customer, or end that."""

    def set_limits(self, wallet: WalletId, limits: SpendLimits, now_ms: int) -> None:
        """Let a customer spend so much, or any amount again."""

    def rows(self) -> Rows:
        """Everything stored."""


class MemoryLedger:
    """The rules alone."""

    def __init__(self) -> None:
        self._books = MemoryBooks(starting_wallets())
        self._books.lines = dict(LINES)

    def run(self, batch: Sequence[Operation], now_ms: int) -> list[Result]:
        return self._books.run(*batch, now_ms=now_ms)

    def extend(self, job_ids: Sequence[str], until_ms: int) -> list[str]:
        held = self._books.holds
        is_open = {name for name, row in held.items() if row.state == ledger.OPEN}
        for name in is_open & set(job_ids):
            held[name] = held[name]._replace(expires_at_ms=max(held[name].expires_at_ms, until_ms))
        return [name for name in dict.fromkeys(job_ids) if name not in is_open]

    def due(self, now_ms: int) -> list[Expire]:
        is_open = (row for row in self._books.holds.values() if row.state == ledger.OPEN)
        return [Expire(row.wallet, row.job_id) for row in is_open if row.expires_at_ms <= now_ms]

    def set_active(self, customer_id: str, active: bool) -> None:
        for name, row in self._books.wallets.items():
            if name.customer_id == customer_id:
                self._books.wallets[name] = row._replace(active=active)

    def set_limits(self, wallet: WalletId, limits: SpendLimits, now_ms: int) -> None:
        self._books.limit(wallet, limits, now_ms)

    def rows(self) -> Rows:
        books = self._books
        return Rows(
            sorted(books.wallets.values()),
            sorted(books.holds.values(), key=lambda hold: hold.job_id),
            sorted(books.journal, key=lambda entry: (entry.wallet, entry.sequence)),
            {entry.job_id: entry.amount_millis for entry in books.unbilled},
            {name: millis for name, millis in books.spent.items() if millis},
        )


class InPieces:
    """A ledger that never sees a whole batch: it is cut where the sizes say, and after the last of them anew."""

    def __init__(self, inner: Ledger, sizes: Sequence[int]) -> None:
        self._inner = inner
        self._sizes = sizes
        self.extend, self.due = inner.extend, inner.due
        self.set_active, self.set_limits, self.rows = inner.set_active, inner.set_limits, inner.rows

    def run(self, batch: Sequence[Operation], now_ms: int) -> list[Result]:
        results: list[Result] = []
        turn = 0
        while len(results) < len(batch):
            size = self._sizes[turn % len(self._sizes)]
            results += self._inner.run(batch[len(results) : len(results) + size], now_ms)
            turn += 1
        return results


def otherwise(operation: Operation) -> Operation:
    """Another request under the key of this one; of a release there is only one kind."""
    match operation:
        case Hold():
            return replace(operation, quantity=operation.quantity + 1)
        case Capture():
            return replace(operation, amount_millis=operation.amount_millis + 1)
        case Grant(kind="top_up"):
            return replace(operation, kind="adjust")
        case Grant():
            return replace(operation, note=f"{operation.note}!")
        case Release() | Expire():
            return operation


_JOBS = st.sampled_from([f"j{n}" for n in range(1, 6)])
_AMOUNTS = st.integers(0, 6)
_SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=3)


class LedgerMachine(RuleBasedStateMachine):
    """Every rule asks all ledgers and the oracle the same; all of them must answer the same.

    `ledgers` makes the ledgers of one run, fresh. At the end all of them must have stored the same rows.
    """

    asked: Bundle[Operation] = Bundle("asked")
    ledgers: list[Ledger]

    def made(self, sizes: Sequence[int]) -> list[Ledger]:
        """The ledgers of one run; `sizes` are where one of them cuts its batches."""
        return [MemoryLedger(), InPieces(MemoryLedger(), [1]), InPieces(MemoryLedger(), sizes)]

    def named(self, operation: Operation) -> Operation:
        """The operation under names of this run's own, where several runs share their rows."""
        return operation

    def named_wallet(self, wallet: WalletId) -> WalletId:
        return wallet

    def named_job(self, job_id: str) -> str:
        return job_id

    def named_key(self, key_id: str) -> str:
        return key_id

    @initialize(sizes=_SIZES)
    def open_books(self, sizes: list[int]) -> None:
        self.now_ms = T0_MS
        self.ledgers = self.made(sizes)
        self.oracle = Oracle({self.named_wallet(row.id): row.active for row in starting_wallets()})
        for key_id, line in LINES.items():
            owner = (
                self.named_wallet(line.wallet),
                self.named_key(line.key_id),
                (line.limits.day_millis, line.limits.month_millis),
            )
            self.oracle.lines[self.named_key(key_id)] = owner
        self._ask([top_up("start", 7), top_up("start", 5, BEN), top_up("start", 3, EVE)])

    @rule(target=asked, operation=OPERATIONS)
    def ask(self, operation: Operation) -> Operation:
        self._ask([operation])
        return operation

    @rule(target=asked, batch=st.lists(OPERATIONS, min_size=2, max_size=12))
    def ask_together(self, batch: list[Operation]) -> Any:
        self._ask(batch)
        return multiple(*batch)

    @rule(operation=asked, copies=st.integers(1, 3))
    def repeat(self, operation: Operation, copies: int) -> None:
        self._ask([operation] * copies)

    @rule(operation=asked, first=st.booleans())
    def ask_otherwise_under_the_same_key(self, operation: Operation, first: bool) -> None:
        pair = [operation, otherwise(operation)]
        self._ask(pair if first else pair[::-1])

    @rule(job=_JOBS, amount=_AMOUNTS, capture_first=st.booleans(), owner=st.sampled_from([ANN, BEN]))
    def capture_races_release(self, job: str, amount: int, capture_first: bool, owner: WalletId) -> None:
        pair: list[Operation] = [capture(job, amount, owner), release(job, owner)]
        self._ask(pair if capture_first else pair[::-1])

    @rule(amount=st.sampled_from([10**15, 10**15 - 7]))
    def ask_for_more_than_a_wallet_holds(self, amount: int) -> None:
        self._ask([top_up(f"huge{amount}", amount), adjust("back", 7 - 10**15), top_up("start", 7)])

    @rule(
        owner=st.sampled_from([ANN, ANN, BEN]),
        limits=st.builds(SpendLimits, st.sampled_from([0, 5, 9]), st.sampled_from([0, 12])),
    )
    def limit_spending(self, owner: WalletId, limits: SpendLimits) -> None:
        wallet = self.named_wallet(owner)
        self.oracle.limits[wallet] = (limits.day_millis, limits.month_millis)
        for each in self.ledgers:
            each.set_limits(wallet, limits, self.now_ms)

    @rule(passed_ms=st.sampled_from([1, 49, 60, 2_000, 12 * HOUR_MS, 20 * 24 * HOUR_MS]))
    def wait(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @rule()
    def sweep(self) -> None:
        due = self.oracle.due(self.now_ms)
        for each in self.ledgers:
            assert {operation.job_id for operation in each.due(self.now_ms)} == due
        found = {operation.job_id: operation for operation in self.ledgers[0].due(self.now_ms)}
        self._run([found[job_id] for job_id in sorted(found)])

    @rule(job=_JOBS, held=_AMOUNTS, spent=_AMOUNTS, end_first=st.booleans())
    def capture_after_expiry(self, job: str, held: int, spent: int, end_first: bool) -> None:
        self._ask([hold(job, held, ttl_ms=1)])
        self.now_ms += 1_001
        self.sweep()
        late: list[Operation] = [adjust(f"spent{spent}", -spent - 1), capture(job, held)]
        self._ask(late if end_first else [*late[::-1], release(job)])

    @rule(job=_JOBS, over=st.integers(-1, 1), twice=st.booleans(), owner=st.sampled_from([ANN, BEN]))
    def hold_all_that_is_free(self, job: str, over: int, twice: bool, owner: WalletId) -> None:
        wallet = self.named_wallet(owner)
        free_millis = self.oracle.balance_millis(wallet) - self.oracle.reserved_millis(wallet)
        amount = max(0, free_millis + over)
        self._ask([hold(job, amount, owner), *([hold(f"{job}.again", amount, owner)] if twice else [])])

    @rule(jobs=st.lists(_JOBS, max_size=5), ttl_ms=st.sampled_from([1, 60, 1_000]))
    def extend(self, jobs: list[str], ttl_ms: int) -> None:
        names = [self.named_job(job) for job in jobs]
        expected = self.oracle.extend(names, self.now_ms + ttl_ms)
        for each in self.ledgers:
            assert each.extend(names, self.now_ms + ttl_ms) == expected

    @rule(owner=st.sampled_from([ANN, EVE]), active=st.booleans())
    def suspend_or_admit(self, owner: WalletId, active: bool) -> None:
        wallet = self.named_wallet(owner)
        self.oracle.active[wallet] = active
        for each in self.ledgers:
            each.set_active(wallet.customer_id, active)

    @invariant()
    def the_books_are_what_the_oracle_counts(self) -> None:
        rows = self.ledgers[0].rows()
        for wallet in rows.wallets:
            stored = (wallet.balance_millis, wallet.reserved_millis, wallet.sequence)
            oracle, name = self.oracle, wallet.id
            counted = (oracle.balance_millis(name), oracle.reserved_millis(name), oracle.entries(name))
            assert stored == counted
            assert 0 <= wallet.reserved_millis <= wallet.balance_millis
        ends = {hold.job_id: "" if hold.state == ledger.OPEN else hold.state for hold in rows.holds}
        assert ends == {name: job.end for name, job in self.oracle.jobs.items()}
        assert rows.unbilled == self.oracle.unbilled
        for (wallet_id, line, period), millis in rows.spent.items():
            assert millis == self.oracle.spent_millis(wallet_id, line, period)

    def teardown(self) -> None:
        if not hasattr(self, "ledgers"):
            return
        first, *others = [each.rows() for each in self.ledgers]
        assert all(rows == first for rows in others)
        for wallet in first.wallets:
            fold = Fold(wallet.id)
            entries = [entry for entry in first.journal if entry.wallet == wallet.id]
            assert [finding for entry in entries for finding in fold.add(entry)] == []

    def _ask(self, batch: Sequence[Operation]) -> None:
        self._run([self.named(operation) for operation in batch])

    def _run(self, batch: Sequence[Operation]) -> None:
        expected = [self.oracle.ask(operation, self.now_ms) for operation in batch]
        for each in self.ledgers:
            assert [as_reply(result) for result in each.run(batch, self.now_ms)] == expected
