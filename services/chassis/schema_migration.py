"""Schema versions of one database: bring it to the head of a folder of migrations, and prove that it equals
the code.

A service's `migrations/` folder holds only `versions/NNNN_what_it_does.py`, each with `revision = "NNNN"`;
there is no env.py.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL, Connection, MetaData, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from services.chassis import postgres_writer, sqlite_writer, storage_failures
from services.chassis.database_address import parse_url

CONSTRAINT_NAMES = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
}
"""How every schema names its constraints: the engines make up names of their own otherwise, and a migration that
changes one must know its name on both.
"""

log = logging.getLogger(__name__)

ADVISORY_LOCK = 0x41_74_65_6C_69_65_72
"""Any constant number: advisory locks are per database, and each service has its own. This one spells the
house's name.
"""

ADVISORY_WAIT_MS = 600_000
"""Another replica may be migrating a large table; ten minutes is longer than a deployment waits anyway."""

DDL_LOCK_WAIT_MS = 10_000
"""A migration that waits for a table makes every query behind it wait too; better to fail and be tried
again.
"""


async def migrate(url: str, migrations: Path) -> None:
    """Bring the database at `url` to the newest version in `migrations`; cheap when it is there already.

    Creates a SQLite file and its folder. Any number of replicas may call it at once. Raises ServiceError
    FAILED_PRECONDITION: DATABASE_NEWER_THAN_CODE, or DATABASE_IN_USE for a SQLite file that needs migrating
    while a process owns it.
    """
    dialect, path = parse_url(url)
    if dialect == "sqlite":
        await asyncio.to_thread(_migrate_sqlite, path, migrations)
    else:
        await _migrate_postgres(url, migrations)


def revisions_in(migrations: Path) -> list[str]:
    """The revisions of a migrations folder in their order, told by the names of its files."""
    names = sorted(path.name for path in (migrations / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))
    if not names:
        raise FileNotFoundError(f"no migrations in {migrations}/versions")
    return [name[:4] for name in names]


def _at_head(current: str | None, migrations: Path) -> bool:
    revisions = revisions_in(migrations)
    if current is not None and current not in revisions:
        raise storage_failures.refused(
            "DATABASE_NEWER_THAN_CODE",
            f"the database is at schema version {current} and this release knows versions up to {revisions[-1]}: "
            "run a release that knows it, or restore a backup made before the upgrade",
        )
    return current == revisions[-1]


def _migrate_sqlite(path: Path, migrations: Path) -> None:
    if path.exists() and _at_head(_sqlite_version(path), migrations):
        return
    sqlite_writer.prepare_file(path)
    lock = sqlite_writer.FileLock.acquire(path)
    try:
        engine = create_engine("sqlite://", creator=lambda: _connect_for_migrating(path), poolclass=NullPool)
        event.listen(engine, "begin", sqlite_writer.begin_immediate)
        with engine.begin() as connection:
            upgrade(connection, migrations)
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
            if broken:
                raise RuntimeError(f"a migration left rows without their parent: {broken[:5]}")
    finally:
        lock.release()


def _sqlite_version(path: Path) -> str | None:
    connection = sqlite3.connect(path, timeout=sqlite_writer.BUSY_TIMEOUT_MS / 1000)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    except sqlite3.DatabaseError as error:
        raise storage_failures.refused(
            "DATABASE_UNREADABLE", f"the database {path} cannot be opened: {error}"
        ) from error
    finally:
        connection.close()
    return str(row[0]) if row else None


def _connect_for_migrating(path: Path) -> sqlite3.Connection:
    connection = sqlite_writer.connect_for_writing(path)
    # A table is rebuilt by dropping it, and with enforcement on that would delete or refuse the rows that
    # refer to it.
    connection.execute("PRAGMA foreign_keys = OFF")
    return connection


async def _migrate_postgres(url: str, migrations: Path) -> None:
    try:
        if _at_head(await _postgres_version(url), migrations):
            return
        engine = postgres_writer.open_engine(
            url, application_name="migrate", settings=postgres_writer.MIGRATION_SETTINGS, pool_size=1
        )
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade_alone, migrations)
        finally:
            await engine.dispose()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError) as error:
        postgres_writer.raise_typed(error)


async def _postgres_version(url: str) -> str | None:
    connection = await asyncpg.connect(
        postgres_writer.plain_url(url), timeout=postgres_writer.CONNECT_TIMEOUT_S, command_timeout=10
    )
    try:
        version = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()
    return None if version is None else str(version)


def _upgrade_alone(connection: Connection, migrations: Path) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = {ADVISORY_WAIT_MS}"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
    connection.execute(text(f"SET LOCAL lock_timeout = {DDL_LOCK_WAIT_MS}"))
    upgrade(connection, migrations)


def upgrade(connection: Connection, migrations: Path) -> None:
    """Run the missing migrations inside the transaction that `connection` is in: all of them happen or
    none.
    """
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    head = revisions_in(migrations)[-1]
    script = ScriptDirectory(str(migrations))
    heads = script.get_heads()
    if heads != [head]:
        raise RuntimeError(
            f"{migrations}: the newest file is {head} but the chain of revisions ends in {heads}"
        )

    def steps(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs(head, revision)  # noqa: SLF001  what Alembic's own command calls

    with EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(connection=connection, target_metadata=None, transactional_ddl=True)
        environment.run_migrations()
    log.info("database.migrated", extra={"schema_version": head})


async def schema_drift(url: str, migrations: Path, metadata: MetaData) -> list[str]:
    """Migrate the empty database at `url` and say how it differs from `metadata`; an empty list is a match.

    Compares tables, columns, types, nullability, keys, indexes and server defaults, and what Alembic's
    comparison leaves out: CHECK constraints and the conditions of partial indexes.
    """
    await migrate(url, migrations)
    dialect, path = parse_url(url)
    if dialect == "sqlite":
        return await asyncio.to_thread(_sqlite_drift, path, metadata)
    engine = postgres_writer.open_engine(
        url, application_name="schema-drift", settings=postgres_writer.MIGRATION_SETTINGS, pool_size=1
    )
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_postgres_drift, metadata)
    finally:
        await engine.dispose()


def _sqlite_drift(path: Path, metadata: MetaData) -> list[str]:
    migrated = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    declared = create_engine("sqlite://")
    with migrated.connect() as connection, declared.connect() as scratch:
        metadata.create_all(scratch)
        return _compared(connection, metadata) + _unlike(_conditions(connection), _conditions(scratch))


def _postgres_drift(connection: Connection, metadata: MetaData) -> list[str]:
    found = _compared(connection, metadata)
    migrated = _conditions(connection)
    connection.execute(text("CREATE SCHEMA declared"))
    connection.execute(text("SET LOCAL search_path TO declared"))
    metadata.create_all(connection, checkfirst=False)
    found += _unlike(migrated, _conditions(connection, schema="declared"))
    connection.rollback()
    return found


def _compared(connection: Connection, metadata: MetaData) -> list[str]:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    options = {"compare_type": True, "compare_server_default": True}
    return [
        str(difference)
        for difference in compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    ]


def _conditions(connection: Connection, schema: str | None = None) -> set[str]:
    inspector = inspect(connection)
    found: set[str] = set()
    for table in inspector.get_table_names(schema=schema):
        for check in inspector.get_check_constraints(table, schema=schema):
            found.add(f"{table}: CHECK {check['name']} ({_unspaced(check['sqltext'])})")
        for index in inspector.get_indexes(table, schema=schema):
            options = index.get("dialect_options", {})
            condition = options.get("postgresql_where", options.get("sqlite_where"))
            if condition is not None:
                found.add(f"{table}: INDEX {index['name']} WHERE {_unspaced(str(condition))}")
    return found


def _unspaced(sql: str) -> str:
    return " ".join(sql.split())


def _unlike(migrated: set[str], declared: set[str]) -> list[str]:
    missing = [f"declared but not migrated: {what}" for what in sorted(declared - migrated)]
    return missing + [f"migrated but not declared: {what}" for what in sorted(migrated - declared)]
