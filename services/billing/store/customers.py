"""Customers and their wallets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from services.billing import errors
from services.billing.customers import MODES, Changes, Customer, NewCustomer
from services.billing.prices import Limits
from services.billing.schema import CUSTOMERS, WALLETS
from services.billing.spending import SpendLimits
from services.billing.store import ledger, spending
from services.chassis.database import insert_rows, locked
from services.chassis.errors import ServiceError

_COLUMNS = (
    CUSTOMERS.c.customer_id,
    CUSTOMERS.c.storefront,
    CUSTOMERS.c.name,
    CUSTOMERS.c.state,
    CUSTOMERS.c.requests_per_minute,
    CUSTOMERS.c.running_jobs,
    CUSTOMERS.c.queued_jobs,
    CUSTOMERS.c.created_at_ms,
    WALLETS.c.day_limit_millis,
    WALLETS.c.month_limit_millis,
)
# Both wallets have the same limits; without a join the customer alone could be locked.
_CUSTOMERS = select(*_COLUMNS).where(
    WALLETS.c.customer_id == CUSTOMERS.c.customer_id, WALLETS.c.mode == "live"
)


def open_customer(connection: Connection, new: NewCustomer, now_ms: Callable[[], int]) -> Customer:
    """Make a customer with both wallets and its play credit, or find the one made under the same key.

    Raises ServiceError IDEMPOTENCY_KEY_CONFLICT.
    """
    made = insert_rows(connection, CUSTOMERS, [_row(new)], ignore_conflicts=True)
    if not made:
        return _made_before(connection, new)
    wallets = [
        {
            "customer_id": new.customer.customer_id,
            "mode": mode,
            "balance_millis": 0,
            "reserved_millis": 0,
            "sequence": 0,
            "day_limit_millis": new.customer.spend_limits.day_millis,
            "month_limit_millis": new.customer.spend_limits.month_millis,
        }
        for mode in MODES
    ]
    insert_rows(connection, WALLETS, wallets)
    [credit] = ledger.commit(connection, [new.play_credit], now_ms)
    if isinstance(credit, ServiceError):
        raise credit
    return new.customer


def find(connection: Connection, customer_id: str) -> Customer:
    """Raises ServiceError CUSTOMER_NOT_FOUND."""
    row = connection.execute(_CUSTOMERS.where(CUSTOMERS.c.customer_id == customer_id)).first()
    if row is None:
        raise errors.customer_not_found(customer_id)
    return _customer(row)


def page(connection: Connection, storefront: str, after_customer_id: str, limit: int) -> list[Customer]:
    """Customers in order of id; an empty storefront means all."""
    statement = _CUSTOMERS.where(CUSTOMERS.c.customer_id > after_customer_id)
    if storefront:
        statement = statement.where(CUSTOMERS.c.storefront == storefront)
    rows = connection.execute(statement.order_by(CUSTOMERS.c.customer_id).limit(limit))
    return [_customer(row) for row in rows]


def change(connection: Connection, customer_id: str, changes: Changes, now_ms: int) -> Customer:
    """Raises ServiceError CUSTOMER_NOT_FOUND."""
    statement = select(CUSTOMERS.c.customer_id).where(CUSTOMERS.c.customer_id == customer_id)
    connection.execute(locked(statement, CUSTOMERS.c.customer_id))
    changed = changes.of(find(connection, customer_id))
    if changes.spend_limits is not None:
        spending.limit(connection, customer_id, changes.spend_limits, now_ms)
    values = {"name": changed.name, "state": changed.state, **_limits_row(changed.limits)}
    connection.execute(update(CUSTOMERS).where(CUSTOMERS.c.customer_id == customer_id).values(values))
    return changed


def _made_before(connection: Connection, new: NewCustomer) -> Customer:
    statement = _CUSTOMERS.add_columns(CUSTOMERS.c.fingerprint)
    row = connection.execute(statement.where(CUSTOMERS.c.idempotency_key == new.idempotency_key)).one()
    if row[-1] != new.fingerprint:
        raise errors.idempotency_key_conflict()
    return _customer(row[:-1])


def _row(new: NewCustomer) -> dict[str, Any]:
    customer = new.customer
    return {
        "customer_id": customer.customer_id,
        "storefront": customer.storefront,
        "name": customer.name,
        "state": customer.state,
        **_limits_row(customer.limits),
        "idempotency_key": new.idempotency_key,
        "fingerprint": new.fingerprint,
        "created_at_ms": customer.created_at_ms,
    }


def _limits_row(limits: Limits) -> dict[str, int]:
    return {name: getattr(limits, name) for name in Limits.__slots__}


def _customer(row: Sequence[Any]) -> Customer:
    customer_id, storefront, name, state, per_minute, running, queued, created_at_ms, *spend = row
    limits = Limits(per_minute, running, queued)
    return Customer(customer_id, storefront, name, state, limits, created_at_ms, SpendLimits(*spend))
