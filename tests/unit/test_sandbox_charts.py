"""Infographics: the numbers of the prompt in a form that fits them, with a title and a legend that can be read."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.provider_pool.adapters.sandbox.chart import draw_chart, write_chart
from services.provider_pool.adapters.sandbox.chart_data import Chart, Point, chart_of
from services.provider_pool.adapters.sandbox.chart_forms import scale_of
from services.provider_pool.adapters.sandbox.chart_look import LOOKS
from services.provider_pool.adapters.sandbox.render_order import STYLES, RenderOrder

SALES = "Quarterly sales: Q1 20, Q2 35, Q3 45"


def order(prompt: str, width: int = 640, height: int = 360, style: str = "") -> RenderOrder:
    return RenderOrder("order", "infographic", prompt, width, height, 0, False, 1, "", style=style)


def told(prompt: str) -> tuple[str, dict[str, str]]:
    chart = chart_of(prompt, 1)
    assert chart.found
    return chart.title, {point.label: chart.said(point.value) for point in chart.points}


@pytest.mark.parametrize(
    ("prompt", "title", "points"),
    [
        ("Q1 20, Q2 35, Q3 45", "Q1 to Q3", {"Q1": "20", "Q2": "35", "Q3": "45"}),
        (SALES, "Quarterly sales", {"Q1": "20", "Q2": "35", "Q3": "45"}),
        ("Q1: 20, Q2: 35", "Q1 to Q2", {"Q1": "20", "Q2": "35"}),
        (
            "20 apples, 35 pears and 12 figs",
            "Apples, pears and figs",
            {"apples": "20", "pears": "35", "figs": "12"},
        ),
        (
            "Revenue 2019: $1,200, 2020: $1,500, 2021: $900",
            "Revenue",
            {"2019": "$1,200", "2020": "$1,500", "2021": "$900"},
        ),
        (
            "Create an infographic about coffee by country: Finland 12 kg, Norway 9.9 kg",
            "Coffee by country",
            {"Finland": "12 kg", "Norway": "9.9 kg"},
        ),
        (
            "Population in millions; Tokyo 37.4; Sao Paulo 22.6",
            "Population in millions",
            {"Tokyo": "37.4", "Sao Paulo": "22.6"},
        ),
        ("Growth\n2019 2.3\n2020 -3.4\n2021 5.9", "Growth", {"2019": "2.3", "2020": "-3.4", "2021": "5.9"}),
    ],
)
def test_numbers_are_found_with_what_they_are_of(prompt: str, title: str, points: dict[str, str]) -> None:
    assert told(prompt) == (title, points)


@pytest.mark.parametrize(
    ("prompt", "form"),
    [
        (SALES, "columns"),
        ("Share: A 45%, B 30%, C 25%", "ring"),
        ("Visitors Jan 1, Feb 2, Mar 3, Apr 2, May 4", "line"),
        ("Long Company Name One 4, Another Company Name 5", "bars"),
        ("A pie chart: A 1, B 2", "ring"),
        ("A bar chart of growth 2018 1, 2019 2, 2020 3, 2021 4, 2022 5", "columns"),
        ("A pie chart: A 1, B -2", "columns"),
    ],
)
def test_the_form_fits_the_numbers(prompt: str, form: str) -> None:
    assert chart_of(prompt, 1).form == form


@pytest.mark.parametrize("prompt", ["Infographic about the water cycle", "", "Users grew a lot", "one 1"])
def test_without_numbers_there_is_an_outline_that_says_so(prompt: str) -> None:
    chart = chart_of(prompt, 1)
    assert not chart.found
    assert len(chart.points) >= 5
    assert chart.title
    assert chart == chart_of(prompt, 1) != chart_of(prompt, 2)


def test_a_pie_never_holds_what_is_not_a_part() -> None:
    assert chart_of("pie of A 0, B 5", 1).form != "ring"


@pytest.mark.parametrize(
    "values", [(0.0, 0.0), (1.0, 3.0), (-5.0, 5.0), (-3.0, -1.0), (0.001, 0.002), (1e14, 2e14)]
)
def test_an_axis_goes_around_all_numbers_in_few_round_steps(values: tuple[float, float]) -> None:
    low, high, step = scale_of(Chart("x", tuple(Point("p", value) for value in values), "columns"))
    assert low <= min(0, *values)
    assert high >= max(0, *values)
    assert high > low
    assert round((high - low) / step) <= 10


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (512, 512), (256, 256)])
def test_it_has_the_size_and_differs_in_every_style(
    style: str, size: tuple[int, int], tmp_path: Path
) -> None:
    write_chart(order(SALES, *size, style), tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", size)
        ground = image.getpixel((size[0] - 2, size[1] - 2))
    assert ground == LOOKS[style].ground


def test_styles_look_different() -> None:
    drawn = [np.asarray(draw_chart(order(SALES, style=style)), dtype=np.int16) for style in STYLES]
    assert all(np.abs(one - other).mean() > 5 for one, other in combinations(drawn, 2))


def test_columns_are_as_high_as_their_numbers() -> None:
    pixels = np.asarray(draw_chart(order("A 10, B 20, C 40", 1280, 720)), dtype=np.int16)[:, :800]
    heights = []
    for colour in LOOKS["clean"].data[:3]:
        same = np.abs(pixels - colour).max(axis=2) < 12
        heights.append(int(same.sum(axis=0).max()))
    assert heights[1] / heights[0] == pytest.approx(2, rel=0.06)
    assert heights[2] / heights[0] == pytest.approx(4, rel=0.06)


def test_every_number_has_its_colour_in_the_legend() -> None:
    pixels = np.asarray(draw_chart(order("A 10, B 20, C 40, D 5", 1280, 720)), dtype=np.int16)[:, 900:]
    for colour in LOOKS["clean"].data[:4]:
        assert (np.abs(pixels - colour).max(axis=2) < 12).any()


@pytest.mark.parametrize(
    "prompt",
    [
        "x" * 20_000,
        "1 " * 10_000,
        "A 1, " * 4_000,
        "\ud800 5, \x00 6",
        "a 999999999999999999999999999, b 2, c 3",
        "東京 5, 大阪 3",
        "A 0, B 0",
        "A -1%, B -99%",
        "!" * 4_000,
    ],
    ids=lambda prompt: repr(prompt[:12]),
)
def test_no_prompt_is_too_odd(prompt: str) -> None:
    assert draw_chart(order(prompt, 320, 256)).size == (320, 256)


def test_the_same_order_is_the_same_picture() -> None:
    first, second = (draw_chart(order("about tea")).tobytes() for _ in range(2))
    assert first == second
