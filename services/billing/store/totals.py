"""What each wallet was charged in all: sums over its journal, remembered up to some entry and carried on from there.

A remembered sum is derived: any pair of a sequence and the sums up to it is right, whoever wrote it and when.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, func, select

from services.billing.ledger import UNBILLED
from services.billing.operations import CAPTURE, WalletId
from services.billing.schema import CHARGED_TOTALS, JOURNAL, WALLETS
from services.chassis.database import member_of, upsert_rows

_SAME_WALLET = and_(
    CHARGED_TOTALS.c.customer_id == WALLETS.c.customer_id, CHARGED_TOTALS.c.mode == WALLETS.c.mode
)


class Total(NamedTuple):
    """What a wallet was charged up to its entry `sequence`, in millis; `last_sequence` is its newest entry."""

    wallet: WalletId
    sequence: int
    captured_millis: int
    unbilled_millis: int
    last_sequence: int

    @property
    def behind(self) -> int:
        """Entries that are not in the sums yet."""
        return self.last_sequence - self.sequence


def remembered(connection: Connection, wallets: Iterable[WalletId]) -> list[Total]:
    """The remembered sums of those of these wallets that exist, and how far their journals have come."""
    totals = CHARGED_TOTALS.c
    sums = [func.coalesce(column, 0) for column in (totals.sequence, totals.captured_millis)]
    found = select(
        WALLETS.c.customer_id,
        WALLETS.c.mode,
        *sums,
        func.coalesce(totals.unbilled_millis, 0),
        WALLETS.c.sequence,
    ).select_from(WALLETS.outerjoin(CHARGED_TOTALS, _SAME_WALLET))
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
            entries.kind == CAPTURE,
            which,
        )
        .scalar_subquery()
        for which in (entries.applied, entries.outcome == UNBILLED)
    ]
    found = (
        select(
            WALLETS.c.customer_id,
            from_sequence,
            func.coalesce(kept.captured_millis, 0),
            func.coalesce(kept.unbilled_millis, 0),
            WALLETS.c.sequence,
            *sums,
        )
        .select_from(WALLETS.outerjoin(CHARGED_TOTALS, _SAME_WALLET))
        .where(member_of(WALLETS.c.customer_id, sorted(before)), WALLETS.c.mode == mode)
    )
    return [
        Total(
            WalletId(customer_id, mode),
            min(last, int(start) + limit),
            int(captured) + int(more),
            int(unbilled) + int(more_unbilled),
            last,
        )
        for customer_id, start, captured, unbilled, last, more, more_unbilled in connection.execute(found)
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
        }
        for total in sorted(totals)
    ]
    replaced = ("sequence", "captured_millis", "unbilled_millis")
    upsert_rows(connection, CHARGED_TOTALS, key=("customer_id", "mode"), rows=rows, replace=replaced)
