from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import Connection, Text, bindparam, func, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError

from services.chassis.database import (
    Change,
    Database,
    Insertion,
    Upsertion,
    insert_rows,
    insert_tuples,
    locked,
    member_of_named,
    prepared,
    read_together,
    update_rows,
    write_together,
)
from services.chassis.prepared_statements import ROWS_AT_ONCE
from tests.conformance.things import LARGEST, METADATA, THINGS, all_things, inserting, thing

_NAMED = prepared(
    locked(select(THINGS).where(member_of_named(THINGS.c.id, "ids")), THINGS.c.id),
)
_BY_AMOUNT = prepared(
    select(THINGS.c.id).where(member_of_named(THINGS.c.amount_millis, "amounts")).order_by(THINGS.c.id)
)
_SECOND_EPOCH = prepared(select(THINGS.c.id, func.count().over()).where(THINGS.c.epoch == 2))
_RAISE = prepared(
    update(THINGS)
    .where(member_of_named(THINGS.c.id, "ids"))
    .values(epoch=THINGS.c.epoch + 1, order=bindparam("new_order", type_=Text()))
)
_OPEN = prepared(
    update(THINGS).where(THINGS.c.epoch == 1).values(open=True).returning(THINGS.c.id, THINGS.c.open)
)


@pytest.fixture
async def things(database: Database) -> Database:
    await database.write(METADATA.create_all)
    return database


def _rows(count: int, **values: Any) -> list[dict[str, Any]]:
    return [thing(f"t{number:04d}", **values) for number in range(count)]


async def test_a_prepared_select_gives_every_type_back_on_the_writer(
    things: Database,
) -> None:
    await things.write(
        inserting(thing("a", amount_millis=LARGEST, open=True, order="x", secret=b"\x00"), thing("b"))
    )

    def read(connection: Connection) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in _NAMED.rows(connection, ids={"a", "b", "c"})]

    rows = await things.write(read)
    assert rows == [("a", 1, LARGEST, True, "x", b"\x00"), ("b", 1, None, None, None, None)]
    assert rows[0][3] is True


async def test_a_prepared_select_without_a_lock_is_read_by_readers(things: Database) -> None:
    await things.write(inserting(thing("a", epoch=2), thing("b", epoch=2), thing("c")))

    rows = await things.read(lambda connection: [tuple(row) for row in _SECOND_EPOCH.rows(connection)])

    assert sorted(rows) == [("a", 2), ("b", 2)]


async def test_the_same_statement_takes_no_value_one_value_and_thousands(things: Database) -> None:
    await things.write(inserting(*[thing(f"t{n}", amount_millis=n) for n in range(3)]))

    async def found(amounts: Iterable[int]) -> list[str]:
        return await things.read(
            lambda connection: [row[0] for row in _BY_AMOUNT.rows(connection, amounts=amounts)]
        )

    assert await found([]) == []
    assert await found([1]) == ["t1"]
    assert await found(range(-5000, 5000)) == ["t0", "t1", "t2"]


async def test_first_is_the_first_row_or_none(things: Database) -> None:
    await things.write(inserting(thing("a", amount_millis=7)))

    async def first(amount: int) -> Any:
        return await things.read(lambda connection: _BY_AMOUNT.first(connection, amounts=[amount]))

    assert (await first(7))[0] == "a"
    assert await first(8) is None


async def test_a_prepared_update_counts_what_it_changed_and_returns_what_it_names(things: Database) -> None:
    await things.write(inserting(thing("a"), thing("b"), thing("c", epoch=5)))

    changed = await things.write(
        lambda connection: _RAISE.run(connection, ids=["b", "c", "x"], new_order="n")
    )
    opened = await things.write(lambda connection: [tuple(row) for row in _OPEN.rows(connection)])

    assert changed == 2
    assert opened == [("a", True)]
    assert [(row["epoch"], row["order"]) for row in await things.read(all_things)] == [
        (1, None),
        (2, "n"),
        (6, "n"),
    ]


async def test_a_missing_value_is_a_key_error_and_nothing_is_written(things: Database) -> None:
    await things.write(inserting(thing("a")))

    with pytest.raises(KeyError):
        await things.write(lambda connection: _RAISE.run(connection, ids=["a"]))


def test_a_statement_whose_text_depends_on_its_values_cannot_be_prepared() -> None:
    changing = prepared(select(THINGS.c.id).where(THINGS.c.id.in_(["a", "b"])))

    with pytest.raises(TypeError, match="depends on its values"):
        changing.spelled(sqlite.dialect())


