"""Users, what proves them, and the tokens with which they may set a new password."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select, update

from services.billing import errors
from services.billing.customers import ACTIVE
from services.billing.prices import Limits
from services.billing.schema import CUSTOMERS, PASSWORD_RESETS, USERS
from services.billing.store import customers, ledger
from services.billing.users import MAX_RESETS, Login, NewUser, TokenOwner, User
from services.chassis.database import insert_rows, locked, member_of_named, prepared
from services.chassis.errors import ServiceError

_USER_COLUMNS = tuple(USERS.c[name] for name in User.__slots__)
_WITH_CUSTOMER = select(
    *_USER_COLUMNS, USERS.c.password_hash, USERS.c.token_version, CUSTOMERS.c.state
).join_from(USERS, CUSTOMERS, CUSTOMERS.c.customer_id == USERS.c.customer_id)
_OWNERS = prepared(
    _WITH_CUSTOMER.add_columns(
        CUSTOMERS.c.requests_per_minute, CUSTOMERS.c.running_jobs, CUSTOMERS.c.queued_jobs
    ).where(member_of_named(USERS.c.user_id, "user_ids"))
)


def sign_up(connection: Connection, new: NewUser, now_ms: Callable[[], int]) -> User:
    """Make a user with a customer, both wallets and the welcome; all of it or nothing.

    Raises ServiceError SIGN_UP_REFUSED where the address is taken.
    """
    customers.open_customer(connection, new.customer, now_ms)
    row = {name: getattr(new.user, name) for name in User.__slots__}
    secret = {"address": new.address, "password_hash": new.password_hash, "token_version": 1}
    if not insert_rows(connection, USERS, [{**row, **secret}], ignore_conflicts=True):
        raise errors.sign_up_refused()
    if new.welcome is not None:
        [result] = ledger.commit(connection, [new.welcome], now_ms)
        if isinstance(result, ServiceError):
            raise result
    return new.user


def by_address(connection: Connection, storefront: str, address: str) -> Login | None:
    """Whoever signs in with this address, if anybody does."""
    named = _WITH_CUSTOMER.where(USERS.c.storefront == storefront, USERS.c.address == address)
    row = connection.execute(named).first()
    return None if row is None else _login(row)


def owners(connection: Connection, user_ids: Sequence[int]) -> dict[int, TokenOwner]:
    """The users with these ids and what their customers may do, by id."""
    rows = _OWNERS.rows(connection, user_ids=user_ids)
    return {row[0]: TokenOwner(_login(row[:9]), Limits(*row[9:])) for row in rows}


def find(connection: Connection, user_id: int, customer_id: str) -> User:
    """The user with that id or, where it is 0, of that customer. Raises ServiceError USER_NOT_FOUND."""
    named: ColumnElement[bool] = USERS.c.user_id == user_id if user_id else USERS.c.customer_id == customer_id
    row = connection.execute(select(*_USER_COLUMNS).where(named)).first()
    if row is None:
        raise errors.user_not_found()
    return User(*row)


def rehash(connection: Connection, user_id: int, old_hash: str, new_hash: str) -> None:
    """Keep a newer hash of the same password, unless the password was changed meanwhile."""
    same = (USERS.c.user_id == user_id, USERS.c.password_hash == old_hash)
    connection.execute(update(USERS).where(*same).values(password_hash=new_hash))


def allow_reset(connection: Connection, user_id: int, digest: str, expires_at_ms: int) -> None:
    """Let the token with this digest set a new password; of too many the oldest is forgotten."""
    _lock(connection, user_id)
    insert_rows(
        connection,
        PASSWORD_RESETS,
        [{"digest": digest, "user_id": user_id, "expires_at_ms": expires_at_ms}],
    )
    resets = PASSWORD_RESETS.c
    newest_first = (
        select(resets.digest).where(resets.user_id == user_id).order_by(resets.expires_at_ms.desc())
    )
    digests = connection.execute(newest_first).scalars().all()
    for forgotten in digests[MAX_RESETS:]:
        connection.execute(delete(PASSWORD_RESETS).where(resets.digest == forgotten))


def resettable(connection: Connection, storefront: str, digest: str, now_ms: int) -> int | None:
    """Whose password this token may set, or None."""
    resets = PASSWORD_RESETS.c
    mine = (
        select(resets.user_id)
        .join_from(PASSWORD_RESETS, USERS, USERS.c.user_id == resets.user_id)
        .where(resets.digest == digest, resets.expires_at_ms > now_ms, USERS.c.storefront == storefront)
    )
    return connection.execute(mine).scalar()


def reset(connection: Connection, storefront: str, digest: str, password_hash: str, now_ms: int) -> None:
    """Set a new password: every access token and every other reset of the user ends with the old one.

    Raises ServiceError INVALID_RESET_TOKEN where the token is unknown, used or over.
    """
    user_id = resettable(connection, storefront, digest, now_ms)
    if user_id is None:
        raise errors.invalid_reset_token()
    _lock(connection, user_id)
    # Deleting it is what uses it up: of two at once the second finds nothing.
    used = delete(PASSWORD_RESETS).where(PASSWORD_RESETS.c.digest == digest)
    if not connection.execute(used).rowcount:
        raise errors.invalid_reset_token()
    version = USERS.c.token_version + 1
    change = update(USERS).where(USERS.c.user_id == user_id)
    connection.execute(change.values(password_hash=password_hash, token_version=version))
    connection.execute(delete(PASSWORD_RESETS).where(PASSWORD_RESETS.c.user_id == user_id))


def _lock(connection: Connection, user_id: int) -> None:
    connection.execute(locked(select(USERS.c.user_id).where(USERS.c.user_id == user_id), USERS.c.user_id))


def _login(row: Sequence[Any]) -> Login:
    *user, password_hash, token_version, state = row
    return Login(User(*user), password_hash, token_version, state == ACTIVE)
