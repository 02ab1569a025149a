"""Makes the databases of a house on a PostgreSQL server; SQLite files make themselves."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from services.chassis.errors import Kind, ServiceError
from services.house.layout import Layout
from services.house.settings import Settings
from services.house.wiring import database_url

_CONNECT_DEADLINE_S = 5.0


async def create_missing_databases(settings: Settings, layout: Layout) -> None:
    """Raises ServiceError with one sentence where the server cannot be reached or refuses."""
    if not settings.database_url:
        return
    # Not at the top: a house on SQLite starts without loading a driver that it does not use.
    import asyncpg

    server = urlunsplit(urlsplit(settings.database_url)._replace(path="/postgres"))
    try:
        connection = await asyncpg.connect(server, timeout=_CONNECT_DEADLINE_S)
        try:
            for service in ("billing", "jobs", "provider_pool"):
                name = urlsplit(database_url(settings, layout, service)).path.strip("/")
                if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
                    await connection.execute(f"CREATE DATABASE {_quoted(name)}")
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as fault:
        sentence = f"the PostgreSQL server of ATELIER_DATABASE_URL cannot be used: {fault}"
        raise ServiceError(Kind.FAILED_PRECONDITION, "DATABASE_UNUSABLE", sentence) from fault


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
