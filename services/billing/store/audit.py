"""What an audit reads: in pages. Each is of one moment if it is read in one snapshot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, exists, func, or_, select, tuple_

from services.billing.audit import HoldFacts, Made, WalletFacts
from services.billing.ledger import UNBILLED as UNPAID
from services.billing.ledger import Entry, HoldRow
from services.billing.operations import CAPTURE, EXPIRE, HOLD, RELEASE, WalletId
from services.billing.schema import CHARGED_TOTALS, HOLDS, IS_OPEN, JOURNAL, SPENDING, UNBILLED, WALLETS
from services.billing.store.ledger import ENTRY_COLUMNS, HOLD_COLUMNS, entry_of, hold_of
from services.chassis.database import database_now_ms, member_of


class EntriesPage(NamedTuple):
    """Entries, the keys among theirs that are there more than once, the jobs whose hold is missing, and the others' holds."""

    entries: list[Entry]
    repeated_keys: list[str]
    jobs_without_hold: list[str]
    holds_made: dict[str, Made]


def wallets_page(connection: Connection, after: WalletId, limit: int) -> list[WalletFacts]:
    """Wallets in order of id, after the given one."""
    held = (
        select(HOLDS.c.customer_id, HOLDS.c.mode, func.sum(HOLDS.c.amount_millis).label("millis"))
        .where(IS_OPEN)
        .group_by(HOLDS.c.customer_id, HOLDS.c.mode)
        .subquery()
    )
    totals = CHARGED_TOTALS.c
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
            *(func.coalesce(column, 0) for column in (totals.sequence, totals.captured_millis)),
            *(func.coalesce(column, 0) for column in (totals.unbilled_millis, totals.topped_up_millis)),
        )
        .outerjoin(held, and_(held.c.customer_id == WALLETS.c.customer_id, held.c.mode == WALLETS.c.mode))
        .outerjoin(
            CHARGED_TOTALS,
            and_(totals.customer_id == WALLETS.c.customer_id, totals.mode == WALLETS.c.mode),
        )
        .where(tuple_(WALLETS.c.customer_id, WALLETS.c.mode) > tuple_(*after))
        .order_by(WALLETS.c.customer_id, WALLETS.c.mode)
        .limit(limit)
    )
    rows = connection.execute(statement).all()
    spent = _spent(connection, {row[0] for row in rows})
    return [_wallet_facts(row, spent) for row in rows]


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
    # Whatever is written of a job is about its hold, but for a hold that was refused.
    jobs = {e.job_id for e in entries if e.job_id and (e.applied or e.kind != HOLD)}
    holds = select(HOLDS.c.job_id, HOLDS.c.created_at_ms, HOLDS.c.key_id)
    there = connection.execute(holds.where(member_of(HOLDS.c.job_id, jobs)))
    made = {row[0]: Made(row[1], row[2]) for row in there}
    return EntriesPage(entries, repeated, sorted(jobs - set(made)), made)


def holds_page(connection: Connection, after_job_id: str, limit: int) -> list[HoldFacts]:
    """Holds in order of job, each with the entries that name it and what is listed of it as unbilled."""
    statement = select(*HOLD_COLUMNS).where(HOLDS.c.job_id > after_job_id)
    rows = connection.execute(statement.order_by(HOLDS.c.job_id).limit(limit))
    holds = [hold_of(row) for row in rows]
    kinds = (HOLD, CAPTURE, RELEASE, EXPIRE)
    by_key = _entries_by_key(connection, [f"{kind}:{hold.job_id}" for hold in holds for kind in kinds])
    owed = select(UNBILLED.c.job_id, UNBILLED.c.amount_millis)
    named = owed.where(member_of(UNBILLED.c.job_id, [hold.job_id for hold in holds]))
    listed = {row.job_id: row.amount_millis for row in connection.execute(named)}

    def entry(hold: HoldRow, kind: str, applied: bool = True) -> Entry | None:
        found = by_key.get((hold.wallet, f"{kind}:{hold.job_id}"), [])
        return found[0] if found and found[0].applied is applied else None

    def unpaid(hold: HoldRow) -> Entry | None:
        refused = entry(hold, CAPTURE, applied=False)
        return refused if refused is not None and refused.outcome == UNPAID else None

    return [
        HoldFacts(
            hold,
            held=entry(hold, HOLD),
            captured=entry(hold, CAPTURE),
            released=entry(hold, RELEASE),
            expired=entry(hold, EXPIRE),
            unpaid=unpaid(hold),
            listed_millis=listed.get(hold.job_id),
        )
        for hold in holds
    ]


