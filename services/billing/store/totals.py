"""What each wallet was charged in all: sums over its journal, remembered up to some entry and carried on from there.

A remembered sum is derived: any pair of a sequence and the sums up to it is right, whoever wrote it and when.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from services.billing.ledger import UNBILLED, system_account
from services.billing.operations import ADJUST, CAPTURE, TOP_UP, WalletId
from services.billing.schema import CHARGED_TOTALS, JOURNAL, WALLETS
from services.chassis.database import member_of, upsert_rows

_SUMMED = ("sequence", "captured_millis", "unbilled_millis", "topped_up_millis")
_SAME_WALLET = and_(
    CHARGED_TOTALS.c.customer_id == WALLETS.c.customer_id, CHARGED_TOTALS.c.mode == WALLETS.c.mode
)


class Total(NamedTuple):
    """What a wallet was charged and given up to its entry `sequence`, in millis; `last_sequence` is its newest entry.

    `topped_up_millis` is all that was bought or given: what adjustments took away does not lessen it.
    """

    wallet: WalletId
    sequence: int
    captured_millis: int
    unbilled_millis: int
    topped_up_millis: int
    last_sequence: int

    @property
    def behind(self) -> int:
        """Entries that are not in the sums yet."""
        return self.last_sequence - self.sequence


def remembered(connection: Connection, wallets: Iterable[WalletId]) -> list[Total]:
    """The remembered sums of those of these wallets that exist, and how far their journals have come."""
    totals = CHARGED_TOTALS.c
    sums = [func.coalesce(totals[name], 0) for name in _SUMMED]
    found = select(WALLETS.c.customer_id, WALLETS.c.mode, *sums, WALLETS.c.sequence).select_from(
        WALLETS.outerjoin(CHARGED_TOTALS, _SAME_WALLET)
    )
    wanted = set(wallets)
    named = found.where(member_of(WALLETS.c.customer_id, sorted({wallet.customer_id for wallet in wanted})))
    rows = connection.execute(named.order_by(WALLETS.c.customer_id, WALLETS.c.mode))
    every = [Total(WalletId(row[0], row[1]), *map(int, row[2:])) for row in rows]
    return [total for total in every if total.wallet in wanted]


def carried_on(connection: Connection, totals: Sequence[Total], limit: int) -> list[Total]:
    """The sums with the next entries of each wallet in them, `limit` at most of each; a statement for each mode."""
    return [
        after
        for mode in sorted({total.wallet.mode for total in totals})
        for after in _carried_on(connection, [one for one in totals if one.wallet.mode == mode], mode, limit)
    ]


def _carried_on(connection: Connection, totals: Sequence[Total], mode: str, limit: int) -> list[Total]:
    before = {total.wallet.customer_id: total for total in totals}
    entries, kept = JOURNAL.c, CHARGED_TOTALS.c
    from_sequence = func.coalesce(kept.sequence, 0)
    # Subqueries, one range of the journal each: a join might be answered by reading all of it.
    sums = [
        select(func.coalesce(func.sum(entries.amount_millis), 0))
        .where(
            entries.customer_id == WALLETS.c.customer_id,
            entries.mode == WALLETS.c.mode,
            entries.sequence > from_sequence,
            entries.sequence <= from_sequence + limit,
            which,
        )
        .scalar_subquery()
        for which in _summed_entries(mode)
    ]
    found = (
        select(
            WALLETS.c.customer_id,
            from_sequence,
            func.coalesce(kept.captured_millis, 0),
            func.coalesce(kept.unbilled_millis, 0),
            func.coalesce(kept.topped_up_millis, 0),
            WALLETS.c.sequence,
            *sums,
        )
        .select_from(WALLETS.outerjoin(CHARGED_TOTALS, _SAME_WALLET))
        .where(member_of(WALLETS.c.customer_id, sorted(before)), WALLETS.c.mode == mode)
    )
    return [
        Total(
            wallet=WalletId(row[0], mode),
            sequence=min(row[5], int(row[1]) + limit),
            captured_millis=int(row[2]) + int(row[6]),
            unbilled_millis=int(row[3]) + int(row[7]),
            topped_up_millis=int(row[4]) + int(row[8]),
            last_sequence=row[5],
        )
        for row in connection.execute(found)
    ]


def _summed_entries(mode: str) -> list[ColumnElement[bool]]:
    """Which entries make up captured, unbilled and topped up."""
    entries = JOURNAL.c
    given = and_(entries.kind == ADJUST, entries.debit_account == system_account("adjustments", mode))
    return [
        and_(entries.kind == CAPTURE, entries.applied),
        and_(entries.kind == CAPTURE, entries.outcome == UNBILLED),
        and_(or_(entries.kind == TOP_UP, given), entries.applied),
    ]


def remember(connection: Connection, totals: Sequence[Total]) -> None:
    """Keep these sums for the next time."""
    rows = [
        {
            "customer_id": total.wallet.customer_id,
            "mode": total.wallet.mode,
            "sequence": total.sequence,
            "captured_millis": total.captured_millis,
            "unbilled_millis": total.unbilled_millis,
            "topped_up_millis": total.topped_up_millis,
        }
        for total in sorted(totals)
    ]
    upsert_rows(connection, CHARGED_TOTALS, key=("customer_id", "mode"), rows=rows, replace=_SUMMED)
