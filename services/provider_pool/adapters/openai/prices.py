"""What the tokens of an answer cost, by the prices in the model's file."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Final

from services.provider_pool.adapters.costs import TextTokens
from services.provider_pool.adapters.interface import ModelSpec

_TOKENS_LIMIT: Final = 100_000_000


def settled_millis(spec: ModelSpec, tokens: Mapping[str, int]) -> int | None:
    """Thousandths of a dollar, rounded up; None where no tokens were told, or one of a kind that has no price.

    Texts are priced by their cost rule, pictures by `extras.usd_per_million`: text_in, image_in, image_out.
    """
    # What a compatible provider may tell, and nobody can have used.
    if not tokens or not all(0 <= count <= _TOKENS_LIMIT for count in tokens.values()):
        return None
    if isinstance(spec.cost, TextTokens):
        return spec.cost.charged_millis(tokens.get("text_in", 0), tokens.get("text_out", 0))
    prices = spec.extras.get("usd_per_million")
    if not isinstance(prices, Mapping) or not tokens.keys() <= prices.keys():
        return None
    micros = sum((Decimal(str(prices[kind])) * count for kind, count in tokens.items()), Decimal(0))
    return int((micros / 1000).to_integral_value(ROUND_CEILING))
