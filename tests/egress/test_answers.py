from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import traceback
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.chassis.egress import EgressFailed, EgressRefused
from tests.egress.scenes import (
    BODY,
    GZIPPED,
    MEBIBYTE,
    OK,
    Playing,
    answer,
    bomb,
    chunked,
    endless,
    raw,
    redirect,
    slowly,
    then_silence,
)
from tests.egress.street import SECRET, Street

CHUNKED = raw(b"Transfer-Encoding: chunked", b"")
ENDLESS_CHUNKS = endless(CHUNKED, chunked(MEBIBYTE, end=b""))

ACCEPTED: dict[str, bytes | Playing] = {
    "a plain body": answer(),
    "an empty body": answer(b""),
    "a chunked body": raw(b"Transfer-Encoding: chunked", chunked(BODY[:300], BODY[300:])),
    "a body that ends with the connection": raw(b"X-Length: unknown"),
    "an encoding that is none": answer(BODY, "Content-Encoding: identity"),
    "one early hint before the answer": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(),
    "garbage after the end": answer() + b"HTTP/1.1 200 OK\r\n\r\ngarbage",
    "a second answer nobody asked for": answer() + answer(b"second"),
    "an offer to keep the connection": answer(BODY, "Connection: keep-alive", "Keep-Alive: timeout=600"),
    "a cookie": answer(BODY, "Set-Cookie: a=b; Path=/"),
    "chunks of 64 bytes": raw(b"Transfer-Encoding: chunked", chunked(*[b"z" * 64] * 16_000)),
    "a slow but honest body": slowly(answer(BODY[:20]), pause_s=0.001),
}

