"""Models as data: one TOML file a provider, read strictly, so that a word nobody knows is an error and not a wish."""

from __future__ import annotations

import datetime as dt
import functools
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from services.provider_pool.adapters.capability import Capability
from services.provider_pool.adapters.frames import TABLES, SizeTable, sizes_of
from services.provider_pool.adapters.generation import Kind
from services.provider_pool.adapters.interface import ModelSpec
from services.provider_pool.adapters.price_words import Price, cost_rule
from services.provider_pool.adapters.reference import Range, ReferenceCapability

PACKAGED: Final = Path(__file__).parents[1] / "models"
"""The files that come with Atelier."""

_FILE_BYTES: Final = 1024 * 1024
# Atelier's tables of times are in milliseconds, and a recording may be a frame longer than its whole seconds.
_DURATION_SLACK_MS: Final = 500

Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Numbers = Annotated[tuple[int, ...], Meta(min_length=2, max_length=3)]
Pair = tuple[Natural, Natural]
Words = Annotated[tuple[str, ...], Meta(min_length=1)]


class ModelFileError(ValueError):
    """What is wrong with a model file, in one sentence that names the file, the model and the key."""


class _Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Nothing of a section is ignored."""


class _References(_Section, frozen=True):
    images: Natural = 0
    videos: Natural = 0
    audios: Natural = 0
    total: Natural = 0
    frames: bool = False
    frames_exclude_references: bool = False
    last_needs_first: bool = True
    audio_needs_picture: bool = False
    sides_px: Pair = (1, 16_384)
    ratios_percent: Pair | None = None
    video_sides_px: Pair = (1, 4_096)
    video_pixels: Pair | None = None
    durations_s: Pair = (0, 60)
    videos_total_s: Natural = 0
    audios_total_s: Natural = 0
    image_bytes: Natural = 0
    video_bytes: Natural = 0
    audio_bytes: Natural = 0
    total_bytes: Natural = 0
    video_types: tuple[str, ...] = ()
    audio_types: tuple[str, ...] = ()


class _Model(_Section, frozen=True):
    name: Annotated[str, Meta(min_length=1)]
    upstream: Annotated[str, Meta(min_length=1)]
    kind: Kind
    prompt_characters: Positive
    cost: Price
    sizes: str | Words = ""
    widths: Numbers | None = None
    heights: Numbers | None = None
    pixels: Pair | None = None
    ratio_percent_max: Natural = 0
    short_side_max: Natural = 0
    durations_s: Numbers | None = None
    audio: bool = False
    qualities: Words = ("",)
    voices: Words = ("",)
    formats: Words = ("",)
    styles: Words = ("",)
    max_words: Numbers | None = None
    seeds: tuple[int, int] | None = None
    adaptive_ratio: bool = False
    watermark: bool = False
    last_frame: bool = False
    output_lifetime_s: Natural = 0
    retires: dt.date | None = None
    longest_s: Natural = 0
    concurrency_limit: Natural = 0
    references: _References = _References()
    extras: dict[str, object] = {}


class _Head(_Section, frozen=True):
    unit: Annotated[str, Meta(min_length=1)]
    usd_micros_per_unit: Positive
    model: Annotated[list[dict[str, object]], Meta(min_length=1)]


S = TypeVar("S", _Head, _Model)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A whole file. `unit`: what the provider counts in; its costs are in thousandths of it."""

    unit: str
    usd_micros_per_unit: int
    models: tuple[ModelSpec, ...]


def read_models(source: Path | str) -> tuple[ModelSpec, ...]:
    """The models of a file, or of the text of one. Raises ModelFileError."""
    return read_file(source).models


def read_file(source: Path | str) -> ModelFile:
    """A file, or the text of one. Raises ModelFileError."""
    name = source.name if isinstance(source, Path) else "the text"
    try:
        text = _text(source) if isinstance(source, Path) else source
        head = _converted(tomllib.loads(text), _Head, name)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelFileError(f"{name}: {error}") from None
    models = tuple(_spec(name, position, given) for position, given in enumerate(head.model, 1))
    twice = [model for model, times in Counter(spec.model for spec in models).items() if times > 1]
    if twice:
        raise ModelFileError(f"{name}: model {twice[0]!r} stands in it twice")
    return ModelFile(head.unit, head.usd_micros_per_unit, models)


def models_of(provider: str, folder: Path | None = None) -> tuple[ModelSpec, ...]:
    """What comes with Atelier for a provider, each model replaced by the one of its name in the operator's folder, if there.

    A file of the operator's may have further models, and need not name those that stay. Raises ModelFileError.
    """
    packaged = _packaged(provider)
    own = None if folder is None else folder / f"{provider}.toml"
    if own is None or not own.is_file():
        return packaged.models
    given = read_file(own)
    if (given.unit, given.usd_micros_per_unit) != (packaged.unit, packaged.usd_micros_per_unit):
        raise ModelFileError(f"{own.name}: unit and usd_micros_per_unit are not those of {provider}")
    models = {spec.model: spec for spec in (*packaged.models, *given.models)}
    return tuple(models.values())


