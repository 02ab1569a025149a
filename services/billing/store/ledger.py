"""A batch of money operations: load every row it names, apply the rules, write what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, select

from services.billing import ledger
from services.billing.ledger import Entry, HoldRow, Result, Wallet, WriteSet
from services.billing.operations import Operation, WalletId
from services.billing.schema import CUSTOMERS, HOLDS, JOURNAL, UNBILLED, WALLETS
from services.billing.spending import UNLIMITED, SpendLimits
from services.billing.store import spending
from services.chassis.database import (
    Change,
    Insertion,
    insert_rows,
    locked,
    member_of_named,
    prepared,
    read_together,
    write_together,
)

_STATE = select(CUSTOMERS.c.state).where(CUSTOMERS.c.customer_id == WALLETS.c.customer_id).scalar_subquery()
_STOREFRONT = (
    select(CUSTOMERS.c.storefront).where(CUSTOMERS.c.customer_id == WALLETS.c.customer_id).scalar_subquery()
)
# The customer's columns come as subqueries, so that only the wallet's row is locked.
_WALLETS = select(
    WALLETS.c.customer_id,
    WALLETS.c.mode,
    _STOREFRONT,
    _STATE,
    WALLETS.c.balance_millis,
    WALLETS.c.reserved_millis,
    WALLETS.c.sequence,
    WALLETS.c.day_limit_millis,
    WALLETS.c.month_limit_millis,
)
_LOCKED_WALLETS = prepared(
    locked(
        _WALLETS.where(member_of_named(WALLETS.c.customer_id, "customer_ids")),
        WALLETS.c.customer_id,
        WALLETS.c.mode,
    )
)
HOLD_COLUMNS = (
    HOLDS.c.job_id,
    HOLDS.c.customer_id,
    HOLDS.c.mode,
    HOLDS.c.amount_millis,
    HOLDS.c.captured_millis,
    HOLDS.c.state,
    HOLDS.c.created_at_ms,
    HOLDS.c.expires_at_ms,
    HOLDS.c.closed_at_ms,
    HOLDS.c.key_id,
)
_HOLD_NAMES = tuple(column.name for column in HOLD_COLUMNS)
# Locked too: an extension of holds does not take the wallet's lock.
_LOCKED_HOLDS = prepared(
    locked(select(*HOLD_COLUMNS).where(member_of_named(HOLDS.c.job_id, "job_ids")), HOLDS.c.job_id)
)
_ENTRY_NAMES = ("customer_id", "mode", *Entry._fields[1:])
ENTRY_COLUMNS = tuple(JOURNAL.c[name] for name in _ENTRY_NAMES)
_ENTRIES = prepared(select(*ENTRY_COLUMNS).where(member_of_named(JOURNAL.c.idempotency_key, "keys")))

_CLOSED_NAMES = ("job_id", "state", "captured_millis", "closed_at_ms")
_WALLET_NAMES = ("customer_id", "mode", "balance_millis", "reserved_millis", "sequence")


def commit(connection: Connection, batch: Sequence[Operation], now_ms: Callable[[], int]) -> list[Result]:
    """Apply `batch` inside the caller's transaction and return its results in order.

    The wallets are locked first and everything else is read after that, so that what an earlier lock holder
    committed is seen; the clock too, so that no entry is older than the one before it.
    """
    wallets = _wallets(connection, {operation.wallet.customer_id for operation in batch})
    holds, seen = _holds_and_entries(
        connection,
        {job for operation in batch if (job := getattr(operation, "job_id", ""))},
        {operation.key for operation in batch},
    )
    at_ms = now_ms()
    counts = spending.counts(connection, batch, wallets, holds, at_ms)
    results, writes = ledger.apply(batch, wallets, holds, seen, at_ms, counts)
    _store(connection, writes)
    return results


def entry_of(row: Sequence[Any]) -> Entry:
    """An entry from a row of `ENTRY_COLUMNS`."""
    return Entry(WalletId(row[0], row[1]), *row[2:])


def hold_of(row: Sequence[Any]) -> HoldRow:
    """A hold from a row of `HOLD_COLUMNS`."""
    return HoldRow(row[0], WalletId(row[1], row[2]), *row[3:])


def _wallets(connection: Connection, customer_ids: set[str]) -> dict[WalletId, Wallet]:
    rows = _LOCKED_WALLETS.rows(connection, customer_ids=customer_ids)
    return {wallet.id: wallet for wallet in map(_wallet, rows)}


def _wallet(row: Sequence[Any]) -> Wallet:
    customer_id, mode, storefront, state, balance, reserved, sequence, day_millis, month_millis = row
    limits = SpendLimits(day_millis, month_millis) if day_millis or month_millis else UNLIMITED
    name = WalletId(customer_id, mode)
    return Wallet(name, storefront, state == "active", balance, reserved, sequence, limits)


def _holds_and_entries(
    connection: Connection, job_ids: set[str], keys: set[str]
) -> tuple[dict[str, HoldRow], dict[tuple[WalletId, str], Entry]]:
    holds, seen = read_together(connection, (_LOCKED_HOLDS, _ENTRIES), job_ids=job_ids, keys=keys)
    entries = map(entry_of, seen)
    return {row[0]: hold_of(row) for row in holds}, {
        (one.wallet, one.idempotency_key): one for one in entries
    }


def _store(connection: Connection, writes: WriteSet) -> None:
    entries = [(*entry[0], *entry[1:]) for entry in writes.entries]
    made = sorted([(hold[0], *hold[1], *hold[2:]) for hold in writes.new_holds])
    closed = sorted([(h.job_id, h.state, h.captured_millis, h.closed_at_ms) for h in writes.changed_holds])
    wallets = sorted([(*w.id, w.balance_millis, w.reserved_millis, w.sequence) for w in writes.wallets])
    write_together(
        connection,
        (
            Insertion(JOURNAL, _ENTRY_NAMES, entries),
            Insertion(HOLDS, _HOLD_NAMES, made),
            Change(HOLDS, ("job_id",), _CLOSED_NAMES, closed),
            Change(WALLETS, ("customer_id", "mode"), _WALLET_NAMES, wallets),
        ),
    )
    insert_rows(connection, UNBILLED, [_unbilled_row(entry) for entry in writes.unbilled])
    spending.store(connection, writes.spent)


def _unbilled_row(entry: Entry) -> dict[str, Any]:
    return {
        "job_id": entry.job_id,
        "customer_id": entry.wallet.customer_id,
        "mode": entry.wallet.mode,
        "amount_millis": entry.amount_millis,
        "reason": "captured after expiry; the wallet could not pay",
        "created_at_ms": entry.created_at_ms,
    }
