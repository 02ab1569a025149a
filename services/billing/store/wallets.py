"""Wallets and their journal, for reading."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, Text, bindparam, select

from services.billing import errors
from services.billing.ledger import Entry
from services.billing.operations import WalletId
from services.billing.schema import JOURNAL, WALLETS
from services.billing.store.ledger import ENTRY_COLUMNS, entry_of
from services.chassis.database import prepared

_STANDING = prepared(
    select(WALLETS.c.balance_millis, WALLETS.c.reserved_millis).where(
        WALLETS.c.customer_id == bindparam("customer_id", type_=Text()),
        WALLETS.c.mode == bindparam("mode", type_=Text()),
    )
)


class Standing(NamedTuple):
    """What a wallet holds, in millis."""

    balance_millis: int
    reserved_millis: int


def standing(connection: Connection, wallet: WalletId) -> Standing:
    """Raises ServiceError CUSTOMER_NOT_FOUND."""
    row = _STANDING.first(connection, **wallet._asdict())
    if row is None:
        raise errors.customer_not_found(wallet.customer_id)
    return Standing(*row)


def journal_page(connection: Connection, wallet: WalletId, before_sequence: int, limit: int) -> list[Entry]:
    """Entries of a wallet, newest first; `before_sequence` 0 starts at the newest."""
    statement = select(*ENTRY_COLUMNS).where(
        JOURNAL.c.customer_id == wallet.customer_id, JOURNAL.c.mode == wallet.mode
    )
    if before_sequence:
        statement = statement.where(JOURNAL.c.sequence < before_sequence)
    rows = connection.execute(statement.order_by(JOURNAL.c.sequence.desc()).limit(limit))
    return [entry_of(row) for row in rows]
