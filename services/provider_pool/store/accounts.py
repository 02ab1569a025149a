"""Accounts and their breakers in the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, select, update

from services.chassis.database import insert_rows, locked, update_rows, upsert_rows
from services.chassis.prepared_statements import Prepared, Rows, prepared
from services.chassis.read_together import read_together
from services.chassis.set_statements import member_of_named
from services.chassis.write_together import Change as WriteChange
from services.chassis.write_together import write_together
from services.provider_pool.schema import ACCOUNTS, BREAKERS
from services.provider_pool.selection.health import CLOSED, Breaker
from services.provider_pool.selection.pool import Account, AccountState

_RULE_COLUMNS = [
    column
    for column in ACCOUNTS.columns
    if column.name not in {"label", "options", "credentials_sealed", "created_at_ms", "fingerprint"}
]
_RULE_NAMES = [column.name for column in _RULE_COLUMNS]
_PLAIN_NAMES = [name for name in _RULE_NAMES if name not in {"state", "models", "leases_by_model"}]
_RECORD_COLUMNS = [
    column for column in ACCOUNTS.columns if column.name not in {"credentials_sealed", "fingerprint"}
]
_LOAD_NAMES = ("leases", "leased_millis", "last_leased_at_ms", "pace_at_ms", "leases_by_model")
_BOOKED_NAMES = ("balance_millis", "booked_millis")
_LEARNT_NAMES = ("concurrency_learnt", "successes")
_TOLD_NAMES = ("balance_millis", "balance_read_at_ms", "renews_at_ms", "concurrency_told")
_counts = msgspec.json.Decoder(dict[str, int]).decode
_NO_COUNTS = "{}"
_ALL = prepared(select(*_RULE_COLUMNS))
_LOCK_ALL = prepared(locked(select(*_RULE_COLUMNS), ACCOUNTS.c.account_id))
_LOCK = prepared(
    locked(
        select(*_RULE_COLUMNS).where(member_of_named(ACCOUNTS.c.account_id, "account_ids")),
        ACCOUNTS.c.account_id,
    )
)
_PROVIDERS = prepared(
    select(ACCOUNTS.c.account_id, ACCOUNTS.c.provider).where(
        member_of_named(ACCOUNTS.c.account_id, "account_ids")
    )
)
_BREAKERS = prepared(
    select(
        BREAKERS.c.account_id,
        BREAKERS.c.model,
        BREAKERS.c.failures,
        BREAKERS.c.opened_at_ms,
        BREAKERS.c.reopens_at_ms,
        BREAKERS.c.trial_attempt_id,
        BREAKERS.c.cause,
    )
)


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """An account with what only people and adapters want to know of it."""

    account: Account
    label: str
    options: Mapping[str, str]
    created_at_ms: int

    def having(self, account: Account) -> AccountRecord:
        """The same with another `account`."""
        return replace(self, account=account)


@dataclass(frozen=True, slots=True)
class Fingerprinted:
    """An account with what it is known again by, if it is."""

    account_id: str
    provider: str
    label: str
    options: Mapping[str, str]
    fingerprint: str | None


def load_accounts(connection: Connection) -> dict[str, Account]:
    """Every account, by id, as the rules see it."""
    return _accounts(_ALL.rows(connection), load_breakers(connection))


def lock_accounts(connection: Connection, account_ids: Iterable[str] | None = None) -> dict[str, Account]:
    """The accounts named (all of them, if none are), locked in id order until the end of the transaction."""
    found, _ = lock_accounts_and(connection, account_ids, ())
    return found


def lock_accounts_and(
    connection: Connection, account_ids: Iterable[str] | None, others: tuple[Prepared, ...], /, **values: Any
) -> tuple[dict[str, Account], list[Rows]]:
    """`lock_accounts`, and the rows of other statements, which are sent together after that lock."""
    if account_ids is None:
        rows = _LOCK_ALL.rows(connection)
    else:
        rows = _LOCK.rows(connection, account_ids=sorted(account_ids))
    # A statement after the lock, so that it sees what the last holder wrote.
    breakers, *found = read_together(connection, (_BREAKERS, *others), **values)
    return _accounts(rows, _breakers_of(breakers)), found


def load_breakers(connection: Connection) -> dict[str, dict[str, Breaker]]:
    """Breakers that are not closed, by account and model."""
    return _breakers_of(_BREAKERS.rows(connection))


def _breakers_of(rows: Rows) -> dict[str, dict[str, Breaker]]:
    found: dict[str, dict[str, Breaker]] = {}
    for account_id, model, *breaker in rows:
        found.setdefault(account_id, {})[model] = Breaker(*breaker)
    return found


def load_records(connection: Connection) -> list[AccountRecord]:
    """Every account as people see it, oldest first."""
    statement = select(*_RECORD_COLUMNS).order_by(ACCOUNTS.c.created_at_ms, ACCOUNTS.c.account_id)
    return _records(connection, connection.execute(statement).all())


def load_record(connection: Connection, account_id: str) -> AccountRecord | None:
    """One account as people see it."""
    statement = select(*_RECORD_COLUMNS).where(ACCOUNTS.c.account_id == account_id)
    return next(iter(_records(connection, connection.execute(statement).all())), None)


def load_sealed(connection: Connection, account_id: str) -> bytes | None:
    """The sealed credentials of one account."""
    statement = select(ACCOUNTS.c.credentials_sealed).where(ACCOUNTS.c.account_id == account_id)
    return connection.execute(statement).scalar_one_or_none()


def load_providers(connection: Connection, account_ids: Iterable[str]) -> dict[str, str]:
    """The providers of these accounts."""
    rows = _PROVIDERS.rows(connection, account_ids=sorted(account_ids))
    return {account_id: provider for account_id, provider in rows}  # noqa: C416 - rows are sequences, not pairs


def has_accounts(connection: Connection) -> bool:
    """Whether any account was ever added: then there are credentials that a key ring has to open."""
    return connection.execute(select(ACCOUNTS.c.account_id).limit(1)).first() is not None


def load_fingerprints(connection: Connection) -> list[Fingerprinted]:
    """What every account is known again by, oldest first."""
    columns = [ACCOUNTS.c[name] for name in ("account_id", "provider", "label", "options", "fingerprint")]
    statement = select(*columns).order_by(ACCOUNTS.c.created_at_ms, ACCOUNTS.c.account_id)
    return [
        Fingerprinted(row.account_id, row.provider, row.label, json.loads(row.options), row.fingerprint)
        for row in connection.execute(statement)
    ]


def save_fingerprints(connection: Connection, fingerprints: Mapping[str, str | None]) -> None:
    """Write what accounts are known again by. The caller holds their locks."""
    rows = [{"account_id": name, "fingerprint": value} for name, value in fingerprints.items()]
    update_rows(connection, ACCOUNTS, key=["account_id"], rows=rows, returning_keys=False)


def insert_account(
    connection: Connection, record: AccountRecord, sealed: bytes, fingerprint: str | None = None
) -> bool:
    """Add an account; False if another has its label or its fingerprint."""
    account = record.account
    row = {
        **_changeable(record),
        "account_id": account.account_id,
        "provider": account.provider,
        "label": record.label,
        "leased_millis": 0,
        "leases": 0,
        "credentials_sealed": sealed,
        "created_at_ms": record.created_at_ms,
        "last_leased_at_ms": 0,
        "balance_read_at_ms": account.balance_read_at_ms,
        "booked_millis": 0,
        "concurrency_told": account.concurrency_told,
        "concurrency_learnt": 0,
        "successes": 0,
        "pace_at_ms": 0,
        "leases_by_model": _NO_COUNTS,
        "fingerprint": fingerprint,
    }
    return insert_rows(connection, ACCOUNTS, [row], ignore_conflicts=True) == 1


def update_account(connection: Connection, record: AccountRecord) -> None:
    """Write what an operator may change. The caller holds the account's lock."""
    row = {"account_id": record.account.account_id, **_changeable(record)}
    update_rows(connection, ACCOUNTS, key=["account_id"], rows=[row], returning_keys=False)


