"""The cost section of a model file: prices as people write them, in the provider's unit, made into rules.

A price is a text such as "0.042": a number of the file would be a float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from services.provider_pool.adapters.costs import (
    PerCharacter,
    PerPiece,
    PictureTable,
    Quoted,
    SecondTable,
    TextTokens,
    VideoTokens,
)
from services.provider_pool.adapters.frames import SizeTable
from services.provider_pool.adapters.interface import CostRule

_PRICE: Final = re.compile(r"(\d{1,9})(?:\.(\d{1,6}))?")

Prices = Annotated[dict[str, str], Meta(min_length=1)]
Natural = Annotated[int, Meta(ge=0)]


class _Rule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True, tag_field="rule"):
    """`ceiling_percent`: how far above the table what is charged may be, 100 for not at all."""

    ceiling_percent: Annotated[int, Meta(ge=100, le=1000)] = 100


class Flat(_Rule, frozen=True, tag="flat"):
    """`price` for each output."""

    price: str


class PerImage(_Rule, frozen=True, tag="per_image"):
    """`prices`: quality → price, or quality → (pixels at most → price).

    `reference`: more for each reference; `prompt_per_thousand`: more for a thousand characters of the prompt.
    """

    prices: Annotated[dict[str, str | dict[str, str]], Meta(min_length=1)]
    reference: str = "0"
    prompt_per_thousand: str = "0"


class PerSecond(_Rule, frozen=True, tag="per_second"):
    """`prices`, `silent`, `with_video`: resolution (or "") → price of a second."""

    prices: Prices
    silent: dict[str, str] = {}
    with_video: dict[str, str] = {}
    video_input_s: Natural = 0


class CreditsPerSecond(_Rule, frozen=True, tag="credits_per_second"):
    """As per_second, in whole credits."""

    credits: Annotated[dict[str, Natural], Meta(min_length=1)]
    silent: dict[str, Natural] = {}
    with_video: dict[str, Natural] = {}
    video_input_s: Natural = 0


class VideoTokenPrices(_Rule, frozen=True, tag="video_tokens"):
    """Resolution → US dollars for a million tokens."""

    usd_per_million: Prices
    usd_per_million_with_video: dict[str, str] = {}
    video_input_s: Natural = 15
    frames_per_second: Annotated[int, Meta(ge=1)] = 24


class PerCharacterPrice(_Rule, frozen=True, tag="per_character"):
    """The price of a thousand characters."""

    per_thousand: str


class TextTokenPrices(_Rule, frozen=True, tag="text_tokens"):
    """US dollars for a million tokens."""

    usd_per_million_in: str
    usd_per_million_out: str
    instruction_tokens: Natural = 300
    thinking_tokens: Natural = 0


class QuotedPrices(
    msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True, tag_field="rule", tag="quoted"
):
    """A table of ours (`table`, a whole cost section) for what the provider alone knows and tells afterwards."""

    table: Flat | PerImage | PerSecond | CreditsPerSecond | VideoTokenPrices
    ceiling_percent: Annotated[int, Meta(ge=100, le=1000)]


Price = (
    Flat
    | PerImage
    | PerSecond
    | CreditsPerSecond
    | VideoTokenPrices
    | PerCharacterPrice
    | TextTokenPrices
    | QuotedPrices
)


def cost_rule(price: Price, sizes: SizeTable | None) -> CostRule:
    """The rule of a section. Raises ValueError, naming the key."""
    if isinstance(price, QuotedPrices):
        return Quoted(cost_rule(price.table, sizes), price.ceiling_percent)
    rule = _rule(price, sizes)
    return rule if price.ceiling_percent == 100 else Quoted(rule, price.ceiling_percent)


def _rule(
    price: Flat
    | PerImage
    | PerSecond
    | CreditsPerSecond
    | VideoTokenPrices
    | PerCharacterPrice
    | TextTokenPrices,
    sizes: SizeTable | None,
) -> CostRule:
    match price:
        case Flat():
            return PerPiece(-(-_micros("price", price.price) // 1000))
        case PerImage():
            steps = {quality: _steps(each) for quality, each in price.prices.items()}
            return PictureTable(
                steps,
                _micros("reference", price.reference),
                _micros("prompt_per_thousand", price.prompt_per_thousand),
            )
        case PerSecond():
            return SecondTable(
                _table("prices", price.prices),
                _table("silent", price.silent),
                _table("with_video", price.with_video),
                _needed(sizes, price.prices),
                price.video_input_s,
            )
        case CreditsPerSecond():
            return SecondTable(
                _whole(price.credits),
                _whole(price.silent),
                _whole(price.with_video),
                _needed(sizes, price.credits),
                price.video_input_s,
            )
        case VideoTokenPrices():
            if sizes is None:
                raise ValueError("cost: video_tokens needs a table of sizes")
            return VideoTokens(
                _table("usd_per_million", price.usd_per_million),
                _table("usd_per_million_with_video", price.usd_per_million_with_video),
                sizes,
                price.video_input_s,
                price.frames_per_second,
            )
        case PerCharacterPrice():
            return PerCharacter(_micros("per_thousand", price.per_thousand))
        case TextTokenPrices():
            return TextTokens(
                _micros("usd_per_million_in", price.usd_per_million_in),
                _micros("usd_per_million_out", price.usd_per_million_out),
                price.instruction_tokens,
                price.thinking_tokens,
            )


def _needed(sizes: SizeTable | None, prices: Mapping[str, object]) -> SizeTable | None:
    if sizes is None and set(prices) != {""}:
        raise ValueError("cost: prices by resolution need a table of sizes")
    return sizes


def _table(key: str, table: Mapping[str, str]) -> dict[str, int]:
    return {name: _micros(key, text) for name, text in table.items()}


def _whole(table: Mapping[str, int]) -> dict[str, int]:
    return {name: units * 1_000_000 for name, units in table.items()}


def _steps(given: str | Mapping[str, str]) -> list[tuple[int, int]]:
    if isinstance(given, str):
        # Any number of pixels costs the same.
        return [(2**62, _micros("prices", given))]
    if not given or not all(pixels.isdecimal() and int(pixels) for pixels in given):
        raise ValueError("cost.prices: a quality's prices go by the most pixels that they are for")
    return sorted((int(pixels), _micros("prices", text)) for pixels, text in given.items())


def _micros(key: str, text: str) -> int:
    found = _PRICE.fullmatch(text)
    if found is None:
        raise ValueError(f"cost.{key}: {text!r} is not a price such as '0.042'")
    return int(found[1]) * 1_000_000 + int((found[2] or "").ljust(6, "0"))
