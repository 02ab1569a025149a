"""Proving the ledger's invariants on stored data: all of it at once on demand, and bit by bit all the time."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from prometheus_client import Counter, Gauge
from sqlalchemy import Connection

from services.billing.audit import (
    Finding,
    Fold,
    HoldFacts,
    Report,
    WalletFacts,
    check_entry,
    check_hold,
    check_unpaid,
)
from services.billing.operations import WalletId
from services.billing.store import audit as rows

log = logging.getLogger(__name__)

T = TypeVar("T")

PAGE_ROWS = 500
# The watch reads one small page a round, so that it is never felt beside the hot path.
WATCH_PAGE_ROWS = 100
WATCH_PERIOD_S = 1.0
# Wallets whose journal need not be read from its beginning again; some 30 MB.
REMEMBERED_WALLETS = 100_000

_DRIFT = Gauge(
    "atelier_billing_ledger_drift", "Violated invariants found in the last round over all data; must be 0."
)
_ROUNDS = Counter("atelier_billing_ledger_rounds_total", "Complete rounds of the watch over all data.")

_FIRST = WalletId("", "")


class Reader(Protocol):
    """Runs a function of a connection that sees one moment; `Database.read` with `snapshot` is one."""

    def __call__(self, work: Callable[[Connection], T], /) -> Awaitable[T]: ...


async def verify(read: Reader) -> Report:
    """Read everything and say what is wrong with it. Memory does not grow with the data, only with the findings."""
    report = Report()
    after = _FIRST
    while wallets := await read(partial(rows.wallets_page, after=after, limit=PAGE_ROWS)):
        for wallet in wallets:
            report.findings += await _verify_wallet(read, wallet, _fold(wallet), report)
        after = wallets[-1].wallet
    after_job_id = ""
    while holds := await read(partial(rows.holds_page, after_job_id=after_job_id, limit=PAGE_ROWS)):
        for facts in holds:
            report.book_hold(facts)
            report.findings += _verify_hold(facts)
        after_job_id = holds[-1].hold.job_id
    report.overdue_holds = await read(rows.overdue_holds)
    strays = await read(partial(rows.strays, limit=PAGE_ROWS))
    report.findings += [Finding("I6", stray, "its wallet or its hold is missing") for stray in strays]
    report.close()
    return report


async def _verify_wallet(read: Reader, facts: WalletFacts, fold: Fold, report: Report) -> list[Finding]:
    """Fold what the journal holds up to the moment of `facts`; entries never change, so later ones do no harm."""
    wallet, findings = facts.wallet, list[Finding]()
    while fold.sequence < facts.last_entry:
        page = partial(
            rows.entries_page,
            wallet=wallet,
            after_sequence=fold.sequence,
            up_to_sequence=facts.last_entry,
            limit=PAGE_ROWS,
        )
        entries, repeated_keys, jobs_without_hold, holds_made = await read(page)
        for entry in entries:
            findings += check_entry(entry) + fold.add(entry) + fold.compare_remembered(facts)
            fold.count(entry, holds_made.get(entry.job_id))
            report.book_entry(entry)
        findings += [Finding("I7", f"key {key}", "it was used more than once") for key in repeated_keys]
        findings += [Finding("I7", f"job {job_id}", "its hold is missing") for job_id in jobs_without_hold]
    report.wallets += 1
    report.book(f"wallets:{wallet.mode}", facts.balance_millis)
    return findings + fold.compare(facts) + fold.compare_spent(facts)


def _fold(facts: WalletFacts) -> Fold:
    return Fold(facts.wallet, spent={} if facts.spent else None)


def _verify_hold(facts: HoldFacts) -> list[Finding]:
    return check_hold(facts) + check_unpaid(facts)


class LedgerWatch:
    """Walks over all wallets and holds again and again, a page a step, and shows what it finds as a metric."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._folds: dict[WalletId, Fold] = {}
        self._after_wallet = _FIRST
        self._after_job_id = ""
        self._found = 0
        self._found_last = 0

    async def step(self) -> float:
        """Check one page of wallets, or after the last of them one of holds; returns the pause in seconds."""
        if self._after_job_id or not await self._wallets_step():
            await self._holds_step()
        return WATCH_PERIOD_S

    async def _wallets_step(self) -> bool:
        after = self._after_wallet
        page = await self._read(lambda connection: rows.wallets_page(connection, after, WATCH_PAGE_ROWS))
        for facts in page:
            fold = self._folds.pop(facts.wallet, None) or _fold(facts)
            if facts.spent and fold.spent is None:
                # A limit is new: what was spent before it was not counted on the way here.
                fold = _fold(facts)
            findings = await _verify_wallet(self._read, facts, fold, Report())
            self._report(findings)
            if not findings:
                self._remember(fold)
        if page:
            self._after_wallet = page[-1].wallet
        return bool(page)

    async def _holds_step(self) -> None:
        after = self._after_job_id
        page = await self._read(lambda connection: rows.holds_page(connection, after, WATCH_PAGE_ROWS))
        self._report([finding for facts in page for finding in _verify_hold(facts)])
        if page:
            self._after_job_id = page[-1].hold.job_id
            return
        self._after_wallet, self._after_job_id = _FIRST, ""
        _ROUNDS.inc()
        self._found_last, self._found = self._found, 0
        _DRIFT.set(self._found_last)

    def _report(self, findings: list[Finding]) -> None:
        for finding in findings:
            log.error("ledger.drift", extra=finding._asdict())
        self._found += len(findings)
        # At once: a round over much data takes long.
        _DRIFT.set(max(self._found, self._found_last))

    def _remember(self, fold: Fold) -> None:
        self._folds[fold.wallet] = fold
        if len(self._folds) > REMEMBERED_WALLETS:
            del self._folds[next(iter(self._folds))]
