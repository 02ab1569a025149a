"""Ark's models: what each may be asked, and what its tokens cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from services.simulator.seedance import RATIOS, SIZES

_ALL: Final = ("480p", "720p", "1080p", "4k")
_TO_1080P: Final = _ALL[:3]
_TO_720P: Final = _ALL[:2]


@dataclass(frozen=True, slots=True)
class Rate:
    """US dollars for a million tokens, without and with a video among the inputs."""

    plain: Decimal
    with_video: Decimal


@dataclass(frozen=True, slots=True)
class Model:
    """One video model. `silent` is its rate without sound, where that differs."""

    generation: str
    seconds: tuple[int, int]
    resolutions: tuple[str, ...]
    rates: Mapping[str, Rate]
    images: int = 0
    videos: int = 0
    audios: int = 0
    reference_seconds: int = 0
    may_choose_length: bool = True
    has_audio: bool = True
    silent: Decimal | None = None

    @property
    def is_2x(self) -> bool:
        return self.generation.startswith("2")

    def rate(self, resolution: str, *, has_video: bool, has_audio: bool) -> Decimal:
        if self.silent is not None and not has_audio:
            return self.silent
        rate = self.rates[resolution]
        return rate.with_video if has_video else rate.plain


def _rates(resolutions: tuple[str, ...], plain: str, with_video: str | None = None) -> dict[str, Rate]:
    return dict.fromkeys(resolutions, Rate(Decimal(plain), Decimal(with_video or plain)))


def _2_0(plain: str, with_video: str, resolutions: tuple[str, ...]) -> Model:
    rates = _rates(_TO_720P, plain, with_video)
    if "1080p" in resolutions:
        rates |= _rates(("1080p",), "7.7", "4.7") | _rates(("4k",), "4.0", "2.4")
    return Model("2.0", (4, 15), resolutions, rates, images=9, videos=3, audios=3, reference_seconds=15)


_2_5: Final = Model(
    "2.5",
    (4, 30),
    _TO_1080P,
    _rates(_TO_720P, "10.7", "6.4") | _rates(("1080p",), "11.7", "7"),
    images=30,
    videos=10,
    audios=10,
    reference_seconds=30,
)
_1_5: Final = Model("1.5", (4, 12), _TO_1080P, _rates(_TO_1080P, "2.4"), silent=Decimal("1.2"))
_1_0: Final = Model(
    "1.0", (2, 12), _TO_1080P, _rates(_TO_1080P, "2.5"), may_choose_length=False, has_audio=False
)
_1_0_FAST: Final = Model(
    "1.0", (2, 12), _TO_1080P, _rates(_TO_1080P, "1.0"), may_choose_length=False, has_audio=False
)
_NAMES: Final[Mapping[str, Model]] = {
    "seedance-2-5-260628": _2_5,
    "seedance-2-0-260128": _2_0("7.0", "4.3", _ALL),
    "seedance-2-0-fast-260128": _2_0("5.6", "3.3", _TO_720P),
    "seedance-2-0-mini-260615": _2_0("3.5", "2.1", _TO_720P),
    "seedance-1-5-pro-251215": _1_5,
    "seedance-1-0-pro-250528": _1_0,
    "seedance-1-0-pro-fast-251015": _1_0_FAST,
}
# BytePlus sells 2.x under `dreamina-`, 1.x without a prefix, and Volcengine all of them under `doubao-`.
MODELS: Final[Mapping[str, Model]] = {
    **{f"dreamina-{name}": model for name, model in _NAMES.items() if model.is_2x},
    **{name: model for name, model in _NAMES.items() if not model.is_2x},
    **{f"doubao-{name}": model for name, model in _NAMES.items()},
}
# Seedream's ids carry their dates, as all do here.
IMAGE_MODEL: Final = re.compile(r"(?:doubao-|dreamina-)?seedream-[45]-\d(?:-[a-z]+)*-\d{6}")
# Not in the documents that were read; what an image of Seedream 4 cost.
USD_PER_IMAGE: Final = Decimal("0.035")


def size_of(resolution: str, ratio: str) -> tuple[int, int]:
    """Pixels of a clip; a ratio that the model chooses is a wide one here."""
    return SIZES[resolution][ratio if ratio in RATIOS else "16:9"]
