"""Model files: what comes with Atelier is whole, and what an operator writes is taken as it stands or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.provider_pool.adapters.interface import CostEstimate, Generation, Kind, Range
from services.provider_pool.adapters.model_files import (
    PACKAGED,
    ModelFileError,
    models_of,
    read_file,
    read_models,
)

FILE = """
unit = "USD"
usd_micros_per_unit = 1_000_000
[[model]]
name = "seedance-2.0"
upstream = "film-260128"
kind = "video"
prompt_characters = 5000
sizes = "seedance-2"
durations_s = [4, 15]
audio = true
adaptive_ratio = true
watermark = true
last_frame = true
seeds = [0, 100]
output_lifetime_s = 86400
retires = 2026-12-01
longest_s = 3600
concurrency_limit = 3
[model.references]
images = 9
videos = 3
audios = 3
frames = true
frames_exclude_references = true
sides_px = [300, 6000]
durations_s = [2, 15]
[model.cost]
rule = "video_tokens"
usd_per_million = { "480p" = "7.0", "720p" = "7.0", "1080p" = "7.7" }
[model.extras]
anything = ["goes"]
"""
FILM = Generation(Kind.VIDEO, "seedance-2.0", "a mill", 1280, 720, 5)


def test_everything_of_a_file_is_in_its_models() -> None:
    (spec,) = read_models(FILE)
    assert (spec.model, spec.upstream, spec.kind) == ("seedance-2.0", "film-260128", Kind.VIDEO)
    # 2026-12-01T00:00:00Z
    assert spec.retires_at_ms == 1_796_083_200_000
    assert (spec.output_lifetime_s, spec.longest_s, spec.concurrency_limit) == (86_400, 3600, 3)
    assert spec.extras == {"anything": ["goes"]}
    takes = spec.capability
    assert takes.prompt_characters == Range(1, 5000)
    assert takes.durations_s == Range(4, 15)
    assert takes.seeds == Range(0, 100)
    assert (takes.audio, takes.adaptive_ratio, takes.watermark, takes.last_frame) == (True, True, True, True)
    assert (takes.references.images, takes.references.videos, takes.references.audios) == (9, 3, 3)
    assert takes.references.sides_px == Range(300, 6000)
    assert takes.references.durations_ms == Range(2_000, 15_500)
    assert takes.accepts(FILM)


def test_a_price_by_tokens_is_the_documented_one() -> None:
    (spec,) = read_models(FILE)
    # 108,000 tokens at 7 dollars a million; the provider counted 108,900 for the same film.
    assert spec.cost.estimate(FILM) == CostEstimate(756, 763)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("retires = ", "retirez = ", "retirez"),
        ("longest_s = 3600", 'longest_s = "3600"', "longest_s"),
        ('"seedance-2"', '"seedance-9"', "seedance-9"),
        ('"7.7"', "7.7", "usd_per_million"),
        ('"7.7"', '"7.7654321"', "usd_per_million"),
        ('"7.7"', '"-7"', "usd_per_million"),
        ("video_tokens", "by_guess", "rule"),
        ("images = 9", "images = -9", "images"),
        ("durations_s = [4, 15]", "durations_s = [15, 4]", "durations_s"),
        ("durations_s = [4, 15]", "durations_s = [4]", "durations_s"),
        ("seeds = [0, 100]", "seeds = [0, 100]\nwidths = [1, 2]\nheights = [1, 2]", "sizes"),
        ('kind = "video"', 'kind = "hologram"', "kind"),
    ],
)
def test_a_model_that_is_not_understood_is_refused_by_name_and_key(old: str, new: str, said: str) -> None:
    assert old in FILE
    with pytest.raises(ModelFileError, match=r"seedance-2\.0") as refused:
        read_models(FILE.replace(old, new))
    assert said in str(refused.value)


def test_a_name_that_stands_twice_is_refused() -> None:
    (_, again) = FILE.split("[[model]]")
    with pytest.raises(ModelFileError, match="twice"):
        read_models(f"{FILE}[[model]]{again}")


def test_a_file_that_is_no_toml_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "ark.toml"
    path.write_text("unit = ")
    with pytest.raises(ModelFileError, match=r"ark\.toml"):
        read_models(path)


def test_an_unknown_word_at_the_top_is_refused() -> None:
    with pytest.raises(ModelFileError, match="currency"):
        read_models(f'currency = "USD"\n{FILE}')


def test_an_operators_file_replaces_models_by_name_and_adds_others(tmp_path: Path) -> None:
    ours = FILE.replace("film-260128", "film-next")
    (tmp_path / "ark.toml").write_text(ours + FILE.split("[[model]]", maxsplit=1)[0].join(["", ""]))
    models = {spec.model: spec for spec in models_of("ark", tmp_path)}
    assert models["seedance-2.0"].upstream == "film-next"
    assert models["seedance-2.0-fast"] == {spec.model: spec for spec in models_of("ark")}["seedance-2.0-fast"]


def test_an_operators_file_in_another_unit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ark.toml").write_text(FILE.replace('"USD"', '"credit"'))
    with pytest.raises(ModelFileError, match="unit"):
        models_of("ark", tmp_path)


def test_without_a_file_of_the_operators_what_comes_with_atelier_counts(tmp_path: Path) -> None:
    assert models_of("ark", tmp_path) == models_of("ark")


@pytest.mark.parametrize("path", sorted(PACKAGED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_file_that_comes_with_atelier_can_be_read(path: Path) -> None:
    given = read_file(path)
    assert given.models
    assert all(spec.longest_s > 0 for spec in given.models)
