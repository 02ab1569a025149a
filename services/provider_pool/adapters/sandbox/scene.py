"""Which scene a prompt and a seed stand for: composition, colours and the stream of chance behind every detail."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

Colour = tuple[int, int, int]


class Composition(StrEnum):
    """What is drawn."""

    HILLS = "hills"
    DUNES = "dunes"
    SEA = "sea"
    CITY = "city"
    TERRACES = "terraces"
    FOREST = "forest"
    SPACE = "space"
    PORTRAIT = "portrait"
    PRODUCT = "product"
    RIBBONS = "ribbons"
    MOSAIC = "mosaic"


@dataclass(frozen=True)
class Palette:
    """The colours of a scene: three of the sky from top to horizon, the light, far, near, two accents."""

    name: str
    sky: tuple[Colour, Colour, Colour]
    light: Colour
    far: Colour
    near: Colour
    accent: Colour
    accent2: Colour
    night: bool = False


@dataclass(frozen=True)
class Scene:
    """Everything that is decided before the first pixel. `detail` is 0 for LOW, 1 for MEDIUM, 2 above."""

    composition: Composition
    palette: Palette
    chance: int
    detail: int


def _hex(text: str) -> Colour:
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


def _palette(name: str, colours: str, *, night: bool = False) -> Palette:
    top, middle, horizon, light, far, near, accent, accent2 = map(_hex, colours.split())
    return Palette(name, (top, middle, horizon), light, far, near, accent, accent2, night)


PALETTES: Final = {
    palette.name: palette
    for palette in (
        _palette("dawn", "5b7db1 c9a7c7 ffd9b8 fff1d6 b79dbb 3d3a5c f2838f f7c59f"),
        _palette("golden", "3f6c9b f0a868 ffd98a fff3c4 d98e5f 43263a f26b3a 2f8f9d"),
        _palette("sunset", "2b2a5e b5476f ff9a5a ffe9a8 a04a6f 24163b ff5e57 ffc145"),
        _palette("noon", "2f7fc1 7fbfe6 dff1f5 fffbe0 8fb8c4 1f4f4a f2a541 e4572e"),
        _palette("meadow", "5aa9d6 aed9e0 f6f3d7 fff9df 9cc5a1 1d4d3a f4b942 d1495b"),
        _palette("autumn", "6c8ea4 d8c3a5 f6e2b3 fff0cf c98b5a 4a2419 d9622b f0b429"),
        _palette("mist", "8fa3ad b9c6c9 e6e8e3 ffffff a7b5b8 2e3f47 c97b63 dfc27d"),
        _palette("arctic", "3a6ea5 8ec5e2 eaf6fb ffffff b5d3e3 26425e 5ec2c0 f28482"),
        _palette("desert", "2a7f9e 8cc7c0 f9e0ae fff6d9 e0a96d 7a3b2e d1603d 2a9d8f"),
        _palette("pastel", "a8c5e6 e3c7e8 ffe3e0 fffdf5 c9b6dd 6d5f92 f49cae 7fc8a9"),
        _palette("night", "070b24 16224f 3f4a7d fdf6d8 2c3563 090d1f ffd166 8fb8ff", night=True),
        _palette("neon", "0d0628 3b1266 d1418b ffd6f5 4b1d7a 120a2e 20e3ff ff5fa2", night=True),
        _palette("aurora", "04121f 0c3b47 2f8f7c e6fff2 14504f 04141c 6ef3b5 b08cff", night=True),
    )
}

_COMPOSITION_WORDS: Final = {
    Composition.TERRACES: "rice terrace terraces paddy paddies fields field farm harvest tea sapa ruong lua",
    Composition.CITY: "city town skyline street urban building buildings tower downtown architecture tokyo "
    "york paris london hanoi saigon cyberpunk neon pho",
    Composition.SEA: "sea ocean beach wave waves boat ship sail sailing island coast lake river water bien "
    "surf lighthouse harbour harbor whale fish",
    Composition.FOREST: "forest tree trees wood woods jungle pine pines bamboo garden deer fox rung",
    Composition.SPACE: "space planet galaxy star stars moon rocket astronaut cosmic cosmos universe nebula "
    "alien orbit",
    Composition.DUNES: "desert dune dunes sand sahara camel canyon",
    Composition.PORTRAIT: "portrait person woman man girl boy face people model selfie child lady character "
    "headshot hero queen king warrior singer chan dung",
    Composition.PRODUCT: "product bottle perfume cup coffee mug shoe watch phone cosmetic packaging advert "
    "brand food bowl fruit vase still life jar drink lamp cake",
    Composition.HILLS: "hill hills mountain mountains valley landscape snow peak alps volcano road village "
    "horse nui",
    Composition.MOSAIC: "pattern mosaic tile tiles geometric bauhaus logo poster icon texture",
    Composition.RIBBONS: "abstract ribbon flow music dream energy colour color gradient wallpaper smoke silk",
}
_PALETTE_WORDS: Final = {
    "dawn": "dawn sunrise morning",
    "golden": "golden gold warm cinematic evening",
    "sunset": "sunset dusk twilight orange",
    "noon": "noon day daylight bright sunny summer blue",
    "meadow": "spring green meadow fresh nature rice",
    "autumn": "autumn fall leaves brown october",
    "mist": "mist fog foggy misty grey gray minimal monochrome rain rainy",
    "arctic": "snow winter ice arctic frozen cold",
    "desert": "desert sand dune dunes",
    "pastel": "pastel soft dreamy pink cute baby",
    "night": "night midnight dark moon stars star",
    "neon": "neon cyberpunk synthwave retro club",
    "aurora": "aurora northern emerald mystic magic",
}
# Scenes that look best in certain light, when the prompt names none.
_FITTING: Final = {
    Composition.CITY: ("sunset", "night", "neon", "golden", "dawn", "aurora"),
    Composition.SPACE: ("night", "neon", "aurora"),
    Composition.DUNES: ("desert", "golden", "sunset", "night"),
    Composition.TERRACES: ("meadow", "golden", "dawn", "noon"),
    Composition.FOREST: ("mist", "aurora", "golden", "meadow", "autumn"),
}
_ALL_DAY: Final = tuple(name for name, palette in PALETTES.items() if not palette.night)
_DETAIL: Final = {"LOW": 0, "MEDIUM": 1}


def _words(prompt: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", prompt).casefold()
    kept = (char if char.isalnum() else " " for char in plain if not unicodedata.combining(char))
    return "".join(kept).split()


def _first_match(words: list[str], table: dict[str, frozenset[str]]) -> str | None:
    for word in words:
        for name, members in table.items():
            if word in members:
                return name
    return None


_COMPOSITIONS_BY_WORD: Final = {str(k): frozenset(v.split()) for k, v in _COMPOSITION_WORDS.items()}
_PALETTES_BY_WORD: Final = {k: frozenset(v.split()) for k, v in _PALETTE_WORDS.items()}


def choose_scene(prompt: str, seed: int, quality: str) -> Scene:
    """Choose composition and palette: by the first word that names one, otherwise by chance of prompt and seed."""
    digest = hashlib.sha256(f"{seed}\n{prompt}".encode("utf-8", "surrogatepass")).digest()
    chance = int.from_bytes(digest[:8], "big")
    rng = random.Random(chance)
    words = _words(prompt)
    drawn_composition = rng.choice(list(Composition))
    composition = Composition(_first_match(words, _COMPOSITIONS_BY_WORD) or drawn_composition)
    drawn_palette = rng.choice(_FITTING.get(composition, _ALL_DAY))
    palette = PALETTES[_first_match(words, _PALETTES_BY_WORD) or drawn_palette]
    return Scene(composition, palette, chance, _DETAIL.get(quality, 2))
