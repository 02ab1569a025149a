"""Finds the numbers of a prompt and what each is of, however numbers, lists and tables are written."""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple


class Figure(NamedTuple):
    """A number as it was found: what it is of (empty for a bare one), and the signs around it."""

    label: str
    value: float
    before: str
    after: str


_VALUE_MAX: Final = 1e15
# A comma or a full stop inside a number parts nothing.
_PARTS: Final = re.compile(r",(?!\d{3}(?!\d))|;|\n|\band\b|\bversus\b|\bvs\.?(?=\s)|\.(?=\s|$)|\|")
_NUMBER: Final = (
    r"(?P<before>[$€£¥])?\s?(?P<number>[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+))"
)
_UNIT: Final = r"(?:%|[A-Za-z°]{1,8}(?:/[A-Za-z]{1,4})?|°[A-Z])"
# What may follow a number and its unit: "€", "per day", "(1958)".
_TAIL: Final = r"(?:\s?(?P<money>[$€£¥]))?(?:\s+(?:per|an?|each)\s+\w+)?(?:\s*\([^)]*\))?"
# Scripts that put nothing between a word and its number.
_JOINED: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_LABEL_FIRST: Final = re.compile(
    rf"^(?P<label>.*[^\s:=–])(?:\s*[:=–]\s*|\s+|(?<=[{_JOINED}]))(?:(?:is|was|at|with|-)\s+)?"
    rf"{_NUMBER}(?P<after>\s?{_UNIT})?{_TAIL}[^\w%]*[{_JOINED}]*$"
)
_NUMBER_FIRST: Final = re.compile(
    rf"^[^\w$€£¥+-]*{_NUMBER}(?P<after>\s?(?:%|percent\b|[kKmMbB](?:n)?\b|(?:million|billion|thousand)\b"
    r"|°[A-Z]?|[A-Za-z]{1,4}/[A-Za-z]{1,4}))?"
    rf"\s+(?:of\s+|for\s+)?(?P<label>[^\W\d][^\d]*)$"
)
_OF_A_YEAR: Final = re.compile(
    rf"^\D*?{_NUMBER}(?P<after>\s?{_UNIT})?\s+(?:in|for|by|during)\s+"
    r"(?P<label>(?:[Qq][1-4]\s+|[A-Za-z]{3,9}\s+)?(?:19|20)\d\d)\W*$"
)
_BARE: Final = re.compile(rf"^[^\w$€£¥+-]*{_NUMBER}(?P<after>\s?{_UNIT})?{_TAIL}\W*$")
_FROM_TO: Final = re.compile(
    rf"\bfrom\s+{_NUMBER}(?P<after>\s?%)?\s+to\s+"
    r"[$€£¥]?\s?(?P<second>-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?)"
)
_SIGNS: Final = {
    "%": "%",
    "percent": "%",
    "million": "M",
    "billion": "B",
    "thousand": "k",
    "Mio": "M",
    "Mrd": "B",
    "bn": "B",
    "M": "M",
    "B": "B",
    "b": "B",
    "k": "k",
    "K": "k",
}
# The font that charts are drawn with has no other sign than the dollar's.
_CURRENCIES: Final = {"€": "EUR ", "£": "GBP ", "¥": "JPY "}
_TIMES: Final = {"k": 1e3, "M": 1e6, "B": 1e9}
_ENDINGS: Final = re.compile(
    r"(?:\s+(?:is|was|are|were|at|had|has|have|costs?|reached|made|got))+$", re.IGNORECASE
)
# "900 in January"
_BEGINNING: Final = re.compile(r"^(?:in|on)\s+(?=\w+$)", re.IGNORECASE)
_BULLET: Final = re.compile(r"^\s*(?:[-*•–]|\d{1,2}[.)])\s+(?=\D)")
_RULE: Final = re.compile(r"[\s|:-]*")

_PLAIN: Final = {
    "\u2212": "-",
    "\u00a0": " ",
    "\u202f": " ",
    "\u2009": " ",
    "、": ", ",
    "，": ", ",
    "،": ", ",
    "؛": "; ",
    "。": ". ",
    "٪": "%",
    "٫": ".",
    "٬": ",",
}
_CONTINENTAL: Final = re.compile(
    r"\d\.\d{3}\.\d{3}(?!\d)|\d\.\d{3},\d|(?<![\d,])\d{1,3}(?:[ .]\d{3})*,\d{1,2}(?=\s*(?:[;%€\n]|Mio\b|Mrd\b|$))"
    r"|(?<![\d.,])\d{1,3}(?:(?: \d{3}){2,}| 000)(?!\d)"
)
_ENGLISH: Final = re.compile(r"\d,\d{3}(?!\d)|\d\.\d{1,2}(?![\d.])")
_CONTINENTAL_NUMBER: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:[. ]\d{3})+(?:,\d+)?(?!\d)|\d+,\d{1,2}(?!\d)")


def plain(text: str) -> str:
    """The text with digits, signs and the parts of numbers as English writes them, and a table's rows as a list."""
    ascii_ = "".join(map(_plain_char, text))
    ascii_ = re.sub(r"(?<=\d)['’](?=\d{3}(?!\d))", ",", ascii_)
    ascii_ = re.sub(r"(?<![\w)])–(?=\d)", "-", ascii_)
    ascii_ = re.sub(r"(?<!\w)-([$€£¥])(?=\d)", r"\1-", ascii_)
    ascii_ = re.sub(r"\b(Mio|Mrd)\.", r"\1", ascii_)
    if _CONTINENTAL.search(ascii_) and not _ENGLISH.search(_CONTINENTAL_NUMBER.sub("", ascii_)):
        ascii_ = _CONTINENTAL_NUMBER.sub(_as_english, ascii_)
    return "\n".join(_rows([_BULLET.sub("", line) for line in ascii_.split("\n")]))


