"""Multipart forms, in the order in which their parts stand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_BOUNDARY: Final = re.compile(r'boundary="?([^";,]+)"?', re.IGNORECASE)
_NAME: Final = re.compile(r'(?<!file)name="([^"]*)"')
_FILE_NAME: Final = re.compile(r'filename="([^"]*)"')
_PARTS_LIMIT: Final = 100


class MalformedForm(ValueError):
    """A body that is no multipart form."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field or file."""

    name: str
    file_name: str
    content_type: str
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """The parts of a form. Raises MalformedForm."""
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None:
        raise MalformedForm("the body must be multipart/form-data with a boundary")
    pieces = (b"\r\n" + body).split(b"\r\n--" + found.group(1).encode())
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise MalformedForm("the form does not end")
    if len(pieces) > _PARTS_LIMIT:
        raise MalformedForm("the form has too many parts")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, separator, content = piece.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not separator:
        raise MalformedForm("a part has no headers")
    lines = head.decode("utf-8", "replace").split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    disposition = headers.get("content-disposition", "")
    name, file_name = _NAME.search(disposition), _FILE_NAME.search(disposition)
    if name is None:
        raise MalformedForm("a part has no name")
    return Part(
        name.group(1),
        file_name.group(1) if file_name else "",
        headers.get("content-type", ""),
        content,
    )
