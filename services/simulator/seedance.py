"""What every seller of the Seedance video models has in common: exact sizes, frame rate, tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FRAMES_PER_S: Final = 24

_480P: Final = {
    "21:9": (992, 432),
    "16:9": (864, 496),
    "4:3": (752, 560),
    "1:1": (640, 640),
    "3:4": (560, 752),
    "9:16": (496, 864),
}
_720P: Final = {
    "21:9": (1470, 630),
    "16:9": (1280, 720),
    "4:3": (1112, 834),
    "1:1": (960, 960),
    "3:4": (834, 1112),
    "9:16": (720, 1280),
}
_1080P: Final = {
    "21:9": (2206, 946),
    "16:9": (1920, 1080),
    "4:3": (1664, 1248),
    "1:1": (1440, 1440),
    "3:4": (1248, 1664),
    "9:16": (1080, 1920),
}
_4K: Final = {
    "21:9": (3840, 1646),
    "16:9": (3840, 2160),
    "4:3": (3840, 2880),
    "1:1": (3840, 3840),
    "3:4": (2880, 3840),
    "9:16": (2160, 3840),
}
SIZES: Final[Mapping[str, Mapping[str, tuple[int, int]]]] = {
    "480p": _480P,
    "720p": _720P,
    "1080p": _1080P,
    "4k": _4K,
}
RATIOS: Final = tuple(_720P)


def tokens(width_px: int, height_px: int, seconds: float) -> float:
    """What a clip counts on the bill: pixels of all frames, in units of 1024."""
    return width_px * height_px * FRAMES_PER_S * seconds / 1024
