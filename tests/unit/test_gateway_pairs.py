"""Query strings and forms into structs, and every hostile way in which they come."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from services.chassis.errors import ServiceError
from services.gateway import pairs

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Asked(msgspec.Struct, kw_only=True):
    name: str
    page: Annotated[int, Meta(ge=1, le=100)] = 1


def queried(query: str) -> Asked:
    return pairs.query(make_mocked_request("GET", f"/x?{query}"), Asked)


def posted(body: bytes, headers: dict[str, str] | None = None) -> Asked:
    request = make_mocked_request("POST", "/x", headers=FORM if headers is None else headers)
    return pairs.form(request, body, Asked)


def field_of(refusal: pytest.ExceptionInfo[ServiceError]) -> str:
    assert refusal.value.reason == "MALFORMED_REQUEST"
    return refusal.value.metadata.get("field", "")


def test_values_are_read_as_what_they_are_and_unknown_names_ignored() -> None:
    assert queried("name=a%20b&page=7&page_=9&other=1&other=2") == Asked(name="a b", page=7)
    assert posted(b"name=a+b&page=7&other=1&other=2") == Asked(name="a b", page=7)


@pytest.mark.parametrize(
    "query,field",
    [
        ("", "name"),
        ("name=a&name=b", "name"),
        ("name=a&page=0", "page"),
        ("name=a&page=101", "page"),
        ("name=a&page=x", "page"),
        ("name=a&page=", "page"),
        ("name=a&page=1.5", "page"),
        ("name=a&page=" + "9" * 5_000, "page"),
    ],
)
def test_what_is_wrong_is_named(query: str, field: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        queried(query)
    assert field_of(refusal) == field
    with pytest.raises(ServiceError) as refusal:
        posted(query.encode())
    assert field_of(refusal) == field


@pytest.mark.parametrize(
    "body", [b"\xff", b"name=%ff", b"name=\xc3\xa9", b"&".join(b"a%d=1" % n for n in range(40))]
)
def test_a_form_that_is_none_is_refused_whole(body: bytes) -> None:
    with pytest.raises(ServiceError) as refusal:
        posted(body)
    assert field_of(refusal) == ""


@pytest.mark.parametrize("declared", [{}, {"Content-Type": "application/json"}, {"Content-Type": "x"}])
def test_a_form_must_be_declared_as_one(declared: dict[str, str]) -> None:
    with pytest.raises(ServiceError) as refusal:
        posted(b"name=a", declared)
    assert "Content-Type" in refusal.value.message


def test_a_charset_beside_the_type_is_no_harm() -> None:
    assert posted(b"name=a", {"Content-Type": FORM["Content-Type"] + "; charset=utf-8"}).name == "a"


@given(st.text(st.characters(codec="utf-8")))
def test_every_text_comes_through_a_form_as_it_was(text: str) -> None:
    assert posted(urlencode({"name": text}).encode()).name == text
