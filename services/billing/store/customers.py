"""Customers and their wallets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from services.billing import errors
from services.billing.customers import MODES, Changes, Customer, NewCustomer
from services.billing.prices import Limits
from services.billing.schema import CUSTOMERS, WALLETS
from services.billing.store import ledger
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
    row = connection.execute(select(*_COLUMNS).where(CUSTOMERS.c.customer_id == customer_id)).first()
    if row is None:
        raise errors.customer_not_found(customer_id)
    return _customer(row)


def page(connection: Connection, storefront: str, after_customer_id: str, limit: int) -> list[Customer]:
    """Customers in order of id; an empty storefront means all."""
    statement = select(*_COLUMNS).where(CUSTOMERS.c.customer_id > after_customer_id)
    if storefront:
        statement = statement.where(CUSTOMERS.c.storefront == storefront)
    rows = connection.execute(statement.order_by(CUSTOMERS.c.customer_id).limit(limit))
    return [_customer(row) for row in rows]


def change(connection: Connection, customer_id: str, changes: Changes) -> Customer:
    """Raises ServiceError CUSTOMER_NOT_FOUND."""
    statement = select(*_COLUMNS).where(CUSTOMERS.c.customer_id == customer_id)
    row = connection.execute(locked(statement, CUSTOMERS.c.customer_id)).first()
    if row is None:
        raise errors.customer_not_found(customer_id)
    changed = changes.of(_customer(row))
    values = {"name": changed.name, "state": changed.state, **_limits_row(changed.limits)}
    connection.execute(update(CUSTOMERS).where(CUSTOMERS.c.customer_id == customer_id).values(values))
    return changed


def _made_before(connection: Connection, new: NewCustomer) -> Customer:
    statement = select(CUSTOMERS.c.fingerprint, *_COLUMNS)
    row = connection.execute(statement.where(CUSTOMERS.c.idempotency_key == new.idempotency_key)).one()
    if row[0] != new.fingerprint:
        raise errors.idempotency_key_conflict()
    return _customer(row[1:])


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
    customer_id, storefront, name, state, per_minute, running, queued, created_at_ms = row
    return Customer(customer_id, storefront, name, state, Limits(per_minute, running, queued), created_at_ms)
