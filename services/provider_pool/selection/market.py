"""What providers allow and ask for, as selection sees it: limits over all accounts, a pace, and prices that can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from services.provider_pool.selection.pace import Pace

_WHOLE: Final = 1_000_000
"""A share of one, in the millionths that a price band is kept in: prices are compared as whole numbers."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider's terms. `tasks_at_once`: over all of its accounts, 0 for no limit."""

    tasks_at_once: int = 0
    pace: Pace | None = None
    usd_micros_per_unit: int = 1_000_000


_PLAIN: Final = Provider()


@dataclass(frozen=True, slots=True)
class Market:
    """All providers. `model_limits`: tasks at once of one account for (provider, model), where there is such a limit.

    `price_band`: in millionths, how much dearer than the cheapest account that is ready another may be and still compete.
    """

    providers: Mapping[str, Provider] = field(default_factory=dict)
    model_limits: Mapping[tuple[str, str], int] = field(default_factory=dict)
    price_band: int = 100_000

    def provider(self, name: str) -> Provider:
        """The terms of this provider; of an unknown one, no limits at all."""
        return self.providers.get(name, _PLAIN)

    def usd_micros(self, provider: str, millis: int) -> int:
        """An amount in thousandths of the provider's unit, in millionths of a US dollar."""
        return millis * self.provider(provider).usd_micros_per_unit // 1000

    def competes(self, usd_micros: int, cheapest_usd_micros: int) -> bool:
        """Whether a price is so near to the cheapest that policy decides between them."""
        return usd_micros * _WHOLE <= cheapest_usd_micros * (_WHOLE + self.price_band)


def band_of(share: float) -> int:
    """A price band as operators write it, 0.1 for a tenth, in millionths."""
    return round(share * _WHOLE)


OPEN_MARKET: Final = Market()
"""No limits beside those of the accounts, and one currency."""
