"""Knows an account at a provider again that was added before: as two here, its limits and its balance would count twice.

Every account has a fingerprint of its key, made under the key of the ring that seals now, so that comparing opens no seal.
Those that have none yet, because another key sealed or another release ran when they were added, are given theirs before
anything is compared. A ring is changed with replicas that seal under different keys: each then makes all of them its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from services.chassis.settings import Secret
from services.provider_pool import errors
from services.provider_pool.accounts.vault import KeyRing, SealBroken
from services.provider_pool.catalog import Catalog
from services.provider_pool.store import accounts as store
from services.provider_pool.store.accounts import AccountRecord, Fingerprinted


@dataclass(frozen=True, slots=True)
class Recognised:
    """Accounts by their fingerprint; and those that turned out to be the same as one of them, which have none."""

    by_fingerprint: Mapping[str, Fingerprinted]
    twins: tuple[tuple[Fingerprinted, Fingerprinted], ...]


class Twins:
    """All its methods want every account locked until the end of the transaction."""

    def __init__(self, ring: KeyRing, catalog: Catalog) -> None:
        self._ring = ring
        self._catalog = catalog

    def claimed(
        self, connection: Connection, record: AccountRecord, credentials: Mapping[str, Secret]
    ) -> str | None:
        """The fingerprint that the account is to have; None where two cannot be told apart. Raises CREDENTIALS_IN_USE."""
        account = record.account
        fingerprint = self._fingerprint(account.provider, record.options, credentials)
        if fingerprint is None:
            return None
        other = self.recognised(connection, account.provider).by_fingerprint.get(fingerprint)
        if other is not None and other.account_id != account.account_id:
            raise errors.credentials_in_use(other.label, other.account_id)
        return fingerprint

    def moved(
        self,
        connection: Connection,
        before: AccountRecord,
        after: AccountRecord,
        credentials: Mapping[str, Secret] | None,
    ) -> None:
        """Its options changed: somewhere else, the same key may be another account's. Raises CREDENTIALS_IN_USE.

        `credentials`: None where they do not open.
        """
        account = after.account
        fingerprint = None
        if credentials is not None:
            known = self._fingerprint(account.provider, before.options, credentials)
            if known == self._fingerprint(account.provider, after.options, credentials):
                return
            fingerprint = self.claimed(connection, after, credentials)
        store.save_fingerprints(connection, {account.account_id: fingerprint})

    def recognised(self, connection: Connection, provider: str = "") -> Recognised:
        """Give each account, of one provider or of all, the fingerprint that it should have. One of twins gets it."""
        rows = [row for row in store.load_fingerprints(connection) if provider in ("", row.provider)]
        known = {row.fingerprint: row for row in rows if row.fingerprint and self._is_current(row)}
        twins = []
        fresh: dict[str, str | None] = {}
        for row in rows:
            found = None if self._is_current(row) else self._found(connection, row)
            if found is None:
                continue
            first = known.setdefault(found, row)
            if first is row:
                fresh[row.account_id] = found
            else:
                twins.append((row, first))
                if row.fingerprint is not None:
                    fresh[row.account_id] = None
        store.save_fingerprints(connection, fresh)
        return Recognised(known, tuple(twins))

    def _is_current(self, row: Fingerprinted) -> bool:
        return self._ring.is_current(row.fingerprint)

    def _found(self, connection: Connection, row: Fingerprinted) -> str | None:
        sealed = store.load_sealed(connection, row.account_id)
        if sealed is None or row.provider not in self._catalog.adapters:
            return None
        try:
            credentials = self._ring.open(row.account_id, sealed)
        except SealBroken:
            # Sealed by a replica with a newer ring, or lost: what it has, another can still compare.
            return None
        return self._fingerprint(row.provider, row.options, credentials)

    def _fingerprint(
        self, provider: str, options: Mapping[str, str], credentials: Mapping[str, Secret]
    ) -> str | None:
        identity = self._catalog.adapter(provider).identity(options, credentials)
        return None if identity is None else self._ring.fingerprint(provider, identity)
