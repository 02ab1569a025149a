"""What a chart shows: the numbers found in a prompt with what they are of, or else a plausible outline."""

from __future__ import annotations

import hashlib
import math
import random
import re
from dataclasses import dataclass
from typing import Final, Literal

from services.provider_pool.adapters.sandbox.caption import readable
from services.provider_pool.adapters.sandbox.chart_reading import (
    Figure,
    bare_figures,
    figures,
    first_part,
    in_one_unit,
    is_bare,
    plain,
)

Form = Literal["columns", "bars", "line", "ring"]


@dataclass(frozen=True, slots=True)
class Point:
    """One number and what it is of."""

    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Chart:
    """`found`: the numbers are the prompt's own, but for so many that did not fit. `before` and `after` stand around
    every number: "$", "%".
    """

    title: str
    points: tuple[Point, ...]
    form: Form
    before: str = ""
    after: str = ""
    found: bool = True
    left_out: int = 0

    @property
    def of_times(self) -> bool:
        """Whether the numbers follow each other in time."""
        return _are_times(list(self.points))

    def said(self, value: float) -> str:
        """A number as it is written in the chart: two places, and of a small one the first two that are not 0."""
        size = abs(value)
        places = 2 if size >= 0.1 or not size else min(_PLACES_MAX, 1 - math.floor(math.log10(size)))
        if all(point.value in _YEARS for point in self.points) and value in _YEARS:
            return f"{value:.0f}"
        whole = f"{size:,.0f}" if value == round(value) else f"{size:,.{places}f}".rstrip("0").rstrip(".")
        return f"{'-' if value < 0 else ''}{self.before}{whole}{self.after}"


POINTS_MAX: Final = 12
_PLACES_MAX: Final = 9
# Numbers that are all among these are years, which have no comma.
_YEARS: Final = range(1900, 2100)
_LABEL_MAX: Final = 28
# A title may name so many.
_NAMES_MAX: Final = 4
_TITLE_MAX: Final = 90
# Nothing that is said later fits into a chart.
_READ_MAX: Final = 4_000
_MARKER: Final = re.compile(r"\[sandbox:[^\]]*\]")
_TIME: Final = re.compile(
    r"(?:19|20)\d\d|q[1-4]|h[12]|jan\w*|feb\w*|mar\w*|apr\w*|may|june?|july?|aug\w*|sept?\w*|oct\w*|nov\w*|dec\w*"
    r"|mon\w*|tue\w*|wed\w*|thu\w*|fri\w*|sat\w*|sun\w*|(?:week|day|month|year)\s?\d+",
)
_NUMBERS: Final = re.compile(r"^[\W\d]+$")
_BEFORE_NUMBER: Final = re.compile(r"[^\d$€£¥+-]*\s")
_YEAR: Final = re.compile(r"\b(?:19|20)\d\d\b")
_IN: Final = re.compile(r"in\s", re.IGNORECASE)
_ASKED: Final = (
    (re.compile(r"\b(?:bar|column) (?:chart|graph|diagram)"), "columns"),
    (re.compile(r"\b(?:pie|ring|donut|doughnut|share|shares)\b"), "ring"),
    (re.compile(r"\b(?:line|curve|trend|growth|over time|timeline)\b"), "line"),
    (re.compile(r"\b(?:horizontal|ranking|ranked|top)\b"), "bars"),
    (re.compile(r"\b(?:bars?|columns?)\b"), "columns"),
)
_FILLERS: Final = re.compile(
    r"^(?:please\s+)?(?:(?:make|create|draw|show|design|generate|give|build)\s+(?:me\s+|us\s+)?)?(?:an?\s+|the\s+)?"
    r"(?:\w+\s+)?(?:infographic|chart|graph|diagram|poster|comparison)\s*(?:about|of|on|for|showing|comparing|with|that shows)?\s*",
    re.IGNORECASE,
)
_TRAILING: Final = re.compile(
    r"[\s:;,.–-]+$|\b(?:with|of|in|for|by|showing|are|is|was|were)\s*$", re.IGNORECASE
)
# What could be said about nearly anything, where a prompt names no numbers.
_OUTLINES: Final = (
    ("Awareness", "Interest", "Trial", "Regular use", "Recommendation"),
    ("Planning", "Materials", "Work", "Testing", "Care"),
    ("2021", "2022", "2023", "2024", "2025", "2026"),
    ("Quality", "Price", "Speed", "Support", "Design"),
    ("North", "East", "South", "West", "Online"),
)


def chart_of(prompt: str, seed: int) -> Chart:
    """The chart that a prompt asks for; the same for the same prompt and seed."""
    listed = plain(_MARKER.sub(" ", prompt[:_READ_MAX]))
    said = " ".join(listed.replace("\n", " ; ").split())
    found = _found(said)
    return found if found is not None else _outline(said, seed)


def _found(said: str) -> Chart | None:
    head, colon, rest = said.partition(":")
    # "Sales: Q1 20, …" has a title; "Q1: 20, Q2: 35" has none.
    named = not (is_bare(first_part(rest)) and ":" in rest)
    titled = bool(colon) and named and len(figures(rest)) >= max(2, len(figures(said)))
    read = figures(rest if titled else said)
    if len(read) < 2:
        return _counted(head if colon else "", rest if colon else said, said)
    read = in_one_unit(read)
    title = _tidy_title(head) if titled else ""
    labels, lead = ([figure.label for figure in read], "") if title else _labelled(read)
    first = first_part(said)
    return _chart(said, read, labels, title or _tidy_title(lead or _opening(first, labels[0])))


