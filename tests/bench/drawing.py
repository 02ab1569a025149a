"""Charts as SVG, light enough to be read as a difference between two commits."""

from __future__ import annotations

from html import escape
from typing import Final

from tests.bench.findings import Chart, Line, shown

_WIDTH: Final = 640
_BAR: Final = 22
_GAP: Final = 10
_NAMES: Final = 230
_TOP: Final = 40
_PLOT: Final = (60, 48, 560, 200)
# Readable on white and on a dark page alike.
_INK: Final = "#7a7f87"
_OURS: Final = "#3b82c4"


def drawn(chart: Chart | Line) -> str:
    """The file's text."""
    return _bars(chart) if isinstance(chart, Chart) else _line(chart)


def _bars(chart: Chart) -> str:
    longest = max((value for _, value in chart.bars), default=1.0) or 1.0
    parts = []
    for number, (name, value) in enumerate(chart.bars):
        top = _TOP + number * (_BAR + _GAP)
        width = round((_WIDTH - _NAMES - 110) * value / longest, 1)
        parts += [
            _text(_NAMES - 8, top + 16, name, "end"),
            f'<rect x="{_NAMES}" y="{top}" width="{width}" height="{_BAR}" fill="{_OURS}"/>',
            _text(_NAMES + width + 6, top + 16, f"{shown(value)} {chart.unit}"),
        ]
    return _page(chart.title, _TOP + len(chart.bars) * (_BAR + _GAP), parts)


def _line(line: Line) -> str:
    left, top, width, height = _PLOT
    across = max((x for x, _ in line.points), default=1.0) or 1.0
    highest = 1.1 * max((y for _, y in line.points), default=1.0) or 1.0
    dots = " ".join(
        f"{left + width * x / across:.1f},{top + height * (1 - y / highest):.1f}" for x, y in line.points
    )
    bottom = top + height
    parts = [
        f'<path d="M{left} {top}V{bottom}H{left + width}" fill="none" stroke="{_INK}"/>',
        f'<polyline points="{dots}" fill="none" stroke="{_OURS}" stroke-width="2"/>',
        _text(left - 6, bottom, "0", "end"),
        _text(left - 6, top + 10, shown(highest), "end"),
        _text(left, bottom + 18, "0"),
        _text(left + width, bottom + 18, f"{shown(across)} {line.across}", "end"),
        _text(left + 6, top + 10, line.unit),
    ]
    return _page(line.title, bottom + 30, parts)


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{_INK}">{escape(words)}</text>'


def _page(title: str, height: int, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="13" role="img">'
    )
    return "\n".join([head, f"<title>{escape(title)}</title>", _text(8, 20, title), *parts, "</svg>", ""])
