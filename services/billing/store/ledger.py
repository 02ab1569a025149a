"""A batch of money operations: load every row it names, apply the rules, write what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, select

from services.billing import ledger
from services.billing.ledger import Entry, HoldRow, Result, Wallet, WriteSet
from services.billing.operations import Operation, WalletId
from services.billing.schema import CUSTOMERS, HOLDS, JOURNAL, UNBILLED, WALLETS
from services.chassis.database import insert_rows, locked, member_of, update_rows

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
)
_ENTRY_FIELDS = Entry._fields[1:]
ENTRY_COLUMNS = (JOURNAL.c.customer_id, JOURNAL.c.mode, *(JOURNAL.c[name] for name in _ENTRY_FIELDS))


def commit(connection: Connection, batch: Sequence[Operation], now_ms: Callable[[], int]) -> list[Result]:
    """Apply `batch` inside the caller's transaction and return its results in order.

    The wallets are locked first and everything else is read after that, so that what an earlier lock holder
    committed is seen; the clock is read last, so that no entry is older than the one before it.
    """
    wallets = _wallets(connection, {operation.wallet.customer_id for operation in batch})
    holds = _holds(connection, {job for operation in batch if (job := getattr(operation, "job_id", ""))})
    seen = _entries(connection, {operation.key for operation in batch})
    results, writes = ledger.apply(batch, wallets, holds, seen, now_ms())
    _store(connection, writes)
    return results


def entry_of(row: Sequence[Any]) -> Entry:
    """An entry from a row of `ENTRY_COLUMNS`."""
    return Entry(WalletId(row[0], row[1]), *row[2:])


def hold_of(row: Sequence[Any]) -> HoldRow:
    """A hold from a row of `HOLD_COLUMNS`."""
    return HoldRow(row[0], WalletId(row[1], row[2]), *row[3:])


def _wallets(connection: Connection, customer_ids: set[str]) -> dict[WalletId, Wallet]:
    named = _WALLETS.where(member_of(WALLETS.c.customer_id, customer_ids))
    rows = connection.execute(locked(named, WALLETS.c.customer_id, WALLETS.c.mode))
    wallets = (
        Wallet(WalletId(customer_id, mode), storefront, state == "active", balance, reserved, sequence)
        for customer_id, mode, storefront, state, balance, reserved, sequence in rows
    )
    return {wallet.id: wallet for wallet in wallets}


def _holds(connection: Connection, job_ids: set[str]) -> dict[str, HoldRow]:
    if not job_ids:
        return {}
    named = select(*HOLD_COLUMNS).where(member_of(HOLDS.c.job_id, job_ids))
    # Locked too: an extension of holds does not take the wallet's lock.
    return {row[0]: hold_of(row) for row in connection.execute(locked(named, HOLDS.c.job_id))}


def _entries(connection: Connection, keys: set[str]) -> dict[tuple[WalletId, str], Entry]:
    named = select(*ENTRY_COLUMNS).where(member_of(JOURNAL.c.idempotency_key, keys))
    entries = map(entry_of, connection.execute(named))
    return {(entry.wallet, entry.idempotency_key): entry for entry in entries}


def _store(connection: Connection, writes: WriteSet) -> None:
    insert_rows(connection, JOURNAL, [_entry_row(entry) for entry in writes.entries])
    new_holds = sorted(writes.new_holds, key=lambda hold: hold.job_id)
    insert_rows(connection, HOLDS, [_hold_row(hold) for hold in new_holds])
    closed = [
        {
            "job_id": hold.job_id,
            "state": hold.state,
            "captured_millis": hold.captured_millis,
            "closed_at_ms": hold.closed_at_ms,
        }
        for hold in writes.changed_holds
    ]
    update_rows(connection, HOLDS, key=("job_id",), rows=closed, returning_keys=False)
    wallets = [
        {
            "customer_id": wallet.id.customer_id,
            "mode": wallet.id.mode,
            "balance_millis": wallet.balance_millis,
            "reserved_millis": wallet.reserved_millis,
            "sequence": wallet.sequence,
        }
        for wallet in writes.wallets
    ]
    update_rows(connection, WALLETS, key=("customer_id", "mode"), rows=wallets, returning_keys=False)
    insert_rows(connection, UNBILLED, [_unbilled_row(entry) for entry in writes.unbilled])


def _entry_row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(_ENTRY_FIELDS, entry[1:], strict=True))
    row["customer_id"], row["mode"] = entry.wallet
    return row


def _hold_row(hold: HoldRow) -> dict[str, Any]:
    return {
        "job_id": hold.job_id,
        "customer_id": hold.wallet.customer_id,
        "mode": hold.wallet.mode,
        "amount_millis": hold.amount_millis,
        "captured_millis": hold.captured_millis,
        "state": hold.state,
        "created_at_ms": hold.created_at_ms,
        "expires_at_ms": hold.expires_at_ms,
        "closed_at_ms": hold.closed_at_ms,
    }


def _unbilled_row(entry: Entry) -> dict[str, Any]:
    return {
        "job_id": entry.job_id,
        "customer_id": entry.wallet.customer_id,
        "mode": entry.wallet.mode,
        "amount_millis": entry.amount_millis,
        "reason": "captured after expiry; the wallet could not pay",
        "created_at_ms": entry.created_at_ms,
    }