@pytest.mark.parametrize(
    "count", [1, 2, 3, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 3 * ROWS_AT_ONCE + 5]
)
async def test_sets_of_every_size_go_in_and_change_whole(things: Database, count: int) -> None:
    rows = _rows(count, secret=b"s", open=True)

    assert await things.write(lambda connection: insert_rows(connection, THINGS, rows)) == count
    changes = [{"id": row["id"], "amount_millis": place, "open": False} for place, row in enumerate(rows)]
    await things.write(
        lambda connection: update_rows(connection, THINGS, key=("id",), rows=changes, returning_keys=False)
    )

    expected = [row | change for row, change in zip(rows, changes, strict=True)]
    assert await things.read(all_things) == expected


async def test_a_fence_holds_for_each_row_of_a_set_that_is_not_read_back(things: Database) -> None:
    await things.write(inserting(thing("a", epoch=1), thing("b", epoch=2), thing("c", epoch=1)))

    changes = [{"id": name, "epoch": 1, "order": "new"} for name in "abc"]
    await things.write(
        lambda connection: update_rows(
            connection, THINGS, key=("id",), rows=changes, match=("epoch",), returning_keys=False
        )
    )

    assert [row["order"] for row in await things.read(all_things)] == ["new", None, "new"]


async def test_ignored_conflicts_are_not_counted_across_the_parts_of_a_large_set(things: Database) -> None:
    await things.write(inserting(*_rows(40)))

    rows = [tuple(row.values()) for row in _rows(100)]
    names = tuple(_rows(1)[0])
    inserted = await things.write(
        lambda connection: insert_tuples(connection, THINGS, names, rows, ignore_conflicts=True)
    )

    assert inserted == 60


async def test_a_collision_in_a_set_is_an_integrity_error_and_leaves_nothing(things: Database) -> None:
    await things.write(inserting(thing("t0001")))

    with pytest.raises(IntegrityError):
        await things.write(inserting(*_rows(5)))

    assert len(await things.read(all_things)) == 1


async def test_steps_written_together_are_all_written(things: Database) -> None:
    await things.write(inserting(thing("a"), thing("b")))

    await things.write(
        lambda connection: write_together(
            connection,
            (
                Insertion(THINGS, ("id", "epoch", "open"), [("c", 3, True), ("d", 4, None)]),
                Change(THINGS, ("id",), ("id", "order"), []),
                Change(THINGS, ("id",), ("id", "epoch", "secret"), [("a", 8, b"\x00"), ("b", 9, None)]),
            ),
        )
    )

    rows = await things.read(all_things)
    assert [(row["id"], row["epoch"], row["open"], row["secret"]) for row in rows] == [
        ("a", 8, None, b"\x00"),
        ("b", 9, None, None),
        ("c", 3, True, None),
        ("d", 4, None, None),
    ]


async def test_rows_written_together_are_added_to_replaced_or_new(things: Database) -> None:
    await things.write(inserting(thing("a", epoch=2, amount_millis=5, order="x"), thing("c")))
    names = ("id", "epoch", "amount_millis", "order")
    added = Upsertion(
        THINGS, ("id",), names, [("a", 3, 40, "y"), ("b", 1, 6, "z")], add=("epoch",), replace=("order",)
    )

    await things.write(
        lambda connection: write_together(
            connection, (added, Change(THINGS, ("id",), ("id", "epoch"), [("c", 9)]))
        )
    )

    rows = await things.read(all_things)
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("a", 5, 5, "y"),
        ("b", 1, 6, "z"),
        ("c", 9, None, None),
    ]


async def test_steps_written_together_fail_together(things: Database) -> None:
    await things.write(inserting(thing("a")))

    with pytest.raises(IntegrityError):
        await things.write(
            lambda connection: write_together(
                connection,
                (
                    Change(THINGS, ("id",), ("id", "epoch"), [("a", 8)]),
                    Insertion(THINGS, ("id",), [("a",), ("b",)]),
                ),
            )
        )

    assert [(row["id"], row["epoch"]) for row in await things.read(all_things)] == [("a", 1)]


async def test_selects_read_together_give_their_own_rows_back(things: Database) -> None:
    await things.write(inserting(thing("a", epoch=2, open=True, amount_millis=5), thing("b", secret=b"\x00")))

    def read(connection: Connection) -> list[list[tuple[Any, ...]]]:
        selects = (_NAMED, _BY_AMOUNT, _SECOND_EPOCH)
        parts = read_together(connection, selects, ids=["a", "b"], amounts=[5, 6])
        return [[tuple(row) for row in part] for part in parts]

    named, by_amount, second_epoch = await things.write(read)
    assert sorted(named) == [("a", 2, 5, True, None, None), ("b", 1, None, None, None, b"\x00")]
    assert (by_amount, second_epoch) == ([("a",)], [("a", 1)])
    assert min(named)[3] is True
    assert await things.write(read) == [named, by_amount, second_epoch]
