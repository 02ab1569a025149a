"""Images inside requests: data URLs and base64, read strictly, piece by piece."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from services.gateway.lifting import LiftedText

# About 1 ms of decoding and hashing; then others get their turn.
_STEP_BYTES: Final = 128 * 1024
# A media type with some parameters; browsers write thirty characters.
_HEADER_LIMIT: Final = 256

_DATA_URL: Final = re.compile(r"data:(?P<type>[^;,]*)(?P<parameters>(?:;[^;,]*)*),", re.IGNORECASE)
_IMAGE_TYPE: Final = re.compile(r"image/[a-z0-9!#$&^_.+-]{1,100}", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"[a-z0-9!#$&^_.+-]+=[!-~]*", re.IGNORECASE)
# An escape that goes on in the next piece.
_CUT_ESCAPE: Final = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_LONGEST_ESCAPE: Final = 6


class NotAnImage(Exception):
    """The text is not what it should be; the message is a sentence for the customer, without its subject."""


@dataclass(slots=True)
class InlineImage:
    """What was inside, in pieces that leave as they are sent; `sha256` is of all of it."""

    pieces: deque[bytes]
    size_bytes: int
    sha256: str


def beginning(text: str | LiftedText) -> str:
    """How `text` begins, as it is meant: enough to see what it is."""
    if isinstance(text, str):
        return text[:_HEADER_LIMIT]
    head = text.head(_HEADER_LIMIT * _LONGEST_ESCAPE)
    cut = _CUT_ESCAPE.search(head, max(0, len(head) - _LONGEST_ESCAPE))
    # What is wrong with it is told when it is read in full.
    with suppress(NotAnImage):
        head = _meant(head[: cut.start()] if cut else head)
    return head.decode("ascii", "replace")[:_HEADER_LIMIT]


async def decoded(text: str | LiftedText, limit_bytes: int) -> InlineImage:
    """The image in a data URL or in base64. A lifted text is used up on the way, so that there is one copy.

    Raises NotAnImage: not base64 of the standard alphabet with its padding, a data URL of something else, or more
    than `limit_bytes`.
    """
    header = _header_of(beginning(text))
    decoder = _Base64(limit_bytes)
    digest = hashlib.sha256()
    pieces: deque[bytes] = deque()
    if isinstance(text, str) or not text.escaped:
        decoder.expect((len(text) if isinstance(text, str) else text.size_bytes) - header)
    for number, step in enumerate(_steps(text)):
        if number:
            await asyncio.sleep(0)
        piece = decoder.feed(step[header:])
        header = max(0, header - len(step))
        if piece:
            digest.update(piece)
            pieces.append(piece)
    decoder.finish()
    return InlineImage(pieces, decoder.size_bytes, digest.hexdigest())


def _header_of(head: str) -> int:
    """How many characters stand in front of the base64."""
    if head[:5].lower() != "data:":
        return 0
    match = _DATA_URL.match(head)
    if match is None:
        raise NotAnImage("is a data URL that is not of the form data:image/…;base64,…")
    *parameters, encoding = match["parameters"].split(";")[1:] or [""]
    if encoding.lower() != "base64":
        raise NotAnImage("is a data URL that is not in base64")
    if match["type"] and not _IMAGE_TYPE.fullmatch(match["type"]):
        raise NotAnImage("is a data URL of something that is not an image")
    if not all(map(_PARAMETER.fullmatch, parameters)):
        raise NotAnImage("is a data URL that is not of the form data:image/…;base64,…")
    return match.end()


def _steps(text: str | LiftedText) -> Iterator[bytes]:
    """The text as it is meant, in steps of a bounded size."""
    if isinstance(text, str):
        for start in range(0, len(text), _STEP_BYTES):
            try:
                yield text[start : start + _STEP_BYTES].encode("ascii")
            except UnicodeEncodeError:
                raise _not_base64() from None
    else:
        yield from _unescaped(_bounded(text.take()))


def _bounded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), _STEP_BYTES):
            yield piece[start : start + _STEP_BYTES]


def _unescaped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces with the escapes of JSON undone; some clients write every + or / as one."""
    begun = b""
    for piece in pieces:
        whole = begun + piece if begun else piece
        cut = _CUT_ESCAPE.search(whole, max(0, len(whole) - _LONGEST_ESCAPE))
        begun = cut[0] if cut else b""
        yield _meant(whole[: cut.start()] if cut else whole)
    if begun:
        raise _not_base64()


def _meant(escaped: bytes) -> bytes:
    if b"\\" not in escaped:
        return escaped
    try:
        return msgspec.json.decode(b'"' + escaped + b'"', type=str).encode("ascii")
    except (msgspec.DecodeError, UnicodeError):
        raise _not_base64() from None


def too_large(limit_bytes: int) -> str:
    """The sentence for more than `limit_bytes`, which is a whole number of MB."""
    return f"is larger than {limit_bytes // (1024 * 1024)} MB"


class _Base64:
    """Strict base64 over the borders of pieces: the standard alphabet, whole groups of four, padding at the end only."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._begun = b""
        self._padded = False
        self.size_bytes = 0

    def expect(self, characters: int) -> None:
        """Refuses what would be too large by its length."""
        if characters > (self._limit_bytes + 2) // 3 * 4:
            raise self._too_large()

    def feed(self, text: bytes) -> bytes:
        """The bytes of all whole groups so far that were not given yet."""
        whole = self._begun + text if self._begun else text
        cut = len(whole) & ~3
        groups, self._begun = whole[:cut], whole[cut:]
        if not groups:
            return b""
        piece = self._decoded(groups)
        self.size_bytes += len(piece)
        if self.size_bytes > self._limit_bytes:
            raise self._too_large()
        return piece

    def _decoded(self, groups: bytes) -> bytes:
        if self._padded:
            raise _not_base64()
        try:
            piece = binascii.a2b_base64(groups, strict_mode=True)
        except binascii.Error:
            raise _not_base64() from None
        self._padded = groups.endswith(b"=")
        # The library takes a group of padding only, and bits behind the last byte that are not zero.
        last = piece[len(piece) - (len(piece) % 3 or 3) :]
        if self._padded and binascii.b2a_base64(last, newline=False) != groups[-4:]:
            raise _not_base64()
        return piece

    def finish(self) -> None:
        """Refuses what is not whole, or nothing."""
        if self._begun or not self.size_bytes:
            raise _not_base64()

    def _too_large(self) -> NotAnImage:
        return NotAnImage(too_large(self._limit_bytes))


def _not_base64() -> NotAnImage:
    return NotAnImage(
        "is neither an HTTPS URL nor valid base64 (the standard alphabet, with padding, without white space)"
    )
