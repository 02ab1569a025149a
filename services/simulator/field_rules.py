"""What a document says of the fields of a request body: declared as data, judged in one place.

Each provider spells what is wrong in its own words; here it only has a kind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

FlawKind = Literal["missing", "unknown", "type", "choice", "low", "high", "long", "short"]
FieldType = Literal["string", "integer", "number", "boolean", "strings", "objects", "object", "any"]

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "strings": (list,),
    "objects": (list,),
    "object": (dict,),
    "any": (object,),
}
_ITEM_TYPES: Final[Mapping[str, type]] = {"strings": str, "objects": dict}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a body.

    `low` and `high` bound a number, the length of a text, or the number of items of a list.
    `choices` are the only values that are let through, also those of another type (`"auto"` for a number).
    """

    type: FieldType
    required: bool = False
    low: float | None = None
    high: float | None = None
    choices: Collection[object] = ()


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with one field. `limit` is the bound that was passed, of `low`, `high`, `long`, `short`."""

    kind: FlawKind
    field: str
    rule: Field | None = None
    limit: float | None = None
    value: object = None


def flaws_of(body: Mapping[str, object], fields: Mapping[str, Field]) -> Iterator[Flaw]:
    """Everything that is wrong with `body`, in the order of the declaration; unknown fields come last."""
    for name, rule in fields.items():
        if name not in body or (body[name] is None and not rule.required):
            if rule.required:
                yield Flaw("missing", name, rule, value=dict(body))
            continue
        yield from _flaws_of_value(name, rule, body[name])
    for name in body:
        if name not in fields:
            yield Flaw("unknown", name, value=body[name])


def _flaws_of_value(name: str, rule: Field, value: object) -> Iterator[Flaw]:
    if rule.choices and _is_choice(value, rule.choices):
        return
    if rule.choices and not (rule.low is not None and _has_type(rule.type, value)):
        yield Flaw("choice", name, rule, value=value)
        return
    if not _has_type(rule.type, value):
        yield Flaw("type", name, rule, value=value)
        return
    measured, below, above = _measure(value)
    if measured is None:
        return
    if rule.low is not None and measured < rule.low:
        yield Flaw(below, name, rule, rule.low, value)
    if rule.high is not None and measured > rule.high:
        yield Flaw(above, name, rule, rule.high, value)


def _is_choice(value: object, choices: Collection[object]) -> bool:
    # True equals 1 in Python, never in JSON.
    return any(value == choice and type(value) is type(choice) for choice in choices)


def _has_type(wanted: FieldType, value: object) -> bool:
    if isinstance(value, bool) and wanted not in {"boolean", "any"}:
        return False
    if not isinstance(value, _TYPES[wanted]):
        return False
    item = _ITEM_TYPES.get(wanted)
    return item is None or (isinstance(value, list) and all(isinstance(one, item) for one in value))


def _measure(value: object) -> tuple[float | None, FlawKind, FlawKind]:
    if isinstance(value, bool):
        return None, "low", "high"
    if isinstance(value, int | float):
        return value, "low", "high"
    if isinstance(value, str | list):
        return len(value), "short", "long"
    return None, "low", "high"
