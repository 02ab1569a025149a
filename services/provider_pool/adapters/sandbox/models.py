"""What the sandbox serves, as data: the models, what each of them takes, and what it pretends to cost."""

from __future__ import annotations

from typing import Final

from services.provider_pool.adapters.costs import PerImage, PerPiece, PerSecond
from services.provider_pool.adapters.interface import (
    Capability,
    Kind,
    ModelSpec,
    Range,
    ReferenceCapability,
)
from services.provider_pool.adapters.sandbox.render_order import STYLES, VOICES

CREDIT_MILLIS: Final = 1000

_PROMPT: Final = Range(1, 20_000)
# Ten minutes of speech; what is longer is an audiobook.
_SPOKEN: Final = Range(1, 10_000)
_SIDES_PX: Final = Range(256, 2048, 2)
# The widest film of 1080 lines that any storefront sells is 21:9.
_FILM_SIDES_PX: Final = Range(256, 2560, 2)
_SOUNDS: Final = frozenset({"", "mp3", "wav"})

PICTURE_REFERENCES: Final = ReferenceCapability(images=9)
FILM_REFERENCES: Final = ReferenceCapability(images=9, videos=3, audios=3, frames=True)


def _picture(model: str, upstream: str, cost: PerImage) -> ModelSpec:
    capability = Capability(
        _PROMPT,
        _SIDES_PX,
        _SIDES_PX,
        qualities=frozenset({"", *cost.millis_by_quality}),
        references=PICTURE_REFERENCES,
    )
    return ModelSpec(model, upstream, Kind.IMAGE, capability, cost)


def _film(model: str, upstream: str, credits_per_second: int) -> ModelSpec:
    capability = Capability(
        _PROMPT,
        _FILM_SIDES_PX,
        _FILM_SIDES_PX,
        Range(4, 15),
        audio=True,
        references=FILM_REFERENCES,
        adaptive_ratio=True,
        watermark=True,
        last_frame=True,
    )
    return ModelSpec(model, upstream, Kind.VIDEO, capability, PerSecond(credits_per_second * CREDIT_MILLIS))


MODELS: Final = (
    _picture(
        "gpt-image-2",
        "sandbox-picture",
        PerImage({"": 20 * CREDIT_MILLIS, "low": 20 * CREDIT_MILLIS, "medium": 60 * CREDIT_MILLIS}),
    ),
    _picture("seedream-5.0-lite", "sandbox-picture-lite", PerImage({"": 20 * CREDIT_MILLIS})),
    _film("seedance-2.0", "sandbox-film-large", 800),
    _film("seedance-2.0-fast", "sandbox-film", 600),
    _film("seedance-2.0-mini", "sandbox-film-small", 300),
    _film("z-video", "sandbox-film-plain", 300),
    ModelSpec(
        "eleven-multilingual-v2",
        "sandbox-voice",
        Kind.VOICE,
        Capability(_SPOKEN, voices=frozenset({"", *VOICES}), formats=_SOUNDS),
        PerPiece(30 * CREDIT_MILLIS),
    ),
    ModelSpec(
        "eleven-music-v1",
        "sandbox-music",
        Kind.MUSIC,
        Capability(_PROMPT, durations_s=Range(5, 60), formats=_SOUNDS),
        PerSecond(10 * CREDIT_MILLIS),
    ),
    ModelSpec(
        "infographic-1",
        "sandbox-chart",
        Kind.INFOGRAPHIC,
        Capability(_PROMPT, _SIDES_PX, _SIDES_PX, styles=frozenset({"", *STYLES})),
        PerImage({"": 60 * CREDIT_MILLIS}),
    ),
    ModelSpec(
        "gpt-5-mini",
        "sandbox-prose",
        Kind.TEXT,
        Capability(_PROMPT, max_words=Range(1, 2_000)),
        PerPiece(10 * CREDIT_MILLIS),
    ),
)