def figures(text: str) -> list[Figure]:
    """Every part of a plain text that is a label with a number."""
    found = (_figure(part.strip()) for part in _PARTS.split(text))
    return [figure for figure in found if figure is not None]


def bare_figures(text: str) -> tuple[str, list[Figure]]:
    """Numbers of nothing in particular, two or more, and what stands before the first."""
    parts = [part.strip() for part in _PARTS.split(text) if part.strip()]
    bare = [figure for part in parts if (figure := _matched(_BARE.match(part))) is not None]
    first = _figure(parts[0]) if parts else None
    if bare and first is not None and _BARE.match(parts[0]) is None:
        return first.label, [first, *bare]
    if len(bare) < 2 and (grown := _FROM_TO.search(text)) is not None:
        after = (grown["after"] or "").strip()
        ends = (("From", grown["number"]), ("To", grown["second"]))
        values = [
            Figure(name, float(said.replace(",", "")), grown["before"] or "", after) for name, said in ends
        ]
        return "", values if all(abs(each.value) <= _VALUE_MAX for each in values) else []
    return "", bare if len(bare) >= 2 else []


def is_bare(part: str) -> bool:
    """Whether this is a number with nothing but its signs."""
    return _BARE.match(part.strip()) is not None


def first_part(text: str) -> str:
    """What stands before the first comma, semicolon or end of a line."""
    return _PARTS.split(text)[0]


def in_one_unit(found: list[Figure]) -> list[Figure]:
    """The same figures with the same signs around all: thousands and millions multiplied out where they are mixed,
    other units that differ put with what the number is of.
    """
    signs_before, signs_after = {each.before for each in found}, {each.after for each in found}
    if len(signs_after) > 1 and signs_after <= {"", *_TIMES}:
        found = [each._replace(value=each.value * _TIMES.get(each.after, 1), after="") for each in found]
        signs_after = {""}
    before = _shared(signs_before)
    after = _shared(signs_after)
    mixed_before, mixed_after = before is None, after is None
    return [
        each._replace(
            label=_with_unit(each, mixed_before, mixed_after), before=before or "", after=after or ""
        )
        for each in found
    ]


def _shared(signs: set[str]) -> str | None:
    """The only sign there is, which also holds where it was left out; None where there are several."""
    given = signs - {""}
    return None if len(given) > 1 else next(iter(given), "")


def _with_unit(figure: Figure, mixed_before: bool, mixed_after: bool) -> str:
    before, after = figure.before if mixed_before else "", figure.after if mixed_after else ""
    unit = f"{before}{after.strip()}".strip()
    return f"{figure.label} ({unit})" if unit else figure.label


def _figure(part: str) -> Figure | None:
    of_a_year = _OF_A_YEAR.match(part)
    return _matched(of_a_year or _NUMBER_FIRST.match(part) or _LABEL_FIRST.match(part))


def _matched(match: re.Match[str] | None) -> Figure | None:
    if match is None:
        return None
    value = float(match["number"].replace(",", ""))
    if abs(value) > _VALUE_MAX:
        return None
    before, after = match["before"] or "", match["after"] or ""
    sign = after.strip()
    # "5 m" are metres, "$5m" are millions.
    sign_known = _SIGNS.get(sign) or _SIGNS.get(sign.casefold() if len(sign) > 1 else "")
    after = "M" if before and sign == "m" else sign_known or after
    groups = match.groupdict()
    label = _BEGINNING.sub("", _ENDINGS.sub("", groups.get("label") or "").strip())
    before = before or groups.get("money") or ""
    before = _CURRENCIES.get(before, before)
    return Figure(label, value, before, after)


def _plain_char(char: str) -> str:
    if char in _PLAIN:
        return _PLAIN[char]
    if "\uff01" <= char <= "\uff5e":
        return chr(ord(char) - 0xFEE0)
    digit = unicodedata.decimal(char, None)
    return char if digit is None else str(digit)


def _as_english(match: re.Match[str]) -> str:
    return re.sub(r"[. ]", "", match[0]).replace(",", ".")


def _rows(lines: list[str]) -> list[str]:
    """Rows of a table, in the manner of Markdown or with commas or tabs, as "first cell: number"."""
    cells = [_cells(line) for line in lines]
    spoken = [_spoken(each) for each in cells]
    if sum(row is not None for row in spoken) < 2:
        return lines
    first = next(place for place, row in enumerate(spoken) if row is not None)
    said = []
    for place, line in enumerate(lines):
        if "|" in line and _RULE.fullmatch(line):
            continue
        heads = cells[place]
        head = f"{heads[1]} by {heads[0]}" if len(heads) == 2 and place < first else line
        said.append(spoken[place] or head)
    return said


def _cells(line: str) -> list[str]:
    parts = (
        re.split(r"[|\t]", line)
        if "|" in line or "\t" in line
        else line.split(";" if ";" in line else ",", 1)
    )
    return [part.strip() for part in parts if part.strip()]


def _spoken(cells: list[str]) -> str | None:
    if len(cells) < 2 or (any(char.isdigit() for char in cells[0]) and _BARE.match(cells[0]) is None):
        return None
    number = next((cell for cell in cells[1:] if _BARE.match(cell)), None)
    return None if number is None else f"{cells[0]}: {number}"
