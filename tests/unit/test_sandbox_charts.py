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
from services.provider_pool.adapters.sandbox.chart_look import LOOKS, Sheet
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
    ("prompt", "points"),
    [
        ("$1.2M in 2020, $2.5M in 2021", {"2020": "$1.2M", "2021": "$2.5M"}),
        ("In 2020 we sold 100 bikes, in 2021 we sold 150 bikes", {"2020": "100 bikes", "2021": "150 bikes"}),
        ("Use: 50% farms, 30% works, 20% homes", {"farms": "50%", "works": "30%", "homes": "20%"}),
        ("Step 1: 10 minutes, Step 2: 20 minutes", {"Step 1": "10 minutes", "Step 2": "20 minutes"}),
        (
            "Visits: 900 in May, 1.2k in June, 2M in July",
            {"May": "900", "June": "1,200", "July": "2,000,000"},
        ),
        ("Tower 300 m, mast 120 m", {"Tower": "300 m", "mast": "120 m"}),
        ("Apples 3 kg, salt 500 g", {"Apples (kg)": "3", "salt (g)": "500"}),
        ("Rent €900, food 300 €", {"Rent": "EUR 900", "food": "EUR 300"}),
        ("Profit: Jan -$20, Feb $15", {"Jan": "-$20", "Feb": "$15"}),
        ("Mon \u22125°C, Tue 3°C", {"Mon": "-5°C", "Tue": "3°C"}),
        ("-5 apples, 3 pears", {"apples": "-5", "pears": "3"}),
        ("A 0.001, B 0.002", {"A": "0.001", "B": "0.002"}),
        ("Umsatz: Berlin 1.234.567, Hamburg 987.654", {"Berlin": "1,234,567", "Hamburg": "987,654"}),
        ("Ventes : Paris 1 234,5 ; Lyon 987,2", {"Paris": "1,234.5", "Lyon": "987.2"}),
        ("Lohn: Genf 1'200, Bern 900", {"Genf": "1,200", "Bern": "900"}),
        ("10, 20, 30", {"1": "10", "2": "20", "3": "30"}),
        ("Revenue: $1.2M, $2.5M", {"1": "$1.2M", "2": "$2.5M"}),
        ("growth from 10 to 50 users", {"From": "10", "To": "50"}),
        ("| Land | GDP |\n|---|---|\n| USA | 25.4 |\n| Japan | 4.2 |", {"USA": "25.4", "Japan": "4.2"}),
        ("Land,GDP\nUSA,25.4\nJapan,4.2", {"USA": "25.4", "Japan": "4.2"}),
        ("1. Apples: 10\n2. Pears: 20", {"Apples": "10", "Pears": "20"}),
        ("Brazil 5 (1958), Germany 4 cups per day", {"Brazil": "5 cups", "Germany": "4 cups"}),
        ("北京40,上海30", {"[cjk] 1": "40", "[cjk] 2": "30"}),
        ("الرياض ٤٠، جدة ٣٠", {"[arabic] 1": "40", "[arabic] 2": "30"}),
        ("1969 moon, 1989 wall", {"moon": "1969", "wall": "1989"}),
    ],
)
def test_numbers_are_read_however_they_are_written(prompt: str, points: dict[str, str]) -> None:
    assert told(prompt)[1] == points


def test_more_numbers_than_fit_are_not_passed_over_in_silence() -> None:
    chart = chart_of("; ".join(f"Item {number}: {number}" for number in range(1, 41)), 1)
    assert (len(chart.points), chart.left_out) == (12, 28)
    assert chart.title == "Item 1, Item 2, Item 3 and others"


def test_a_number_is_set_smaller_and_never_cut() -> None:
    sheet = Sheet(1280, 720, LOOKS["clean"])
    said = "$3,456,789,012,345"
    room = sheet.width(said, 5) * 0.6
    assert 2 < sheet.size_of(said, 5, room) < 5
    assert sheet.width(said, sheet.size_of(said, 5, room)) <= room
    assert sheet.size_of("5", 5, room) == 5


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
        ("It grew 20% in 2021, 30% in 2022 and 50% in 2023", "columns"),
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


def test_a_full_chart_has_all_its_numbers_in_the_legend() -> None:
    legends = [
        np.asarray(draw_chart(order(f"{numbers}, L {last}", 1280, 720)))[150:480, 900:]
        for numbers in [", ".join(f"{letter} 20" for letter in "ABCDEFGHIJK")]
        for last in (10, 11)
    ]
    assert not np.array_equal(legends[0], legends[1])


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
