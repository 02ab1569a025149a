"""The forms of a chart: columns, bars, a line, a ring; each fills a box of a sheet."""

from __future__ import annotations

import math
from typing import Final

from PIL import Image, ImageDraw

from services.provider_pool.adapters.sandbox.chart_data import Chart
from services.provider_pool.adapters.sandbox.chart_look import Box, Sheet
from services.provider_pool.adapters.sandbox.layers import mix

_STEPS: Final = (1, 2, 2.5, 5, 10)
_GRID_LINES: Final = 4
_RING_HOLE: Final = 0.58


def scale_of(chart: Chart) -> tuple[float, float, float]:
    """The lowest and the highest value of an axis, and the step of its lines: round numbers around all values."""
    values = [point.value for point in chart.points]
    low, high = min(0.0, *values), max(0.0, *values)
    rough = (high - low or 1.0) / _GRID_LINES
    power = 10 ** math.floor(math.log10(rough))
    step = next(share * power for share in _STEPS if share * power >= rough * 0.999)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step or step, step


def draw(sheet: Sheet, chart: Chart, box: Box) -> None:
    """Draw the numbers in their form."""
    match chart.form:
        case "columns":
            _columns(sheet, chart, box)
        case "bars":
            _bars(sheet, chart, box)
        case "line":
            _line(sheet, chart, box)
        case "ring":
            _ring(sheet, chart, box)


def _under(sheet: Sheet, chart: Chart) -> float:
    """Room between the lowest line and the names, where numbers stand below what they are of."""
    return 3.6 * sheet.unit if chart.form == "line" or min(point.value for point in chart.points) < 0 else 0.0


def _axis(sheet: Sheet, chart: Chart, box: Box) -> tuple[Box, float, float]:
    """Draw the lines of the values; the box that remains for the data, and the lowest and highest value."""
    low, high, step = scale_of(chart)
    look, unit = sheet.look, sheet.unit
    left, top, right, bottom = box[0], box[1] + 4 * unit, box[2], box[3] - 5.5 * unit - _under(sheet, chart)
    count = round((high - low) / step)
    labels = [chart.said(round(low + step * place, 9)) for place in range(count + 1)]
    left += max(sheet.width(label, 2.4) for label in labels) + 1.5 * unit
    for place, label in enumerate(labels):
        y = bottom - (bottom - top) * place / count
        sheet.rule(left, y, right - left, look.rule)
        sheet.text(left - 1.2 * unit, y, label, 2.4, look.quiet, anchor="rm")
    return (left, top, right, bottom), low, high


def _columns(sheet: Sheet, chart: Chart, box: Box) -> None:
    (left, top, right, bottom), low, high = _axis(sheet, chart, box)
    look, unit, count = sheet.look, sheet.unit, len(chart.points)
    room = (right - left) / count
    zero = bottom + (bottom - top) * low / (high - low)
    for place, point in enumerate(chart.points):
        middle, wide = left + room * (place + 0.5), min(room * 0.62, 16 * unit)
        tip = bottom - (bottom - top) * (point.value - low) / (high - low)
        sheet.card((middle - wide / 2, min(tip, zero), middle + wide / 2, max(tip, zero)), look.colour(place))
        said = chart.said(point.value)
        above = point.value >= 0
        sheet.text(
            middle,
            tip + (-0.8 if above else 0.8) * unit,
            said,
            sheet.size_of(said, 2.8, room),
            look.ink,
            anchor="mb" if above else "mt",
            bold=True,
        )
        sheet.text(
            middle,
            bottom + _under(sheet, chart) + 1.4 * unit,
            sheet.fitted(point.label, 2.5, room * 0.96),
            2.5,
            look.ink,
            anchor="mt",
        )
    sheet.rule(left, zero, right - left, look.quiet)


