"""PostgreSQL's arrays as texts.

asyncpg asks of every value in a list whether it is a list itself, and that question takes longer than all the rest of
sending it: a column of texts, numbers or truths travels as one text, and the server reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Boolean, Integer, String
from sqlalchemy.types import TypeDecorator, TypeEngine

Spelling = Callable[[tuple[Any, ...]], Any]


def spelling_of(column_type: TypeEngine[Any]) -> Spelling | None:
    """How a column of this type is spelled, or None where a list has to do."""
    if isinstance(column_type, TypeDecorator):
        return None
    if isinstance(column_type, Boolean):
        return truths
    if isinstance(column_type, Integer):
        return numbers
    return texts if isinstance(column_type, String) else None


def numbers(column: tuple[int | None, ...]) -> str:
    """Whole numbers. Raises TypeError for anything else."""
    if None not in column:
        return f"{{{','.join(map(int.__repr__, column))}}}"
    return f"{{{','.join(['NULL' if value is None else int.__repr__(value) for value in column])}}}"


def truths(column: tuple[bool | None, ...]) -> str:
    """Yes, no or nothing."""
    return f"{{{','.join(['NULL' if value is None else 't' if value else 'f' for value in column])}}}"


def texts(column: tuple[str | None, ...]) -> str:
    """Texts, all of them quoted, so that NULL and the empty one are texts as well. Raises TypeError for anything else."""
    if None not in column:
        joined = '","'.join(column)  # type: ignore[arg-type]
        # As many quotes as separators brought along: no value has one of its own.
        if "\\" not in joined and joined.count('"') == 2 * (len(column) - 1):
            return f'{{"{joined}"}}'
    return f"{{{','.join([_quoted(value) for value in column])}}}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    escaped = str.replace(value, "\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