def loads_step(accounts: Iterable[Account]) -> WriteChange:
    """What leases change of accounts that the caller has locked."""
    rows = sorted(
        (
            one.account_id,
            one.leases,
            one.leased_millis,
            one.last_leased_at_ms,
            one.pace_at_ms,
            _counts_text(one.leases_by_model),
        )
        for one in accounts
    )
    return WriteChange(ACCOUNTS, ("account_id",), ("account_id", *_LOAD_NAMES), rows)


def balances_step(accounts: Iterable[Account]) -> WriteChange:
    """What bookings change of accounts that the caller has locked."""
    return _step(_BOOKED_NAMES, accounts)


def learnt_step(accounts: Iterable[Account]) -> WriteChange:
    """What was learnt of how many tasks at once accounts have that the caller has locked."""
    return _step(_LEARNT_NAMES, accounts)


def save_learnt(connection: Connection, account: Account) -> None:
    """Write what was learnt of one account that the caller has locked."""
    write_together(connection, (learnt_step([account]),))


def save_told(connection: Connection, account: Account) -> None:
    """Write what the provider told of an account that the caller has locked."""
    write_together(connection, (_step(_TOLD_NAMES, [account]),))


def replace_sealed(connection: Connection, account_id: str, before: bytes, after: bytes) -> bool:
    """Write sealed credentials where `before` still stands; False if somebody has replaced it."""
    statement = (
        update(ACCOUNTS)
        .where(ACCOUNTS.c.account_id == account_id, ACCOUNTS.c.credentials_sealed == before)
        .values(credentials_sealed=after)
    )
    return connection.execute(statement).rowcount == 1


