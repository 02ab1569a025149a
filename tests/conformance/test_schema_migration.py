from __future__ import annotations

import asyncio
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, CheckConstraint, Column, Index, MetaData, Table, Text, text

from services.chassis.database import Database, migrate, schema_drift
from services.chassis.errors import ServiceError

FIRST = """
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "wallets",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("balance_millis", sa.BigInteger, nullable=False),
        sa.CheckConstraint("balance_millis >= 0", name="not_negative"),
    )
"""

SECOND = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("wallets", sa.Column("closed_at_ms", sa.BigInteger))
    op.create_index(
        "open_wallets",
        "wallets",
        ["balance_millis"],
        sqlite_where=sa.text("closed_at_ms IS NULL"),
        postgresql_where=sa.text("closed_at_ms IS NULL"),
    )
"""

BROKEN = """
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_table("wallets")
    op.execute("SELECT nonsense FROM nowhere")
"""


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "0001_wallets.py").write_text(FIRST)
    (versions / "0002_closing.py").write_text(SECOND)
    return versions.parent


def declared(*, check: str = "balance_millis >= 0", where: str = "closed_at_ms IS NULL") -> MetaData:
    metadata = MetaData()
    wallets = Table(
        "wallets",
        metadata,
        Column("id", Text, primary_key=True),
        Column("balance_millis", BigInteger, nullable=False),
        Column("closed_at_ms", BigInteger),
        CheckConstraint(check, name="not_negative"),
    )
    Index("open_wallets", wallets.c.balance_millis, sqlite_where=text(where), postgresql_where=text(where))
    return metadata


async def query(url: str, sql: str) -> Any:
    database = await Database.open(url, application_name="test")
    try:
        return await database.read(lambda connection: connection.execute(text(sql)).scalar())
    finally:
        await database.close()


async def execute(url: str, sql: str) -> None:
    database = await Database.open(url, application_name="test")
    try:
        await database.write(lambda connection: connection.execute(text(sql)).close())
    finally:
        await database.close()


async def test_migrate_brings_an_empty_database_to_the_head_and_again_changes_nothing(
    engine_url: str, migrations: Path
) -> None:
    await migrate(engine_url, migrations)
    await execute(engine_url, "INSERT INTO wallets VALUES ('a', 1, NULL)")
    await migrate(engine_url, migrations)

    assert await query(engine_url, "SELECT version_num FROM alembic_version") == "0002"
    assert await query(engine_url, "SELECT count(*) FROM wallets") == 1


async def test_migrate_goes_on_from_an_older_version(engine_url: str, migrations: Path) -> None:
    second = migrations / "versions" / "0002_closing.py"
    kept = shutil.move(second, migrations / "kept")
    await migrate(engine_url, migrations)
    await execute(engine_url, "INSERT INTO wallets VALUES ('a', 1)")
    shutil.move(kept, second)

    await migrate(engine_url, migrations)

    assert await query(engine_url, "SELECT balance_millis FROM wallets WHERE closed_at_ms IS NULL") == 1


async def test_a_failing_migration_leaves_the_database_as_it_was(engine_url: str, migrations: Path) -> None:
    await migrate(engine_url, migrations)
    (migrations / "versions" / "0003_broken.py").write_text(BROKEN)

    with pytest.raises(Exception, match="nowhere"):
        await migrate(engine_url, migrations)

    assert await query(engine_url, "SELECT count(*) FROM wallets") == 0
    assert await query(engine_url, "SELECT version_num FROM alembic_version") == "0002"


async def test_a_database_newer_than_the_code_is_refused_in_one_sentence(
    engine_url: str, migrations: Path
) -> None:
    await migrate(engine_url, migrations)
    (migrations / "versions" / "0002_closing.py").unlink()

    with pytest.raises(ServiceError) as refusal:
        await migrate(engine_url, migrations)

    assert refusal.value.reason == "DATABASE_NEWER_THAN_CODE"
    assert "0002" in refusal.value.message
    assert "0001" in refusal.value.message


async def test_replicas_may_migrate_at_once(postgres_url: str, migrations: Path) -> None:
    await asyncio.gather(*(migrate(postgres_url, migrations) for _ in range(4)))

    assert await query(postgres_url, "SELECT count(*) FROM alembic_version") == 1


async def test_migrate_makes_folder_and_file_for_their_owner_alone(tmp_path: Path, migrations: Path) -> None:
    path = tmp_path / "deep" / "down" / "service.db"

    await migrate(f"sqlite:///{path}", migrations)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_in_use_is_left_alone_unless_it_is_at_the_head(tmp_path: Path, migrations: Path) -> None:
    url = f"sqlite:///{tmp_path}/service.db"
    owner = await Database.open(url, application_name="owner")
    with pytest.raises(ServiceError) as refusal:
        await migrate(url, migrations)
    await owner.close()
    await migrate(url, migrations)
    owner = await Database.open(url, application_name="owner")
    await migrate(url, migrations)
    await owner.close()

    assert refusal.value.reason == "DATABASE_IN_USE"


def test_a_database_at_the_head_costs_no_import_of_alembic(tmp_path: Path, migrations: Path) -> None:
    url = f"sqlite:///{tmp_path}/service.db"
    asyncio.run(migrate(url, migrations))
    program = (
        "import asyncio, pathlib, sys\n"
        "from services.chassis.database import migrate\n"
        "asyncio.run(migrate(sys.argv[1], pathlib.Path(sys.argv[2])))\n"
        "print('alembic' in sys.modules)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, url, str(migrations)], capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"


async def test_no_drift_between_migrations_and_metadata_that_agree(engine_url: str, migrations: Path) -> None:
    assert await schema_drift(engine_url, migrations, declared()) == []


@pytest.mark.parametrize(
    "change, word",
    [
        ({"check": "balance_millis > 0"}, "not_negative"),
        ({"where": "closed_at_ms IS NOT NULL"}, "open_wallets"),
    ],
)
async def test_drift_in_conditions_is_named(
    engine_url: str, migrations: Path, change: dict[str, str], word: str
) -> None:
    drift = await schema_drift(engine_url, migrations, declared(**change))

    assert any(word in line for line in drift)


async def test_drift_in_tables_and_columns_is_named(engine_url: str, migrations: Path) -> None:
    metadata = declared()
    metadata.tables["wallets"].append_column(Column("storefront", Text))
    Table("forgotten", metadata, Column("id", Text, primary_key=True))

    drift = "\n".join(await schema_drift(engine_url, migrations, metadata))

    assert "storefront" in drift
    assert "forgotten" in drift
