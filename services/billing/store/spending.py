"""What is spent where there is a limit: read and written under the lock of its wallet, and counted anew for a new limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, and_, case, delete, func, literal_column, select, update

from services.billing.ledger import OPEN, HoldRow, Wallet
from services.billing.operations import HOLD, Hold, Operation, WalletId
from services.billing.schema import API_KEYS, HOLDS, JOURNAL, SPENDING, WALLETS
from services.billing.spending import WHOLE_WALLET, Counts, KeyLine, SpendId, SpendLimits, periods
from services.chassis.database import locked, member_of_named, prepared, upsert_rows

# Replicas' clocks may differ by this: around midnight the periods on both sides of it are counted.
CLOCK_DIFFERENCE_MS = 5 * 60_000

# Spelled out: of a value that is given, PostgreSQL does not see that it is the same in GROUP BY.
_DAY_MS = "86400000"
_KEY = ("customer_id", "mode", "key_id", "period")
_LINES = prepared(
    select(
        API_KEYS.c.key_id,
        API_KEYS.c.customer_id,
        API_KEYS.c.mode,
        API_KEYS.c.line_key_id,
        API_KEYS.c.day_limit_millis,
        API_KEYS.c.month_limit_millis,
    ).where(member_of_named(API_KEYS.c.key_id, "key_ids"))
)
_SPENT = prepared(
    select(*(SPENDING.c[name] for name in _KEY), SPENDING.c.spent_millis).where(
        member_of_named(SPENDING.c.customer_id, "customer_ids"),
        member_of_named(SPENDING.c.key_id, "key_ids"),
        member_of_named(SPENDING.c.period, "periods"),
    )
)


def counts(
    connection: Connection,
    batch: Sequence[Operation],
    wallets: Mapping[WalletId, Wallet],
    holds: Mapping[str, HoldRow],
    at_ms: int,
) -> Counts:
    """What the batch can change of what is spent; nothing is read where nothing that it names has a limit."""
    asking = {operation.key_id for operation in batch if isinstance(operation, Hold) and operation.key_id}
    lines = _lines(connection, asking) if asking else {}
    customers = {name.customer_id for name, wallet in wallets.items() if wallet.spend_limits.are_set}
    customers |= {line.wallet.customer_id for line in lines.values()}
    customers |= {hold.wallet.customer_id for hold in holds.values() if hold.key_id}
    if not customers:
        return Counts(lines, {})
    counted = [hold for hold in holds.values() if hold.wallet.customer_id in customers]
    made = {at_ms, *(hold.created_at_ms for hold in counted)}
    rows = _SPENT.rows(
        connection,
        customer_ids=customers,
        key_ids={WHOLE_WALLET, *(line.key_id for line in lines.values()), *(hold.key_id for hold in counted)},
        periods={period for moment in made for period in periods(moment)},
    )
    return Counts(lines, {SpendId(WalletId(*row[:2]), *row[2:4]): row[4] for row in rows})


def store(connection: Connection, spent: Iterable[tuple[SpendId, int]]) -> None:
    """Write these counts in place of what was there."""
    rows = [
        dict(zip(_KEY, (*name.wallet, name.key_id, name.period), strict=True)) | {"spent_millis": millis}
        for name, millis in spent
    ]
    upsert_rows(connection, SPENDING, key=_KEY, rows=rows, replace=("spent_millis",))


def limit(connection: Connection, customer_id: str, limits: SpendLimits, at_ms: int) -> None:
    """Give both wallets of a customer these limits. With the first one what is spent is counted from the holds."""
    named = WALLETS.c.customer_id == customer_id
    wallets = select(
        WALLETS.c.mode, WALLETS.c.sequence, WALLETS.c.day_limit_millis, WALLETS.c.month_limit_millis
    )
    rows = connection.execute(locked(wallets.where(named), WALLETS.c.mode)).all()
    change = update(WALLETS).where(named)
    connection.execute(
        change.values(day_limit_millis=limits.day_millis, month_limit_millis=limits.month_millis)
    )
    for mode, sequence, *before in rows:
        wallet = WalletId(customer_id, mode)
        if not limits.are_set:
            _forget(connection, wallet)
        elif not SpendLimits(*before).are_set:
            store(connection, _counted(connection, wallet, sequence, at_ms))


def _lines(connection: Connection, key_ids: Iterable[str]) -> dict[str, KeyLine]:
    return {
        key_id: KeyLine(WalletId(customer_id, mode), line_key_id or key_id, SpendLimits(*limits))
        for key_id, customer_id, mode, line_key_id, *limits in _LINES.rows(connection, key_ids=key_ids)
        if SpendLimits(*limits).are_set
    }


def _forget(connection: Connection, wallet: WalletId) -> None:
    # From now on nobody counts, so what is there would be wrong.
    mine = and_(SPENDING.c.customer_id == wallet.customer_id, SPENDING.c.mode == wallet.mode)
    connection.execute(delete(SPENDING).where(mine, SPENDING.c.key_id == WHOLE_WALLET))


def _counted(
    connection: Connection, wallet: WalletId, last_sequence: int, at_ms: int
) -> list[tuple[SpendId, int]]:
    """What the wallet's holds of the present day and month count for."""
    present = {
        period for ms in (-CLOCK_DIFFERENCE_MS, 0, CLOCK_DIFFERENCE_MS) for period in periods(at_ms + ms)
    }
    # The journal has an index on the wallet, the holds have none; it is long, so its part is found by halving.
    first = _first_entry_of(connection, wallet, last_sequence, min(present))
    day_ms = HOLDS.c.created_at_ms - HOLDS.c.created_at_ms % literal_column(_DAY_MS)
    millis = case((HOLDS.c.state == OPEN, HOLDS.c.amount_millis), else_=HOLDS.c.captured_millis)
    made = (
        select(day_ms, func.sum(millis))
        .join_from(JOURNAL, HOLDS, HOLDS.c.job_id == JOURNAL.c.job_id)
        .where(JOURNAL.c.customer_id == wallet.customer_id, JOURNAL.c.mode == wallet.mode)
        .where(JOURNAL.c.sequence >= first, JOURNAL.c.kind == HOLD, JOURNAL.c.applied)
        .group_by(day_ms)
    )
    spent = dict.fromkeys(present, 0)
    for day, amount_millis in connection.execute(made):
        for period in periods(day):
            if period in spent:
                spent[period] += int(amount_millis)
    return [(SpendId(wallet, WHOLE_WALLET, period), amount) for period, amount in sorted(spent.items())]


def _first_entry_of(connection: Connection, wallet: WalletId, last_sequence: int, month: str) -> int:
    """The sequence from which on the wallet's entries are of this month or later, or a smaller one."""
    low, high = 1, last_sequence + 1
    entry = select(JOURNAL.c.created_at_ms).where(
        JOURNAL.c.customer_id == wallet.customer_id, JOURNAL.c.mode == wallet.mode
    )
    while low < high:
        middle = (low + high) // 2
        made_at_ms = connection.execute(entry.where(JOURNAL.c.sequence == middle)).scalar_one()
        # A clock that was ahead may have written an entry before one that was behind.
        if periods(made_at_ms + CLOCK_DIFFERENCE_MS)[1] < month[:7]:
            low = middle + 1
        else:
            high = middle
    return low
