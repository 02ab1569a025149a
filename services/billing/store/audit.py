"""What an audit reads: in pages. Each is of one moment if it is read in one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, func, select, tuple_

from services.billing.audit import HoldFacts, WalletFacts
from services.billing.ledger import TOMBSTONE, Entry, HoldRow
from services.billing.operations import CAPTURE, EXPIRE, HOLD, RELEASE, WalletId
from services.billing.schema import HOLDS, IS_OPEN, JOURNAL, WALLETS
from services.billing.store.ledger import ENTRY_COLUMNS, HOLD_COLUMNS, entry_of, hold_of
from services.chassis.database import member_of


class EntriesPage(NamedTuple):
    """Entries, the keys among theirs that are there more than once, and the jobs whose hold is missing."""

    entries: list[Entry]
    repeated_keys: list[str]
    jobs_without_hold: list[str]


def wallets_page(connection: Connection, after: WalletId, limit: int) -> list[WalletFacts]:
    """Wallets in order of id, after the given one."""
    held = (
        select(HOLDS.c.customer_id, HOLDS.c.mode, func.sum(HOLDS.c.amount_millis).label("millis"))
        .where(IS_OPEN)
        .group_by(HOLDS.c.customer_id, HOLDS.c.mode)
        .subquery()
    )
    last = select(func.max(JOURNAL.c.sequence)).where(
        JOURNAL.c.customer_id == WALLETS.c.customer_id, JOURNAL.c.mode == WALLETS.c.mode
    )
    statement = (
        select(
            WALLETS.c.customer_id,
            WALLETS.c.mode,
            WALLETS.c.balance_millis,
            WALLETS.c.reserved_millis,
            WALLETS.c.sequence,
            func.coalesce(last.scalar_subquery(), 0),
            func.coalesce(held.c.millis, 0),
        )
        .outerjoin(held, and_(held.c.customer_id == WALLETS.c.customer_id, held.c.mode == WALLETS.c.mode))
        .where(tuple_(WALLETS.c.customer_id, WALLETS.c.mode) > tuple_(*after))
        .order_by(WALLETS.c.customer_id, WALLETS.c.mode)
        .limit(limit)
    )
    rows = connection.execute(statement)
    return [WalletFacts(WalletId(row[0], row[1]), *row[2:6], int(row[6])) for row in rows]


def entries_page(
    connection: Connection, wallet: WalletId, after_sequence: int, up_to_sequence: int, limit: int
) -> EntriesPage:
    """A wallet's entries in their order, from after one sequence up to another."""
    statement = select(*ENTRY_COLUMNS).where(
        JOURNAL.c.customer_id == wallet.customer_id,
        JOURNAL.c.mode == wallet.mode,
        JOURNAL.c.sequence > after_sequence,
        JOURNAL.c.sequence <= up_to_sequence,
    )
    rows = connection.execute(statement.order_by(JOURNAL.c.sequence).limit(limit))
    entries = [entry_of(row) for row in rows]
    by_key = _entries_by_key(connection, [entry.idempotency_key for entry in entries])
    repeated = [key for (owner, key), found in by_key.items() if owner == wallet and len(found) > 1]
    made = {e.job_id for e in entries if e.applied and (e.kind == HOLD or e.outcome == TOMBSTONE)}
    there = connection.execute(select(HOLDS.c.job_id).where(member_of(HOLDS.c.job_id, made))).scalars()
    return EntriesPage(entries, repeated, sorted(made - set(there)))


def holds_page(connection: Connection, after_job_id: str, limit: int) -> list[HoldFacts]:
    """Holds in order of job, each with the applied entries that name it."""
    statement = select(*HOLD_COLUMNS).where(HOLDS.c.job_id > after_job_id)
    rows = connection.execute(statement.order_by(HOLDS.c.job_id).limit(limit))
    holds = [hold_of(row) for row in rows]
    kinds = (HOLD, CAPTURE, RELEASE, EXPIRE)
    by_key = _entries_by_key(connection, [f"{kind}:{hold.job_id}" for hold in holds for kind in kinds])

    def entry(hold: HoldRow, kind: str) -> Entry | None:
        found = by_key.get((hold.wallet, f"{kind}:{hold.job_id}"), [])
        return found[0] if found and found[0].applied else None

    return [HoldFacts(hold, *(entry(hold, kind) for kind in kinds)) for hold in holds]


def _entries_by_key(connection: Connection, keys: Sequence[str]) -> dict[tuple[WalletId, str], list[Entry]]:
    # A second statement, not a join: without statistics PostgreSQL joins a page with the whole journal.
    statement = select(*ENTRY_COLUMNS).where(member_of(JOURNAL.c.idempotency_key, keys))
    found: dict[tuple[WalletId, str], list[Entry]] = {}
    for entry in map(entry_of, connection.execute(statement)):
        found.setdefault((entry.wallet, entry.idempotency_key), []).append(entry)
    return found
