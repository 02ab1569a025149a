"""What a chart shows: the numbers found in a prompt with what they are of, or else a plausible outline."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from typing import Final, Literal

from services.provider_pool.adapters.sandbox.caption import readable

Form = Literal["columns", "bars", "line", "ring"]


@dataclass(frozen=True, slots=True)
class Point:
    """One number and what it is of."""

    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Chart:
    """`found`: the numbers are the prompt's own. `before` and `after` stand around every number: "$", "%"."""

    title: str
    points: tuple[Point, ...]
    form: Form
    before: str = ""
    after: str = ""
    found: bool = True

    def said(self, value: float) -> str:
        """A number as it is written in the chart."""
        whole = f"{value:,.0f}" if value == round(value) else f"{value:,.2f}".rstrip("0").rstrip(".")
        return f"{self.before}{whole}{self.after}"


POINTS_MAX: Final = 12
_LABEL_MAX: Final = 28
_TITLE_MAX: Final = 90
_VALUE_MAX: Final = 1e15
# Nothing that is said later fits into a chart.
_READ_MAX: Final = 4_000
_MARKER: Final = re.compile(r"\[sandbox:[^\]]*\]")
# A comma inside a number parts nothing.
_PARTS: Final = re.compile(r",(?!\d{3}(?!\d))|;|\n|\band\b|\bversus\b|\bvs\.?(?=\s)|\.(?=\s|$)|\|")
_NUMBER: Final = r"(?P<before>[$€£¥])?\s?(?P<number>-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?)"
_LABEL_FIRST: Final = re.compile(
    rf"^(?P<label>.*[^\s:=–])(?:\s*[:=–]\s*|\s+)(?:(?:is|was|at|with|-)\s+)?{_NUMBER}(?P<after>\s?[%A-Za-z°]{{1,8}})?\W*$"
)
_NUMBER_FIRST: Final = re.compile(
    rf"^\W*{_NUMBER}(?P<after>\s?(?:%|percent\b|[kKmMbB]\b))?\s+(?:of\s+|for\s+)?(?P<label>[^\W\d][^\d]*)$"
)
_AFTER: Final = {
    "%": "%",
    "percent": "%",
    "million": "M",
    "billion": "B",
    "bn": "B",
    "m": "M",
    "b": "B",
    "k": "k",
}
_TIME: Final = re.compile(
    r"(?:19|20)\d\d|q[1-4]|h[12]|jan\w*|feb\w*|mar\w*|apr\w*|may|june?|july?|aug\w*|sept?\w*|oct\w*|nov\w*|dec\w*"
    r"|mon\w*|tue\w*|wed\w*|thu\w*|fri\w*|sat\w*|sun\w*|(?:week|day|month|year)\s?\d+",
)
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
    said = " ".join(_MARKER.sub(" ", prompt[:_READ_MAX]).replace("\n", " ; ").split())
    found = _found(said)
    return found if found is not None else _outline(said, seed)


def _found(said: str) -> Chart | None:
    head, colon, rest = said.partition(":")
    # "Sales: Q1 20, …" has a title; "Q1: 20, Q2: 35" has none.
    titled = bool(colon) and len(_read(rest)) == len(_read(said)) >= 2
    read = _read(rest if titled else said)
    if len(read) < 2:
        return None
    points, lead = _labelled(read)
    first = _PARTS.split(said)[0]
    lead = lead or ("" if _read(first) else first)
    # Signs of the first number hold for all; a chart has one unit.
    before, after = read[0][2], read[0][3]
    return Chart(
        _tidy_title(head if titled else lead) or _named_after(points),
        tuple(points[:POINTS_MAX]),
        _form(said, points, after),
        before,
        after,
    )


def _read(text: str) -> list[tuple[str, float, str, str]]:
    """(label, value, sign before, sign after) of every part that is a label with a number."""
    read = []
    for part in _PARTS.split(text):
        match = _NUMBER_FIRST.match(part.strip()) or _LABEL_FIRST.match(part.strip())
        if match is None:
            continue
        value = float(match["number"].replace(",", ""))
        if abs(value) <= _VALUE_MAX:
            after = match["after"] or ""
            after = _AFTER.get(after.strip().casefold(), after)
            read.append((match["label"].strip(), value, match["before"] or "", after))
    return read


def _labelled(read: list[tuple[str, float, str, str]]) -> tuple[list[Point], str]:
    """Points, and what stands before the first label: it is the title, because the others have nothing there."""
    words = [label.split() for label, *_ in read]
    usual = max((len(label) for label in words[1:]), default=1)
    lead, first = words[0][:-usual], words[0][-usual:]
    labels = [" ".join(first), *(" ".join(label) for label in words[1:])]
    points = [
        Point(_shortened(readable(label).strip(" :=-"), _LABEL_MAX), value)
        for label, (_, value, _, _) in zip(labels, read, strict=True)
    ]
    return points, " ".join(lead)


def _named_after(points: list[Point]) -> str:
    labels = [point.label for point in points]
    if _are_times(points):
        return f"{labels[0]} to {labels[-1]}"
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
    if whole and after == "%" and 95 <= total <= 105:
        return "ring"
    timely = _are_times(points)
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
