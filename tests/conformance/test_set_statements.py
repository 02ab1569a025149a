from __future__ import annotations

import time
from statistics import median
from typing import Any

import pytest
from sqlalchemy import (
    Connection,
    func,
    select,
)
from sqlalchemy.exc import IntegrityError

from services.chassis.database import (
    Database,
    insert_rows,
    locked,
    member_of,
    update_rows,
    upsert_rows,
)
from services.chassis.errors import Kind, ServiceError
from tests.conformance.things import LARGEST, METADATA, THINGS, all_things, inserting, thing


@pytest.fixture
async def things(database: Database) -> Database:
    await database.write(METADATA.create_all)
    return database


async def test_every_column_type_comes_back_as_it_went_in(things: Database) -> None:
    rows = [
        thing("a", amount_millis=LARGEST, open=True, order="abc", secret=b"\x00\xff"),
        thing("b", amount_millis=-LARGEST - 1, open=False, order="", secret=b""),
        thing("c \u00e4 \U0001f600 ' \" \\ \n"),
    ]

    assert await things.write(inserting(*rows)) == 3

    assert await things.read(all_things) == rows


async def test_columns_left_out_of_an_insert_get_the_databases_defaults(things: Database) -> None:
    await things.write(inserting({"id": "a"}))

    assert (await things.read(all_things))[0]["epoch"] == 7


async def test_insert_ignoring_conflicts_counts_only_what_went_in(things: Database) -> None:
    await things.write(inserting(thing("a", amount_millis=1)))

    assert await things.write(inserting(thing("a"), thing("b"), ignore_conflicts=True)) == 1

    assert [row["amount_millis"] for row in await things.read(all_things)] == [1, None]


async def test_insert_raises_integrity_error_on_a_conflict_and_leaves_nothing(things: Database) -> None:
    await things.write(inserting(thing("a")))

    with pytest.raises(IntegrityError):
        await things.write(inserting(thing("0"), thing("a")))

    assert [row["id"] for row in await things.read(all_things)] == ["a"]


async def test_rows_with_different_or_unknown_columns_are_refused(things: Database) -> None:
    with pytest.raises(ValueError, match="same columns"):
        await things.write(inserting({"id": "a"}, {"id": "b", "epoch": 1}))
    with pytest.raises(ValueError, match="no column"):
        await things.write(inserting({"id": "a", "nonsense": 1}))


async def test_no_rows_are_no_statement(things: Database) -> None:
    def nothing(connection: Connection) -> tuple[int, set[Any]]:
        upsert_rows(connection, THINGS, key=["id"], rows=[], add=["amount_millis"])
        return insert_rows(connection, THINGS, []), update_rows(connection, THINGS, key=["id"], rows=[])

    assert await things.write(nothing) == (0, set())


@pytest.mark.parametrize("secret", [None, b"\x00\x01"])
async def test_update_changes_only_rows_whose_fence_matches_and_says_which(
    things: Database, secret: bytes | None
) -> None:
    await things.write(inserting(thing("a", epoch=1), thing("b", epoch=2), thing("c", epoch=1)))
    changes = [
        {"id": identity, "epoch": 1, "amount_millis": LARGEST, "open": True, "secret": secret, "order": None}
        for identity in ("c", "b", "a", "missing")
    ]

    updated = await things.write(
        lambda connection: update_rows(connection, THINGS, key=["id"], match=["epoch"], rows=changes)
    )

    assert updated == {"a", "c"}
    changed = {"amount_millis": LARGEST, "open": True, "secret": secret}
    assert await things.read(all_things) == [
        thing("a", **changed),
        thing("b", epoch=2),
        thing("c", **changed),
    ]


@pytest.mark.parametrize("secret", [None, b"\x00\x01"])
async def test_update_obeys_an_extra_condition(things: Database, secret: bytes | None) -> None:
    await things.write(inserting(thing("a", open=True), thing("b", open=False)))
    changes = [{"id": identity, "amount_millis": 5, "secret": secret} for identity in ("a", "b")]

    def change(connection: Connection) -> set[Any]:
        return update_rows(connection, THINGS, key=["id"], rows=changes, extra_where=THINGS.c.open.is_(True))

    assert await things.write(change) == {"a"}
    assert [row["amount_millis"] for row in await things.read(all_things)] == [5, None]


async def test_update_by_several_key_columns_returns_tuples(things: Database) -> None:
    await things.write(inserting(thing("a", epoch=1), thing("b", epoch=2)))
    changes = [{"id": "a", "epoch": 1, "open": True}, {"id": "b", "epoch": 9, "open": True}]

    updated = await things.write(
        lambda connection: update_rows(connection, THINGS, key=["id", "epoch"], rows=changes)
    )

    assert updated == {("a", 1)}


async def test_update_can_set_null_and_keeps_text_that_looks_like_json(things: Database) -> None:
    await things.write(inserting(thing("a", amount_millis=1, open=True, order="x")))
    changes = [{"id": "a", "amount_millis": None, "open": None, "order": "{}"}]

    await things.write(lambda connection: update_rows(connection, THINGS, key=["id"], rows=changes))

    assert await things.read(all_things) == [thing("a", order="{}")]


