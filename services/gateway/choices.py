"""What a field may hold that has a few values only, for the sentence that refuses another one."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from msgspec import inspect

# "input.image_urls[0]", as msgspec writes it.
_STEP: Final = re.compile(r"\w+|\[[^]]*\]")


@lru_cache(maxsize=64)
def choices_at(wire: Any, path: str) -> tuple[str, ...]:
    """The values that the field at `path` of a struct may hold; none where they cannot be counted."""
    found: inspect.Type | None = inspect.type_info(wire)
    for step in _STEP.findall(path):
        found = next((inner for each in _kinds(found) if (inner := _inside(each, step))), None)
    literals = [kind for kind in _kinds(found) if isinstance(kind, inspect.LiteralType)]
    return tuple(str(value) for literal in literals for value in literal.values)


def _kinds(found: inspect.Type | None) -> tuple[inspect.Type, ...]:
    if isinstance(found, inspect.Metadata):
        return _kinds(found.type)
    if isinstance(found, inspect.UnionType):
        return found.types
    return () if found is None else (found,)


def _inside(outer: inspect.Type, step: str) -> inspect.Type | None:
    if isinstance(outer, inspect.StructType):
        return next((field.type for field in outer.fields if field.encode_name == step), None)
    return outer.item_type if isinstance(outer, inspect.ListType) and step.startswith("[") else None
