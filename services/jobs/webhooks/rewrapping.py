"""`python -m services.jobs rewrap`: all customers' webhook secrets under the key that seals now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.chassis.database import Database
from services.chassis.rewrapping import Replacement, Rewrapped, rewrap_rows
from services.chassis.sealing import SealingKeys
from services.jobs.webhooks import endpoints

Secrets = tuple[str, str]
"""What is sealed in a row: the secret, and those before it with blanks between them."""


async def rewrap_stored(url: str, keys_file: Path) -> Rewrapped:
    """`rewrap_secrets` for the database at `url`. Raises SettingsError and ServiceError where it cannot be done."""
    keys = SealingKeys.load(keys_file)
    database = await Database.open(url, application_name="atelier-jobs-rewrap")
    try:
        return await rewrap_secrets(database, keys)
    finally:
        await database.close()


async def rewrap_secrets(database: Database, keys: SealingKeys) -> Rewrapped:
    """Move every customer's secrets; who rotates his meanwhile wins."""

    def rewrapped(customer_id: str, secrets: Secrets) -> Secrets:
        secret, previous = secrets
        kept = [endpoints.rewrapped(keys, customer_id, one) for one in previous.split()]
        return endpoints.rewrapped(keys, customer_id, secret), " ".join(kept)

    async def page(after: str, limit: int) -> list[tuple[str, Secrets]]:
        return await database.read(lambda connection: endpoints.load_secrets(connection, after, limit))

    async def replace(wanted: Sequence[Replacement[Secrets]]) -> list[str]:
        return await database.write(
            lambda connection: [
                one.row_id
                for one in wanted
                if not endpoints.replace_secrets(connection, one.row_id, one.before, one.after)
            ]
        )

    return await rewrap_rows(page, rewrapped, replace)
