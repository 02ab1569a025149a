from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, create_engine, delete, text
from sqlalchemy.pool import NullPool

from services.billing.schema import WALLETS
from services.billing.spending import SpendLimits
from services.billing.store import spending, totals
from services.billing.verification import LedgerWatch
from tests.conformance.billing_house import Books
from tests.unit.billing_books import ANN, adjust, capture, expire, hold, release, top_up

Tamper = Callable[[Connection], None]


async def test_verification_reads_a_long_journal_in_moments(books: Books) -> None:
    await books.run(top_up("start", 10_000))
    for start in range(0, 4_000, 500):
        await books.run(*(hold(f"j{n:05}", 1) for n in range(start, start + 500)))
        await books.run(*(capture(f"j{n:05}", 1) for n in range(start, start + 500)))
    # A plan that joins every page with the whole journal takes minutes here.
    async with asyncio.timeout(15):
        assert await books.findings() == set()


async def _live_a_little(books: Books) -> None:
    """One of everything that can happen to a wallet. The numbers of the entries are those of the comments."""
    await books.execute(delete(WALLETS).where(WALLETS.c.customer_id != "ann"))
    limits = SpendLimits(10_000, 20_000)
    await books.database.write(lambda c: spending.limit(c, "ann", limits, books.clock.now_ms()))
    await books.run(
        top_up("start", 100),  # 1
        hold("j1", 9),  # 2
        capture("j1", 4),  # 3
        hold("j2", 5),  # 4, stays open
        hold("j3", 1),  # 5
        release("j3"),  # 6
        hold("j4", 7, ttl_ms=1),  # 7
        hold("j5", 3, ttl_ms=1),  # 8
        hold("j6", 1_000),  # 9, refused
        release("j7"),  # 10, a tombstone
    )
    books.clock.at_ms += 1
    await books.run(expire("j4"), expire("j5"))  # 11, 12
    await books.run(capture("j5", 2))  # 13, late
    await books.run(adjust("taken", -85), capture("j4", 7))  # 14, and 15, which nobody can pay
    await books.run(adjust("too much", -50))  # 16, refused
    await books.database.write(lambda c: totals.remember(c, [totals.Total(ANN, 13, 6, 0, 100, 13)]))


def _without_triggers(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("ALTER TABLE journal DISABLE TRIGGER USER"))
    else:
        connection.execute(text("DROP TRIGGER journal_refuses_update"))
        connection.execute(text("DROP TRIGGER journal_refuses_delete"))


def _journal(*statements: str) -> Tamper:
    def tamper(connection: Connection) -> None:
        _without_triggers(connection)
        for statement in statements:
            connection.execute(text(statement))

    return tamper


def _rows(*statements: str) -> Tamper:
    def tamper(connection: Connection) -> None:
        for statement in statements:
            connection.execute(text(statement))

    return tamper


_COLUMNS = (
    "customer_id, mode, sequence, kind, applied, outcome, idempotency_key, fingerprint, debit_account, "
    "credit_account, amount_millis, released_millis, job_id, sku, quantity, price_version, note, "
    "balance_after_millis, reserved_after_millis, created_at_ms"
)


def _again(sequence: int, **changes: str) -> str:
    """A statement that enters an entry once more, as number 17, with some columns otherwise."""
    columns = _COLUMNS.split(", ")
    values = {**{name: name for name in columns}, "sequence": "17", **changes}
    chosen = ", ".join(values[name] for name in columns)
    return f"INSERT INTO journal ({_COLUMNS}) SELECT {chosen} FROM journal WHERE sequence = {sequence}"


_COUNTED = "UPDATE wallets SET sequence = 17"
_ORPHAN = (
    "INSERT INTO holds (job_id, customer_id, mode, amount_millis, captured_millis, state, created_at_ms, "
    "expires_at_ms, closed_at_ms) VALUES ('orphan', 'ann', 'live', {amount}, 0, {state}, 1, 9, {closed})"
)
_LISTED = "INSERT INTO unbilled VALUES ('{job}', 'ann', 'live', 1, '', 1)"

