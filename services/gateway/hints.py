"""Takes in what upstream services send by themselves, and passes it on. Under no contract, and telling nobody anything.

Whoever knows such an address is told 204 whatever becomes of it: a hint is never more than a reason to ask, so that
nothing is lost where it is.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import Counter as Metric

from services.chassis.errors import Kind, ServiceError
from services.gateway import errors
from services.gateway.client_address import Address, ClientAddresses

log = logging.getLogger(__name__)

PATH: Final = "/hints/{token}"

BODY_LIMIT_BYTES: Final = 1024 * 1024
# From the first byte of the body to the last.
_BODY_WITHIN_S: Final = 10.0
# Some senders give up after five seconds, and send again what was taken already.
_PASS_ON_WITHIN_S: Final = 3.0
# At most 64 MiB of bodies; a sender that finds no place sends again.
_AT_ONCE: Final = 64
_AT_ONCE_FROM_ONE: Final = 32
_HEADERS_LIMIT: Final = 64
_HEADERS_LIMIT_CHARACTERS: Final = 32_768
# What the other side makes is longer than a hundred characters, and shorter than a thousand.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{100,600}")
# Nobody signs with these, and they may be a stranger's.
_NOT_PASSED_ON: Final = frozenset({"cookie", "host", "connection", "content-length", "transfer-encoding"})

_HINTS = Metric(
    "atelier_gateway_hints_total", "Hints of upstream services, by what became of them.", ["outcome"]
)

TakesHint = Callable[[str, Mapping[str, str], bytes, float], Awaitable[None]]
"""Passes on a token, headers, a body, within so many seconds. Raises ServiceError."""


class Hints:
    """The one route. `take`: who is told."""

    def __init__(self, take: TakesHint, addresses: ClientAddresses) -> None:
        self._take = take
        self._addresses = addresses
        self._under_way = 0
        self._by_address: Counter[Address] = Counter()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """204 for whatever might be an address that was given out. Raises NO_SUCH_PATH for all else, and OVERLOADED."""
        token = request.match_info["token"]
        if not _TOKEN.fullmatch(token):
            raise errors.no_such_path()
        address = self._addresses.of(request)
        if self._under_way >= _AT_ONCE or self._by_address[address] >= _AT_ONCE_FROM_ONE:
            _HINTS.labels("no_place").inc()
            raise errors.overloaded()
        self._under_way += 1
        self._by_address[address] += 1
        try:
            status = await self._served(request, token)
        finally:
            self._under_way -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
        return web.Response(status=status, headers={"Cache-Control": "no-store"})

    async def _served(self, request: web.Request, token: str) -> int:
        try:
            async with asyncio.timeout(_BODY_WITHIN_S):
                body = await _body(request)
        except TimeoutError:
            _HINTS.labels("slow").inc()
            return 408
        except (web.RequestPayloadError, ClientPayloadError, HttpProcessingError, OSError):
            _HINTS.labels("broken").inc()
            return 400
        if body is None:
            _HINTS.labels("large").inc()
            return 413
        await self._pass_on(token, _headers(request), body)
        return 204

    async def _pass_on(self, token: str, headers: Mapping[str, str], body: bytes) -> None:
        try:
            await self._take(token, headers, body, _PASS_ON_WITHIN_S)
        except ServiceError as error:
            # A refusal is not told: what is behind an address is nobody's business who has not sealed it.
            if error.kind is not Kind.NOT_FOUND:
                log.info("hint.not_passed_on", extra={"reason": error.reason})
            _HINTS.labels("unknown" if error.kind is Kind.NOT_FOUND else "lost").inc()
        else:
            _HINTS.labels("passed_on").inc()


async def _body(request: web.Request) -> bytes | None:
    """The whole body; None if it is too large."""
    if request.content_length is not None and request.content_length > BODY_LIMIT_BYTES:
        return None
    read = bytearray()
    async for piece in request.content.iter_any():
        read += piece
        if len(read) > BODY_LIMIT_BYTES:
            return None
    return bytes(read)


def _headers(request: web.Request) -> dict[str, str]:
    """By lower-case names, of one that came twice the first; less what is too much."""
    passed: dict[str, str] = {}
    characters = 0
    for name, value in request.headers.items():
        lower = name.lower()
        characters += len(lower) + len(value)
        if len(passed) >= _HEADERS_LIMIT or characters > _HEADERS_LIMIT_CHARACTERS:
            break
        if lower not in _NOT_PASSED_ON and lower not in passed:
            passed[lower] = value.encode("utf-8", "replace").decode()
    return passed
