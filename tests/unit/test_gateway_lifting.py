"""Lifting: whatever a body is and however it is cut, nothing of it is lost, held twice, or blocks the loop."""

from __future__ import annotations

import base64
import contextlib
import gc
import itertools
import json
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import ServiceError
from services.gateway import inline_images, lifting
from services.gateway.lifting import LONG_BYTES, Lifted, Lifter, is_placeholder

MIB = 1024 * 1024
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text('"\\/\u00e9\U0001f600a\n', max_size=60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def lifted(chunks: Iterable[bytes], rest_limit: int = MIB, long: int = LONG_BYTES) -> Lifted:
    lifter = Lifter(rest_limit, long)
    for chunk in chunks:
        for _ in lifter.feed(chunk):
            pass
    return lifter.finish()


def cut(body: bytes, places: Iterable[int]) -> Iterator[bytes]:
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return (body[start:end] for start, end in itertools.pairwise(edges))


def put_back(body: Lifted) -> bytes:
    """The body with every placeholder replaced by what it stands for."""
    whole = body.json
    for placeholder, text in body.texts.items():
        spelled = json.dumps(placeholder)[1:-1].encode()
        assert whole.count(spelled) == 1
        whole = whole.replace(spelled, text.raw())
    return whole


@given(ANY_JSON, st.booleans(), st.lists(st.integers(min_value=0), max_size=8), st.integers(0, 40))
def test_lifting_and_putting_back_is_the_identity(
    document: Any, ascii_only: bool, places: list[int], long: int
) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert lifted(cut(body, places), long=long) == Lifted(body, {})


@given(ANY_JSON, st.lists(st.integers(min_value=0), max_size=8), st.integers(1, 9))
def test_what_does_not_fit_back_is_all_there(document: Any, places: list[int], turn_bytes: int) -> None:
    body = json.dumps({"a": document, "b": 'long \\" text' * 3}).encode()
    short = sum(1 for _ in lifted([body], long=0).json) - 1
    with patch.object(lifting, "_TURN_BYTES", turn_bytes):
        taken = lifted(cut(body, places), rest_limit=short, long=0)
    assert taken.texts
    assert put_back(taken) == body
    json.loads(taken.json)


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=8))
def test_any_bytes_come_back_as_they_were(body: bytes, places: list[int]) -> None:
    assert lifted(cut(body, places), long=5).json == body


@pytest.mark.parametrize("step", [1, 2, 3, 7, 8191, 8192, 8193, 65_536])
def test_only_a_string_beyond_8_kib_is_lifted_however_it_arrives(step: int) -> None:
    plain, long = "a" * LONG_BYTES, "b" * (LONG_BYTES + 1)
    body = json.dumps({"plain": plain, "long": long, "quoted": 'c"' * 9000}).encode()
    taken = lifted((body[at : at + step] for at in range(0, len(body), step)), rest_limit=LONG_BYTES + 500)
    parsed = json.loads(taken.json)
    assert parsed["plain"] == plain
    assert [is_placeholder(parsed[name]) for name in ("long", "quoted")] == [True, True]
    assert taken.texts[parsed["long"]].raw() == long.encode()
    assert taken.texts[parsed["quoted"]].raw() == b'c\\"' * 9000


def test_the_shortest_strings_are_put_back_first() -> None:
    body = json.dumps({"image": "i" * 3 * MIB, "prompt": "p" * 100_000, "other": "o" * 2 * MIB}).encode()
    parsed = json.loads(lifted([body]).json)
    assert [is_placeholder(value) for value in parsed.values()] == [True, False, True]


def test_a_placeholder_cannot_be_guessed() -> None:
    body = json.dumps({"image": "i" * 2 * MIB}).encode()
    first, second = (set(lifted([body]).texts) for _ in range(2))
    assert not first & second


@pytest.mark.parametrize("tail", [b"", b'"', b"\\", b'\\"', b"\\u00"])
def test_a_body_that_ends_inside_of_a_string_stays_broken(tail: bytes) -> None:
    taken = lifted([b'{"a": "' + b"x" * 2 * MIB + tail])
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(taken.json)


def test_the_rest_has_a_bound() -> None:
    with pytest.raises(ServiceError) as refusal:
        lifted([b"[" * 600_000, b"[" * 600_000])
    assert refusal.value.reason == "PAYLOAD_TOO_LARGE"


def arriving(image_bytes: int, chunk_bytes: int) -> Iterator[bytes]:
    """A request with an image in base64, made as it is read, so that the test itself holds none of it."""
    line = base64.b64encode(bytes(range(192)))
    text_bytes = image_bytes // 192 * len(line)
    yield b'{"prompt": "a", "referenceImage": "'
    for at in range(0, text_bytes, chunk_bytes):
        size = min(chunk_bytes, text_bytes - at)
        start = at % len(line)
        yield (line * (size // len(line) + 2))[start : start + size]
    yield b'"}'


@pytest.mark.parametrize("chunk_bytes", [256 * 1024, 1500, 37])
async def test_one_copy_of_a_20_mb_image_is_held(chunk_bytes: int) -> None:
    image_bytes = 192 * 109_226 if chunk_bytes > 37 else 192 * 20_000
    tracemalloc.start()
    try:
        body = lifted(arriving(image_bytes, chunk_bytes))
        (text,) = body.texts.values()
        text_bytes = text.size_bytes
        image = await inline_images.decoded(text, 20 * MIB)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert image.size_bytes == image_bytes
    assert peak_bytes < text_bytes + 2 * MIB


HOSTILE = {
    "an image": b'{"a":"' + b"QUJD" * 5_000_000 + b'"}',
    "short strings": b'["' + b'","' * 9_000_000 + b'"]',
    "escaped quotes": b'{"a":"' + b'\\"' * 9_000_000 + b'"}',
    "backslashes": b'{"a":"' + b"\\\\" * 9_000_000 + b'"}',
    "long strings": b"[" + (b'"' + b"x" * 8193 + b'",') * 2_500 + b"0]",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_turn_of_the_loop_takes_long(name: str) -> None:
    """Median of the worst turns of three runs, in this thread's own time: neighbours and garbage of others do not count."""
    body = HOSTILE[name]
    gc.disable()
    try:
        worst = sorted(longest_turn_s(body) for _ in range(3))[1]
    finally:
        gc.enable()
    assert worst < 0.020


def longest_turn_s(body: bytes) -> float:
    turns = every_turn(body)
    longest_s = 0.0
    while True:
        began_s = time.thread_time()
        over = next(turns, True)
        longest_s = max(longest_s, time.thread_time() - began_s)
        if over:
            return longest_s


def every_turn(body: bytes) -> Iterator[bool]:
    """Yields False wherever the edge lets others have the loop, until the body is read or refused."""
    lifter = Lifter(MIB)
    with contextlib.suppress(ServiceError):
        for at in range(0, len(body), 768 * 1024):
            yield False
            for _ in lifter.feed(body[at : at + 768 * 1024]):
                yield False
        yield False
        lifter.finish()
