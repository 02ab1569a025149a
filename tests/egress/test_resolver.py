from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import aiodns
import pytest

from services.chassis.egress import EgressFailed, system_resolver
from services.chassis.egress_resolver import SystemResolver

# Types of records: A and AAAA.
A, AAAA = 1, 28
Reply = Callable[[bytes, int], bytes | None]


class _NameServer(asyncio.DatagramProtocol):
    """Answers DNS questions as `reply` says, and keeps the names that were asked for, with their types."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.asked: list[tuple[str, int]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # uvloop's is one without saying so

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, kind = _question(data)
        self.asked.append((name, kind))
        if (answer := self._reply(data, kind)) is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def resolver_asking(
    reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[SystemResolver, _NameServer]]:
    """The system's resolver, with its questions led to a name server of the test."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _NameServer(reply), local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    made = aiodns.DNSResolver

    def led(**options: object) -> aiodns.DNSResolver:
        return made(nameservers=[f"127.0.0.1:{port}"], **options)  # type: ignore[arg-type]

    monkeypatch.setattr(aiodns, "DNSResolver", led)
    resolver = system_resolver()
    try:
        yield resolver, server
    finally:
        await resolver.close()
        transport.close()


async def test_both_families_are_asked_for_once_and_without_search_domains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCALDOMAIN", "inside.example")
    async with resolver_asking(_both, monkeypatch) as (resolve, server):
        found = await resolve("pictures.example.com.")

    assert sorted(found) == ["2001:db8::5", "93.184.215.14"]
    assert sorted(server.asked) == [("pictures.example.com", A), ("pictures.example.com", AAAA)]


async def test_a_name_that_does_not_exist_is_not_looked_for_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCALDOMAIN", "inside.example")
    async with resolver_asking(lambda question, _: _answer(question, 3), monkeypatch) as (resolve, server):
        with pytest.raises(EgressFailed) as failed:
            await resolve("nobody.example.com.")

    assert failed.value.rule == "not_found"
    assert {name for name, _ in server.asked} == {"nobody.example.com"}


async def test_a_name_without_addresses_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async with resolver_asking(lambda question, _: _answer(question, 0), monkeypatch) as (resolve, _):
        with pytest.raises(EgressFailed) as failed:
            await resolve("empty.example.com.")
    assert failed.value.rule == "not_found"


async def test_a_name_server_that_refuses_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async with resolver_asking(lambda question, _: _answer(question, 5), monkeypatch) as (resolve, _):
        with pytest.raises(EgressFailed) as failed:
            await resolve("refused.example.com.")
    assert failed.value.rule == "resolve"


@pytest.mark.asyncio(loop_factories=["uvloop"])  # two seconds are enough to wait once
async def test_a_silent_name_server_is_given_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asyncio.timeout(10.0), resolver_asking(lambda *_: None, monkeypatch) as (resolve, server):
        with pytest.raises(EgressFailed) as failed:
            await resolve("silent.example.com.")

    assert failed.value.rule == "resolve_timeout"
    # A datagram may be lost: it is asked again, and no more than once.
    assert server.asked.count(("silent.example.com", A)) == 2


async def test_the_hosts_file_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    async with resolver_asking(lambda question, _: _answer(question, 3), monkeypatch) as (resolve, server):
        assert "127.0.0.1" in await resolve("localhost.")
    assert server.asked == []


async def test_a_name_that_is_none_is_not_found() -> None:
    resolve = system_resolver()
    with pytest.raises(EgressFailed) as failed:
        await resolve(f"{'a' * 70}.example.com.")
    await resolve.close()
    assert failed.value.rule == "not_found"


async def test_closing_twice_is_harmless() -> None:
    resolve = system_resolver()
    await resolve("localhost.")
    await resolve.close()
    await resolve.close()


def test_one_resolver_serves_one_loop_after_the_other() -> None:
    resolve = system_resolver()

    async def ask() -> bool:
        return "127.0.0.1" in await resolve("localhost.")

    assert asyncio.run(ask())
    assert asyncio.run(ask())


def _question(data: bytes) -> tuple[str, int]:
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels).lower(), int.from_bytes(data[at + 1 : at + 3], "big")


def _answer(question: bytes, code: int, kind: int = A, address: bytes = b"") -> bytes:
    end = question.index(b"\x00", 12) + 5
    count = 1 if address else 0
    head = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, count, 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(address)) + address if address else b""
    return head + question[12:end] + record


def _both(question: bytes, kind: int) -> bytes:
    family, text = (socket.AF_INET, "93.184.215.14") if kind == A else (socket.AF_INET6, "2001:db8::5")
    return _answer(question, 0, kind, socket.inet_pton(family, text))
