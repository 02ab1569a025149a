"""Accounts as operators add and change them and as checks find them, and their credentials as adapters get to use them."""

from __future__ import annotations

import logging
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
from services.provider_pool.accounts.twins import Recognised, Twins
from services.provider_pool.accounts.vault import KeyRing, SealBroken
from services.provider_pool.adapters.interface import AccountAccess, AccountStatus
from services.provider_pool.catalog import Catalog
from services.provider_pool.failures import CREDENTIAL_CAUSES
from services.provider_pool.selection import balances, health
from services.provider_pool.selection.capacity import Capacity
from services.provider_pool.selection.health import Fault
from services.provider_pool.selection.pool import TEST_PROVIDER, WHOLE_ACCOUNT, Account, AccountState
from services.provider_pool.store import accounts as store
from services.provider_pool.store import uploads
from services.provider_pool.store.accounts import AccountRecord

log = logging.getLogger(__name__)

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
        self._twins = Twins(ring, catalog)
        self._catalog = catalog
        self._clock = clock
        self._capacity = capacity
        self._lent: dict[str, tuple[float, AccountAccess]] = {}

    def draft(
        self, provider: str, label: str, credentials: Mapping[str, Secret], terms: Terms
    ) -> AccountRecord:
        """An account as it would be added. Raises UNKNOWN_PROVIDER and INVALID_REQUEST."""
        self._catalog.adapter(provider)
        record = AccountRecord(Account(new_id("acc"), provider), label, {}, self._clock.now_ms())
        return self._changed(record, terms, credentials)

    async def create(
        self, provider: str, label: str, credentials: Mapping[str, Secret], terms: Terms
    ) -> AccountRecord:
        """Add an account unchecked. Raises UNKNOWN_PROVIDER, INVALID_REQUEST, ACCOUNT_EXISTS and CREDENTIALS_IN_USE."""
        return await self.add(self.draft(provider, label, credentials, terms), credentials)

    async def add(self, record: AccountRecord, credentials: Mapping[str, Secret]) -> AccountRecord:
        """Add an account that was drafted. Raises ACCOUNT_EXISTS and CREDENTIALS_IN_USE."""
        sealed = self._ring.seal(record.account.account_id, credentials)

        def work(connection: Connection) -> None:
            store.lock_accounts(connection)
            fingerprint = self._twins.claimed(connection, record, credentials)
            if not store.insert_account(connection, record, sealed, fingerprint):
                # With the first account of all there was none to lock: another may have been added in the same moment.
                self._twins.claimed(connection, record, credentials)
                raise errors.account_exists(record.label)

        await self._database.write(work)
        self._capacity.improved()
        return record

    async def refuse_twin(self, record: AccountRecord, credentials: Mapping[str, Secret]) -> None:
        """Nothing, or CREDENTIALS_IN_USE: before the provider is asked whether the credentials are good."""

        def work(connection: Connection) -> None:
            store.lock_accounts(connection)
            self._twins.claimed(connection, record, credentials)

        await self._database.write(work)

    async def recognise(self) -> None:
        """Find accounts that are one at their provider, added before that was refused, and tell operators of them."""

        def work(connection: Connection) -> Recognised:
            store.lock_accounts(connection)
            return self._twins.recognised(connection)

        for account, other in (await self._database.write(work)).twins:
            names = {"account_id": account.account_id, "other_account_id": other.account_id}
            log.warning("account.added_twice", extra=names)

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
        """Change what is given. Raises ACCOUNT_NOT_FOUND, INVALID_REQUEST, and CREDENTIALS_IN_USE of another address."""

        def work(connection: Connection) -> AccountRecord:
            if terms.options is not None:
                store.lock_accounts(connection)
            before = _locked(connection, account_id)
            secrets = self._opened(account_id, store.load_sealed(connection, account_id))
            record = self._changed(before, terms, secrets)
            store.update_account(connection, record)
            if record.options != before.options:
                self._twins.moved(connection, before, record, secrets)
            return record

        record = await self._database.write(work)
        self._lent.pop(account_id, None)
        self._capacity.improved()
        return record

    async def reset(self, account_id: str) -> AccountRecord:
        """Close all breakers of the account, and forget how few tasks at once it seemed to have. Raises ACCOUNT_NOT_FOUND."""

        def work(connection: Connection) -> AccountRecord:
            account = _locked(connection, account_id).account
            store.delete_breakers(connection, account_id)
            store.save_learnt(connection, replace(account, concurrency_learnt=0, successes=0))
            return _locked(connection, account_id)

        record = await self._database.write(work)
        self._capacity.improved()
        return record

    async def replace_credentials(self, account_id: str, credentials: Mapping[str, Secret]) -> AccountRecord:
        """Seal these in the place of the account's, and close the breakers that waited for them.

        Raises ACCOUNT_NOT_FOUND and CREDENTIALS_IN_USE.
        """
        sealed = self._ring.seal(account_id, credentials)

        def work(connection: Connection) -> AccountRecord:
            store.lock_accounts(connection)
            record = _locked(connection, account_id)
            fingerprint = self._twins.claimed(connection, record, credentials)
            store.save_sealed(connection, account_id, sealed, fingerprint)
            # The key may be another account's there, which has none of these.
            uploads.delete_uploads_of(connection, account_id)
            waited = [
                model for model, one in record.account.breakers.items() if one.cause in CREDENTIAL_CAUSES
            ]
            store.save_breakers(connection, {(account_id, model): health.CLOSED for model in waited})
            return _locked(connection, account_id)

        record = await self._database.write(work)
        self._lent.pop(account_id, None)
        self._capacity.improved()
        return record

    async def passed(
        self, seen: Account, status: AccountStatus, asked_at_ms: int, *, close: bool = False
    ) -> None:
        """A check passed of an account that was `seen` before: note what it told, and let a job try what was out.

        `close`: an operator asked for it, and what was out is closed.
        """
        tells = (status.balance_millis, status.renews_at_ms, status.concurrency_limit)
        if all(one is None for one in tells) and not any(one.is_out for one in seen.breakers.values()):
            return
        now_ms = self._clock.now_ms()

        def work(connection: Connection) -> None:
            now = store.lock_accounts(connection, [seen.account_id]).get(seen.account_id)
            if now is None:
                return
            after = balances.told(now, seen, status, asked_at_ms)
            if after != now:
                store.save_told(connection, after)
            # One that opened again since then knows more than the check.
            out = {
                (seen.account_id, model): health.CLOSED if close else health.after_check(breaker, now_ms)
                for model, breaker in now.breakers.items()
                if breaker.is_out and seen.breakers.get(model) == breaker
            }
            store.save_breakers(connection, out)

        await self._database.write(work)
        self._capacity.improved()

    async def faulted(self, account_id: str, fault: Fault) -> None:
        """A check of the account failed for a reason that lies with it."""
        now_ms = self._clock.now_ms()

        def work(connection: Connection) -> None:
            account = store.lock_accounts(connection, [account_id]).get(account_id)
            if account is not None:
                before = account.breakers.get(WHOLE_ACCOUNT, health.CLOSED)
                after = health.after_fault(before, fault, now_ms)
                store.save_breakers(connection, {(account_id, WHOLE_ACCOUNT): after})

        await self._database.write(work)

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

    def _opened(self, account_id: str, sealed: bytes | None) -> Mapping[str, Secret] | None:
        try:
            return None if sealed is None else self._ring.open(account_id, sealed)
        except SealBroken:
            # An account that cannot be used can still be drained.
            return None

    def _changed(
        self, record: AccountRecord, terms: Terms, credentials: Mapping[str, Secret] | None
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
        self.check(changed, credentials)
        return changed

    def check(self, record: AccountRecord, credentials: Mapping[str, Secret] | None) -> None:
        """Raises INVALID_REQUEST, of an account that cannot be used as it is; None: nobody knows its credentials."""
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
        adapter = self._catalog.adapter(account.provider)
        complaint = None if credentials is None else adapter.complaint(record.options, credentials)
        if complaint is not None:
            raise errors.invalid_request("options", f"cannot be used: {complaint}")


def _locked(connection: Connection, account_id: str) -> AccountRecord:
    store.lock_accounts(connection, [account_id])
    record = store.load_record(connection, account_id)
    if record is None:
        raise errors.account_not_found(account_id)
    return record
