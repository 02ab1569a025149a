"""OpenAI's models, what they cost, and when they end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from services.simulator.openai.errors import unknown_model

_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars for a million tokens."""

    text_in: Decimal
    image_in: Decimal
    out: Decimal

    def usd(self, text_in: int, image_in: int, out: int) -> Decimal:
        whole = self.text_in * text_in + self.image_in * image_in + self.out * out
        return (whole / _MILLION).quantize(Decimal("0.000001"))


@dataclass(frozen=True, slots=True)
class Model:
    """One id. `generation` orders image models: 1, 2, 2.5."""

    rates: Rates
    generation: float = 0.0
    ends: date | None = None


_IMAGE: Final = Rates(Decimal(5), Decimal(8), Decimal(30))
_MINI: Final = Rates(Decimal(2), Decimal("2.50"), Decimal(8))
# What chat costs is not in the documents that were read: the words of a sentence for a cent.
_CHAT: Final = Rates(Decimal("0.25"), Decimal("0.25"), Decimal(2))
_OLD_IMAGES_END: Final = date(2026, 12, 1)
_GPT_5_ENDS: Final = date(2026, 12, 11)
_GPT_4_ENDS: Final = date(2027, 1, 14)
IMAGE_MODELS: Final[Mapping[str, Model]] = {
    "gpt-image-2": Model(_IMAGE, 2),
    "gpt-image-2-2026-04-21": Model(_IMAGE, 2),
    "gpt-image-2.5-sunburst": Model(_IMAGE, 2.5),
    "gpt-image-2.5-sunburst-2026-09-08": Model(_IMAGE, 2.5),
    "gpt-image-2.5-flare": Model(_IMAGE, 2.5),
    "gpt-image-2.5-flare-2026-09-08": Model(_IMAGE, 2.5),
    "gpt-image-2.6-sunburst": Model(_IMAGE, 2.6),
    "gpt-image-2.6-flare": Model(_IMAGE, 2.6),
    "gpt-image-1": Model(_IMAGE, 1, date(2026, 10, 23)),
    "gpt-image-1.5": Model(_IMAGE, 1.5, _OLD_IMAGES_END),
    "gpt-image-1-mini": Model(_MINI, 1, _OLD_IMAGES_END),
    "chatgpt-image-latest": Model(_IMAGE, 1.5, _OLD_IMAGES_END),
}
CHAT_MODELS: Final[Mapping[str, Model]] = {
    **dict.fromkeys(
        [
            "gpt-6-astra",
            "gpt-6.1-sol",
            "gpt-6.1-terra",
            "gpt-6-sol",
            "gpt-6-luna",
            "gpt-5.6-sol",
            "gpt-5.6-terra",
            "gpt-5.6-luna",
            "gpt-5.5",
            "gpt-5.4",
            "gpt-5.4-mini",
            "gpt-5.4-nano",
        ],
        Model(_CHAT),
    ),
    **dict.fromkeys(("gpt-5", "gpt-5-mini", "gpt-5-nano", "o3"), Model(_CHAT, ends=_GPT_5_ENDS)),
    **dict.fromkeys(("gpt-4o", "gpt-4o-mini", "gpt-4.1"), Model(_CHAT, ends=_GPT_4_ENDS)),
}
_SPEECH_ENDS: Final = date(2027, 1, 6)
SPEECH_MODELS: Final[Mapping[str, Model]] = dict.fromkeys(
    ("tts-1", "tts-1-hd", "gpt-4o-mini-tts"), Model(_CHAT, ends=_SPEECH_ENDS)
)
ALL: Final[Mapping[str, Model]] = {**IMAGE_MODELS, **CHAT_MODELS, **SPEECH_MODELS}


def open_model(models: Mapping[str, Model], name: str, today: date) -> Model:
    """A model that can be used today. Raises Refused."""
    model = models.get(name)
    if model is None or (model.ends is not None and today >= model.ends):
        raise unknown_model(name)
    return model