def save_sealed(
    connection: Connection, account_id: str, sealed: bytes, fingerprint: str | None = None
) -> None:
    """Write other sealed credentials, and what they are known again by. The caller holds the account's lock."""
    statement = update(ACCOUNTS).where(ACCOUNTS.c.account_id == account_id)
    connection.execute(statement.values(credentials_sealed=sealed, fingerprint=fingerprint))


def load_sealed_page(connection: Connection, after_account_id: str, limit: int) -> list[tuple[str, bytes]]:
    """Sealed credentials in the order of their accounts."""
    statement = (
        select(ACCOUNTS.c.account_id, ACCOUNTS.c.credentials_sealed)
        .where(ACCOUNTS.c.account_id > after_account_id)
        .order_by(ACCOUNTS.c.account_id)
        .limit(limit)
    )
    return [(row.account_id, row.credentials_sealed) for row in connection.execute(statement)]


def _step(names: tuple[str, ...], accounts: Iterable[Account]) -> WriteChange:
    # In the order of their key, or replicas deadlock.
    rows = sorted((one.account_id, *[getattr(one, name) for name in names]) for one in accounts)
    return WriteChange(ACCOUNTS, ("account_id",), ("account_id", *names), rows)


def _counts_text(counts: Mapping[str, int]) -> str:
    return msgspec.json.encode(dict(sorted(counts.items()))).decode() if counts else _NO_COUNTS


def save_breakers(connection: Connection, breakers: Mapping[tuple[str, str], Breaker]) -> None:
    """Write breakers by (account, model) of accounts that the caller has locked; a closed one leaves no row."""
    kept = [
        {
            "account_id": account_id,
            "model": model,
            "failures": breaker.failures,
            "opened_at_ms": breaker.opened_at_ms,
            "reopens_at_ms": breaker.reopens_at_ms,
            "trial_attempt_id": breaker.trial_attempt_id,
            "cause": breaker.cause,
        }
        for (account_id, model), breaker in breakers.items()
        if breaker != CLOSED
    ]
    replaced = ["failures", "opened_at_ms", "reopens_at_ms", "trial_attempt_id", "cause"]
    upsert_rows(connection, BREAKERS, key=["account_id", "model"], rows=kept, replace=replaced)
    for account_id, model in (name for name, breaker in breakers.items() if breaker == CLOSED):
        delete_breakers(connection, account_id, model)


def delete_breakers(connection: Connection, account_id: str, model: str | None = None) -> None:
    """Close the account's breakers, or one of them. The caller holds the account's lock."""
    statement = delete(BREAKERS).where(BREAKERS.c.account_id == account_id)
    if model is not None:
        statement = statement.where(BREAKERS.c.model == model)
    connection.execute(statement)


def _accounts(
    rows: Sequence[Sequence[Any]], breakers: Mapping[str, Mapping[str, Breaker]]
) -> dict[str, Account]:
    named = (dict(zip(_RULE_NAMES, row, strict=True)) for row in rows)
    return {row["account_id"]: _account(row, breakers.get(row["account_id"], {})) for row in named}


def _records(connection: Connection, rows: Sequence[Row[Any]]) -> list[AccountRecord]:
    breakers = load_breakers(connection) if rows else {}
    return [
        AccountRecord(
            _account(row._mapping, breakers.get(row.account_id, {})),
            row.label,
            json.loads(row.options),
            row.created_at_ms,
        )
        for row in rows
    ]


def _account(row: Mapping[Any, Any], breakers: Mapping[str, Breaker]) -> Account:
    return Account(
        state=AccountState(row["state"]),
        models=_models(row["models"]),
        leases_by_model=_counts(row["leases_by_model"]),
        breakers=breakers,
        **{name: row[name] for name in _PLAIN_NAMES},
    )


@lru_cache(maxsize=1_000)
def _models(listed: str) -> frozenset[str]:
    return frozenset(json.loads(listed))


def _changeable(record: AccountRecord) -> dict[str, Any]:
    account = record.account
    return {
        "state": account.state.value,
        "models": json.dumps(sorted(account.models)),
        "serves_live": account.serves_live,
        "serves_test": account.serves_test,
        "concurrency_limit": account.concurrency_limit,
        "balance_millis": account.balance_millis,
        "renews_at_ms": account.renews_at_ms,
        "priority": account.priority,
        "weight": account.weight,
        "options": json.dumps(dict(sorted(record.options.items()))),
    }
