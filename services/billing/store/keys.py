"""API keys as stored: everything but the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection, func, or_, select, update

from services.billing import errors, keys
from services.billing.keys import Key, KeyOwner, KeyRules
from services.billing.prices import Limits
from services.billing.schema import API_KEYS, CUSTOMERS, USERS
from services.billing.spending import SpendLimits
from services.chassis.database import insert_rows, locked, member_of_named, prepared, update_rows

# More keys than anybody lists; older ones stay valid and can be revoked by id.
LISTED_KEYS = 1_000

_PLAIN_NAMES = tuple(name for name in Key.__slots__ if name != "rules")
_RULE_NAMES = ("rules", "day_limit_millis", "month_limit_millis", "line_key_id")
_KEY_COLUMNS = tuple(API_KEYS.c[name] for name in (*_PLAIN_NAMES, *_RULE_NAMES))
_OWNERS = prepared(
    select(
        API_KEYS.c.digest,
        CUSTOMERS.c.storefront,
        CUSTOMERS.c.state,
        CUSTOMERS.c.requests_per_minute,
        CUSTOMERS.c.running_jobs,
        CUSTOMERS.c.queued_jobs,
        func.coalesce(USERS.c.user_id, 0),
        *_KEY_COLUMNS,
    )
    .join_from(API_KEYS, CUSTOMERS, API_KEYS.c.customer_id == CUSTOMERS.c.customer_id)
    .outerjoin(USERS, USERS.c.customer_id == API_KEYS.c.customer_id)
    .where(member_of_named(API_KEYS.c.digest, "digests"))
)


def add(connection: Connection, key: Key, digest: str) -> None:
    """Store a new key of an existing customer."""
    row = {name: getattr(key, name) for name in _PLAIN_NAMES}
    insert_rows(connection, API_KEYS, [{**row, **_rules_row(key.rules), "digest": digest}])


def owners(connection: Connection, digests: Sequence[str]) -> dict[str, KeyOwner]:
    """The keys with these digests and their customers, by digest, whether or not they may be used."""
    found = {}
    for digest, storefront, state, per_minute, running, queued, user_id, *key in _OWNERS.rows(
        connection, digests=digests
    ):
        limits = Limits(per_minute, running, queued)
        found[digest] = KeyOwner(_key(key), digest, storefront, state == "active", limits, user_id)
    return found


def rotate(
    connection: Connection, key_id: str, successor_id: str, now_ms: int, overlap_ms: int
) -> tuple[Key, str]:
    """End a key after `overlap_ms` and say which key takes its place, and whose storefront it is.

    What is answered is the successor without its hint; `add` makes it. It lives as long as the line was meant to,
    also where the key has been rotated before. Raises ServiceError KEY_NOT_FOUND for a key that does not work any more.
    """
    named = select(*_KEY_COLUMNS).where(API_KEYS.c.key_id == key_id)
    row = connection.execute(locked(named, API_KEYS.c.key_id)).first()
    old = None if row is None else _key(row)
    if old is None or not keys.is_valid(old, now_ms):
        raise errors.key_not_found(key_id)
    line_ends_at_ms = _line_end(connection, old)
    ends_at_ms = min(now_ms + overlap_ms, old.expires_at_ms or now_ms + overlap_ms)
    connection.execute(update(API_KEYS).where(API_KEYS.c.key_id == key_id).values(expires_at_ms=ends_at_ms))
    storefront = select(CUSTOMERS.c.storefront).where(CUSTOMERS.c.customer_id == old.customer_id)
    rules = replace(old.rules, line_key_id=old.line)
    successor = replace(
        old,
        key_id=successor_id,
        hint="",
        created_at_ms=now_ms,
        expires_at_ms=line_ends_at_ms,
        last_used_at_ms=0,
        rules=rules,
    )
    return successor, connection.execute(storefront).scalar_one()


def _line_end(connection: Connection, key: Key) -> int:
    """When the line of a key ends: what the newest key of it says, which nobody has rotated."""
    keys_of = API_KEYS.c
    line = select(keys_of.expires_at_ms).where(
        keys_of.customer_id == key.customer_id,
        or_(keys_of.line_key_id == key.line, keys_of.key_id == key.line),
    )
    newest_first = line.order_by(keys_of.created_at_ms.desc(), keys_of.key_id.desc())
    return int(connection.execute(newest_first.limit(1)).scalar_one())


def of_customer(connection: Connection, customer_id: str) -> list[Key]:
    """A customer's keys, newest first; at most `LISTED_KEYS`."""
    statement = select(*_KEY_COLUMNS).where(API_KEYS.c.customer_id == customer_id)
    newest_first = statement.order_by(API_KEYS.c.created_at_ms.desc(), API_KEYS.c.key_id.desc())
    return [_key(row) for row in connection.execute(newest_first.limit(LISTED_KEYS))]


def revoke(connection: Connection, key_id: str, now_ms: int) -> Key:
    """Revoke a key; one that is revoked keeps its time. Raises ServiceError KEY_NOT_FOUND."""
    named = API_KEYS.c.key_id == key_id
    still_valid = API_KEYS.c.revoked_at_ms == 0
    connection.execute(update(API_KEYS).where(named, still_valid).values(revoked_at_ms=now_ms))
    row = connection.execute(select(*_KEY_COLUMNS).where(named)).first()
    if row is None:
        raise errors.key_not_found(key_id)
    return _key(row)


def record_uses(connection: Connection, used_at_ms: Mapping[str, int]) -> None:
    """Write when keys (by id) were last used."""
    rows = [{"key_id": key_id, "last_used_at_ms": at_ms} for key_id, at_ms in used_at_ms.items()]
    update_rows(connection, API_KEYS, key=("key_id",), rows=rows, returning_keys=False)


def renew_digests(connection: Connection, digests: Mapping[str, str]) -> None:
    """Keep these digests (by key id), made under the pepper in use, in place of older ones."""
    rows = [{"key_id": key_id, "digest": digest} for key_id, digest in digests.items()]
    update_rows(connection, API_KEYS, key=("key_id",), rows=rows, returning_keys=False)


def _key(row: Sequence[Any]) -> Key:
    key = Key(*row[: len(_PLAIN_NAMES)])
    rules, day_millis, month_millis, line_key_id = row[len(_PLAIN_NAMES) :]
    if not (rules or day_millis or month_millis or line_key_id):
        return key
    named = msgspec.json.decode(rules, type=_Named) if rules else _NOTHING_NAMED
    limits = SpendLimits(day_millis, month_millis)
    return replace(key, rules=KeyRules(named.models, named.networks, limits, line_key_id))


class _Named(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the column `rules` holds."""

    models: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


_NOTHING_NAMED = _Named()


def _rules_row(rules: KeyRules) -> dict[str, Any]:
    named = _Named(rules.models, rules.networks)
    return {
        "rules": msgspec.json.encode(named).decode() if named != _NOTHING_NAMED else "",
        "day_limit_millis": rules.spend_limits.day_millis,
        "month_limit_millis": rules.spend_limits.month_millis,
        "line_key_id": rules.line_key_id,
    }
