"""What a model takes, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.provider_pool.adapters.frames import SizeTable
from services.provider_pool.adapters.generation import Generation
from services.provider_pool.adapters.reference import Range, ReferenceCapability

_NO_REFERENCES: Final = ReferenceCapability()
_PROVIDERS_CHOICE: Final = frozenset({""})


@dataclass(frozen=True, slots=True)
class Capability:
    """What a model takes. `None` for a range: the kind has no such dimension, and only 0 is accepted.

    Of words to choose from, the empty one is the provider's own choice.
    `sizes`: these and no others; widths and heights are then not looked at.
    `pixels`: of a size that is free within widths and heights, how many it may have; None for any number.
    `ratio_percent_max`: the long side in hundredths of the short one, 0 for any ratio.
    `short_side_max`: the short side in pixels, 0 for any.
    `seeds`: None where a seed is a wish that the model does not know; it is left out then.
    """

    prompt_characters: Range
    widths: Range | None = None
    heights: Range | None = None
    durations_s: Range | None = None
    qualities: frozenset[str] = _PROVIDERS_CHOICE
    audio: bool = False
    references: ReferenceCapability = _NO_REFERENCES
    adaptive_ratio: bool = False
    watermark: bool = False
    last_frame: bool = False
    voices: frozenset[str] = _PROVIDERS_CHOICE
    formats: frozenset[str] = _PROVIDERS_CHOICE
    styles: frozenset[str] = _PROVIDERS_CHOICE
    max_words: Range | None = None
    sizes: SizeTable | None = None
    pixels: Range | None = None
    ratio_percent_max: int = 0
    seeds: Range | None = None
    short_side_max: int = 0

    def accepts(self, generation: Generation) -> bool:
        """Whether a model of this capability can make exactly this."""
        measured = (
            (generation.duration_s, self.durations_s),
            (generation.max_words, self.max_words),
        )
        switches = (
            (generation.audio, self.audio),
            (generation.adaptive_ratio, self.adaptive_ratio),
            (generation.watermark, self.watermark),
            (generation.last_frame, self.last_frame),
        )
        return (
            len(generation.prompt) in self.prompt_characters
            and self._has_size(generation)
            and all(_within(value, limits) for value, limits in measured)
            and all(can or not wanted for wanted, can in switches)
            and generation.quality in self.qualities
            and generation.voice in self.voices
            and generation.format in self.formats
            and generation.style in self.styles
            and (generation.seed is None or self.seeds is None or generation.seed in self.seeds)
            and self.references.takes(generation.references)
        )

    def _has_size(self, generation: Generation) -> bool:
        if self.sizes is not None:
            return self.sizes.takes(generation)
        width, height = generation.width, generation.height
        short, long = sorted((width, height))
        return (
            _within(width, self.widths)
            and _within(height, self.heights)
            and (self.pixels is None or width * height in self.pixels)
            and (not self.ratio_percent_max or 100 * long <= self.ratio_percent_max * short)
            and (not self.short_side_max or short <= self.short_side_max)
        )


def _within(value: int, limits: Range | None) -> bool:
    return value == 0 if limits is None else value in limits
