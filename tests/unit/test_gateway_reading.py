"""Any bytes at all are either a request or a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import ServiceError
from services.gateway import reading
from services.gateway.contracts.leonardo import inward
from services.gateway.contracts.leonardo.wire import VideoRequest

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["prompt", "size", "duration", "motionHasAudio", "referenceImage", "other"]
VALID = {"prompt": "a", "size": "1:1_SMALL", "duration": 5, "motionHasAudio": False}


def outcome(body: bytes) -> str:
    """`taken`, or the reason of the refusal."""
    try:
        inward.read_video(body)
    except ServiceError as refusal:
        return refusal.reason
    return "taken"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    assert outcome(body) in {"taken", "MALFORMED_REQUEST"}


@given(st.dictionaries(st.sampled_from(FIELDS), ANY_JSON))
def test_any_json_object_is_read_or_refused(fields: dict[str, Any]) -> None:
    assert outcome(json.dumps(fields).encode()) in {"taken", "MALFORMED_REQUEST"}


def faulty_field(fields: dict[str, Any]) -> str | None:
    """The field that the refusal names; None: taken."""
    try:
        inward.read_video(json.dumps(fields).encode())
    except ServiceError as refusal:
        return str(refusal.metadata.get("field", ""))
    return None


@given(st.sampled_from(FIELDS[:4]), ANY_JSON)
def test_one_wrong_field_is_the_one_that_is_named(field: str, value: Any) -> None:
    named = faulty_field({**VALID, field: value})
    assert named in {None, field}
    if named is None:
        assert type(value) is type(VALID[field])


@given(st.permutations(sorted(VALID)), st.integers(0, 4))
def test_the_fingerprint_ignores_order_and_space(order: list[str], indent: int) -> None:
    body = json.dumps({name: VALID[name] for name in order}, indent=indent).encode()
    expected = reading.fingerprint("/v1/videos/generate", VideoRequest(prompt="a"))
    assert reading.fingerprint("/v1/videos/generate", inward.read_video(body)) == expected


@pytest.mark.parametrize(
    "changed",
    [{"prompt": "b"}, {"size": "16:9_SMALL"}, {"duration": 6}, {"motionHasAudio": True}],
)
def test_the_fingerprint_sees_every_field_and_the_endpoint(changed: dict[str, Any]) -> None:
    plain = inward.read_video(json.dumps(VALID).encode())
    other = inward.read_video(json.dumps({**VALID, **changed}).encode())
    assert reading.fingerprint("/a", plain) != reading.fingerprint("/a", other)
    assert reading.fingerprint("/a", plain) != reading.fingerprint("/b", plain)