def _bars(sheet: Sheet, chart: Chart, box: Box) -> None:
    low, high, _ = scale_of(chart)
    look, unit, count = sheet.look, sheet.unit, len(chart.points)
    left, top, right, bottom = box
    room = min((bottom - top) / count, 13 * unit)
    top += ((bottom - top) - room * count) / 2
    said = [chart.said(point.value) for point in chart.points]
    right -= max(sheet.width(one, 2.8) for one in said) + 2 * unit
    zero = left - (right - left) * low / (high - low)
    for place, point in enumerate(chart.points):
        y = top + room * place
        sheet.text(left, y + room * 0.12, sheet.fitted(point.label, 2.5, right - left), 2.5, look.ink)
        end = left + (right - left) * (point.value - low) / (high - low)
        bar_top, bar_bottom = y + room * 0.12 + 3.2 * unit, y + room * 0.86
        bar_bottom = max(bar_bottom, bar_top + unit)
        sheet.card((left, bar_top, right, bar_bottom), mix(look.rule, look.ground, 0.4))
        sheet.card((min(zero, end), bar_top, max(zero, end), bar_bottom), look.colour(place))
        sheet.text(
            right + 1.2 * unit, (bar_top + bar_bottom) / 2, said[place], 2.8, look.ink, anchor="lm", bold=True
        )


def _line(sheet: Sheet, chart: Chart, box: Box) -> None:
    (left, top, right, bottom), low, high = _axis(sheet, chart, box)
    look, unit, count = sheet.look, sheet.unit, len(chart.points)
    room = (right - left) / count
    places = [
        (left + room * (place + 0.5), bottom - (bottom - top) * (point.value - low) / (high - low))
        for place, point in enumerate(chart.points)
    ]
    zero = bottom + (bottom - top) * low / (high - low)
    _shade(sheet, [*places, (places[-1][0], zero), (places[0][0], zero)])
    sheet.pen.line(places, look.colour(0), max(2, round(0.7 * unit)), joint="curve")
    for place, ((x, y), point) in enumerate(zip(places, chart.points, strict=True)):
        size = 1.1 * unit
        sheet.pen.ellipse(
            (x - size, y - size, x + size, y + size), look.ground, look.colour(0), max(2, round(0.5 * unit))
        )
        rising = place == 0 or point.value >= chart.points[place - 1].value
        said = chart.said(point.value)
        sheet.text(
            x,
            y + (-1.9 if rising else 1.9) * unit,
            said,
            sheet.size_of(said, 2.6, room),
            look.ink,
            anchor="mb" if rising else "mt",
            bold=True,
        )
        sheet.text(
            x,
            bottom + _under(sheet, chart) + 1.4 * unit,
            sheet.fitted(point.label, 2.5, room * 0.96),
            2.5,
            look.ink,
            anchor="mt",
        )


def _shade(sheet: Sheet, corners: list[tuple[float, float]]) -> None:
    mask = Image.new("L", sheet.image.size)
    ImageDraw.Draw(mask).polygon(corners, fill=56)
    sheet.image.paste(sheet.look.colour(0), (0, 0), mask)


def _ring(sheet: Sheet, chart: Chart, box: Box) -> None:
    look, unit = sheet.look, sheet.unit
    left, top, right, bottom = box
    radius = min(right - left, bottom - top) * 0.47
    x, y = (left + right) / 2, (top + bottom) / 2
    total = sum(point.value for point in chart.points)
    angle = -90.0
    for place, point in enumerate(chart.points):
        sweep = 360 * point.value / total
        circle = (x - radius, y - radius, x + radius, y + radius)
        sheet.pen.pieslice(
            circle, angle, angle + sweep, look.colour(place), look.ground, max(2, round(0.6 * unit))
        )
        if sweep > 16:
            middle = math.radians(angle + sweep / 2)
            far = radius * (1 + _RING_HOLE) / 2
            said = chart.said(point.value) if chart.after == "%" else f"{point.value / total:.0%}"
            ink = _readable_on(look.colour(place))
            sheet.text(
                x + far * math.cos(middle), y + far * math.sin(middle), said, 3, ink, anchor="mm", bold=True
            )
        angle += sweep
    hole = radius * _RING_HOLE
    sheet.pen.ellipse((x - hole, y - hole, x + hole, y + hole), look.ground)
    said = chart.said(round(total, 9))
    sheet.text(x, y - 1 * unit, said, sheet.size_of(said, 6, hole * 1.6), look.ink, anchor="mm", bold=True)
    sheet.text(x, y + 4 * unit, "in all", 2.6, look.quiet, anchor="mm")


def _readable_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 150
    return (20, 24, 32) if light else (255, 255, 255)