def overdue_holds(connection: Connection) -> int:
    """How many open holds are past their expiry, by the database's own clock."""
    late = select(func.count()).select_from(HOLDS).where(IS_OPEN, HOLDS.c.expires_at_ms < database_now_ms())
    return connection.execute(late).scalar_one()


def strays(connection: Connection, limit: int) -> list[str]:
    """Rows that belong to nothing: of wallets that are not there, and unbilled jobs without a hold."""
    found = [f"journal of {owner} {mode}" for owner, mode in _journals_without_wallet(connection, limit)]
    for table in (HOLDS, UNBILLED):
        kind, job_id = table.name.rstrip("s"), table.c.job_id
        missing = ~exists().where(
            WALLETS.c.customer_id == table.c.customer_id, WALLETS.c.mode == table.c.mode
        )
        if table is UNBILLED:
            missing = or_(missing, ~exists().where(HOLDS.c.job_id == job_id))
        rows = connection.execute(select(job_id).where(missing).order_by(job_id).limit(limit)).scalars()
        found += [f"{kind} {name}" for name in rows]
    return found


def _wallet_facts(row: Sequence[Any], spent: Mapping[WalletId, dict[tuple[str, str], int]]) -> WalletFacts:
    name = WalletId(row[0], row[1])
    return WalletFacts(
        wallet=name,
        balance_millis=row[2],
        reserved_millis=row[3],
        sequence=row[4],
        last_entry=row[5],
        open_holds_millis=int(row[6]),
        remembered=tuple(row[7:]),
        spent=spent.get(name, {}),
    )


def _spent(
    connection: Connection, customer_ids: Collection[str]
) -> dict[WalletId, dict[tuple[str, str], int]]:
    found: dict[WalletId, dict[tuple[str, str], int]] = {}
    rows = connection.execute(select(SPENDING).where(member_of(SPENDING.c.customer_id, customer_ids)))
    for customer_id, mode, key_id, period, millis in rows:
        found.setdefault(WalletId(customer_id, mode), {})[key_id, period] = millis
    return found


def _journals_without_wallet(connection: Connection, limit: int) -> list[tuple[str, str]]:
    # From owner to owner by index: reading a long journal for a few names would outlast a reader's time.
    entries = JOURNAL.c
    owners = select(func.min(entries.customer_id).label("customer_id")).cte("owners", recursive=True)
    following = select(func.min(entries.customer_id)).where(entries.customer_id > owners.c.customer_id)
    owners = owners.union_all(select(following.scalar_subquery()).where(owners.c.customer_id.is_not(None)))
    found: list[tuple[str, str]] = []
    for mode in ("live", "test"):
        named = and_(entries.customer_id == owners.c.customer_id, entries.mode == mode)
        wallet = and_(WALLETS.c.customer_id == owners.c.customer_id, WALLETS.c.mode == mode)
        stray = select(owners.c.customer_id).where(exists().where(named), ~exists().where(wallet))
        found += [(owner, mode) for owner in connection.execute(stray.limit(limit)).scalars()]
    return found


def _entries_by_key(connection: Connection, keys: Sequence[str]) -> dict[tuple[WalletId, str], list[Entry]]:
    # A second statement, not a join: without statistics PostgreSQL joins a page with the whole journal.
    statement = select(*ENTRY_COLUMNS).where(member_of(JOURNAL.c.idempotency_key, keys))
    found: dict[tuple[WalletId, str], list[Entry]] = {}
    for entry in map(entry_of, connection.execute(statement)):
        found.setdefault((entry.wallet, entry.idempotency_key), []).append(entry)
    return found
