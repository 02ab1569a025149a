"""A TCP proxy on loopback that treats connections as badly as a network can: it cuts, stalls, half-closes and refuses.

It knows nothing of what it carries; `tests.faults.database_proxy` is the one that reads along.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

HOST = "127.0.0.1"

# `up` is what the client sends, `down` what the server answers.
Direction = Literal["up", "down"]

# Small, so that a cut after some bytes falls into the middle of a batch.
_CHUNK_BYTES = 4096
# Closing with this sends RST: the other side sees a reset in the middle of what it was doing, not an orderly end.
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    client_reader: asyncio.StreamReader
    server_reader: asyncio.StreamReader
    pumps: list[asyncio.Task[None]] = field(default_factory=list)

    def writer(self, direction: Direction) -> asyncio.StreamWriter:
        return self.server if direction == "up" else self.client

    def reader(self, direction: Direction) -> asyncio.StreamReader:
        return self.client_reader if direction == "up" else self.server_reader

    def reset(self) -> None:
        """Both sides see the connection break, now."""
        for writer in (self.client, self.server):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        for pump in self.pumps:
            pump.cancel()


class Proxy:
    """Listens on a free port of its own; until `lead_to` says where to, it refuses."""

    def __init__(self) -> None:
        self.port = 0
        self.cuts = 0
        self.carried: dict[Direction, int] = {"up": 0, "down": 0}
        self._target: int | None = None
        self._refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._budget: dict[Direction, int] = {}
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._links)

    def lead_to(self, port: int) -> None:
        """Where connections go from now on."""
        self._target = port

    def cut(self) -> int:
        """Resets every connection; how many there were."""
        links = list(self._links)
        for link in links:
            self._break(link)
        return len(links)

    def cut_after(self, octets: int, direction: Direction) -> None:
        """The connection over which that many more bytes have gone in `direction` is reset then, in mid-message."""
        self._budget[direction] = octets

    def stall(self) -> None:
        """Connections stay open, and nothing comes through any more."""
        self._flowing.clear()

    def flow(self) -> None:
        """Ends `stall`; what was waiting arrives."""
        self._flowing.set()

    def half_close(self, direction: Direction) -> None:
        """Whoever listens in `direction` reads an end; the other direction goes on."""
        for link in self._links:
            writer = link.writer(direction)
            if not writer.is_closing():
                writer.write_eof()

    def refuse(self) -> None:
        """New connections are reset at once; the ones there are stay."""
        self._refusing = True

    def accept(self) -> None:
        """Ends `refuse`."""
        self._refusing = False

    def outgoing(self, link: Link, direction: Direction, chunk: bytes) -> bytes | None:
        """What of `chunk` is passed on; None: nothing, and the connection breaks."""
        return chunk

    def passed_on(self, link: Link, direction: Direction, chunk: bytes) -> bool:
        """Told after a chunk went out; False breaks the connection."""
        return True

    def _break(self, link: Link) -> None:
        self.cuts += 1
        self._links.discard(link)
        link.reset()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of the proxy's own, which ends with it: what the server does with its own differs between Pythons.
        _ = self._keep(self._carry(reader, writer))

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._refusing or self._target is None:
                raise ConnectionRefusedError
            server_reader, server = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, server, reader, server_reader)
        self._links.add(link)
        link.pumps = [self._keep(self._pump(link, "up")), self._keep(self._pump(link, "down"))]
        await asyncio.wait(link.pumps)
        if link in self._links:
            self._links.discard(link)
            for side in (writer, server):
                side.close()

    async def _pump(self, link: Link, direction: Direction) -> None:
        reader, writer = link.reader(direction), link.writer(direction)
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._flowing.wait()
                if not await self._pass(link, direction, chunk):
                    self._break(link)
                    return
            if not writer.is_closing():
                writer.write_eof()
        except OSError:
            # One side broke; the other is to learn it the same way.
            if link in self._links:
                self._links.discard(link)
                link.reset()

    async def _pass(self, link: Link, direction: Direction, chunk: bytes) -> bool:
        """Whether the connection may go on."""
        allowed = self.outgoing(link, direction, chunk)
        if allowed is None:
            return False
        chunk = allowed
        left = self._budget.get(direction)
        if left is not None:
            chunk = chunk[:left]
            self._budget[direction] = left - len(chunk)
        writer = link.writer(direction)
        # After a half-close there is nobody to write to, and the other direction still goes on.
        if chunk and not writer.transport.is_closing() and _may_write(writer):
            writer.write(chunk)
            await writer.drain()
        self.carried[direction] += len(chunk)
        if left is not None and self._budget[direction] == 0:
            del self._budget[direction]
            return False
        return self.passed_on(link, direction, chunk)


def _may_write(writer: asyncio.StreamWriter) -> bool:
    # The standard transports remember write_eof in a private flag only.
    return not getattr(writer.transport, "_eof", False)
