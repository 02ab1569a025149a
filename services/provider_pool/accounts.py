"""Accounts as operators add and change them, and their credentials as adapters get to use them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace
from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.chassis.settings import Secret
from services.provider_pool import errors
from services.provider_pool.adapters.interface import AccountAccess
from services.provider_pool.capacity import Capacity
from services.provider_pool.catalog import Catalog
from services.provider_pool.pool import TEST_PROVIDER, Account, AccountState
from services.provider_pool.store import accounts as store
from services.provider_pool.store.accounts import AccountRecord
from services.provider_pool.vault import KeyRing

ACCESS_KEPT_S: Final = 5.0
"""How long another replica's change of an account's options may go unnoticed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an operator sets of an account; None leaves it as it is."""

    state: AccountState | None = None
    models: frozenset[str] | None = None
    serves_live: bool | None = None
    serves_test: bool | None = None
    concurrency_limit: int | None = None
    balance_millis: int | None = None
    renews_at_ms: int | None = None
    priority: int | None = None
    weight: int | None = None
    options: Mapping[str, str] | None = None


class Accounts:
    """Adds, shows and changes accounts."""

    def __init__(
        self, database: Database, ring: KeyRing, catalog: Catalog, clock: Clock, capacity: Capacity
    ) -> None:
        self._database = database
        self._ring = ring
        self._catalog = catalog
        self._clock = clock
        self._capacity = capacity
        self._lent: dict[str, tuple[float, AccountAccess]] = {}

    async def create(
        self, provider: str, label: str, credentials: Mapping[str, Secret], terms: Terms
    ) -> AccountRecord:
        """Add an account. Raises UNKNOWN_PROVIDER, ACCOUNT_EXISTS, INVALID_REQUEST."""
        self._catalog.adapter(provider)
        now_ms = self._clock.now_ms()
        record = AccountRecord(Account(new_id("acc"), provider), label, {}, now_ms)
        record = self._changed(record, terms, credentials)
        sealed = self._ring.seal(record.account.account_id, credentials)
        if not await self._database.write(
            lambda connection: store.insert_account(connection, record, sealed)
        ):
            raise errors.account_exists(label)
        self._capacity.improved()
        return record

    async def get(self, account_id: str) -> AccountRecord:
        """Raises ACCOUNT_NOT_FOUND."""
        found = await self._database.read(lambda connection: store.load_record(connection, account_id))
        if found is None:
            raise errors.account_not_found(account_id)
        return found

    async def list(self) -> list[AccountRecord]:
        """All of them, oldest first."""
        return await self._database.read(store.load_records)

    async def update(self, account_id: str, terms: Terms) -> AccountRecord:
        """Change what is given. Raises ACCOUNT_NOT_FOUND and INVALID_REQUEST."""

        def work(connection: Connection) -> AccountRecord:
            record = self._changed(_locked(connection, account_id), terms, {})
            store.update_account(connection, record)
            return record

        record = await self._database.write(work)
        self._lent.pop(account_id, None)
        self._capacity.improved()
        return record

    async def reset(self, account_id: str) -> AccountRecord:
        """Close all breakers of the account. Raises ACCOUNT_NOT_FOUND."""

        def work(connection: Connection) -> AccountRecord:
            _locked(connection, account_id)
            store.delete_breakers(connection, account_id)
            return _locked(connection, account_id)

        record = await self._database.write(work)
        self._capacity.improved()
        return record

    async def close_breakers(self, account_id: str, seen: Account, balance_millis: int | None) -> None:
        """A check of the account passed: close the breakers that were out when it was `seen`, and note the balance."""

        def work(connection: Connection) -> None:
            now = store.lock_accounts(connection, [account_id]).get(account_id)
            for model, breaker in now.breakers.items() if now is not None else ():
                # One that opened again since then knows more than the check.
                if breaker.is_out and seen.breakers.get(model) == breaker:
                    store.delete_breakers(connection, account_id, model)
            if balance_millis is not None:
                store.save_balances(connection, {account_id: balance_millis})

        await self._database.write(work)
        self._capacity.improved()

    async def load(self) -> dict[str, Account]:
        """All accounts as the rules see them, by id."""
        return await self._database.read(store.load_accounts)

    async def access(self, account_id: str) -> AccountAccess:
        """Credentials and options, for an adapter. Raises ACCOUNT_NOT_FOUND and vault.SealBroken."""
        asked_s = time.monotonic()
        kept = self._lent.get(account_id)
        if kept is not None:
            if asked_s - kept[0] < ACCESS_KEPT_S:
                return kept[1]
            if asked_s - kept[0] < 2 * ACCESS_KEPT_S:
                # This one looks again; who comes meanwhile takes what was known, or hundreds would look at once.
                self._lent[account_id] = (asked_s - ACCESS_KEPT_S / 2, kept[1])

        def work(connection: Connection) -> tuple[AccountRecord | None, bytes | None]:
            return store.load_record(connection, account_id), store.load_sealed(connection, account_id)

        record, sealed = await self._database.read(work)
        if record is None or sealed is None:
            raise errors.account_not_found(account_id)
        secrets = self._ring.open(account_id, sealed)
        access = AccountAccess(account_id, record.account.provider, secrets, record.options)
        self._lent[account_id] = (asked_s, access)
        return access

    def _changed(
        self, record: AccountRecord, terms: Terms, credentials: Mapping[str, Secret]
    ) -> AccountRecord:
        names = (
            "state",
            "models",
            "serves_live",
            "serves_test",
            "concurrency_limit",
            "balance_millis",
            "renews_at_ms",
            "priority",
            "weight",
        )
        given = {name: value for name in names if (value := getattr(terms, name)) is not None}
        options = record.options if terms.options is None else terms.options
        changed = AccountRecord(replace(record.account, **given), record.label, options, record.created_at_ms)
        self._check(changed, credentials)
        return changed

    def _check(self, record: AccountRecord, credentials: Mapping[str, Secret]) -> None:
        account = record.account
        unknown = account.models - self._catalog.models(account.provider)
        if unknown:
            raise errors.invalid_request(
                "models", f"names models that the provider does not serve: {sorted(unknown)}"
            )
        if account.serves_test and account.provider != TEST_PROVIDER:
            raise errors.invalid_request(
                "serves_test", f"is for accounts of the provider {TEST_PROVIDER!r} only"
            )
        complaint = self._catalog.adapter(account.provider).complaint(record.options, credentials)
        if complaint is not None:
            raise errors.invalid_request("options", f"cannot be used: {complaint}")


def _locked(connection: Connection, account_id: str) -> AccountRecord:
    store.lock_accounts(connection, [account_id])
    record = store.load_record(connection, account_id)
    if record is None:
        raise errors.account_not_found(account_id)
    return record