@functools.cache
def _packaged(provider: str) -> ModelFile:
    return read_file(PACKAGED / f"{provider}.toml")


def _text(path: Path) -> str:
    if path.stat().st_size > _FILE_BYTES:
        raise ModelFileError(f"{path.name}: has more than {_FILE_BYTES} bytes")
    return path.read_text()


def _converted(given: Mapping[str, object], into: type[S], where: str) -> S:
    try:
        return msgspec.convert(given, into)
    except msgspec.ValidationError as error:
        raise ModelFileError(f"{where}: {error}") from None


def _spec(file: str, position: int, given: Mapping[str, object]) -> ModelSpec:
    where = f"{file}: model {given.get('name', position)!r}"
    model = _converted(given, _Model, where)
    try:
        sizes = _sizes(model)
        return ModelSpec(
            model.name,
            model.upstream,
            model.kind,
            _capability(model, sizes),
            cost_rule(model.cost, sizes),
            output_lifetime_s=model.output_lifetime_s,
            retires_at_ms=_midnight_ms(model.retires),
            longest_s=model.longest_s,
            concurrency_limit=model.concurrency_limit,
            extras=model.extras,
        )
    except ValueError as error:
        raise ModelFileError(f"{where}: {error}") from None


def _sizes(model: _Model) -> SizeTable | None:
    free = (model.widths, model.heights, model.pixels, model.ratio_percent_max, model.short_side_max)
    if model.sizes and any(free):
        raise ValueError("sizes excludes widths, heights, pixels, ratio_percent_max and short_side_max")
    if bool(model.widths) != bool(model.heights):
        raise ValueError("widths and heights go together")
    if not isinstance(model.sizes, str):
        return sizes_of(model.sizes)
    if not model.sizes:
        return None
    if model.sizes not in TABLES:
        raise ValueError(f"sizes: no table is called {model.sizes!r}; there are {', '.join(TABLES)}")
    return TABLES[model.sizes]


def _capability(model: _Model, sizes: SizeTable | None) -> Capability:
    return Capability(
        Range(1, model.prompt_characters),
        _range("widths", model.widths),
        _range("heights", model.heights),
        _range("durations_s", model.durations_s),
        frozenset(model.qualities),
        model.audio,
        _references(model.references),
        model.adaptive_ratio,
        model.watermark,
        model.last_frame,
        frozenset(model.voices),
        frozenset(model.formats),
        frozenset(model.styles),
        _range("max_words", model.max_words),
        sizes=sizes,
        pixels=_range("pixels", model.pixels),
        ratio_percent_max=model.ratio_percent_max,
        short_side_max=model.short_side_max,
        seeds=_range("seeds", model.seeds),
    )


def _references(given: _References) -> ReferenceCapability:
    shortest_s, longest_s = given.durations_s
    return ReferenceCapability(
        images=given.images,
        sides_px=_some_range("references.sides_px", given.sides_px),
        videos=given.videos,
        video_sides_px=_some_range("references.video_sides_px", given.video_sides_px),
        video_pixels=_range("references.video_pixels", given.video_pixels),
        audios=given.audios,
        durations_ms=Range(max(shortest_s * 1000, 0), longest_s * 1000 + _DURATION_SLACK_MS),
        frames=given.frames,
        total=given.total,
        frames_exclude_references=given.frames_exclude_references,
        last_needs_first=given.last_needs_first,
        audio_needs_picture=given.audio_needs_picture,
        videos_total_ms=_total_ms(given.videos_total_s),
        audios_total_ms=_total_ms(given.audios_total_s),
        ratios_percent=_range("references.ratios_percent", given.ratios_percent),
        image_bytes=given.image_bytes,
        video_bytes=given.video_bytes,
        audio_bytes=given.audio_bytes,
        total_bytes=given.total_bytes,
        video_types=frozenset(given.video_types),
        audio_types=frozenset(given.audio_types),
    )


def _total_ms(seconds: int) -> int:
    return seconds * 1000 + _DURATION_SLACK_MS if seconds else 0


def _range(key: str, given: tuple[int, ...] | None) -> Range | None:
    return None if given is None else _some_range(key, given)


def _some_range(key: str, given: tuple[int, ...]) -> Range:
    low, high, *step = given
    if low > high or any(each < 1 for each in step):
        raise ValueError(f"{key}: [low, high] or [low, high, step], low not above high")
    return Range(low, high, *step)


def _midnight_ms(day: dt.date | None) -> int:
    if day is None:
        return 0
    midnight = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    return int(midnight.timestamp()) * 1000
