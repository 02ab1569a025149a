"""Cost rules that several providers share, in thousandths of the provider's own unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.provider_pool.adapters.interface import CostEstimate, Generation


@dataclass(frozen=True, slots=True)
class PerImage:
    """A price for each quality; a quality that is not listed costs what the dearest does."""

    millis_by_quality: Mapping[str, int]

    def estimate(self, generation: Generation) -> CostEstimate:
        """One picture."""
        dearest = max(self.millis_by_quality.values())
        millis = self.millis_by_quality.get(generation.quality, dearest)
        return CostEstimate(millis, millis)


@dataclass(frozen=True, slots=True)
class PerSecond:
    """A price for each second of output."""

    millis_per_second: int

    def estimate(self, generation: Generation) -> CostEstimate:
        """The whole length that was asked for."""
        millis = self.millis_per_second * generation.duration_s
        return CostEstimate(millis, millis)


@dataclass(frozen=True, slots=True)
class PerPiece:
    """One price for each output, whatever its size."""

    millis: int

    def estimate(self, generation: Generation) -> CostEstimate:
        """One output."""
        return CostEstimate(self.millis, self.millis)
