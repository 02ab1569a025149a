"""What a measurement hands back: rows against their targets, and the words and tables beneath them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One measured number, and what it is asked to be.

    slices: the number of every alternated round, in the order of measuring; `measured` is their median.
    at_least: whether the target is a floor or a ceiling. target None: shown, and asked of nobody.
    """

    what: str
    measured: float
    unit: str = ""
    target: float | None = None
    at_least: bool = True
    slices: tuple[float, ...] = ()

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.measured >= self.target if self.at_least else self.measured <= self.target

    def row(self) -> str:
        asked, verdict = "–", ""
        if self.target is not None:
            asked = f"{'≥' if self.at_least else '≤'} {shown(self.target)} {self.unit}".rstrip()
            verdict = "yes" if self.met else "**no**"
        spread = f"{shown(min(self.slices))} … {shown(max(self.slices))}" if len(self.slices) > 1 else "–"
        return (
            f"| {self.what} | {shown(self.measured)} {self.unit}".rstrip()
            + f" | {spread} | {asked} | {verdict} |"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "measured": self.measured,
            "unit": self.unit,
            "target": self.target,
            "at_least": self.at_least,
            "met": self.met,
            "slices": list(self.slices),
        }


@dataclass(frozen=True)
class Chart:
    """Bars of one unit, drawn into `name`.svg beside the page."""

    name: str
    title: str
    unit: str
    bars: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Line:
    """A number over time, drawn into `name`.svg beside the page."""

    name: str
    title: str
    across: str
    unit: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Section:
    """One measurement of the page: its rows, and in `text` what was running and what else was seen."""

    title: str
    findings: tuple[Finding, ...] = ()
    text: str = ""
    charts: tuple[Chart | Line, ...] = ()

    def markdown(self) -> str:
        parts = [f"### {self.title}"]
        if self.findings:
            parts.append(table(self.findings))
        parts += [f"![{chart.title}](performance/{chart.name}.svg)" for chart in self.charts]
        if self.text:
            parts.append(self.text.strip())
        return "\n\n".join(parts)


def of_slices(
    what: str, slices: Sequence[float], unit: str = "", *, target: float | None = None, at_least: bool = True
) -> Finding:
    """The median of alternated rounds, against a target."""
    return Finding(what, statistics.median(slices), unit, target, at_least, tuple(slices))


def table(findings: Sequence[Finding]) -> str:
    lines = ["| what | median | lowest … highest | target | met |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(finding.row() for finding in findings)])


def shown(number: float) -> str:
    """Three figures that count, and thousands apart."""
    size = abs(number)
    if size >= 100:
        return f"{number:,.0f}"
    if size >= 10:
        return f"{number:.1f}"
    return f"{number:.2f}" if size >= 1 else f"{number:.3f}"
