"""A whole answer, read within a bound that counts what it unpacks to."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from services.chassis.egress_failures import EgressFailed, failure_of

# Of zlib: gzip's frame and its own, whichever it finds.
_ANY_FRAME: Final = 47
_PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of any status. Names of headers are lower-case; of several with one name the last counts."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


async def whole_answer(response: aiohttp.ClientResponse, limit_bytes: int) -> Answer:
    """Raises EgressFailed: `too_large`, `encoding`, or why its end did not come."""
    body = _Body(_encoding(response), limit_bytes)
    while chunk := await _next(response):
        body.add(chunk)
    headers = {name.lower(): text for name, text in response.headers.items()}
    return Answer(response.status, headers, body.whole())


async def _next(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.content.readany()
    except Exception as error:  # aiohttp's carry the request, and must not leave
        failure = failure_of(error)
    raise failure


def _encoding(response: aiohttp.ClientResponse) -> str:
    """Nobody is asked to pack anything, and some do all the same. Raises EgressFailed for what is not known here."""
    named = [
        word.strip().lower()
        for line in response.headers.getall("Content-Encoding", [])
        for word in line.split(",")
    ]
    named = [word for word in named if word not in ("", "identity")]
    if len(named) > 1 or not _PACKED.issuperset(named):
        raise EgressFailed("encoding")
    return named[0] if named else ""


class _Body:
    def __init__(self, encoding: str, limit_bytes: int) -> None:
        self._unpacker = zlib.decompressobj(_ANY_FRAME) if encoding else None
        self._limit_bytes = limit_bytes
        self._content = bytearray()

    def add(self, chunk: bytes) -> None:
        self._content += chunk if self._unpacker is None else self._unpacked(self._unpacker, chunk)
        if len(self._content) > self._limit_bytes:
            raise EgressFailed("too_large")

    def whole(self) -> bytes:
        if self._unpacker is not None and not self._unpacker.eof:
            raise EgressFailed("framing")
        return bytes(self._content)

    def _unpacked(self, unpacker: zlib._Decompress, chunk: bytes) -> bytes:
        # One byte more than there is room for tells that there was more, and no more is ever unpacked.
        room_bytes = self._limit_bytes - len(self._content) + 1
        try:
            return unpacker.decompress(chunk, room_bytes)
        except zlib.error:
            failure = EgressFailed("framing")
        raise failure
