"""Rules of fields, apart from any provider."""

from __future__ import annotations

import pytest

from services.simulator.field_rules import Field, flaws_of


def kinds(value: object, rule: Field) -> list[str]:
    return [flaw.kind for flaw in flaws_of({"it": value}, {"it": rule})]


@pytest.mark.parametrize(
    ("value", "rule", "found"),
    [
        (5, Field("integer", low=4, high=15), []),
        (3, Field("integer", low=4, high=15), ["low"]),
        (16, Field("integer", low=4, high=15), ["high"]),
        (5.0, Field("integer"), ["type"]),
        (5, Field("number"), []),
        (True, Field("integer"), ["type"]),
        (1, Field("boolean"), ["type"]),
        ("auto", Field("integer", low=4, high=15, choices=("auto",)), []),
        (16, Field("integer", low=4, high=15, choices=("auto",)), ["high"]),
        ("automatic", Field("integer", low=4, high=15, choices=("auto",)), ["choice"]),
        (True, Field("any", choices=(1,)), ["choice"]),
        ("", Field("string", low=1), ["short"]),
        ("four", Field("string", high=3), ["long"]),
        (["a", 1], Field("strings"), ["type"]),
        (["a", "b"], Field("strings", high=1), ["long"]),
        ([{"a": 1}], Field("objects"), []),
    ],
)
def test_a_value_is_measured_by_its_type(value: object, rule: Field, found: list[str]) -> None:
    assert kinds(value, rule) == found


def test_null_is_as_good_as_absent_where_nothing_is_required() -> None:
    assert kinds(None, Field("string")) == []
    assert kinds(None, Field("string", required=True)) == ["type"]


def test_every_flaw_is_found_and_unknown_fields_come_last() -> None:
    fields = {"a": Field("string", required=True), "b": Field("integer")}
    found = [(flaw.kind, flaw.field) for flaw in flaws_of({"c": 1, "b": "x"}, fields)]
    assert found == [("missing", "a"), ("type", "b"), ("unknown", "c")]
