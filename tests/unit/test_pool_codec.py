"""Records of attempts outlive the release that wrote them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.provider_pool.adapters.interface import (
    Generation,
    Kind,
    Reference,
    ReferenceLimits,
    ReferenceRole,
    Role,
    Strength,
)
from services.provider_pool.attempts import codec

LIMITS = ReferenceLimits(frozenset({"jpeg", "png", "webp"}), 10, 1)
PICTURE = Generation(
    Kind.IMAGE,
    "gpt-image-2",
    "a cat",
    256,
    320,
    quality="low",
    references=(Reference(Strength.LOW, url="https://x"),),
    reference_limits=LIMITS,
)
FILM = Generation(Kind.VIDEO, "m", "p", 2, 2, 4, audio=True, seed=3)


def test_fingerprints_are_what_the_first_release_made_of_the_same_request() -> None:
    assert codec.fingerprint(FILM) == "b087afcf53260774d620686e06fd254cfbe658745c18eeabcaa60722216aef00"
    first = "74b5ff687d667916548800ef4d052cfd31dd31b7276f9caeec4f8da7ebcedc62"
    assert codec.fingerprint(PICTURE, [None]) == first


@pytest.mark.parametrize(
    "other",
    [
        replace(FILM, adaptive_ratio=True),
        replace(FILM, watermark=True),
        replace(FILM, last_frame=True),
        replace(FILM, voice="lily"),
        replace(FILM, format="wav"),
        replace(FILM, style="dark"),
        replace(FILM, max_words=1),
        replace(FILM, references=(Reference(role=ReferenceRole.VIDEO, url="https://x"),)),
    ],
    ids=repr,
)
def test_whatever_else_is_asked_for_is_another_request(other: Generation) -> None:
    files = [None] * len(other.references)
    assert codec.fingerprint(other, files) != codec.fingerprint(FILM)


def test_a_record_of_the_first_release_is_read_as_it_was_meant() -> None:
    text = (
        '{"kind":"image","model":"gpt-image-2","prompt":"a cat","width":256,"height":320,"duration_s":0,"audio":false,'
        '"quality":"low","seed":null,"references":[{"strength":"low","url":"https://x","reference_id":""}],'
        '"reference_limits":{"image_formats":["jpeg","png","webp"],"image_bytes":10,"images":1,'
        '"first_frame_of_animations":false}}'
    )
    assert codec.read_generation(text) == PICTURE


def test_what_is_written_stays_out_of_the_record() -> None:
    stored = codec.Stored(Role.PRIMARY, "texts/x.txt", "text/plain", 3, "", 0, 0, 0, "secret words")
    text = codec.stored_text([stored])
    assert "secret" not in text
    assert codec.read_stored(text) == [replace(stored, text="")]
    assert "secret" not in repr(stored)
