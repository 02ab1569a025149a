from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from services.chassis import rpc_status
from services.chassis.errors import Kind, ServiceError

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_ERRORS = st.builds(
    ServiceError,
    st.sampled_from(list(Kind)),
    st.from_regex(r"[A-Z][A-Z_]{0,40}", fullmatch=True),
    _TEXT,
    st.dictionaries(_TEXT, _TEXT, max_size=5),
)


@given(_ERRORS)
def test_an_error_is_equal_on_the_other_side(error: ServiceError) -> None:
    code, _, details = rpc_status.to_reply(error)
    assert rpc_status.from_details(code, details) == error


@given(_ERRORS)
def test_trailers_say_the_same_as_a_reply(error: ServiceError) -> None:
    code, message, trailers = rpc_status.to_trailers(error)
    assert (code.value[0], message, trailers[0][1]) == rpc_status.to_reply(error)


def test_an_error_too_large_for_trailers_keeps_its_kind_and_reason() -> None:
    huge = ServiceError(Kind.ABORTED, "CONFLICT", "é" * 100_000, {f"k{n}": "é" * 1000 for n in range(1000)})
    code, _, details = rpc_status.to_reply(huge)
    read = rpc_status.from_details(code, details)
    assert (read.kind, read.reason) == (Kind.ABORTED, "CONFLICT")
    assert len(details) < 6000


@pytest.mark.parametrize(
    "details", [b"", b"\xff\xff garbage", Status(code=5, message="x").SerializeToString()]
)
def test_a_status_without_our_details_becomes_a_plain_error_of_its_kind(details: bytes) -> None:
    assert rpc_status.from_details(5, details) == ServiceError(Kind.NOT_FOUND, "NOT_FOUND", "not found")


def test_details_of_another_domain_are_not_shown() -> None:
    status = Status(code=14, message="ipv4:10.0.0.7:443 refused")
    status.details.add().Pack(ErrorInfo(reason="OTHER", domain="googleapis.com"))
    error = rpc_status.from_details(14, status.SerializeToString())
    assert error.reason == "UNAVAILABLE"
    assert "10.0.0.7" not in error.message


@pytest.mark.parametrize("code", [2, 15, 99])
def test_a_code_that_has_no_kind_is_internal(code: int) -> None:
    assert rpc_status.from_details(code, b"").kind is Kind.INTERNAL
