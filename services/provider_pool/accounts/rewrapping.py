"""`python -m services.provider_pool rewrap`: all accounts' credentials under the key of the ring that seals now."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from services.chassis.database import Database
from services.chassis.rewrapping import Replacement, Rewrapped, rewrap_rows
from services.provider_pool.accounts.vault import KeyRing, sealing_key_id
from services.provider_pool.store import accounts as store


async def rewrap_stored(url: str, ring: KeyRing) -> Rewrapped:
    """`rewrap_accounts` for the database at `url`. Raises ServiceError where it cannot be done."""
    database = await Database.open(url, application_name="atelier-provider-pool-rewrap")
    try:
        return await rewrap_accounts(database, ring)
    finally:
        await database.close()


async def rewrap_accounts(database: Database, ring: KeyRing) -> Rewrapped:
    """Move every account's credentials; whoever replaces them meanwhile wins."""

    def rewrapped(account_id: str, sealed: bytes) -> bytes:
        # Also what needs no move is opened, so that a broken seal is told before it is missed.
        fresh = ring.rewrap(account_id, sealed)
        return sealed if sealing_key_id(sealed) == ring.sealing_key_id else fresh

    async def page(after: str, limit: int) -> list[tuple[str, bytes]]:
        return await database.read(lambda connection: store.load_sealed_page(connection, after, limit))

    async def replace(wanted: Sequence[Replacement[bytes]]) -> list[str]:
        return await database.write(lambda connection: _replaced(connection, wanted))

    return await rewrap_rows(page, rewrapped, replace)


def _replaced(connection: Connection, wanted: Sequence[Replacement[bytes]]) -> list[str]:
    return [
        one.row_id
        for one in wanted
        if not store.replace_sealed(connection, one.row_id, one.before, one.after)
    ]
