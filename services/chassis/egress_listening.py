"""How much of an answer is listened to: a head of bounded size, then a body that is mostly body.

aiohttp bounds a line and the number of lines. It does not bound how often a far side announces an answer (1xx)
before it gives one, nor how thinly it spreads a body over chunks: both keep the event loop busy for as long as the
fetch may take, at little cost to whoever sends them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

# Heads are 1 to 16 KiB where they are large; interim answers count too.
_HEAD_LIMIT_BYTES: Final = 64 * 1024
# Between two looks at the head. What comes in one piece is up to 256 KiB.
_PIECE_BYTES: Final = 8 * 1024
# What is not body: the head, sizes of chunks and their extensions, and what the parser has not got to, which is up
# to 256 KiB. Beyond it, chunks of less than about 40 bytes are refused.
_SLACK_BYTES: Final = 512 * 1024
_BODY_BYTES_FOR_A_FRAMING_BYTE: Final = 8


class BoundedListener(ResponseHandler):
    """aiohttp's side of one connection, hanging up on who talks without saying anything."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._answered = False
        self._heard_bytes = 0

    def close(self) -> None:
        """Drops the connection without a farewell.

        A far side that does not answer one would keep our descriptor for half a minute, long after the fetch has
        ended and given its places back.
        """
        self.abort()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Takes a parsed head, with what will be its body."""
        message, _ = data
        self._answered = self._answered or not 100 <= message.code <= 199 or message.code == 101
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Takes bytes as they come; none at all mean that the parser may go on with what it has."""
        at = 0
        while not self._answered and at < len(data):
            piece = data[at : at + _PIECE_BYTES]
            at += len(piece)
            self._heard_bytes += len(piece)
            super().data_received(piece)
            if self._is_head_too_long():
                self._hang_up()
                return
        if at < len(data) or not data:
            self._heard_bytes += len(data) - at
            super().data_received(data[at:])
        if self._payload is not None and self._is_spread_thin(self._payload.total_bytes):
            self._hang_up()

    def _is_head_too_long(self) -> bool:
        return not self._answered and self._heard_bytes >= _HEAD_LIMIT_BYTES

    def _is_spread_thin(self, body_bytes: int) -> bool:
        framing_bytes = self._heard_bytes - body_bytes
        return framing_bytes > _SLACK_BYTES + body_bytes // _BODY_BYTES_FOR_A_FRAMING_BYTE

    def _hang_up(self) -> None:
        error = HttpProcessingError(message="too much of the answer is not its body")
        self.set_exception(error)
        if self._payload is not None:
            self._payload.set_exception(error)
        if self.transport is not None:
            self.transport.abort()
