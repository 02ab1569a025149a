from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import (
    Connection,
    func,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.chassis.database import (
    CommitOutcomeUnknown,
    Database,
    database_now_ms,
    insert_rows,
)
from services.chassis.errors import Kind, ServiceError
from services.chassis.sqlite_writer import FileLock
from tests.conformance.things import METADATA, THINGS, all_things, inserting, thing
from tests.postgres import Postgres


@pytest.fixture
async def things(database: Database) -> Database:
    await database.write(METADATA.create_all)
    return database


async def test_database_now_is_the_time_in_milliseconds(database: Database) -> None:
    before_ms = time.time_ns() // 1_000_000
    now_ms = await database.read(
        lambda connection: connection.execute(select(database_now_ms())).scalar_one()
    )

    assert before_ms - 1 <= now_ms <= time.time_ns() // 1_000_000


async def test_read_sees_only_what_is_committed(things: Database) -> None:
    seen_inside: list[int] = []

    async with asyncio.TaskGroup() as group:
        started, checked = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(connection: Connection) -> None:
            insert_rows(connection, THINGS, [thing("a")])
            loop.call_soon_threadsafe(started.set)
            if things.dialect == "sqlite":
                asyncio.run_coroutine_threadsafe(checked.wait(), loop).result(10)
            else:
                connection.execute(text("SELECT pg_sleep(0.3)"))

        async def look() -> None:
            await started.wait()
            seen_inside.append(len(await things.read(all_things)))
            checked.set()

        group.create_task(things.write(slow))
        group.create_task(look())

    assert seen_inside == [0]
    assert len(await things.read(all_things)) == 1


async def test_a_snapshot_does_not_see_later_commits(things: Database) -> None:
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    def counted(connection: Connection) -> int:
        return len(connection.execute(select(THINGS.c.id)).all())

    def counted_for_a_while(connection: Connection) -> set[int]:
        counts = {counted(connection)}
        loop.call_soon_threadsafe(begun.set)
        until_s = time.monotonic() + 0.3
        while time.monotonic() < until_s:
            counts.add(counted(connection))
        return counts

    async def write_when_begun() -> int:
        await begun.wait()
        _ = await things.write(inserting(thing("late")))
        return await things.read(counted)

    counts, after = await asyncio.gather(things.read(counted_for_a_while, snapshot=True), write_when_begun())

    assert (counts, after) == ({0}, 1)


async def test_a_cancelled_snapshot_ends_as_cancelled_and_leaves_the_readers_usable(things: Database) -> None:
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    def read_for_a_while(connection: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        until_s = time.monotonic() + 1.0
        while time.monotonic() < until_s:
            connection.execute(select(THINGS.c.id)).all()

    for _ in range(8):
        begun.clear()
        reader = asyncio.create_task(things.read(read_for_a_while, snapshot=True))
        await begun.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    assert await things.read(all_things, snapshot=True) == []


async def test_a_reader_cannot_write(things: Database) -> None:
    with pytest.raises(DBAPIError, match=r"readonly|read-only"):
        await things.read(inserting(thing("a")))

    assert await things.read(all_things) == []


async def test_what_a_row_holds_is_in_no_error(things: Database) -> None:
    row = thing("a", secret=b"canary-4711", order="c47")
    await things.write(inserting(row))

    def misread(connection: Connection) -> object:
        wanted = THINGS.c.order == "canary-4711"
        return connection.execute(select(text("no_such_column")).select_from(THINGS).where(wanted)).all()

    with pytest.raises(IntegrityError) as collided:
        await things.write(inserting(row))
    with pytest.raises(DBAPIError) as misspelt:
        await things.read(misread)

    for error in (collided.value, misspelt.value):
        told = "".join(traceback.format_exception(error))
        assert "canary" not in told
        assert "c47" not in told


async def test_an_exception_rolls_the_transaction_back_and_reaches_the_caller(things: Database) -> None:
    def fail(connection: Connection) -> None:
        insert_rows(connection, THINGS, [thing("a")])
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await things.write(fail)

    assert await things.read(all_things) == []
    assert await things.write(inserting(thing("a"))) == 1


async def test_a_slow_write_does_not_block_the_event_loop_on_sqlite(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path}/a.db", application_name="test")
    writing = asyncio.create_task(database.write(lambda _connection: time.sleep(0.5)))
    worst_s = 0.0
    while not writing.done():
        started_s = time.perf_counter()
        await asyncio.sleep(0.001)
        worst_s = max(worst_s, time.perf_counter() - started_s)
    await database.close()

    assert worst_s < 0.25


async def test_sqlite_runs_with_full_durability_and_foreign_keys(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path}/a.db", application_name="test")

    def pragmas(connection: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await database.write(pragmas) == ["wal", 2, 1, 5000]
    assert database.sole_owner
    await database.close()


async def test_closing_sqlite_checkpoints_everything_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database = await Database.open(f"sqlite:///{path}", application_name="test")
    await database.write(METADATA.create_all)
    await database.close()
    await database.close()

    assert not path.with_name("a.db-wal").exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ServiceError):
        await database.write(all_things)


HOLDER = """
import asyncio, sys, time
from services.chassis.database import Database
async def main():
    await Database.open(sys.argv[1], application_name="holder")
    print("open", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def opened_and_closed(url: str) -> None:
    database = await Database.open(url, application_name="second")
    await database.close()


def test_a_second_process_is_refused_until_the_first_one_is_dead(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, cwd=Path.cwd())
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(ServiceError) as refusal:
            asyncio.run(opened_and_closed(url))
        assert refusal.value.kind is Kind.FAILED_PRECONDITION
        assert refusal.value.reason == "DATABASE_IN_USE"
        assert f"process {holder.pid}" in refusal.value.message
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        if holder.stdout is not None:
            holder.stdout.close()

    asyncio.run(opened_and_closed(url))


FORKER = """
import os, pathlib, sys, time
from services.chassis.sqlite_writer import FileLock
lock = FileLock.acquire(pathlib.Path(sys.argv[1]))
if os.fork() == 0:
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_forked_child_that_outlives_the_owner_does_not_keep_the_file_locked(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    owner = subprocess.Popen([sys.executable, "-c", FORKER, path], stdout=subprocess.PIPE, cwd=Path.cwd())
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    owner.stdout.close()
    owner.kill()
    owner.wait(10)

    try:
        FileLock.acquire(path).release()
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_file_that_is_no_database_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"this is not a database, whatever its name says" * 100)

    for _ in range(2):
        with pytest.raises(ServiceError) as refusal:
            await Database.open(f"sqlite:///{path}", application_name="test")
        assert refusal.value.reason == "DATABASE_UNREADABLE"


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///:memory:", "mysql://a@b/c", "nonsense"])
async def test_a_bad_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        await Database.open(url, application_name="test")

    assert refusal.value.reason == "DATABASE_ADDRESS"


async def test_a_stranger_that_holds_sqlites_write_lock_is_a_contention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "services.chassis.sqlite_writer.PRAGMAS", ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
    )
    path = tmp_path / "a.db"
    database = await Database.open(f"sqlite:///{path}", application_name="test")
    await database.write(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout = 50").close())
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")

    with pytest.raises(ServiceError) as refusal:
        await database.write(METADATA.create_all)
    stranger.execute("ROLLBACK")
    stranger.close()

    assert refusal.value.reason == "DATABASE_CONTENTION"
    await database.write(METADATA.create_all)
    await database.close()


async def test_a_full_disk_is_unavailable_and_changes_nothing(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path}/a.db", application_name="test")
    await database.write(METADATA.create_all)
    await database.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 20").close())

    with pytest.raises(ServiceError) as refusal:
        await database.write(inserting(*(thing(str(number), secret=bytes(4096)) for number in range(50))))
    await database.write(
        lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 100000").close()
    )

    assert refusal.value.reason == "DATABASE_UNAVAILABLE"
    assert await database.read(all_things) == []
    assert await database.write(inserting(thing("a"))) == 1
    await database.close()


async def test_a_constraint_that_fails_at_commit_reaches_the_caller_and_the_next_write_works(
    database: Database,
) -> None:
    def make(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE parents (id integer PRIMARY KEY)")
        connection.exec_driver_sql(
            "CREATE TABLE children (id integer REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"
        )

    def insert(parent: bool) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            connection.exec_driver_sql("INSERT INTO children VALUES (1)")
            if parent:
                connection.exec_driver_sql("INSERT INTO parents VALUES (1)")

        return work

    await database.write(make)

    with pytest.raises(IntegrityError):
        await database.write(insert(parent=False))
    await database.write(insert(parent=True))

    count = select(func.count()).select_from(text("children"))
    assert await database.read(lambda connection: connection.execute(count).scalar()) == 1


def no_commit(_action: int, word: str | None, *_rest: str | None) -> int:
    return sqlite3.SQLITE_DENY if word == "COMMIT" else sqlite3.SQLITE_OK


async def test_a_commit_that_fails_on_the_disk_has_an_unknown_outcome(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path}/a.db", application_name="test")
    await database.write(METADATA.create_all)

    def break_commit(connection: Connection) -> None:
        insert_rows(connection, THINGS, [thing("a")])
        connection.connection.driver_connection.set_authorizer(no_commit)  # type: ignore[union-attr]

    def mend(connection: Connection) -> None:
        connection.connection.driver_connection.set_authorizer(None)  # type: ignore[union-attr]

    with pytest.raises(CommitOutcomeUnknown):
        await database.write(break_commit)
    await database.write(mend)

    assert await database.write(inserting(thing("a"), ignore_conflicts=True)) == 1
    await database.close()


async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared folder"
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/vda / ext4 rw 0 0\nserver:/x {str(shared).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
    )
    monkeypatch.setattr("services.chassis.sqlite_writer.MOUNTS", mounts)

    with pytest.raises(ServiceError) as refusal:
        await Database.open(f"sqlite:///{shared}/a.db", application_name="test")
    local = await Database.open(f"sqlite:///{tmp_path}/a.db", application_name="test")
    await local.close()

    assert refusal.value.reason == "DATABASE_ON_NETWORK_FILE_SYSTEM"


async def test_a_server_that_may_lose_commits_is_refused(postgres: Postgres) -> None:
    url = postgres.create_database()
    connection = await asyncpg.connect(url)
    await connection.execute(f'ALTER DATABASE "{url.rsplit("/", 1)[1]}" SET synchronous_commit = off')
    await connection.close()

    with pytest.raises(ServiceError) as refusal:
        await Database.open(url, application_name="test")
    postgres.drop_database(url)

    assert refusal.value.reason == "DATABASE_NOT_DURABLE"


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(ServiceError) as refusal:
        await Database.open("postgresql://nobody@127.0.0.1:1/none", application_name="test")

    assert refusal.value.kind is Kind.UNAVAILABLE


async def test_a_connection_lost_before_commit_is_unavailable_and_the_next_write_works(
    postgres_url: str,
) -> None:
    database = await Database.open(postgres_url, application_name="test")
    await database.write(METADATA.create_all)

    def die(connection: Connection) -> None:
        insert_rows(connection, THINGS, [thing("a")])
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(ServiceError) as refusal:
        await database.write(die)

    assert refusal.value.reason == "DATABASE_UNAVAILABLE"
    assert await database.read(all_things) == []
    assert await database.write(inserting(thing("a"))) == 1
    await database.close()


async def test_reads_and_writes_survive_the_death_of_pooled_connections(postgres_url: str) -> None:
    database = await Database.open(postgres_url, application_name="mortal")
    await database.write(METADATA.create_all)
    await database.read(all_things)
    await database.write(
        lambda connection: connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mortal-reader'"
            )
        ).all()
    )
    assert await database.read(all_things) == []

    await database.read(
        lambda connection: connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mortal'")
        ).all()
    )
    assert await database.write(inserting(thing("a"))) == 1
    await database.close()
