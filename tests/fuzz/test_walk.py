"""The walk against whatever is sent: an answer or ImageRefused, and never more work or memory than the file is large."""

from __future__ import annotations

import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.provider_pool.references.container import (
    FORMATS,
    ImageLimits,
    ImageRefused,
    Walked,
    sniff,
    walk,
)
from tests.corpus import images
from tests.corpus.images import Sample

LIMITS = ImageLimits(FORMATS, 20 * 1024 * 1024, first_frame_of_animations=True)
MAGIC = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x20\0\0\0WEBPVP8 ",
    b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0",
    b"GIF89a\x08\0\x08\0",
    b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
]
EXTREMES = [
    0,
    1,
    2,
    7,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0xFF_FFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFE,
    0xFFFF_FFFF,
]


def _small() -> list[Sample]:
    """Of each kind, what is short enough to be damaged in every way."""
    return [sample for sample in (*images.honest(), *images.animations()) if len(sample.content) < 5_000]


SAMPLES = _small()
JPEG = images.saved("JPEG")


def judged(content: bytes) -> Walked | None:
    """What the walk says, None for a refusal. Anything but an answer or ImageRefused fails the test that asks."""
    try:
        walked = walk(content, LIMITS)
    except ImageRefused:
        return None
    assert walked.format == sniff(content[:16])
    assert 0 < walked.width <= 16_384
    assert 0 < walked.height <= 16_384
    if walked.pieces is not None:
        once = b"".join(walked.pieces)
        again = walk(once, LIMITS)
        assert b"".join(again.pieces or ()) == once
        assert (again.format, again.width, again.height) == (walked.format, walked.width, walked.height)
    return walked


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_file_cut_anywhere_is_refused_or_whole(sample: Sample) -> None:
    whole = walk(sample.content, LIMITS)
    step = max(1, len(sample.content) // 300)
    for length in range(0, len(sample.content), step):
        walked = judged(sample.content[:length])
        # Without what follows its end, a file is still the same picture; anything less is none.
        if walked is not None:
            assert (walked.width, walked.height) == (whole.width, whole.height)
            assert b"".join(walked.pieces or ()) == b"".join(whole.pieces or ())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_number_replaced_by_an_extreme_one_does_no_harm(sample: Sample) -> None:
    lot = random.Random(sample.name)  # the same places each time
    for _ in range(200):
        content = bytearray(sample.content)
        width, order = lot.choice((1, 2, 3, 4)), lot.choice(("big", "little"))
        # Headers come first: most of the numbers that steer a walk are there.
        at = lot.randrange(min(len(content), lot.choice((64, 256, len(content)))))
        value = lot.choice(EXTREMES) & (1 << 8 * width) - 1
        content[at : at + width] = value.to_bytes(width, "little" if order == "little" else "big")
        judged(bytes(content))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sample with some bits flipped, and parts of it cut out, repeated or exchanged."""
    content = bytearray(draw(st.sampled_from(SAMPLES)).content)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 200)))
        change = draw(st.sampled_from(("flip", "cut", "repeat", "move", "overwrite")))
        if change == "flip" and start < len(content):
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif change == "cut":
            del content[start:end]
        elif change == "repeat":
            content[start:start] = content[start:end] * draw(st.integers(1, 20))
        elif change == "move":
            part = content[start:end]
            del content[start:end]
            to = draw(st.integers(0, len(content)))
            content[to:to] = part
        elif change == "overwrite":
            content[start:end] = draw(st.binary(max_size=40))
    return bytes(content)


@settings(max_examples=300)
@given(damaged())
def test_a_damaged_file_does_no_harm(content: bytes) -> None:
    judged(content)


@settings(max_examples=300)
@given(st.sampled_from(MAGIC), st.binary(max_size=600))
def test_random_bytes_behind_a_signature_do_no_harm(magic: bytes, rest: bytes) -> None:
    judged(magic + rest)


# Chunks with their frames and checksums intact: what random bytes never are.
PNG_NAMES = [
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"iCCP",
    b"eXIf",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"tEXt",
    b"zTXt",
    b"gAMA",
    b"sBIT",
    b"ABCD",
]
WEBP_NAMES = [b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ", b"junk"]
SOUND_PNG = [
    chunk
    for s in SAMPLES
    if s.format == "png"
    for chunk in images.png_chunks(s.content.removesuffix(images.CANARY))
]
SOUND_WEBP = [
    chunk
    for s in SAMPLES
    if s.format == "webp"
    for chunk in images.webp_chunks(s.content.removesuffix(images.CANARY))
]
MARKERS = [0xC0, 0xC2, 0xC4, 0xC9, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE]


def shuffled(
    names: list[bytes], sound: list[tuple[bytes, bytes]]
) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    made = st.tuples(st.sampled_from(names), st.binary(max_size=40))
    return st.lists(st.one_of(made, st.sampled_from(sound)), max_size=12)


@settings(max_examples=300)
@given(shuffled(PNG_NAMES, SOUND_PNG))
def test_sound_chunks_in_any_order_make_a_png_or_none(chunks: list[tuple[bytes, bytes]]) -> None:
    judged(images.png_of(chunks))


@settings(max_examples=300)
@given(shuffled(WEBP_NAMES, SOUND_WEBP))
def test_sound_chunks_in_any_order_make_a_webp_or_none(chunks: list[tuple[bytes, bytes]]) -> None:
    judged(images.webp_of(chunks))


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from(MARKERS), st.binary(max_size=60)), max_size=12), st.binary(max_size=30)
)
def test_sound_segments_in_any_order_make_a_jpeg_or_none(
    segments: list[tuple[int, bytes]], data: bytes
) -> None:
    extra = b"".join(images.jpeg_segment(*segment) for segment in segments)
    judged(JPEG[:2] + extra + JPEG[2:])
    judged(JPEG[:-2] + extra + data + b"\xff\xd9")


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from([256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 322, 323, 324, 325, 339]),
        st.one_of(
            st.none(),
            st.tuples(st.just(4), st.lists(st.sampled_from(EXTREMES), max_size=5).map(tuple)),
            st.tuples(st.just(3), st.lists(st.integers(0, 20), max_size=5).map(tuple)),
        ),
        max_size=5,
    )
)
def test_any_values_in_a_tiff_s_tags_make_a_page_or_none(changed: dict[int, Any]) -> None:
    page = images.tiff_page(**{f"tag_{tag}": value for tag, value in changed.items() if value is not None})
    removed = {tag for tag, value in changed.items() if value is None}
    judged(images.tiff_of([{tag: entry for tag, entry in page.items() if tag not in removed}]))


# ---- work and memory ----

MIB = 1 << 20


def _attacks() -> Iterator[tuple[str, bytes]]:
    """Files of about a mebibyte, each of as many of the smallest parts of its format as go into it."""
    png = images.saved("PNG")
    webp = images.webp_chunks(images.saved("WEBP"))
    yield "png texts", images.png_with(png, *[(b"tEXt", b"")] * 80_000)
    yield "png crumbs", images.png_with(png, *[(b"IDAT", b"")] * 80_000)
    yield "png profile", images.png_with(png, (b"iCCP", b"a\0\0" + b"\xff" * MIB))
    yield "png exif", images.png_with(png, (b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + bytes(MIB)))
    yield (
        "png exif text",
        images.png_with(png, (b"tEXt", b"Raw profile type exif\0" + b"0 " * (MIB // 2))),
    )
    yield "jpeg zeros", images.jpeg_with(JPEG, images.jpeg_segment(0xFE, b""), bytes(MIB))
    yield "jpeg fill", images.jpeg_with(JPEG, b"\xff" * MIB)
    yield "jpeg fill in a scan", JPEG[:-2] + b"\xff" * MIB + b"\0\xff\xd9"
    yield "jpeg stuffing", JPEG[:-2] + b"\xff\0" * (MIB // 2) + b"\xff\xd9"
    yield "jpeg restarts", JPEG[:-2] + b"\xff\xd0" * (MIB // 2) + b"\xff\xd9"
    yield "jpeg comments", images.jpeg_with(JPEG, b"\xff\xfe\0\2" * (MIB // 4))
    yield (
        "jpeg exif",
        images.jpeg_with(JPEG, images.jpeg_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 65_000) * 16),
    )
    yield (
        "jpeg profile",
        images.jpeg_with(JPEG, images.jpeg_segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_000)) * 16),
    )
    yield "webp chunks", images.webp_of([images.webp_header(0), *webp, *[(b"junk", b"")] * (MIB // 8)])
    yield (
        "webp frames",
        images.webp_of([images.webp_header(2), (b"ANMF", bytes(16) + b"junk\0\0\0\0" * (MIB // 8))]),
    )
    yield "gif crumbs", images.saved("GIF")[:-1] + b"!\xfe" + b"\1a" * (MIB // 2) + b"\0;"
    yield "gif extensions", images.saved("GIF")[:-1] + b"!\xfe\0" * (MIB // 3) + b";"
    yield "tiff pages", images.tiff_of([images.tiff_page()] * 300) + bytes(MIB)
    yield "tiff strips", images.tiff_of([images.tiff_page((4, 3), tag_273=(4, (8,) * (MIB // 4)))])


def lines_of(work: Callable[[], object]) -> int:
    """How many lines of Python `work` runs: a measure of its time that no busy machine changes."""
    lines = 0

    def count(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize(("what", "content"), [pytest.param(*attack, id=attack[0]) for attack in _attacks()])
def test_the_work_for_a_file_of_the_smallest_parts_is_bounded(what: str, content: bytes) -> None:
    # 65,536 crumbs of some 25 lines each is the most that the limits let through.
    assert lines_of(lambda: judged(content)) < 2_500_000


@pytest.mark.parametrize(("what", "content"), [pytest.param(*attack, id=attack[0]) for attack in _attacks()])
def test_the_memory_for_a_file_of_the_smallest_parts_is_bounded(what: str, content: bytes) -> None:
    assert peak_bytes(content) < 3 * MIB


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_the_walk_of_an_honest_file_holds_no_copy_of_it(kind: str) -> None:
    content = images.saved(kind, size=(450, 300)) + bytes(8 * MIB)
    assert peak_bytes(content) < 64 * 1024


def test_a_profile_that_would_inflate_without_end_is_let_go_at_its_limit() -> None:
    bomb = zlib.compress(bytes(64 * MIB), 9)
    content = images.png_with(images.saved("PNG"), (b"iCCP", b"a\0\0" + bomb))
    assert peak_bytes(content) < 12 * MIB


def peak_bytes(content: bytes) -> int:
    """The most that one walk holds beside its content."""
    tracemalloc.start()
    try:
        walk(content, LIMITS)
    except ImageRefused:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak
