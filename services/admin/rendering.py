"""Answers on a terminal: a table or lines for people, JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from google.protobuf.message import Message

from services.chassis.clock import rfc3339


@dataclass(frozen=True)
class Table:
    """Rows, and which of their fields a person wants to see."""

    rows: Sequence[Mapping[str, Any]]
    columns: tuple[str, ...]


def plain(message: Message) -> dict[str, Any]:
    """A message as plain data: every field, enum values as their short lower-case names."""
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def table(messages: Sequence[Message], *columns: str) -> Table:
    """Rows from messages."""
    return Table([plain(message) for message in messages], columns)


def show(answer: object, *, as_json: bool) -> None:
    """Prints what a command returned."""
    data = answer.rows if isinstance(answer, Table) else answer
    if as_json:
        print(json.dumps(data, indent=2, default=str))
    elif isinstance(answer, Table):
        _print_table(answer)
    elif isinstance(answer, Mapping):
        _print_lines(answer)
    else:
        print(answer)


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_single(item, field) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        names = [member.name for member in field.enum_type.values]
        prefix = names[0].removesuffix("UNSPECIFIED")
        number = field.enum_type.values_by_number.get(value)
        return number.name.removeprefix(prefix).lower() if number else value
    return value.hex() if isinstance(value, bytes) else value


def _print_table(answer: Table) -> None:
    if not answer.rows:
        print("nothing")
        return
    heads = [_title(column) for column in answer.columns]
    cells = [[_cell(column, row.get(column)) for column in answer.columns] for row in answer.rows]
    widths = [max(len(text) for text in texts) for texts in zip(heads, *cells, strict=True)]
    for line in [heads, ["-" * width for width in widths], *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _print_lines(answer: Mapping[str, Any], indent: str = "") -> None:
    width = max((len(_title(name)) for name in answer), default=0)
    for name, value in answer.items():
        if isinstance(value, Table):
            print(f"\n{indent}{_title(name)}")
            _print_table(value)
        elif isinstance(value, Mapping) and value:
            print(f"{indent}{_title(name)}")
            _print_lines(value, indent + "  ")
        else:
            print(f"{indent}{_title(name).ljust(width)}  {_cell(name, value)}")


def _title(name: str) -> str:
    return name.removesuffix("_ms").removesuffix("_millis").replace("_", " ")


def _cell(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ("", [], {}, "unspecified"):
        return "–"
    if name == "at_ms" or name.endswith("_at_ms"):
        return rfc3339(value) if value else "–"
    if name.endswith("_millis"):
        return f"{Decimal(value) / 1000:,f}"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)
