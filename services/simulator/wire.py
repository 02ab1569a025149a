"""Faults of the wire: sockets that are really cut, bodies that really stop, bytes that really drip."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from services.simulator.faults import Fault, Hit

# A dripping answer comes in so many pieces, over so long unless the fault says otherwise.
_DRIPS: Final = 40
_DRIPPING_S: Final = 20.0
_HTML_ERROR: Final = """<!DOCTYPE html>
<html><head><title>502 Bad Gateway</title></head>
<body><center><h1>502 Bad Gateway</h1></center><hr><center>nginx</center></body></html>
"""


class Cut(Exception):
    """The connection is gone: nothing can be answered any more."""


def abort(request: web.Request) -> Cut:
    """Resets the connection, as a crashed proxy does."""
    if request.transport is not None:
        socket_of = request.transport.get_extra_info("socket")
        if socket_of is not None:
            # A connection that does not linger is reset, not closed.
            socket_of.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return Cut()


def hang_up(request: web.Request) -> Cut:
    """Closes the connection without a word."""
    if request.transport is not None:
        request.transport.close()
    return Cut()


def html_error() -> web.Response:
    """What stands before a provider says when the provider does not answer it."""
    return web.Response(status=502, text=_HTML_ERROR, content_type="text/html")


async def deliver(request: web.Request, answer: web.Response, hits: Sequence[Hit]) -> web.StreamResponse:
    """Sends `answer`, or what the faults leave of it. Raises Cut."""
    by_fault = {hit.fault: hit for hit in hits}
    if Fault.ANSWER_LOST in by_fault:
        raise hang_up(request)
    if Fault.TRUNCATED in by_fault:
        await _send_half(request, answer)
        raise hang_up(request)
    if drip := by_fault.get(Fault.SLOW_DRIP):
        return await _drip(request, answer, drip.value or _DRIPPING_S)
    return answer


def _body(answer: web.Response) -> bytes:
    return bytes(answer.body) if isinstance(answer.body, bytes | bytearray) else b""


async def _begun(request: web.Request, answer: web.Response) -> tuple[web.StreamResponse, bytes]:
    body = _body(answer)
    stream = web.StreamResponse(status=answer.status, headers=answer.headers)
    stream.content_length = len(body)
    await stream.prepare(request)
    return stream, body


async def _send_half(request: web.Request, answer: web.Response) -> None:
    stream, body = await _begun(request, answer)
    await stream.write(body[: len(body) // 2])


async def _drip(request: web.Request, answer: web.Response, seconds: float) -> web.StreamResponse:
    stream, body = await _begun(request, answer)
    size = max(1, -(-len(body) // _DRIPS))
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    for piece in pieces:
        await asyncio.sleep(seconds / len(pieces))
        await stream.write(piece)
    await stream.write_eof()
    return stream
