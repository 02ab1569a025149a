from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self

import pytest
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, func, select, text

from services.chassis.database import Database, insert_rows, member_of
from services.chassis.errors import Kind, ServiceError
from services.chassis.group_commit import GroupCommit
from tests.postgres import Postgres

METADATA = MetaData()
NOTES = Table("notes", METADATA, Column("key", Text, primary_key=True), Column("size", BigInteger))


class Refusal(Exception):
    """What `Notes` answers to an item that it does not want."""


class Notes:
    """Stores each item once under its own text, remembers the batches it saw, and can be told to misbehave."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.before: Callable[[Connection, Sequence[str]], None] = lambda _connection, _items: None
        self.after: Callable[[Connection, Sequence[str]], None] = lambda _connection, _items: None

    def apply(self, connection: Connection, items: Sequence[str]) -> list[str | Exception]:
        self.batches.append(list(items))
        self.before(connection, items)
        wanted = [item for item in items if not item.startswith("refuse")]
        known = set(connection.execute(select(NOTES.c.key).where(member_of(NOTES.c.key, wanted))).scalars())
        insert_rows(
            connection,
            NOTES,
            [{"key": key, "size": len(key)} for key in dict.fromkeys(wanted) if key not in known],
        )
        self.after(connection, items)
        return [
            Refusal(item) if item not in wanted else "again" if item in known else "new" for item in items
        ]


@pytest.fixture
async def store(database: Database) -> Database:
    await database.write(METADATA.create_all)
    return database


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
async def group(store: Database, notes: Notes) -> AsyncIterator[GroupCommit[str, str]]:
    opened = GroupCommit(store, notes.apply, name="notes", limit=8, lane=lambda item: item.split("/")[0])
    yield opened
    await opened.close()


def stored(connection: Connection) -> list[str]:
    return list(connection.execute(select(NOTES.c.key).order_by(NOTES.c.key)).scalars())


async def submitted(group: GroupCommit[str, str], items: Sequence[str]) -> list[str | BaseException]:
    return list(await asyncio.gather(*(group.submit(item) for item in items), return_exceptions=True))


async def test_an_answer_comes_only_after_commit(group: GroupCommit[str, str], store: Database) -> None:
    assert await group.submit("a") == "new"

    assert await store.read(stored) == ["a"]


async def test_items_that_arrive_together_share_transactions_up_to_the_limit(
    group: GroupCommit[str, str], notes: Notes
) -> None:
    assert await submitted(group, [f"lane/{number}" for number in range(20)]) == ["new"] * 20

    assert [len(batch) for batch in notes.batches] == [8, 8, 4]
    assert [item for batch in notes.batches for item in batch] == [f"lane/{number}" for number in range(20)]


async def test_items_that_arrive_during_a_commit_are_the_next_batch(
    group: GroupCommit[str, str], notes: Notes
) -> None:
    loop = asyncio.get_running_loop()
    late: list[asyncio.Task[str]] = []

    def enter(item: str) -> None:
        late.append(asyncio.create_task(group.submit(item)))

    def arrive(_connection: Connection, items: Sequence[str]) -> None:
        if list(items) == ["first"]:
            for item in ("l0", "l1", "l2"):
                loop.call_soon_threadsafe(enter, item)

    notes.before = arrive
    await group.submit("first")
    await asyncio.sleep(0)
    await asyncio.gather(*late)

    assert notes.batches[0] == ["first"]
    assert sorted(item for batch in notes.batches[1:] for item in batch) == ["l0", "l1", "l2"]
    assert len(notes.batches) <= 3


async def test_a_busy_lane_does_not_delay_another(group: GroupCommit[str, str], notes: Notes) -> None:
    busy = [f"busy/{number}" for number in range(50)]

    await submitted(group, [*busy, "quiet/0", "quiet/1", "calm/0"])

    assert Counter(item.split("/")[0] for item in notes.batches[0]) == {"busy": 5, "quiet": 2, "calm": 1}


async def test_a_refusal_is_its_items_alone_and_does_not_undo_the_batch(
    group: GroupCommit[str, str], store: Database, notes: Notes
) -> None:
    answers = await submitted(group, ["a", "refuse", "b"])

    assert [str(answer) for answer in answers] == ["new", "refuse", "new"]
    assert isinstance(answers[1], Refusal)
    assert len(notes.batches) == 1
    assert await store.read(stored) == ["a", "b"]


async def test_one_poisonous_item_fails_alone(
    group: GroupCommit[str, str], store: Database, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    def choke(_connection: Connection, items: Sequence[str]) -> None:
        if "l/5" in items:
            raise ZeroDivisionError("secret detail")

    notes.after = choke
    with caplog.at_level(logging.ERROR):
        answers = await submitted(group, [f"l/{number}" for number in range(8)])

    failed = answers.pop(5)
    assert isinstance(failed, ServiceError)
    assert (failed.kind, failed.message) == (Kind.INTERNAL, "internal error")
    assert answers == ["new"] * 7
    assert len(await store.read(stored)) == 7
    assert "ZeroDivisionError" in caplog.text


async def test_an_item_that_breaks_a_constraint_fails_alone(
    group: GroupCommit[str, str], store: Database, notes: Notes
) -> None:
    def collide(connection: Connection, items: Sequence[str]) -> None:
        if "b" in items:
            insert_rows(connection, NOTES, [{"key": "b", "size": 0}])

    notes.after = collide
    answers = await submitted(group, ["a", "b", "c"])

    assert [str(answer) for answer in answers] == ["new", "INTERNAL: internal error", "new"]
    assert await store.read(stored) == ["a", "c"]


async def test_a_failure_that_passes_costs_only_a_second_run(
    group: GroupCommit[str, str], notes: Notes
) -> None:
    def once(_connection: Connection, _items: Sequence[str]) -> None:
        if len(notes.batches) == 1:
            raise ZeroDivisionError

    notes.before = once

    assert await submitted(group, ["a", "b"]) == ["new", "new"]
    assert len(notes.batches) == 2


async def test_a_missing_result_is_a_bug_and_commits_nothing(store: Database) -> None:
    def forgetful(connection: Connection, items: Sequence[str]) -> list[str | Exception]:
        insert_rows(connection, NOTES, [{"key": items[0], "size": 0}])
        return []

    group = GroupCommit(store, forgetful, name="forgetful")
    with pytest.raises(ServiceError) as failure:
        await group.submit("a")
    await group.close()

    assert failure.value.kind is Kind.INTERNAL
    assert await store.read(stored) == []


async def test_beyond_the_capacity_items_are_refused_at_once(store: Database, notes: Notes) -> None:
    group = GroupCommit(store, notes.apply, name="small", capacity=5)

    answers = await submitted(group, [str(number) for number in range(9)])
    await group.close()

    assert answers[:5] == ["new"] * 5
    assert [(answer.kind, answer.reason) for answer in answers[5:] if isinstance(answer, ServiceError)] == [
        (Kind.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    ] * 4
    assert len(await store.read(stored)) == 5


async def test_a_cancelled_item_that_waits_is_dropped_and_frees_its_place(
    store: Database, notes: Notes
) -> None:
    group = GroupCommit(store, notes.apply, name="small", capacity=2)
    tasks = [asyncio.create_task(group.submit(item)) for item in ("a", "b")]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    tasks.append(asyncio.create_task(group.submit("c")))

    assert await asyncio.gather(*tasks[1:]) == ["new", "new"]
    await group.close()
    assert await store.read(stored) == ["b", "c"]


async def test_cancelling_callers_never_stops_the_batch_that_runs(
    group: GroupCommit[str, str], store: Database, notes: Notes
) -> None:
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(group.submit(item)) for item in ("a", "b", "c")]

    def cancel_two(_connection: Connection, _items: Sequence[str]) -> None:
        for task in tasks[:2]:
            loop.call_soon_threadsafe(task.cancel)
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.05)

    notes.before = cancel_two

    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError, asyncio.CancelledError, str]
    assert await store.read(stored) == ["a", "b", "c"]


async def test_closing_finishes_what_waits_and_refuses_what_comes(store: Database, notes: Notes) -> None:
    group = GroupCommit(store, notes.apply, name="closing", limit=2)
    tasks = [asyncio.create_task(group.submit(str(number))) for number in range(7)]
    await asyncio.sleep(0)

    await group.close()

    assert [task.result() for task in tasks] == ["new"] * 7
    with pytest.raises(ServiceError) as refusal:
        await group.submit("late")
    assert refusal.value.kind is Kind.UNAVAILABLE


async def test_two_group_commits_share_one_database(store: Database) -> None:
    groups = [GroupCommit(store, Notes().apply, name=f"notes-{number}") for number in range(2)]

    answers = await asyncio.gather(
        *(submitted(group, [f"{number}/{item}" for item in range(50)]) for number, group in enumerate(groups))
    )
    for group in groups:
        await group.close()

    assert answers == [["new"] * 50] * 2


@pytest.fixture
async def postgres_store(postgres_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(postgres_url, application_name="mortal")
    await opened.write(METADATA.create_all)
    yield opened
    await opened.close()


async def test_a_backend_killed_in_the_middle_of_a_batch_is_not_noticed(
    postgres_store: Database, notes: Notes
) -> None:
    def die_once(connection: Connection, _items: Sequence[str]) -> None:
        if len(notes.batches) == 1:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    notes.after = die_once
    group = GroupCommit(postgres_store, notes.apply, name="mortal")

    assert await submitted(group, ["a", "b"]) == ["new", "new"]
    await group.close()
    assert len(notes.batches) == 2


class CommitEater:
    """A proxy before PostgreSQL that, once armed, lets a COMMIT through, swallows its answer and cuts the connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.armed = False
        self.eaten = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.create_task(self._copy(server_reader, writer))
        try:
            while data := await reader.read(65536):
                server_writer.write(data)
                if self.armed and b"COMMIT;" in data:
                    back.cancel()
                    await asyncio.sleep(0.1)
                    self.armed = False
                    self.eaten += 1
                    break
        finally:
            back.cancel()
            server_writer.close()
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


