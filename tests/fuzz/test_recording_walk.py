"""The walk of films and sounds against whatever is sent: an answer or RecordingRefused, and never more work than the file is large."""

from __future__ import annotations

import random
import sys
import tracemalloc
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.provider_pool.references.recordings.container import (
    RecordingLimits,
    RecordingRefused,
    Walked,
    sniff,
    walk,
)
from services.provider_pool.references.recordings.judgement import DURATION_TOLERANCE_MS
from tests.corpus import recordings as made
from tests.corpus.recordings import Recording

LIMIT_BYTES = 20 * 1024 * 1024
SAMPLES = made.honest()
MAGIC = [sample.content[:16] for sample in SAMPLES] + [b"ID3\4\0\0\0\0\0\0", b"\xff\xfb\x90\x64"]
EXTREMES = [0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 2**63, 2**64 - 1]
BOXES = [
    b"ftyp",
    b"moov",
    b"mvhd",
    b"trak",
    b"mdia",
    b"hdlr",
    b"minf",
    b"stbl",
    b"stsd",
    b"stsz",
    b"mdat",
    b"moof",
]
ELEMENTS = [
    0x1549A966,
    0x1654AE6B,
    0xAE,
    0x83,
    0xE0,
    0xB0,
    0xBA,
    0x1F43B675,
    0xE7,
    0xA3,
    0x2AD7B1,
    0x4489,
    0xEC,
]


def judged(content: bytes) -> Walked | None:
    """What the walk says, None for a refusal. Anything but an answer or RecordingRefused fails the test that asks."""
    answers = []
    for medium in ("video", "audio"):
        try:
            answers.append(walk(content, RecordingLimits(medium, LIMIT_BYTES)))
        except RecordingRefused:
            continue
    # Nothing is a film and a sound.
    assert len(answers) <= 1
    for walked in answers:
        assert sniff(content[:16]) is not None
        assert 0 <= max(walked.width, walked.height) <= 4_096
        assert 0 <= walked.duration_ms <= 60_000 + DURATION_TOLERANCE_MS
        return walked
    return None


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_film_cut_anywhere_is_refused_and_a_sound_is_at_most_as_long(sample: Recording) -> None:
    whole = judged(sample.content)
    assert whole is not None
    step = max(1, len(sample.content) // 300)
    for length in range(0, len(sample.content), step):
        walked = judged(sample.content[:length])
        if walked is not None:
            # Who streams ends a fragment, a cluster or a frame; what came until then is whole.
            assert sample.name in {"mp3", "mp4 in fragments", "webm as it is streamed", "ogg"}
            assert walked.duration_ms <= whole.duration_ms


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_number_replaced_by_an_extreme_one_does_no_harm(sample: Recording) -> None:
    lot = random.Random(sample.name)  # the same places each time
    for _ in range(300):
        content = bytearray(sample.content)
        width = lot.choice((1, 2, 4, 8))
        # Indexes are at either end, and most of the numbers that steer a walk are there.
        reach = min(len(content) - 8, lot.choice((64, 1024, len(content))))
        at = lot.randrange(reach) if lot.random() < 0.5 else len(content) - 8 - lot.randrange(reach)
        value = lot.choice(EXTREMES) & (1 << 8 * width) - 1
        content[at : at + width] = value.to_bytes(width, "big" if lot.random() < 0.5 else "little")
        judged(bytes(content))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sample with some bits flipped, and parts of it cut out, repeated or exchanged."""
    content = bytearray(draw(st.sampled_from(SAMPLES)).content)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 200)))
        change = draw(st.sampled_from(("flip", "cut", "repeat", "overwrite")))
        if change == "flip" and start < len(content):
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif change == "cut":
            del content[start:end]
        elif change == "repeat":
            content[start:start] = content[start:end] * draw(st.integers(1, 20))
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


# Boxes and elements whose frames are intact: what random bytes never are.
sound_boxes = st.recursive(
    st.builds(made.box, st.sampled_from(BOXES), st.binary(max_size=40)),
    lambda inner: st.builds(
        lambda kind, parts: made.box(kind, *parts), st.sampled_from(BOXES), st.lists(inner, max_size=4)
    ),
    max_leaves=12,
)
sound_elements = st.recursive(
    st.builds(made.element, st.sampled_from(ELEMENTS), st.binary(max_size=12)),
    lambda inner: st.builds(
        lambda kind, parts: made.element(kind, *parts), st.sampled_from(ELEMENTS), st.lists(inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.lists(sound_boxes, max_size=6))
def test_sound_boxes_in_any_order_make_a_film_or_none(parts: list[bytes]) -> None:
    judged(made.box(b"ftyp", b"isom", bytes(4)) + b"".join(parts))


@settings(max_examples=300)
@given(st.lists(sound_elements, max_size=6))
def test_sound_elements_in_any_order_make_a_film_or_none(parts: list[bytes]) -> None:
    judged(made.EBML_HEADER + made.element(0x18538067, *parts))


def _steps(content: bytes) -> int:
    """How many lines of Python the walk runs."""
    count = 0

    def traced(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        judged(content)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_the_work_does_not_grow_with_what_a_header_says(sample: Recording) -> None:
    honest = _steps(sample.content)
    lot = random.Random(sample.name)
    for _ in range(40):
        content = bytearray(sample.content)
        at = lot.randrange(len(content) - 4)
        content[at : at + 4] = lot.choice(
            (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x08")
        )
        assert _steps(bytes(content)) <= 4 * honest + 40 * len(content)


def test_a_walk_holds_next_to_nothing() -> None:
    film = made.recorded("mp4", seconds=4)
    large = film + made.box(b"free", bytes(16 * 1024 * 1024))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        walk(large, RecordingLimits("video", LIMIT_BYTES))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < 256 * 1024