TAMPERINGS: dict[str, tuple[Tamper, set[str]]] = {
    "a balance is raised": (_rows("UPDATE wallets SET balance_millis = 101"), {"I1", "I9"}),
    "a reservation is lost": (_rows("UPDATE wallets SET reserved_millis = 0"), {"I2"}),
    "a sequence is counted on": (_rows("UPDATE wallets SET sequence = sequence + 1"), {"I4"}),
    "a hold is lost": (_rows("DELETE FROM holds WHERE job_id = 'j2'"), {"I2", "I7"}),
    "a closed hold is lost": (_rows("DELETE FROM holds WHERE job_id = 'j3'"), {"I7"}),
    "a hold is opened again": (
        _rows("UPDATE holds SET state = 'open', closed_at_ms = NULL WHERE job_id = 'j3'"),
        {"I2", "I6"},
    ),
    "a captured hold is called released": (
        _rows("UPDATE holds SET state = 'released' WHERE job_id = 'j1'"),
        {"I6"},
    ),
    "a hold says that less was captured": (
        _rows("UPDATE holds SET captured_millis = 3 WHERE job_id = 'j1'"),
        {"I6"},
    ),
    "a hold is made larger": (
        _rows("UPDATE holds SET amount_millis = 6 WHERE job_id = 'j2'"),
        {"I2", "I6"},
    ),
    "an open hold that nobody asked for": (
        _rows(_ORPHAN.format(amount=5, state="'open'", closed="NULL")),
        {"I2", "I6"},
    ),
    "a closed hold that nobody asked for": (
        _rows(_ORPHAN.format(amount=5, state="'released'", closed="1")),
        {"I6"},
    ),
    "the last entry is lost": (_journal("DELETE FROM journal WHERE sequence = 16"), {"I4"}),
    "an entry in the middle is lost": (
        _journal("DELETE FROM journal WHERE sequence = 3"),
        {"I1", "I2", "I4", "I5", "I6", "I8", "I9"},
    ),
    "an amount is changed": (
        _journal("UPDATE journal SET amount_millis = 1 WHERE kind = 'top_up'"),
        {"I1", "I5", "I9"},
    ),
    "a reply says another balance": (
        _journal("UPDATE journal SET balance_after_millis = 99 WHERE sequence = 2"),
        {"I5"},
    ),
    "a reply says another reservation": (
        _journal("UPDATE journal SET reserved_after_millis = 0 WHERE sequence = 4"),
        {"I5"},
    ),
    "a refusal is called a success": (
        _journal("UPDATE journal SET applied = true, outcome = '' WHERE sequence = 9"),
        {"I7", "I10"},
    ),
    "a success is called a refusal": (
        _journal("UPDATE journal SET applied = false WHERE sequence = 14"),
        {"I1", "I5", "I9", "I10"},
    ),
    "an entry is entered twice": (
        _journal(_again(3, idempotency_key="'capture:j1 again'"), _COUNTED),
        {"I1", "I5", "I9", "I10"},
    ),
    "a hold is closed a second time, with sums to match": (
        _journal(
            _again(
                6,
                idempotency_key="'capture:j3'",
                kind="'capture'",
                credit_account="'system:sales:live'",
                balance_after_millis="8",
                reserved_after_millis="5",
            ),
            "UPDATE wallets SET sequence = 17, balance_millis = balance_millis - 1",
        ),
        {"I6"},
    ),
    "sales are moved to another account": (
        _journal("UPDATE journal SET credit_account = 'system:adjustments:live' WHERE sequence = 3"),
        {"I10"},
    ),
    "an entry is taken over by another key": (
        _journal("UPDATE journal SET idempotency_key = 'capture:j9' WHERE sequence = 3"),
        {"I6", "I10"},
    ),
    "what could not be paid is forgotten": (_rows("DELETE FROM unbilled"), {"I11"}),
    "what could not be paid is made less": (_rows("UPDATE unbilled SET amount_millis = 1"), {"I11"}),
    "somebody owes what he paid": (_rows(_LISTED.format(job="j1")), {"I11"}),
    "somebody owes for a job that was never there": (_rows(_LISTED.format(job="j99")), {"I6"}),
    "a remembered sum is raised": (_rows("UPDATE charged_totals SET captured_millis = 7"), {"I8"}),
    "what was topped up is raised": (_rows("UPDATE charged_totals SET topped_up_millis = 101"), {"I8"}),
    "less is counted as spent": (
        _rows("UPDATE spending SET spent_millis = 10 WHERE period = '1970-01-01'"),
        {"I12"},
    ),
    "a limit says something else": (
        _journal(
            "UPDATE journal SET outcome = 'SPEND_LIMIT_REACHED', note = 'none' WHERE sequence = 9",
        ),
        {"I10"},
    ),
    "a wallet is lost": (
        _rows("DELETE FROM charged_totals", "DELETE FROM wallets"),
        {"I6"},
    ),
}


async def _tampered(books: Books, tamper: Tamper) -> None:
    """Somebody who may do everything does not stumble over foreign keys."""
    if books.database.dialect == "sqlite":
        engine = create_engine(books.url, poolclass=NullPool)
        with engine.begin() as connection:
            tamper(connection)
        return

    def unchained(connection: Connection) -> None:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        tamper(connection)

    await books.database.write(unchained)


@pytest.mark.parametrize("what", TAMPERINGS)
async def test_verification_finds_what_was_tampered_with(books: Books, what: str) -> None:
    tamper, expected = TAMPERINGS[what]
    await _live_a_little(books)
    assert (await books.report()).findings == []
    await _tampered(books, tamper)
    found = (await books.report()).findings
    assert expected <= {finding.invariant for finding in found}, found


async def test_a_report_counts_what_it_read(books: Books) -> None:
    await _live_a_little(books)
    report = await books.report()
    assert (report.wallets, report.entries, report.refusals) == (1, 16, 2)
    assert (report.holds, report.open_holds, report.overdue_holds) == (6, 1, 1)
    assert (report.unbilled_jobs, report.unbilled_millis) == (1, 7)
    assert report.accounts_millis == {
        "system:issued:live": -100,
        "system:sales:live": 6,
        "system:adjustments:live": 85,
        "wallets:live": 9,
    }
    shown = report.as_text()
    assert "Read 1 wallets, 16 entries and 6 holds." in shown
    assert "Unbilled, because their wallets could not pay any more: 1 jobs, 0.007 credits." in shown
    assert shown.endswith("The ledger is sound.")


async def test_a_report_names_what_is_wrong_with_its_amounts(books: Books) -> None:
    await books.run(top_up("start", 100), hold("j1", 9))
    await books.execute(text("UPDATE wallets SET balance_millis = 101 WHERE balance_millis = 100"))
    report = await books.report()
    shown = report.as_text()
    assert "I1 wallet ann live: the balance is 101, by journal 100" in shown
    assert "I9 mode live: the accounts add up to 1" in shown
    assert shown.endswith("The ledger has DRIFTED.")
    assert (report.as_json()["sound"], report.as_json()["invariants"]["I1"]) == (False, 1)


async def _drift_after_a_round(watch: LedgerWatch) -> float | None:
    rounds = REGISTRY.get_sample_value("atelier_billing_ledger_rounds_total") or 0
    while (REGISTRY.get_sample_value("atelier_billing_ledger_rounds_total") or 0) < rounds + 1:
        await watch.step()
    return REGISTRY.get_sample_value("atelier_billing_ledger_drift")


async def test_the_watch_shows_drift_and_its_end(books: Books) -> None:
    watch = LedgerWatch(partial(books.database.read, snapshot=True))
    await books.run(top_up("start", 100), hold("j1", 9))
    assert await _drift_after_a_round(watch) == 0
    await books.run(capture("j1", 4))
    assert await _drift_after_a_round(watch) == 0
    await books.execute(text("UPDATE wallets SET balance_millis = 97 WHERE balance_millis = 96"))
    assert await _drift_after_a_round(watch) == 1
    await books.execute(text("UPDATE wallets SET balance_millis = 96 WHERE balance_millis = 97"))
    assert await _drift_after_a_round(watch) == 0


async def test_the_watch_counts_for_a_limit_that_is_set_after_it_began(books: Books) -> None:
    watch = LedgerWatch(partial(books.database.read, snapshot=True))
    await books.run(top_up("start", 100), hold("j1", 9), hold("j2", 5), capture("j2", 3))
    assert await _drift_after_a_round(watch) == 0
    limits = SpendLimits(50, 0)
    await books.database.write(lambda c: spending.limit(c, "ann", limits, books.clock.now_ms()))
    await books.run(hold("j3", 4), release("j1"))
    assert await _drift_after_a_round(watch) == 0
    await books.execute(text("UPDATE spending SET spent_millis = 8 WHERE period = '1970-01'"))
    assert await _drift_after_a_round(watch) == 1
    await books.execute(text("UPDATE spending SET spent_millis = 7 WHERE period = '1970-01'"))
    assert await _drift_after_a_round(watch) == 0
