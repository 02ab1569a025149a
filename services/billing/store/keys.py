"""API keys as stored: everything but the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select, update

from services.billing import errors
from services.billing.keys import Key, KeyOwner
from services.billing.prices import Limits
from services.billing.schema import API_KEYS, CUSTOMERS
from services.chassis.database import insert_rows, member_of_named, prepared, update_rows

# More keys than anybody lists; older ones stay valid and can be revoked by id.
LISTED_KEYS = 1_000

_KEY_COLUMNS = tuple(API_KEYS.c[name] for name in Key.__slots__)
_OWNERS = prepared(
    select(
        API_KEYS.c.digest,
        CUSTOMERS.c.storefront,
        CUSTOMERS.c.state,
        CUSTOMERS.c.requests_per_minute,
        CUSTOMERS.c.running_jobs,
        CUSTOMERS.c.queued_jobs,
        *_KEY_COLUMNS,
    )
    .join_from(API_KEYS, CUSTOMERS, API_KEYS.c.customer_id == CUSTOMERS.c.customer_id)
    .where(member_of_named(API_KEYS.c.digest, "digests"))
)


def add(connection: Connection, key: Key, digest: str) -> None:
    """Store a new key of an existing customer."""
    row = {name: getattr(key, name) for name in Key.__slots__}
    insert_rows(connection, API_KEYS, [{**row, "digest": digest}])


def owners(connection: Connection, digests: Sequence[str]) -> dict[str, KeyOwner]:
    """The keys with these digests and their customers, by digest, whether or not they may be used."""
    found = {}
    for digest, storefront, state, per_minute, running, queued, *key in _OWNERS.rows(
        connection, digests=digests
    ):
        limits = Limits(per_minute, running, queued)
        found[digest] = KeyOwner(Key(*key), digest, storefront, state == "active", limits)
    return found


def of_customer(connection: Connection, customer_id: str) -> list[Key]:
    """A customer's keys, newest first; at most `LISTED_KEYS`."""
    statement = select(*_KEY_COLUMNS).where(API_KEYS.c.customer_id == customer_id)
    newest_first = statement.order_by(API_KEYS.c.created_at_ms.desc(), API_KEYS.c.key_id.desc())
    return [Key(*row) for row in connection.execute(newest_first.limit(LISTED_KEYS))]


def revoke(connection: Connection, key_id: str, now_ms: int) -> Key:
    """Revoke a key; one that is revoked keeps its time. Raises ServiceError KEY_NOT_FOUND."""
    named = API_KEYS.c.key_id == key_id
    still_valid = API_KEYS.c.revoked_at_ms == 0
    connection.execute(update(API_KEYS).where(named, still_valid).values(revoked_at_ms=now_ms))
    row = connection.execute(select(*_KEY_COLUMNS).where(named)).first()
    if row is None:
        raise errors.key_not_found(key_id)
    return Key(*row)


def record_uses(connection: Connection, used_at_ms: Mapping[str, int]) -> None:
    """Write when keys (by id) were last used."""
    rows = [{"key_id": key_id, "last_used_at_ms": at_ms} for key_id, at_ms in used_at_ms.items()]
    update_rows(connection, API_KEYS, key=("key_id",), rows=rows, returning_keys=False)