async def test_update_without_reading_keys_back_still_updates(things: Database) -> None:
    await things.write(inserting(thing("a")))
    changes = [{"id": "a", "open": True}]

    updated = await things.write(
        lambda connection: update_rows(connection, THINGS, key=["id"], rows=changes, returning_keys=False)
    )

    assert updated == set()
    assert (await things.read(all_things))[0]["open"] is True


async def test_upsert_adds_replaces_and_inserts(things: Database) -> None:
    await things.write(inserting(thing("a", amount_millis=10, order="old", open=True)))
    rows = [thing("b", amount_millis=1, order="new"), thing("a", amount_millis=5, order="new", open=False)]

    await things.write(
        lambda connection: upsert_rows(
            connection, THINGS, key=["id"], rows=rows, add=["amount_millis"], replace=["order"]
        )
    )

    expected = [
        thing("a", amount_millis=15, order="new", open=True),
        thing("b", amount_millis=1, order="new"),
    ]
    assert await things.read(all_things) == expected


@pytest.mark.parametrize("count", [0, 1, 10_000])
async def test_member_of_finds_exactly_the_named_rows_however_many(things: Database, count: int) -> None:
    await things.write(inserting(*(thing(f"t{number:05}", amount_millis=number) for number in range(100))))
    texts = [f"t{number:05}" for number in range(count)]

    def find(connection: Connection) -> tuple[int, int]:
        by_text = connection.execute(select(THINGS.c.id).where(member_of(THINGS.c.id, texts))).all()
        by_number = connection.execute(
            select(THINGS.c.id).where(member_of(THINGS.c.amount_millis, range(count)))
        ).all()
        return len(by_text), len(by_number)

    assert await things.read(find) == (min(count, 100), min(count, 100))


async def test_member_of_matches_whole_values_only(things: Database) -> None:
    odd = ["a'b", 'a"b', "a\\b", "ä", "\U0001f600", "a,b", "{a}", "NULL", ""]
    await things.write(
        inserting(*(thing(identity, order="abc", secret=identity.encode()) for identity in odd))
    )

    def find(connection: Connection) -> tuple[list[str], list[str], int]:
        exact = connection.execute(select(THINGS.c.id).where(member_of(THINGS.c.id, odd))).scalars().all()
        secrets = member_of(THINGS.c.secret, [identity.encode() for identity in odd])
        by_bytes = connection.execute(select(THINGS.c.id).where(secrets)).scalars().all()
        longer = connection.execute(select(THINGS.c.id).where(member_of(THINGS.c.order, ["abcd"]))).all()
        return sorted(exact), sorted(by_bytes), len(longer)

    assert await things.read(find) == (sorted(odd), sorted(odd), 0)


async def test_member_of_can_be_negated_and_combined(things: Database) -> None:
    await things.write(inserting(thing("a", open=True), thing("b", open=True), thing("c", open=False)))

    def find(connection: Connection) -> tuple[list[str], list[str]]:
        named = member_of(THINGS.c.id, ["a", "c"])
        others = select(THINGS.c.id).where(~named)
        both = select(THINGS.c.id).where(THINGS.c.open.is_(True), named)
        return list(connection.execute(others).scalars()), list(connection.execute(both).scalars())

    assert await things.read(find) == (["b"], ["a"])


async def test_member_of_refuses_a_text_with_nul(things: Database) -> None:
    with pytest.raises(ServiceError) as refusal:
        member_of(THINGS.c.id, ["a\x00b"])

    assert refusal.value.kind is Kind.INVALID_ARGUMENT


async def test_batch_statements_use_the_primary_key_on_a_table_that_was_empty_when_they_were_planned(
    things: Database,
) -> None:
    rows = [{"id": f"t{number:06}", "epoch": 1, "open": True} for number in range(1, 20_000, 200)]

    def batch(connection: Connection) -> float:
        started_s = time.perf_counter()
        statement = locked(
            select(THINGS.c.id).where(member_of(THINGS.c.id, [row["id"] for row in rows])), THINGS.c.id
        )
        connection.execute(statement).all()
        update_rows(connection, THINGS, key=["id"], match=["epoch"], rows=rows)
        return time.perf_counter() - started_s

    def scan(connection: Connection) -> float:
        started_s = time.perf_counter()
        connection.execute(select(func.count()).where(THINGS.c.amount_millis.is_not(None))).one()
        return time.perf_counter() - started_s

    for _ in range(10):
        await things.write(batch)
    await things.write(inserting(*(thing(f"t{number:06}") for number in range(200_000))))

    # A hundred look-ups take a tenth of a scan; a batch that scans does so twice. Timed in turns: machines are busy.
    times = [(await things.write(batch), await things.write(scan)) for _ in range(9)]
    assert median(time_s for time_s, _ in times) < median(time_s for _, time_s in times)


async def test_locked_rows_come_in_order(things: Database) -> None:
    await things.write(inserting(thing("b"), thing("a"), thing("c")))

    def take(connection: Connection) -> list[str]:
        return list(connection.execute(locked(select(THINGS.c.id), THINGS.c.id)).scalars())

    assert await things.write(take) == ["a", "b", "c"]
