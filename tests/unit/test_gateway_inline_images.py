"""Inline images: strict base64 over any borders, in bounded steps."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.inline_images import NotAnImage, beginning, decoded
from services.gateway.lifting import LiftedText

LIMIT = 20 * 1024 * 1024


def text_of(*pieces: bytes) -> LiftedText:
    text = LiftedText()
    for piece in pieces:
        text.add(piece)
    return text


async def content(text: str | LiftedText, limit_bytes: int = LIMIT) -> bytes | None:
    """What is inside; None when it is refused."""
    try:
        image = await decoded(text, limit_bytes)
    except NotAnImage:
        return None
    whole = b"".join(image.pieces)
    assert (image.size_bytes, image.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    return whole


@given(st.binary(min_size=1, max_size=300), st.integers(1, 70))
def test_what_was_encoded_is_decoded_wherever_it_is_cut(inside: bytes, step: int) -> None:
    encoded = base64.b64encode(inside)
    pieces = [encoded[at : at + step] for at in range(0, len(encoded), step)]
    assert asyncio.run(content(encoded.decode())) == inside
    assert asyncio.run(content(text_of(*pieces))) == inside


@given(st.text("AQgw/+=-_ \n\u00e9", max_size=12))
def test_what_the_standard_refuses_is_refused_and_nothing_else(text: str) -> None:
    try:
        inside = base64.b64decode(text.encode(), validate=True)
        plain = base64.b64encode(inside).decode() == text and inside != b""
    except (binascii.Error, ValueError):
        plain = False
    taken = asyncio.run(content(text))
    assert (taken is not None) == plain
    assert taken == asyncio.run(content(text_of(json.dumps(text)[1:-1].encode())))


@given(st.binary(min_size=1, max_size=100), st.lists(st.booleans(), min_size=1), st.integers(1, 20))
def test_escapes_mean_what_they_say_wherever_they_are_cut(
    inside: bytes, escaped: list[bool], step: int
) -> None:
    encoded = base64.b64encode(inside).decode()
    spelled = "".join(
        f"\\u{ord(each):04x}" if escaped[number % len(escaped)] else each.replace("/", "\\/")
        for number, each in enumerate(encoded)
    ).encode()
    # Each piece is long enough to stay one: what is cut is cut.
    text = LiftedText()
    for at in range(0, len(spelled), step):
        text.add(spelled[at : at + step])
        text._flush()
    assert beginning(text) == encoded[:256]
    assert asyncio.run(content(text)) == inside


@pytest.mark.parametrize(
    "raw", [b"QUJD\\", b"QUJD\\u00", b"QUJD\\x", b"QUJD\\u00e9", b"QUJD\\ud83d", b"\\nQUJD", b"QU\x00JD", b"\xff\xfe"]
)  # fmt: skip
async def test_an_escape_or_byte_that_is_no_base64_is_refused(raw: bytes) -> None:
    assert await content(text_of(raw)) is None


@pytest.mark.parametrize("size,taken", [(0, False), (1, True), (299, True), (300, True), (301, False)])
async def test_the_limit_is_of_the_decoded_bytes(size: int, taken: bool) -> None:
    encoded = base64.b64encode(bytes(size))
    for text in (encoded.decode(), text_of(encoded), text_of(b"\\u0041" + encoded[1:])):
        assert (await content(text, 300) is not None) == taken


async def test_a_header_may_be_cut_anywhere_and_is_no_part_of_the_image() -> None:
    whole = b"data:image\\/png;name=a;base64," + base64.b64encode(b"inside")
    for place in range(len(whole)):
        text = text_of(whole[:place])
        text._flush()
        text.add(whole[place:])
        assert await content(text) == b"inside"


@pytest.mark.parametrize("unit", [b"QUJD", b"\\u0041\\u0041\\u002B\\u002F"])
async def test_others_have_their_turn_while_a_large_image_is_read(unit: bytes) -> None:
    """Median of the longest gaps of three runs, so that a neighbour on the machine does not fail it."""
    longest_s = sorted([await longest_gap_s(unit) for _ in range(3)])[1]
    assert longest_s < 0.020


async def longest_gap_s(unit: bytes) -> float:
    text = text_of(*[unit * (768 * 1024 // len(unit))] * 34)
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.perf_counter() - began_s)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    image = await decoded(text, LIMIT)
    watcher.cancel()
    assert image.size_bytes > 3 * 1024 * 1024
    return longest_s
