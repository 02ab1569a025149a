"""The small part of XML in which stores of objects answer: elements and their text. Nothing is declared, nothing expands."""

from __future__ import annotations

from typing import Final
from xml.parsers import expat

_DEPTH_LIMIT: Final = 16
"""Levels; what is listed has three."""


class NotXml(Exception):
    """Not well formed, nested without end, or with declarations that nobody needs."""


def leaves(document: bytes) -> list[tuple[str, str]]:
    """Every element, in order of its end, as its path without namespaces and its own text: ("List/Contents/Key", "a").

    How large `document` may be is for its reader to bound. Raises NotXml.
    """
    path: list[str] = []
    texts: list[list[str]] = []
    found: list[tuple[str, str]] = []

    def begin(name: str, _: dict[str, str]) -> None:
        if len(path) >= _DEPTH_LIMIT:
            raise NotXml
        path.append(name.rpartition(":")[2])
        texts.append([])

    def text(words: str) -> None:
        if texts:
            texts[-1].append(words)

    def end(_: str) -> None:
        found.append(("/".join(path), "".join(texts.pop())))
        path.pop()

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, text
    # Entities are declared in there, and nowhere else.
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, ValueError):
        raise NotXml from None
    return found


def _refuse(*_: object) -> None:
    raise NotXml
