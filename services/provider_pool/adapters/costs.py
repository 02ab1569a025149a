"""Cost rules that several providers share, in thousandths of the provider's own unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.provider_pool.adapters.frames import SizeTable
from services.provider_pool.adapters.interface import CostEstimate, CostRule, Generation
from services.provider_pool.adapters.reference import ReferenceRole

_MILLION: Final = 1_000_000
# Pixels of a frame that a video token stands for.
_TOKEN_PIXELS: Final = 1024


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


# ---------------------------------------------------------------- rules of model files: prices in millionths of the unit


@dataclass(frozen=True, slots=True)
class PictureTable:
    """A price for each quality and number of pixels, and something for each reference.

    `micros_by_quality`: pairs of (pixels at most, price), fewest pixels first; a larger picture costs in proportion to the
    last pair. A quality that is not listed costs what the dearest does. `prompt_micros`: for a thousand characters of the prompt.
    """

    micros_by_quality: Mapping[str, Sequence[tuple[int, int]]]
    reference_micros: int = 0
    prompt_micros: int = 0

    def estimate(self, generation: Generation) -> CostEstimate:
        """One picture."""
        pixels = generation.width * generation.height
        steps = self.micros_by_quality.get(generation.quality)
        prices = [steps] if steps is not None else list(self.micros_by_quality.values())
        picture_micros = max(_stepped(each, pixels) for each in prices)
        prompt_micros = _up(self.prompt_micros * len(generation.prompt), 1000)
        references_micros = self.reference_micros * len(generation.references)
        millis = _up(picture_micros + prompt_micros + references_micros, 1000)
        return CostEstimate(millis, millis)


@dataclass(frozen=True, slots=True)
class SecondTable:
    """A price for each second, by resolution (those of `sizes`; "" for all), with sound and without.

    `with_video`: another price where a video is to be followed, whose seconds are paid too: `video_input_s` at most.
    """

    micros: Mapping[str, int]
    silent: Mapping[str, int] = field(default_factory=dict)
    with_video: Mapping[str, int] = field(default_factory=dict)
    sizes: SizeTable | None = None
    video_input_s: int = 0

    def estimate(self, generation: Generation) -> CostEstimate:
        """The whole length that was asked for, and of videos to follow a third of what may come at most."""
        follows = _videos(generation) > 0 and bool(self.with_video)
        prices = self.with_video if follows else self.micros
        if self.silent and not generation.audio and not follows:
            prices = self.silent
        resolution = _resolution(self.sizes, generation)
        micros = prices.get(resolution, prices.get("", max(prices.values())))
        extra_s = self.video_input_s if follows else 0
        expected = _up(micros * (generation.duration_s + -(-extra_s // 3)), 1000)
        return CostEstimate(expected, _up(micros * (generation.duration_s + extra_s), 1000))


@dataclass(frozen=True, slots=True)
class VideoTokens:
    """ByteDance's: tokens are (seconds in + seconds out) · width · height · frames a second / 1024.

    `micros`, `with_video`: for a million tokens, by resolution; the second where a video is to be followed.
    `video_input_s`: what all videos to be followed may last together.
    """

    micros: Mapping[str, int]
    with_video: Mapping[str, int]
    sizes: SizeTable
    video_input_s: int = 15
    frames_per_second: int = 24

    def estimate(self, generation: Generation) -> CostEstimate:
        """The ceiling is the dearest size that the generation may get, and a frame more for each film than its seconds have."""
        videos = _videos(generation)
        prices = self.with_video if videos and self.with_video else self.micros
        micros = prices.get(_resolution(self.sizes, generation), max(prices.values()))
        possible = [size.pixels for size in self.sizes.possible(generation)]
        usual, most = (
            (min(possible), max(possible)) if possible else (generation.width * generation.height,) * 2
        )
        extra_s = self.video_input_s if videos else 0
        frames = self.frames_per_second * (generation.duration_s + -(-extra_s // 3))
        most_frames = self.frames_per_second * (generation.duration_s + extra_s) + 1 + videos
        return CostEstimate(
            _up(frames * usual * micros, _TOKEN_PIXELS * _MILLION * 1000),
            _up(most_frames * most * micros, _TOKEN_PIXELS * _MILLION * 1000),
        )

    def charged_millis(self, resolution: str, follows_video: bool, tokens: int) -> int:
        """What so many tokens cost, as the provider counted them."""
        prices = self.with_video if follows_video and self.with_video else self.micros
        return _up(tokens * prices.get(resolution, max(prices.values())), _MILLION * 1000)


@dataclass(frozen=True, slots=True)
class PerCharacter:
    """A price for each thousand characters of the prompt."""

    micros_per_thousand: int

    def estimate(self, generation: Generation) -> CostEstimate:
        """The prompt as it is."""
        millis = _up(len(generation.prompt) * self.micros_per_thousand, _MILLION)
        return CostEstimate(millis, millis)


@dataclass(frozen=True, slots=True)
class TextTokens:
    """A price for a million tokens read and a million written.

    `instruction_tokens`: what the adapter says around the prompt; `thinking_tokens`: what a model may think beside its answer.
    """

    micros_in: int
    micros_out: int
    instruction_tokens: int = 300
    thinking_tokens: int = 0

    def most_tokens(self, generation: Generation) -> int:
        """What the adapter must not let the answer exceed: four tokens a word are enough in any script."""
        return 4 * max(generation.max_words, 1) + self.thinking_tokens + 50

    def estimate(self, generation: Generation) -> CostEstimate:
        """A token has at least one byte, and usually four characters."""
        written = 3 * max(generation.max_words, 1) // 2 + self.thinking_tokens // 4
        expected_in = self.instruction_tokens + len(generation.prompt) // 4
        most_in = self.instruction_tokens + len(generation.prompt.encode())
        return CostEstimate(
            self.charged_millis(expected_in, min(written, self.most_tokens(generation))),
            self.charged_millis(most_in, self.most_tokens(generation)),
        )

    def charged_millis(self, tokens_in: int, tokens_out: int) -> int:
        """What so many tokens cost, as the provider counted them."""
        return _up(tokens_in * self.micros_in + tokens_out * self.micros_out, _MILLION * 1000)


@dataclass(frozen=True, slots=True)
class Quoted:
    """A table of ours for what only the provider knows; what it says it charged corrects it afterwards."""

    rule: CostRule
    ceiling_percent: int

    def estimate(self, generation: Generation) -> CostEstimate:
        """The ceiling is so much above the table's."""
        table = self.rule.estimate(generation)
        return CostEstimate(table.expected_millis, _up(table.ceiling_millis * self.ceiling_percent, 100))


def _up(value: int, divisor: int) -> int:
    return -(-value // divisor)


def _stepped(steps: Sequence[tuple[int, int]], pixels: int) -> int:
    for most, micros in steps:
        if pixels <= most:
            return micros
    most, micros = steps[-1]
    return _up(micros * pixels, most)


def _resolution(sizes: SizeTable | None, generation: Generation) -> str:
    possible = () if sizes is None else sizes.possible(generation)
    return possible[0].resolution if possible else ""


def _videos(generation: Generation) -> int:
    return sum(reference.role is ReferenceRole.VIDEO for reference in generation.references)
