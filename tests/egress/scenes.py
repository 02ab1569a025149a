"""What the evil server answers: well-formed answers for contrast, and every way to be ill-formed."""

from __future__ import annotations

import asyncio
import gzip
import struct
import zlib
from collections.abc import AsyncIterator, Callable

BODY = b"picture" * 100
OK = b"HTTP/1.1 200 OK\r\n"
MEBIBYTE = bytes(1 << 20)
# Deflated, of no name and no time (RFC 1952).
_GZIP_HEAD = b"\x1f\x8b\x08" + bytes(6) + b"\xff"


def answer(body: bytes = BODY, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    """A whole answer, framed by its length."""
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(*locations: str, status: int = 302, more: str = "X-More: none") -> bytes:
    """A redirect with so many Location headers."""
    headers = [f"Location: {location}" for location in locations]
    return answer(b"moved", *headers, more, status=f"{status} Moved")


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def raw(head: bytes, body: bytes = BODY) -> bytes:
    """Exactly these header lines and this body."""
    return OK + head + b"\r\n\r\n" + body


Playing = Callable[[], AsyncIterator[bytes]]


def slowly(content: bytes, pause_s: float = 0.02) -> Playing:
    """A byte at a time."""

    async def play() -> AsyncIterator[bytes]:
        for byte in content:
            yield bytes([byte])
            await asyncio.sleep(pause_s)

    return play


def then_silence(content: bytes) -> Playing:
    """So much, and then nothing, with the connection kept open."""

    async def play() -> AsyncIterator[bytes]:
        yield content
        await asyncio.sleep(60)

    return play


def late(content: bytes, pause_s: float) -> Playing:
    """After a pause, all of it."""

    async def play() -> AsyncIterator[bytes]:
        await asyncio.sleep(pause_s)
        yield content

    return play


def endless(head: bytes, piece: bytes) -> Playing:
    """The head once, and the piece for as long as somebody takes it."""

    async def play() -> AsyncIterator[bytes]:
        yield head
        while True:
            yield piece

    return play


def bomb(mebibytes: int = 64) -> bytes:
    """So much of nothing, compressed a thousandfold. One block, again and again: to compress each takes seconds."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(MEBIBYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(mebibytes):
        checksum = zlib.crc32(MEBIBYTE, checksum)
    trailer = struct.pack("<LL", checksum, mebibytes * len(MEBIBYTE))
    return _GZIP_HEAD + block * mebibytes + packer.flush() + trailer


GZIPPED = gzip.compress(BODY)
