"""Statements that go past SQLAlchemy share one transaction with those that do not, and fail as they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from services.chassis import postgres_statements
from services.chassis.database import Database, member_of_named, prepared
from services.chassis.postgres_statements import NothingKeptError
from services.chassis.set_statements import insert_tuples
from tests.conformance.things import METADATA, THINGS, all_things, inserting, thing

_NAMED = prepared(select(THINGS.c.id).where(member_of_named(THINGS.c.id, "ids")))


@pytest.fixture
async def things(postgres_url: str) -> AsyncIterator[Database]:
    database = await Database.open(postgres_url, application_name="test")
    await database.write(METADATA.create_all)
    yield database
    await database.close()


async def test_both_ways_of_sending_see_and_undo_the_same_transaction(things: Database) -> None:
    def written(connection: Connection) -> None:
        insert_tuples(connection, THINGS, ("id",), [("a",)])
        connection.execute(THINGS.insert().values(id="b"))
        assert [row["id"] for row in all_things(connection)] == ["a", "b"]
        assert len(_NAMED.rows(connection, ids=["a", "b"])) == 2
        raise LookupError

    with pytest.raises(LookupError):
        await things.write(written)

    assert await things.read(all_things) == []


async def test_a_failure_that_was_hidden_is_no_success(things: Database) -> None:
    await things.write(inserting(thing("a")))

    def hidden(connection: Connection) -> None:
        with pytest.raises(IntegrityError):
            insert_tuples(connection, THINGS, ("id",), [("a",)])

    with pytest.raises(NothingKeptError):
        await things.write(hidden)

    await things.write(inserting(thing("b")))
    assert [row["id"] for row in await things.read(all_things)] == ["a", "b"]


async def test_a_snapshot_is_one_moment_for_both_ways_of_sending(things: Database) -> None:
    def isolation(connection: Connection) -> tuple[str, int]:
        seen = _NAMED.rows(connection, ids=["a"])
        return connection.execute(text("SHOW transaction_isolation")).scalar_one(), len(seen)

    await things.write(inserting(thing("a")))

    assert await things.read(isolation, snapshot=True) == ("repeatable read", 1)
    assert await things.read(isolation) == ("read committed", 1)


async def test_every_connection_that_died_is_replaced_at_once(things: Database, postgres_url: str) -> None:
    other = await Database.open(postgres_url, application_name="killer")
    killed = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'test%'"
    )

    await asyncio.gather(*(things.write(inserting(thing(f"w{n}"))) for n in range(3)))
    assert await other.write(lambda connection: connection.execute(killed).scalar_one()) >= 2
    await other.close()

    await things.write(inserting(thing("a")))
    assert len(await things.read(lambda connection: _NAMED.rows(connection, ids=["a"]))) == 1


@pytest.mark.parametrize("pause_s", [0.0, 0.002, 0.05])
async def test_whoever_leaves_in_the_middle_of_a_statement_leaves_nothing_behind(
    things: Database, pause_s: float
) -> None:
    def slow(connection: Connection) -> None:
        insert_tuples(connection, THINGS, ("id",), [("a",)])
        postgres_statements.fetch(connection, "SELECT pg_sleep($1)", (5.0,))

    def asleep(connection: Connection) -> None:
        postgres_statements.fetch(connection, "SELECT pg_sleep($1)", (5.0,))

    for _ in range(3):
        calls = [things.write(slow), things.read(asleep), things.read(asleep, snapshot=True)]
        leaving = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(pause_s)
        for one in leaving:
            one.cancel()
        async with asyncio.timeout(3.0):
            assert {type(one) for one in await asyncio.gather(*leaving, return_exceptions=True)} == {
                asyncio.CancelledError
            }

    async with asyncio.timeout(3.0):
        # More at once than there are connections.
        await asyncio.gather(*(things.write(inserting(thing(f"w{n}"))) for n in range(8)))
        seen = await asyncio.gather(*(things.read(all_things) for _ in range(8)))
    assert {len(rows) for rows in seen} == {8}


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
async def test_a_text_that_the_server_cannot_keep_undoes_its_transaction_alone(
    things: Database, text: str
) -> None:
    with pytest.raises(DBAPIError):
        await things.write(
            lambda connection: insert_tuples(connection, THINGS, ("id",), [("good",), (text,)])
        )
    assert await things.read(all_things) == []
    await things.write(inserting(thing("b")))
