"""A server of raw bytes: each path is a scene that says what is sent, and when."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

# What a path answers: all of it, or piece by piece as the generator says. The connection is closed at its end.
Scene = bytes | Callable[[], AsyncIterator[bytes]]


@dataclass
class EvilServer:
    """Listens on a loopback address while entered. `heads` are the requests as they came.

    With `speaks` False it accepts connections and never says a word, nor reads one. `before_request` is what it
    says, without waiting for a request, before it hangs up. With `hangs_up` False it says what it has to say, and
    then neither reads nor closes: a farewell of TLS is not answered.
    """

    tls: ssl.SSLContext | None
    host: str = "127.0.0.1"
    port: int = 0
    speaks: bool = True
    before_request: bytes | None = None
    hangs_up: bool = True
    scenes: dict[str, Scene] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(
            self._accepted, self.host, self.port, ssl=self.tls, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A few turns for the transports to notice that they are closed.
        for _ in range(3):
            await asyncio.sleep(0)

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [head.split(b" ")[1].decode() for head in self.heads]

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self._perform(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has heard enough
        finally:
            self.at_once -= 1
            writer.transport.abort()

    async def _perform(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.speaks:
            await asyncio.sleep(60)
        if self.before_request is not None:
            await _play(self.before_request, writer)
            return
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        await _play(self.scenes[head.split(b" ")[1].decode()], writer)
        if not self.hangs_up:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport reads
            await asyncio.sleep(60)
        # A clean end: what was sent is delivered before the connection goes.
        writer.write_eof() if writer.can_write_eof() else writer.close()
        await reader.read()


async def _play(scene: Scene, writer: asyncio.StreamWriter) -> None:
    if isinstance(scene, bytes):
        writer.write(scene)
        await writer.drain()
        return
    async for piece in scene():
        writer.write(piece)
        await writer.drain()
        # A drain need not wait, also when nobody is left to write to: others shall have their turn.
        await asyncio.sleep(0)


@dataclass
class Canary:
    """A server where nothing may ever connect: it counts who does."""

    host: str
    port: int
    connections: int = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, self.host, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.transport.abort()
