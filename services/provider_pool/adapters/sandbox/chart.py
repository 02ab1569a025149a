"""Draws an infographic: a title, the numbers as a chart, a legend, and what is remarkable about them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from services.provider_pool.adapters.sandbox import chart_forms
from services.provider_pool.adapters.sandbox.caption import MARK
from services.provider_pool.adapters.sandbox.chart_data import Chart, chart_of
from services.provider_pool.adapters.sandbox.chart_look import LOOKS, Box, Sheet
from services.provider_pool.adapters.sandbox.picture import write_png
from services.provider_pool.adapters.sandbox.render_order import RenderOrder

_SMOOTHING = 2
# The least height of a line of the legend, whose type is 2.5.
_LEGEND_ROW = 2.7
_USUAL_STYLE = "clean"


def draw_chart(order: RenderOrder) -> Image.Image:
    """The finished infographic of an order, exactly `width` x `height`, RGB."""
    chart = chart_of(order.prompt, order.seed)
    width, height = order.width * _SMOOTHING, order.height * _SMOOTHING
    sheet = Sheet(width, height, LOOKS[order.style or _USUAL_STYLE])
    margin = 5 * sheet.unit
    top = _head(sheet, chart, margin)
    bottom = height - _foot(sheet, margin)
    if width > height * 1.2:
        split = width - margin - max(width * 0.26, 34 * sheet.unit)
        plot: Box = (margin, top, split - 4 * sheet.unit, bottom)
        side: Box = (split, top, width - margin, bottom)
    else:
        split = bottom - (bottom - top) * 0.34
        plot, side = (
            (margin, top, width - margin, split - 3 * sheet.unit),
            (margin, split, width - margin, bottom),
        )
    chart_forms.draw(sheet, chart, plot)
    _aside(sheet, chart, side)
    return sheet.image.reduce(_SMOOTHING)


def write_chart(order: RenderOrder, path: Path) -> None:
    """Draw an order of kind infographic into a PNG file."""
    write_png(draw_chart(order), path)


def _head(sheet: Sheet, chart: Chart, margin: float) -> float:
    """The title with what the numbers are; where the rest begins."""
    look, unit, width = sheet.look, sheet.unit, sheet.image.width
    size = 6.0
    lines = sheet.lines(chart.title, size, width - 2 * margin, 2)
    if len(lines) > 1:
        size = 5.0
        lines = sheet.lines(chart.title, size, width - 2 * margin, 2)
    all_ = f" of {len(chart.points) + chart.left_out}" if chart.left_out else ""
    note = f"{len(chart.points)}{all_} figures" + ("" if chart.found else ", made up for illustration")
    tall = margin + len(lines) * size * 1.25 * unit + 5 * unit
    if look.band is not None:
        sheet.pen.rectangle((0, 0, width, tall), look.band)
    else:
        sheet.card((margin, margin * 0.62, margin + 9 * unit, margin * 0.62 + 0.9 * unit), look.colour(0))
    ink = look.band_ink if look.band is not None else look.ink
    quiet = look.band_ink if look.band is not None else look.quiet
    for row, line in enumerate(lines):
        sheet.text(margin, margin + row * size * 1.25 * unit, line, size, ink, bold=True)
    sheet.text(margin, margin + len(lines) * size * 1.25 * unit + 0.4 * unit, note, 2.7, quiet)
    return tall + 3 * unit


def _foot(sheet: Sheet, margin: float) -> float:
    width, height = sheet.image.size
    sheet.text(width - margin, height - margin * 0.45, MARK, 2, sheet.look.quiet, anchor="rs")
    return margin


def _aside(sheet: Sheet, chart: Chart, box: Box) -> None:
    """The legend, and beside or below it the remarkable numbers."""
    left, top, right, bottom = box
    unit, tall = sheet.unit, bottom - top > right - left
    if tall:
        rows = min(len(chart.points), max(2, int((bottom - top) * 0.56 / (4.2 * unit))))
        split = top + (rows * 4.2 + 6.5) * unit
        _legend(sheet, chart, (left, top, right, split))
        _facts(sheet, chart, (left, split + 2 * unit, right, bottom), upright=True)
    else:
        split = left + (right - left) * 0.5
        _legend(sheet, chart, (left, top, split - 1.5 * unit, bottom))
        _facts(sheet, chart, (split + 1.5 * unit, top, right, bottom), upright=True)


def _legend(sheet: Sheet, chart: Chart, box: Box) -> None:
    look, unit = sheet.look, sheet.unit
    left, top, right, bottom = box
    sheet.card(box, look.card)
    x, y = left + 2 * unit, top + 1.8 * unit
    sheet.text(x, y, "Legend", 2.6, look.quiet, bold=True)
    room = min(4.2 * unit, (bottom - y - 4.2 * unit) / len(chart.points))
    most = max(1, int((bottom - y - 4.2 * unit) / max(room, _LEGEND_ROW * unit)))
    for place, point in enumerate(chart.points[:most]):
        middle = y + 4 * unit + room * (place + 0.5)
        half = min(0.9 * unit, room * 0.3)
        colour = look.colour(0) if chart.form == "line" else look.colour(place)
        sheet.card((x, middle - half, x + 2 * half, middle + half), colour)
        said = chart.said(point.value)
        sheet.text(right - 2 * unit, middle, said, 2.5, look.ink, anchor="rm", bold=True)
        wide = right - 2 * unit - sheet.width(said, 2.5) - x - 4 * unit
        if wide > 4 * unit:
            sheet.text(x + 3 * unit, middle, sheet.fitted(point.label, 2.5, wide), 2.5, look.ink, anchor="lm")


def _remarkable(chart: Chart) -> list[tuple[str, str]]:
    highest = max(chart.points, key=lambda point: point.value)
    lowest = min(chart.points, key=lambda point: point.value)
    mean = sum(point.value for point in chart.points) / len(chart.points)
    digits = 0 if abs(mean) >= 100 else 1
    facts = [
        (chart.said(highest.value), f"Highest: {highest.label}"),
        (chart.said(lowest.value), f"Lowest: {lowest.label}"),
    ]
    first, last = chart.points[0].value, chart.points[-1].value
    if chart.of_times and first > 0 and last > 0:
        facts.insert(
            0, (f"{(last - first) / first:+.0%}", f"{chart.points[0].label} to {chart.points[-1].label}")
        )
    return [*facts, (chart.said(round(mean, digits)), "Average")]


def _facts(sheet: Sheet, chart: Chart, box: Box, *, upright: bool) -> None:
    look, unit = sheet.look, sheet.unit
    left, top, right, bottom = box
    gap, least = 1.6 * unit, 10 * unit
    count = min(3, max(1, int((bottom - top + gap) / (least + gap)))) if upright else 1
    tall = min((bottom - top - gap * (count - 1)) / count, 15 * unit)
    for place, (number, said) in enumerate(_remarkable(chart)[:count]):
        y = top + place * (tall + gap)
        sheet.card((left, y, right, y + tall), look.card)
        sheet.pen.rectangle((left, y + tall * 0.18, left + 0.7 * unit, y + tall * 0.82), look.colour(place))
        wide = right - left - 5 * unit
        size = sheet.size_of(number, min(5.0, tall / unit * 0.4), wide)
        sheet.text(
            left + 2.6 * unit,
            y + tall * 0.42,
            number,
            size,
            look.ink,
            anchor="lm",
            bold=True,
        )
        sheet.text(
            left + 2.6 * unit, y + tall * 0.76, sheet.fitted(said, 2.4, wide), 2.4, look.quiet, anchor="lm"
        )
