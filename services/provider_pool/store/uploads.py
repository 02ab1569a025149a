"""References that accounts have taken in, in the database."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlalchemy import Connection, delete, select, tuple_

from services.chassis.database import member_of, upsert_rows
from services.provider_pool.adapters.interface import Medium, RemoteFile
from services.provider_pool.schema import UPLOADS

Name = tuple[str, Medium]
"""The hash of a file, and what it was uploaded as."""


def load_uploads(
    connection: Connection, account_id: str, names: Iterable[Name], now_ms: int
) -> dict[Name, RemoteFile]:
    """Those of these that the account still has."""
    wanted = set(names)
    statement = select(UPLOADS).where(
        UPLOADS.c.account_id == account_id,
        member_of(UPLOADS.c.sha256, sorted({sha256 for sha256, _ in wanted})),
        UPLOADS.c.expires_at_ms > now_ms,
    )
    found = {
        (row.sha256, Medium(row.medium)): RemoteFile(row.location, row.expires_at_ms, json.loads(row.state))
        for row in connection.execute(statement)
    }
    return {name: file for name, file in found.items() if name in wanted}


def save_upload(connection: Connection, account_id: str, name: Name, file: RemoteFile) -> None:
    """Note what the account has taken in, in the place of what was noted before."""
    row = {
        "account_id": account_id,
        "sha256": name[0],
        "medium": name[1].value,
        "location": file.location,
        "state": json.dumps(dict(file.state)),
        "expires_at_ms": file.expires_at_ms,
    }
    key = ("account_id", "sha256", "medium")
    upsert_rows(
        connection, UPLOADS, key=key, rows=[row], replace=[column for column in row if column not in key]
    )


def delete_uploads(connection: Connection, account_id: str, names: Iterable[Name]) -> None:
    """Forget that the account has these."""
    for sha256, medium in sorted(set(names)):
        connection.execute(
            delete(UPLOADS).where(
                UPLOADS.c.account_id == account_id,
                UPLOADS.c.sha256 == sha256,
                UPLOADS.c.medium == medium.value,
            )
        )


def delete_uploads_of(connection: Connection, account_id: str) -> None:
    """Forget all that the account has: it is another one at its provider now."""
    connection.execute(delete(UPLOADS).where(UPLOADS.c.account_id == account_id))


def delete_expired(connection: Connection, now_ms: int, limit: int) -> int:
    """Forget what no account has any more, the oldest first; how many."""
    keys = (UPLOADS.c.account_id, UPLOADS.c.sha256, UPLOADS.c.medium)
    oldest = (
        select(*keys).where(UPLOADS.c.expires_at_ms <= now_ms).order_by(UPLOADS.c.expires_at_ms).limit(limit)
    )
    return connection.execute(delete(UPLOADS).where(tuple_(*keys).in_(oldest))).rowcount
