"""What is read of any answer: waits, amounts, shapes, and nothing that could be a customer's words."""

from __future__ import annotations

from decimal import ROUND_FLOOR

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.interface import ProtocolViolation, SubmissionUnknown
from tests.adapters.scripted import answer
from tests.clocks import T0_MS


class Named(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "30"}, 1.5),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "999999999"}, reading.WAIT_LIMIT_S),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "later"}, None),
        ({}, None),
    ],
)
def test_a_wait_is_read_as_the_provider_writes_it(headers: dict[str, str], wait_s: float | None) -> None:
    assert reading.retry_after_s(headers, T0_MS) == wait_s


@given(value=st.text(max_size=60))
def test_no_header_makes_a_wait_endless_or_raises(value: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        wait_s = reading.retry_after_s({name: value}, T0_MS)
        assert wait_s is None or 0 <= wait_s <= reading.WAIT_LIMIT_S
    span_s = reading.span_s(value)
    assert span_s is None or 0 <= span_s <= reading.WAIT_LIMIT_S


@pytest.mark.parametrize(
    ("text", "span_s"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("250ms", 0.25),
        ("1h2m3s", 3600.0),
        ("12.5s", 12.5),
        ("", None),
        ("6", None),
    ],
)
def test_a_span_is_read_as_its_units_say(text: str, span_s: float | None) -> None:
    assert reading.span_s(text) == span_s


@pytest.mark.parametrize(
    ("amount", "millis"),
    [
        ("0.80", 800),
        (24.5, 24_500),
        (7, 7_000),
        ("0.0001", 1),
        ("1e400", None),
        ("dear", None),
        (True, None),
        (None, None),
    ],
)
def test_an_amount_is_rounded_so_that_nobody_pays_less_than_is_charged(
    amount: object, millis: int | None
) -> None:
    assert reading.millis(amount) == millis


def test_what_is_left_is_rounded_down() -> None:
    assert reading.millis("1.2345", rounding=ROUND_FLOOR) == 1234


def test_an_answer_of_another_shape_is_not_quoted() -> None:
    with pytest.raises(ProtocolViolation) as violation:
        reading.shaped(answer({"name": ["a secret prompt"]}), Named)
    assert "secret" not in str(violation.value)
    assert violation.value.__cause__ is None


def test_an_answer_to_something_paid_that_cannot_be_read_leaves_it_in_doubt() -> None:
    bodies: list[object] = [b"<html>", {"name": 5}, []]
    for body in bodies:
        with pytest.raises(SubmissionUnknown) as unknown:
            reading.accepted(answer(body), Named)
        assert unknown.value.charged == "maybe"


def test_a_task_that_nobody_could_ask_about_was_taken_all_the_same() -> None:
    assert reading.task_id("rrr4z55ocneqzikepnug6xezpe") == "rrr4z55ocneqzikepnug6xezpe"
    for odd in ("", "a/b", "x" * 100, "a b"):
        with pytest.raises(SubmissionUnknown):
            reading.task_id(odd)


def test_only_short_names_are_repeated() -> None:
    assert reading.word("rate_limit_exceeded") == "rate_limit_exceeded"
    for odd in ("a prompt of somebody's", "x" * 65, 5, None, "é"):
        assert reading.word(odd) == ""