async def test_a_commit_whose_answer_was_lost_is_run_again_and_finds_its_items(
    postgres: Postgres, postgres_url: str, notes: Notes
) -> None:
    async with CommitEater(postgres.port) as proxy:
        store = await Database.open(
            postgres_url.replace(str(postgres.port), str(proxy.port)), application_name="test"
        )
        await store.write(METADATA.create_all)
        group = GroupCommit(store, notes.apply, name="lost")
        proxy.armed = True

        answers = await submitted(group, ["a", "b"])
        await group.close()
        count = await store.read(
            lambda connection: connection.execute(select(func.count()).select_from(NOTES)).scalar()
        )
        await store.close()

    assert proxy.eaten == 1
    assert answers == ["again", "again"]
    assert count == 2


async def test_a_server_restart_is_waited_for_and_a_longer_absence_is_unavailable(notes: Notes) -> None:
    with Postgres() as server:
        store = await Database.open(server.create_database(), application_name="test")
        await store.write(METADATA.create_all)
        group = GroupCommit(store, notes.apply, name="restart")
        impatient = GroupCommit(store, notes.apply, name="impatient", settle_s=0.2)

        server.kill9()
        waiting = asyncio.create_task(group.submit("patient"))
        with pytest.raises(ServiceError) as failure:
            await impatient.submit("hasty")
        await asyncio.to_thread(server.start)
        answer = await waiting

        await group.close()
        await impatient.close()
        found: Any = await store.read(stored)
        await store.close()

    assert failure.value.kind is Kind.UNAVAILABLE
    assert answer == "new"
    assert found == ["patient"]


async def test_batches_of_two_replicas_on_the_same_keys_store_each_once(postgres_url: str) -> None:
    stores = [await Database.open(postgres_url, application_name=f"replica-{number}") for number in range(2)]
    await stores[0].write(METADATA.create_all)

    def apply(connection: Connection, items: Sequence[str]) -> list[str | Exception]:
        insert_rows(connection, NOTES, [{"key": item, "size": 1} for item in items], ignore_conflicts=True)
        return ["done" for _ in items]

    groups = [GroupCommit(store, apply, name=f"replica-{number}") for number, store in enumerate(stores)]
    keys = [f"{number:03}" for number in range(200)]
    orders = [keys, list(reversed(keys))]

    answers = await asyncio.gather(
        *(submitted(group, order) for group, order in zip(groups, orders, strict=True))
    )
    found = await stores[0].read(stored)
    for group, store in zip(groups, stores, strict=True):
        await group.close()
        await store.close()

    assert answers == [["done"] * 200] * 2
    assert found == keys