REFUSED: dict[str, tuple[str, bytes | Playing]] = {
    # Statuses: 200 is the only one that promises the whole thing.
    "201": ("status", answer(status="201 Created")),
    "204": ("status", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "206": ("status", answer(BODY, "Content-Range: bytes 0-699/9999", status="206 Partial Content")),
    "300": ("status", answer(BODY, "Location: /other", status="300 Multiple Choices")),
    "304": ("status", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "401 with a challenge": ("status", answer(BODY, 'WWW-Authenticate: Basic realm="a"', status="401 No")),
    "407 with a challenge": ("status", answer(BODY, "Proxy-Authenticate: Basic", status="407 No")),
    "404": ("status", answer(status="404 Not Found")),
    "429 with an order to wait": ("status", answer(BODY, "Retry-After: 3600", status="429 Wait")),
    "500": ("status", answer(status="500 Oh")),
    "101 to another protocol": (
        "status",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ),
    "status 999": ("status", answer(status="999 What")),
    # Time.
    "headers a byte at a time": ("timeout", slowly(answer(), pause_s=0.05)),
    "a body a byte at a time": ("timeout", slowly(raw(b"Content-Length: 700"), pause_s=0.05)),
    "silence instead of an answer": ("timeout", then_silence(b"")),
    "silence after half the headers": ("timeout", then_silence(OK + b"Content-Le")),
    "silence after the headers": ("timeout", then_silence(raw(b"Content-Length: 700", b""))),
    "silence in the middle of the body": ("timeout", then_silence(raw(b"Content-Length: 9999"))),
    "silence in the middle of a chunk": (
        "timeout",
        then_silence(raw(b"Transfer-Encoding: chunked", b"ff\r\nabc")),
    ),
    # Size.
    "an endless body without a length": ("too_large", endless(raw(b"X: y", b""), MEBIBYTE)),
    "an endless chunked body": ("too_large", ENDLESS_CHUNKS),
    "a length just over the limit": ("too_large", then_silence(raw(b"Content-Length: 1048577", b""))),
    "a length of 10^18": ("too_large", then_silence(raw(b"Content-Length: 1" + b"0" * 18, b""))),
    "a body just over the limit": ("too_large", raw(b"X: y", MEBIBYTE + b"!")),
    # Framing.
    "a body shorter than its length": ("framing", raw(b"Content-Length: 701")),
    "a chunked body that stops": ("framing", raw(b"Transfer-Encoding: chunked", chunked(BODY, end=b""))),
    "a length below zero": ("framing", raw(b"Content-Length: -1")),
    "a length that is no number": ("framing", raw(b"Content-Length: seven")),
    "a length with a sign": ("framing", raw(b"Content-Length: +700")),
    "two different lengths": ("framing", raw(b"Content-Length: 700\r\nContent-Length: 5")),
    "two lengths in one line": ("framing", raw(b"Content-Length: 700, 5")),
    "a length of 40 digits": ("framing", raw(b"Content-Length: " + b"9" * 40)),
    "a length and chunks": (
        "framing",
        raw(b"Content-Length: 700\r\nTransfer-Encoding: chunked", chunked(BODY)),
    ),
    "a chunk size that is no number": ("framing", raw(b"Transfer-Encoding: chunked", b"xyz\r\nabc\r\n")),
    "a chunk size below zero": ("framing", raw(b"Transfer-Encoding: chunked", b"-5\r\nabcde\r\n0\r\n\r\n")),
    "a chunk size of 40 digits": ("framing", raw(b"Transfer-Encoding: chunked", b"f" * 40 + b"\r\nabc")),
    "a chunk longer than it says": (
        "framing",
        raw(b"Transfer-Encoding: chunked", b"3\r\nabcdef\r\n0\r\n\r\n"),
    ),
    "HTTP/0.9": ("framing", b"<html>no status line at all</html>"),
    "another protocol": ("framing", b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP/2 without being asked": ("framing", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18)),
    "a status line of a mebibyte": ("framing", b"HTTP/1.1 200 " + b"O" * (1 << 20) + b"\r\n\r\n"),
    "a header of two mebibytes": ("framing", raw(b"X-Long: " + b"a" * (2 << 20))),
    "20,000 headers": ("framing", raw(b"\r\n".join(b"X-%d: y" % n for n in range(20_000)))),
    "a header without a colon": ("framing", raw(b"no colon here")),
    "a header with a NUL": ("framing", raw(b"X-Nul: a\x00b")),
    # Floods: bytes that say nothing keep a loop busy for little money.
    "an endless header": ("framing", endless(OK + b"X: ", b"e" * 65_536)),
    "endless headers": ("framing", endless(OK, b"X: y\r\n" * 1000)),
    "a flood of early hints": ("framing", endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)),
    "a flood of continues": ("framing", endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)),
    "a flood of chunks of one byte": ("framing", endless(CHUNKED, b"1\r\na\r\n" * 10_000)),
    "a flood of chunk extensions": ("framing", endless(CHUNKED, (b"1;" + b"e" * 4000 + b"\r\na\r\n") * 20)),
    "an endless chunk extension": ("framing", endless(CHUNKED + b"1;", b"e" * 65_536)),
    "endless trailers": ("framing", endless(CHUNKED + b"0\r\n", b"X: y\r\n" * 1000)),
    # Encodings: nothing is ever inflated, so nothing encoded is taken.
    "gzip": ("encoding", answer(GZIPPED, "Content-Encoding: gzip")),
    "a gzip bomb": ("encoding", answer(bomb(), "Content-Encoding: gzip")),
    "deflate": ("encoding", answer(GZIPPED, "Content-Encoding: deflate")),
    "br": ("encoding", answer(GZIPPED, "Content-Encoding: br")),
    "zstd": ("encoding", answer(GZIPPED, "Content-Encoding: zstd")),
    "an encoding nobody knows": ("encoding", answer(BODY, "Content-Encoding: x-own")),
    "identity and gzip": ("encoding", answer(GZIPPED, "Content-Encoding: identity, gzip")),
    "identity, then gzip in a second line": (
        "encoding",
        answer(GZIPPED, "Content-Encoding: identity", "Content-Encoding: gzip"),
    ),
    "a gzip transfer": ("encoding", raw(b"Transfer-Encoding: gzip, chunked", chunked(GZIPPED))),
    # Endings.
    "a close before a word": ("closed", b""),
    "a close in the middle of the headers": ("closed", OK + b"Content-Le"),
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_the_body_comes_through(here: Street, name: str) -> None:
    scene = ACCEPTED[name]
    expected = {
        "an empty body": b"",
        "a slow but honest body": BODY[:20],
        "chunks of 64 bytes": b"z" * 64 * 16_000,
    }.get(name, BODY)

    assert await here.show(scene, total_s=10.0) == expected
    assert here.server.connections == 1


@pytest.mark.parametrize("name", REFUSED)
async def test_it_fails_by_its_rule(here: Street, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    rule, scene = REFUSED[name]

    with pytest.raises(EgressFailed) as failed:
        # Long enough that nothing else ends by the clock on a busy machine.
        await here.show(scene, total_s=1.0 if rule == "timeout" else 10.0)

    assert failed.value.rule == rule
    # aiohttp asks again when a connection is closed early; the far side would see two requests for one.
    assert here.server.connections == 1
    assert _told(failed.value).count(SECRET) == 0
    assert caplog.text.count(SECRET) == 0
    assert [vars(line).get("rule") for line in caplog.records if line.message == "egress.failed"] == [rule]


async def test_a_label_of_identity_does_not_get_gzip_inflated(here: Street) -> None:
    packed = bomb(4)

    assert await here.show(answer(packed, "Content-Encoding: identity")) == packed


async def test_the_length_the_far_side_promises_is_known_before_the_body(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = answer()

    async with here.egress.fetch(here.url(), total_s=1.0, limit_bytes=1000) as arriving:
        assert (arriving.host, arriving.content_length) == ("pictures.example.com", len(BODY))


async def test_a_body_of_exactly_the_limit_is_taken(here: Street) -> None:
    assert await here.show(answer(MEBIBYTE), limit_bytes=len(MEBIBYTE)) == MEBIBYTE


async def test_the_request_says_no_more_than_it_must(here: Street) -> None:
    await here.show(answer())

    lines = here.server.heads[0].decode().split("\r\n")
    assert lines[0] == f"GET /{SECRET} HTTP/1.1"
    assert sorted(line for line in lines[1:] if line) == [
        "Accept-Encoding: identity",
        "Accept: */*",
        "Connection: close",
        f"Host: pictures.example.com:{here.server.port}",
        "User-Agent: Atelier/1 (+reference fetch)",
    ]


async def test_a_caller_who_leaves_early_leaves_no_connection(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = ENDLESS_CHUNKS

    async with here.egress.fetch(here.url(), total_s=5.0, limit_bytes=1 << 30) as arriving:
        async for chunk in arriving.chunks():
            assert chunk
            break
    for _ in range(100):
        if not here.server.at_once:
            break
        await asyncio.sleep(0.01)
    assert here.server.at_once == 0


@pytest.mark.parametrize(
    "scene",
    [
        answer(),
        answer(status="500 Oh"),
        answer(GZIPPED, "Content-Encoding: gzip"),
        raw(b"Content-Length: -1"),
        redirect("https://127.0.0.3/"),
        redirect("/end"),
        OK + b"Content-Le",
    ],
    ids=["complete", "status", "encoding", "framing", "refused", "redirect", "timeout"],
)
async def test_a_far_side_that_never_hangs_up_keeps_no_connection(here: Street, scene: bytes) -> None:
    here.server.hangs_up = False
    here.server.scenes = {f"/{SECRET}": scene, "/end": answer()}

    with contextlib.suppress(EgressFailed, EgressRefused):
        await here.get(total_s=0.3)
    await asyncio.sleep(0.01)
    assert _connections_to(here.server.port) == 0
    assert here.server.connections >= 1


@pytest.mark.parametrize(
    ("scene", "outcome"),
    [
        (answer(), "complete"),
        (answer(status="500 Oh"), "status"),
        (redirect("https://127.0.0.3/"), "refused"),
    ],
    ids=["complete", "failed", "refused"],
)
async def test_a_fetch_is_counted_by_how_it_ended(here: Street, scene: bytes, outcome: str) -> None:
    before = _count(outcome)
    with contextlib.suppress(EgressFailed, EgressRefused):
        await here.show(scene)

    assert _count(outcome) == before + 1


async def test_a_body_that_is_left_unread_is_counted_as_abandoned(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = answer()
    before = _count("abandoned")
    async with here.egress.fetch(here.url(), total_s=5.0, limit_bytes=1000):
        pass

    assert _count("abandoned") == before + 1


async def test_what_the_caller_raises_inside_is_the_caller_s(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = answer()

    with pytest.raises(TimeoutError, match="mine"):
        async with here.egress.fetch(here.url(), total_s=5.0, limit_bytes=1000):
            raise TimeoutError("mine")


def _connections_to(port: int) -> int:
    """How many of this process's descriptors are connected to `port`."""
    count = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(path.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(path.name))) as one:
                    # Of a local socket the far side is a text.
                    count += one.getpeername()[1:2] == (port,)
    return count


def _count(outcome: str) -> float:
    return REGISTRY.get_sample_value("atelier_egress_fetches_total", {"outcome": outcome}) or 0.0


def _told(error: BaseException) -> str:
    """Everything that a careless handler could print of an error."""
    seen: list[str] = ["".join(traceback.format_exception(error))]
    link: BaseException | None = error
    while link is not None:
        seen += [repr(link), str(link), repr(link.args)]
        link = link.__cause__ or link.__context__
    return "\n".join(seen)
