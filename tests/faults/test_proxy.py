"""The proxy does to connections what it says: a test of faults is worth what its faults are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from tests.faults.proxy import HOST, Proxy

_SOON_S = 5.0
_LONG_ENOUGH_S = 0.2


@dataclass
class _Echo:
    """Sends back what it hears, and writes down how each conversation ended."""

    heard: bytearray = field(default_factory=bytearray)
    endings: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1000):
                self.heard += chunk
                writer.write(chunk)
                await writer.drain()
            self.endings.append("end")
            writer.write(b"bye")
            await writer.drain()
        except OSError:
            self.endings.append("reset")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def _conversation() -> AsyncIterator[tuple[Proxy, _Echo, asyncio.StreamReader, asyncio.StreamWriter]]:
    echo = _Echo()
    server = await asyncio.start_server(echo.serve, HOST, 0)
    async with Proxy() as proxy:
        proxy.lead_to(server.sockets[0].getsockname()[1])
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"hello")
        assert await _read(reader, 5) == b"hello"
        yield proxy, echo, reader, writer
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    server.close()


async def _read(reader: asyncio.StreamReader, octets: int) -> bytes:
    async with asyncio.timeout(_SOON_S):
        return await reader.readexactly(octets)


async def _opens(proxy: Proxy) -> bool:
    """Whether a new connection works."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    try:
        writer.write(b"open")
        return await _read(reader, 4) == b"open"
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(_SOON_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_cut_is_seen_as_a_reset_by_both_sides() -> None:
    async with _conversation() as (proxy, echo, reader, _):
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            await _read(reader, 1)
        await _until(lambda: echo.endings == ["reset"])


async def test_a_cut_after_some_bytes_lets_exactly_those_through() -> None:
    async with _conversation() as (proxy, echo, reader, writer):
        proxy.cut_after(3, "up")
        writer.write(b"abcdef")
        await _until(lambda: proxy.cuts == 1)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await _read(reader, 6)
        await _until(lambda: echo.endings)
        assert bytes(echo.heard) in {b"hello", b"helloabc"}


async def test_a_stalled_connection_stays_open_and_delivers_when_it_flows_again() -> None:
    async with _conversation() as (proxy, _, reader, writer):
        proxy.stall()
        writer.write(b"late")
        reading = asyncio.ensure_future(_read(reader, 4))
        await asyncio.sleep(_LONG_ENOUGH_S)
        assert not reading.done()
        proxy.flow()
        assert await reading == b"late"


async def test_a_half_closed_connection_still_carries_the_other_direction() -> None:
    async with _conversation() as (proxy, echo, reader, _):
        proxy.half_close("up")
        assert await _read(reader, 3) == b"bye"
        assert echo.endings == ["end"]


async def test_a_refusing_proxy_takes_no_new_connection_and_keeps_the_old() -> None:
    async with _conversation() as (proxy, _, reader, writer):
        proxy.refuse()
        assert not await _opens(proxy)
        writer.write(b"still")
        assert await _read(reader, 5) == b"still"
        proxy.accept()
        assert await _opens(proxy)