def _opening(first: str, label: str) -> str:
    """What a first part begins with, where that is not its label."""
    if not figures(first):
        return first
    before = _BEFORE_NUMBER.match(first)
    said = before[0] if before is not None else ""
    return "" if label.casefold() in said.casefold() or not _TIME.fullmatch(label.casefold()) else said


def _counted(head: str, rest: str, said: str) -> Chart | None:
    """Numbers of nothing in particular are shown in their order."""
    lead, bare = bare_figures(rest)
    if len(bare) < 2:
        return None
    named = [
        figure if figure.label and not lead else figure._replace(label=str(place))
        for place, figure in enumerate(bare, 1)
    ]
    read = in_one_unit(named)
    # Their places are no name of the whole.
    title = _tidy_title(head) or _tidy_title(lead) or _tidy_title(_NUMBERS.sub("", said)) or "Overview"
    return _chart(said, read, [figure.label for figure in read], title)


def _chart(said: str, read: list[Figure], labels: list[str], title: str) -> Chart:
    names = _told_apart([_shortened(readable(label).strip(" :=-"), _LABEL_MAX) for label in _years(labels)])
    points = [Point(name, figure.value) for name, figure in zip(names, read, strict=True)]
    before = read[0].before
    after = readable(read[0].after) if read[0].after.strip() else ""
    # A unit that is a word keeps its distance.
    after = f" {after}" if read[0].after.startswith(" ") else after
    shown = points[:POINTS_MAX]
    return Chart(
        title or _named_after(shown),
        tuple(shown),
        _form(said, shown, after),
        before,
        after,
        left_out=len(points) - len(shown),
    )


def _years(labels: list[str]) -> list[str]:
    """Where sentences differ in a year, the year says which is which."""
    years = [_YEAR.findall(label) for label in labels]
    alone = all(len(found) == 1 for found in years) and len({found[0] for found in years}) == len(labels)
    # "Profit 2021" names something of its own; "in 2021 we sold" does not.
    wordy = all(len(label.split()) > 2 or _IN.match(label) for label in labels)
    return [found[0] for found in years] if alone and wordy else labels


def _told_apart(labels: list[str]) -> list[str]:
    """Letters that cannot be drawn look all alike; then their place tells them apart."""
    if len(set(labels)) == len(labels) or not any("[" in label for label in labels):
        return labels
    return [f"{label} {place}" if labels.count(label) > 1 else label for place, label in enumerate(labels, 1)]


def _labelled(read: list[Figure]) -> tuple[list[str], str]:
    """Labels, and what stands before the first: it is the title, because the others have nothing there."""
    words = [figure.label.split() for figure in read]
    usual = max((len(label) for label in words[1:]), default=1)
    lead, first = words[0][:-usual], words[0][-usual:]
    return [" ".join(first), *(" ".join(label) for label in words[1:])], " ".join(lead)


def _named_after(points: list[Point]) -> str:
    labels = [point.label for point in points]
    if _are_times(points):
        return f"{labels[0]} to {labels[-1]}"
    if len(labels) > _NAMES_MAX:
        return _tidy_title(f"{', '.join(labels[: _NAMES_MAX - 1])} and others")
    return _tidy_title(", ".join(labels[:-1]) + f" and {labels[-1]}")


def _are_times(points: list[Point]) -> bool:
    return all(_TIME.fullmatch(point.label.casefold()) for point in points)


def _form(said: str, points: list[Point], after: str) -> Form:
    lowered = said.casefold()
    total = sum(point.value for point in points)
    whole = min(point.value for point in points) > 0
    for pattern, form in _ASKED:
        if pattern.search(lowered) and (form != "ring" or whole):
            return form  # type: ignore[return-value]
    timely = _are_times(points)
    if whole and not timely and after == "%" and 95 <= total <= 105:
        return "ring"
    if timely and len(points) >= 5:
        return "line"
    longest = max(len(point.label) for point in points)
    return "bars" if not timely and (longest > 12 or len(points) > 7) else "columns"


def _outline(said: str, seed: int) -> Chart:
    digest = hashlib.sha256(f"chart\n{seed}\n{said}".encode("utf-8", "surrogatepass")).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    labels = rng.choice(_OUTLINES)
    base, rise = rng.uniform(18, 40), rng.uniform(0.02, 0.22)
    values = [
        max(3, round(base * (1 + rise * place) * rng.uniform(0.8, 1.25))) for place in range(len(labels))
    ]
    points = [Point(label, float(value)) for label, value in zip(labels, values, strict=True)]
    return Chart(_tidy_title(said) or "Overview", tuple(points), _form(said, points, ""), found=False)


def _tidy_title(said: str) -> str:
    title = _TRAILING.sub("", _FILLERS.sub("", readable(said).strip(" :;,.-")).strip()).strip(" :;,.-")
    title = _shortened(title, _TITLE_MAX)
    return title[:1].upper() + title[1:]


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return text[: most - 3].rsplit(" ", 1)[0].rstrip(" ,;:-") + "..."
