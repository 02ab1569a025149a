"""Cost rules: what may be charged is never more than the ceiling, and more of something is never cheaper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.provider_pool.adapters.costs import (
    PerCharacter,
    PictureTable,
    Quoted,
    SecondTable,
    TextTokens,
    VideoTokens,
)
from services.provider_pool.adapters.frames import TABLES
from services.provider_pool.adapters.interface import (
    CostEstimate,
    CostRule,
    Generation,
    Kind,
    Reference,
    ReferenceRole,
)
from services.provider_pool.adapters.model_files import PACKAGED, read_models

SIZES = TABLES["seedance-2"]
VIDEO = Reference(url="u", role=ReferenceRole.VIDEO)
MICROS = st.integers(1, 20_000_000)
BY_RESOLUTION = st.fixed_dictionaries({"480p": MICROS, "720p": MICROS, "1080p": MICROS})

films = st.builds(
    lambda size, seconds, videos, sound: Generation(
        Kind.VIDEO,
        "film",
        "p",
        size.width,
        size.height,
        seconds,
        audio=sound,
        references=(VIDEO,) * videos,
    ),
    st.sampled_from(SIZES.sizes),
    st.integers(1, 60),
    st.integers(0, 3),
    st.booleans(),
)
pictures = st.builds(
    lambda width, height, quality: Generation(Kind.IMAGE, "picture", "p", width, height, quality=quality),
    st.integers(16, 4096),
    st.integers(16, 4096),
    st.sampled_from(["", "low", "high", "xhigh"]),
)
film_rules = st.one_of(
    st.builds(lambda a, b: VideoTokens(a, b, SIZES), BY_RESOLUTION, BY_RESOLUTION),
    st.builds(lambda a, b, c: SecondTable(a, b, c, SIZES, 15), BY_RESOLUTION, BY_RESOLUTION, BY_RESOLUTION),
    st.builds(lambda a: Quoted(SecondTable(a, sizes=SIZES), 150), BY_RESOLUTION),
)


@given(film_rules, films)
def test_what_is_expected_of_a_film_is_never_above_the_ceiling(rule: CostRule, film: Generation) -> None:
    estimate = rule.estimate(film)
    assert 0 < estimate.expected_millis <= estimate.ceiling_millis


@given(film_rules, films)
def test_a_second_more_is_never_cheaper(rule: CostRule, film: Generation) -> None:
    shorter, longer = rule.estimate(film), rule.estimate(replace(film, duration_s=film.duration_s + 1))
    assert shorter.expected_millis <= longer.expected_millis
    assert shorter.ceiling_millis <= longer.ceiling_millis


@given(BY_RESOLUTION, films)
def test_tokens_that_the_provider_counts_stay_under_the_ceiling(
    prices: dict[str, int], film: Generation
) -> None:
    rule = VideoTokens(prices, prices, SIZES)
    videos = len(film.references)
    frames = 24 * film.duration_s + 1 + (24 * 15 + videos if videos else 0)
    size = SIZES.find(film.width, film.height)
    assert size is not None
    tokens = frames * size.pixels // 1024
    charged = rule.charged_millis(size.resolution, videos > 0, tokens)
    assert charged <= rule.estimate(film).ceiling_millis


def test_a_film_that_follows_a_pictures_ratio_may_cost_what_its_largest_size_does() -> None:
    rule = VideoTokens({"720p": 7_000_000}, {}, TABLES["seedance-2-fast"])
    adaptive = Generation(Kind.VIDEO, "film", "p", 1280, 1280, 5, adaptive_ratio=True)
    largest = max(
        rule.estimate(Generation(Kind.VIDEO, "film", "p", size.width, size.height, 5)).ceiling_millis
        for size in TABLES["seedance-2-fast"].within(1280, 1280)
    )
    assert rule.estimate(adaptive).ceiling_millis == largest


@given(pictures)
def test_a_picture_of_a_quality_that_is_not_listed_costs_what_the_dearest_does(picture: Generation) -> None:
    rule = PictureTable({"": [(2**20, 40_000)], "low": [(2**20, 6_000)], "high": [(2**20, 211_000)]})
    unlisted = rule.estimate(replace(picture, quality="max"))
    assert rule.estimate(picture).ceiling_millis <= unlisted.ceiling_millis


@given(pictures, st.integers(0, 256))
def test_more_pixels_are_never_cheaper(picture: Generation, more: int) -> None:
    rule = PictureTable({"": [(2**18, 10_000), (2**20, 40_000), (2**22, 90_000)]})
    wider = rule.estimate(replace(picture, width=picture.width + more))
    assert rule.estimate(picture).expected_millis <= wider.expected_millis


def test_every_reference_of_a_picture_has_its_price() -> None:
    rule = PictureTable({"": [(2**20, 40_000)]}, reference_micros=12_500)
    followed = Generation(Kind.IMAGE, "picture", "p", 1024, 1024, references=(Reference(url="u"),) * 3)
    assert rule.estimate(followed) == CostEstimate(78, 78)


@given(st.text(min_size=1, max_size=500), MICROS)
def test_characters_are_counted_and_a_fraction_is_a_whole_thousandth(text: str, micros: int) -> None:
    millis = PerCharacter(micros).estimate(Generation(Kind.VOICE, "voice", text)).ceiling_millis
    assert millis * 1_000_000 >= len(text) * micros > (millis - 1) * 1_000_000


@given(st.text(min_size=1, max_size=500), st.integers(1, 2_000), st.integers(0, 4_000))
def test_a_text_costs_no_more_than_its_longest_answer(text: str, words: int, thinking: int) -> None:
    rule = TextTokens(250_000, 2_000_000, thinking_tokens=thinking)
    asked = Generation(Kind.TEXT, "prose", text, max_words=words)
    estimate = rule.estimate(asked)
    most_in = 300 + len(text.encode())
    assert estimate.expected_millis <= estimate.ceiling_millis
    assert rule.charged_millis(most_in, rule.most_tokens(asked)) == estimate.ceiling_millis


def test_what_a_table_of_ours_may_be_wrong_by_is_in_the_ceiling() -> None:
    rule = Quoted(SecondTable({"": 280_000}), 200)
    film = Generation(Kind.VIDEO, "film", "p", 1280, 720, 5)
    assert rule.estimate(film) == CostEstimate(1400, 2800)


def test_silence_may_be_cheaper() -> None:
    rule = SecondTable({"": 300_000}, silent={"": 200_000})
    film = Generation(Kind.VIDEO, "film", "p", 1280, 720, 5)
    assert rule.estimate(film).ceiling_millis == 1000
    assert rule.estimate(replace(film, audio=True)).ceiling_millis == 1500


@pytest.mark.parametrize("path", sorted(PACKAGED.glob("*.toml")), ids=lambda path: path.stem)
def test_nothing_that_comes_with_atelier_is_given_away(path: Path) -> None:
    for spec in read_models(path):
        seconds = spec.capability.durations_s.low if spec.capability.durations_s else 0
        words = spec.capability.max_words.low if spec.capability.max_words else 0
        size = (1280, 720) if spec.kind in (Kind.VIDEO, Kind.IMAGE, Kind.INFOGRAPHIC) else (0, 0)
        asked = Generation(spec.kind, spec.model, "p" * 50, *size, seconds, max_words=words)
        estimate = spec.cost.estimate(asked)
        assert 0 < estimate.expected_millis <= estimate.ceiling_millis, spec.model


def expected_millis(provider: str, generation: Generation) -> int:
    specs = {spec.model: spec for spec in read_models(PACKAGED / f"{provider}.toml")}
    return specs[generation.model].cost.estimate(generation).expected_millis


def test_what_a_documented_example_costs_is_what_is_expected() -> None:
    square = Generation(Kind.IMAGE, "gpt-image-2", "", 1024, 1024, quality="high")
    # 4,160 tokens at 30 dollars a million.
    assert expected_millis("openai", square) == 125
    film = Generation(Kind.VIDEO, "seedance-2.0-fast", "", 1280, 720, 8)
    assert expected_millis("leonardo", film) == 800
    # 108,000 tokens at 7 dollars a million.
    assert expected_millis("ark", replace(film, model="seedance-2.0", duration_s=5)) == 756
