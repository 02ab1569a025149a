"""A column that travels as one text comes back as it was: the server reads what `array_text` spells."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import BigInteger, Boolean, Connection, Numeric, Text, text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.types import TypeEngine

from services.chassis import array_text
from services.chassis.database import Database

HARD_TEXTS = (
    "",
    " ",
    "NULL",
    "null",
    '"',
    '""',
    '","',
    "\\",
    '\\"',
    "{a,b}",
    "a,b",
    "{}",
    "'",
    "line\nline\r\t",
    "Ünïcødé 🐈",
    "\x01\x7f",
    ' "leading and trailing" ',
)


async def _read(url: str, spelled: str, kind: str) -> list[Any]:
    database = await Database.open(url, application_name="test")

    def read(connection: Connection) -> list[Any]:
        found = connection.execute(
            text(f"SELECT CAST(CAST(:spelled AS text) AS {kind}[])"), {"spelled": spelled}
        )
        return list(found.scalar_one())

    try:
        return await database.read(read)
    finally:
        await database.close()


@pytest.mark.parametrize(
    "column",
    [
        HARD_TEXTS,
        *[(one,) for one in HARD_TEXTS],
        ("plain", "too"),
        ("a", None, 'b"'),
        (None,),
        ('a","b', "c"),
    ],
)
async def test_texts_come_back_as_they_were(postgres_url: str, column: tuple[str | None, ...]) -> None:
    assert await _read(postgres_url, array_text.texts(column), "text") == list(column)


async def test_numbers_and_truths_come_back_as_they_were(postgres_url: str) -> None:
    numbers = (0, -1, 2**63 - 1, -(2**63), None, True)
    assert await _read(postgres_url, array_text.numbers(numbers), "bigint") == [*numbers[:5], 1]
    truths = (True, False, None)
    assert await _read(postgres_url, array_text.truths(truths), "boolean") == list(truths)


@pytest.mark.parametrize(
    ("spelled", "column"), [("numbers", ("1",)), ("numbers", (1.5,)), ("texts", (1, "a"))]
)
def test_a_value_of_another_type_is_refused(spelled: str, column: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        getattr(array_text, spelled)(column)


@pytest.mark.parametrize("kind", [BYTEA(), Numeric()])
def test_other_types_travel_as_lists(kind: TypeEngine[Any]) -> None:
    assert array_text.spelling_of(kind) is None
    assert {array_text.spelling_of(known) for known in (Text(), BigInteger(), Boolean())} == {
        array_text.texts,
        array_text.numbers,
        array_text.truths,
    }
