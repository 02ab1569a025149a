"""The client of a store of objects: against a real one, and against servers that fail in every way."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from services.chassis.egress_objects import ObjectFacts, ObjectStore, ObjectsUnusable, RangeBeyond
from services.chassis.object_place import ObjectPlace
from services.chassis.settings import Secret
from services.chassis.xml_answers import NotXml, leaves
from tests.object_server import ACCESS_KEY, SECRET_KEY, ObjectServer

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = "films/2026/a b+ä%.mp4"


@pytest.fixture(scope="module")
def place(object_server: ObjectServer) -> ObjectPlace:
    return object_server.bucket()


@pytest.fixture
async def store(place: ObjectPlace) -> AsyncIterator[ObjectStore]:
    """A bucket of which nothing is left for the next test."""
    async with ObjectStore(place) as store:
        yield store
        async for page in store.pages(""):
            await store.delete([one.key for one in page])


async def put(store: ObjectStore, key: str = KEY, content: bytes = CONTENT, *, absent: bool = False) -> bool:
    return await store.put(
        key,
        content,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        content_type="video/mp4",
        only_if_absent=absent,
    )


async def got(store: ObjectStore, byte_range: str = "") -> tuple[ObjectFacts, int, bytes]:
    async with store.open(KEY, byte_range, total_s=20) as arriving:
        assert arriving is not None
        return arriving.facts, arriving.first, b"".join([chunk async for chunk in arriving.chunks()])


async def test_what_is_put_is_got_whole_or_in_part_with_its_hash(store: ObjectStore) -> None:
    assert await put(store)
    facts, _, content = await got(store)
    assert (content, facts.size_bytes, facts.sha256) == (CONTENT, len(CONTENT), SHA256)
    assert abs(facts.modified_at.timestamp() - time.time()) < 60
    assert await store.head(KEY) == facts
    facts, first, part = await got(store, "bytes=300-309")
    assert (facts.size_bytes, first, part) == (len(CONTENT), 300, CONTENT[300:310])
    assert (await got(store, "bytes=-5"))[2] == CONTENT[-5:]
    assert await store.read(KEY, 7) == CONTENT[:7]


async def test_a_file_is_sent_from_the_disk(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(CONTENT)
    assert await store.put(
        KEY, tmp_path / "film", size_bytes=len(CONTENT), sha256=SHA256, content_type="video/mp4"
    )
    assert (await got(store))[2] == CONTENT


async def test_what_is_not_there_is_nothing_and_no_error(store: ObjectStore) -> None:
    assert await store.head("none") is None
    assert await store.read("none", 10) is None
    async with store.open("none", total_s=20) as arriving:
        assert arriving is None
    await store.delete(["none"])


async def test_a_range_behind_the_end_is_said_to_be_one(store: ObjectStore) -> None:
    await put(store)
    with pytest.raises(RangeBeyond):
        await got(store, "bytes=9999999-")


async def test_an_object_is_put_only_where_there_is_none_if_that_is_asked(store: ObjectStore) -> None:
    assert await put(store, absent=True)
    assert not await put(store, content=b"other", absent=True)
    assert (await got(store))[2] == CONTENT
    assert await put(store, content=b"other")
    assert (await got(store))[2] == b"other"


async def test_of_many_that_put_only_one_does(store: ObjectStore) -> None:
    outcomes = await asyncio.gather(
        *(put(store, content=bytes([number]), absent=True) for number in range(8)), return_exceptions=True
    )
    assert outcomes.count(True) == 1
    assert outcomes.count(False) == 7


async def test_deleting_is_of_many_and_repeatable(store: ObjectStore) -> None:
    keys = [f"a/{number} & <b>" for number in range(5)]
    for key in keys:
        await put(store, key, b"x")
    for _ in range(2):
        await store.delete(keys[1:])
    assert [[one.key for one in page] async for page in store.pages("")] == [[keys[0]]]


async def test_a_long_list_comes_in_pages_in_order(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.chassis.egress_objects._PAGE", 3)
    for number in range(7):
        await put(store, f"list/{number}", b"x")
    await put(store, "other", b"x")
    pages = [[one.key for one in page] async for page in store.pages("list/")]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [key for page in pages for key in page] == [f"list/{number}" for number in range(7)]


async def test_an_address_opens_one_object_for_a_time_with_the_headers_that_were_signed(
    store: ObjectStore,
) -> None:
    await put(store)
    told = {
        "response-content-type": "image/png",
        "response-content-disposition": 'inline; filename="a b.png"',
    }
    good = store.presigned("GET", KEY, 30, told)
    assert SECRET_KEY not in good
    async with aiohttp.ClientSession() as client:
        async with client.get(URL(good, encoded=True)) as answer:
            assert (answer.status, await answer.read()) == (200, CONTENT)
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.headers["Content-Disposition"] == told["response-content-disposition"]
        for wrong in (good.replace("%2Fpng", "%2Fgif"), good.replace("Expires=30", "Expires=3000")):
            async with client.get(URL(wrong, encoded=True)) as answer:
                assert answer.status == 403


async def test_a_wrong_secret_is_said_without_telling_any(object_server: ObjectServer) -> None:
    wrong = object_server.place("bucket-1", secret_key="not-the-secret")
    async with ObjectStore(wrong) as store:
        started_s = time.monotonic()
        with pytest.raises(ObjectsUnusable) as refused:
            await store.check()
        with pytest.raises(ObjectsUnusable) as unread:
            await store.head(KEY)
        assert time.monotonic() - started_s < 5
    assert (refused.value.status, refused.value.code) == (403, "SignatureDoesNotMatch")
    assert unread.value.status == 403
    told = f"{refused.value!s}{refused.value!r}{wrong!r}"
    for secret in ("not-the-secret", ACCESS_KEY, KEY):
        assert secret not in told


async def test_a_bucket_that_is_not_there_is_said(object_server: ObjectServer) -> None:
    async with ObjectStore(object_server.place("no-such-bucket")) as store:
        with pytest.raises(ObjectsUnusable) as refused:
            await store.check()
    assert refused.value.code == "NoSuchBucket"


Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def played(play: Play, *, total_s: float = 5.0) -> AsyncIterator[tuple[ObjectStore, list[str]]]:
    """A store whose server does as it is told with every connection, and what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head.decode().split(" HTTP")[0])
            await play(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    place = ObjectPlace(f"http://127.0.0.1:{port}", "us-east-1", "films", Secret("a"), Secret("b"))
    try:
        async with ObjectStore(place, total_s=total_s) as store:
            yield store, asked
    finally:
        server.close()


def answers(*said: bytes) -> Play:
    """Says one after the other, and the last one again and again."""
    turns = iter(said)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(turns, said[-1]))
        await writer.drain()

    return play


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = {"Content-Length": str(len(body)), "Connection": "close"}
    lines |= {name.replace("_", "-"): text for name, text in headers.items()}
    told = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
    return f"HTTP/1.1 {status}\r\n{told}\r\n".encode() + body


SLOW_DOWN = answer("503 Slow Down", b"<Error><Code>SlowDown</Code><Message>films/secret</Message></Error>")


async def test_what_passes_is_tried_again() -> None:
    good = answer("200 OK", b"words")
    async with played(answers(SLOW_DOWN, b"", answer("500 Broken"), good)) as (shaky, asked):
        assert await shaky.read("a", 5) == b"words"
    assert asked == ["GET /films/a"] * 4


async def test_what_does_not_pass_is_given_up_and_says_the_store_s_word_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.chassis.egress_objects._BACKOFF_FIRST_S", 0.01)
    async with played(answers(SLOW_DOWN)) as (store, asked):
        with pytest.raises(ObjectsUnusable) as failed:
            await store.delete(["films/secret"])
    assert (failed.value.code, failed.value.status) == ("SlowDown", 503)
    assert "secret" not in str(failed.value)
    assert len(asked) == 6


async def test_what_is_wrong_for_good_is_asked_once() -> None:
    async with played(answers(answer("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>"))) as (
        store,
        asked,
    ):
        with pytest.raises(ObjectsUnusable, match="AccessDenied"):
            await store.read("a", 5)
    assert len(asked) == 1


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("call", ["put", "head", "read", "delete", "list", "check", "open"])
async def test_every_call_has_a_deadline(call: str) -> None:
    async with played(silent, total_s=0.3) as (store, _):
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "put": lambda: put(store, content=b"x"),
            "head": lambda: store.head(KEY),
            "read": lambda: store.read(KEY, 5),
            "delete": lambda: store.delete([KEY]),
            "list": lambda: anext(store.pages("")),
            "check": store.check,
            "open": lambda: got(store),
        }
        started_s = time.monotonic()
        with pytest.raises(ObjectsUnusable, match="timeout"):
            await calls[call]()
        assert time.monotonic() - started_s < 3


async def test_a_dead_server_is_unusable() -> None:
    async with played(silent, total_s=0.5) as (store, _):
        pass
    async with ObjectStore(store._place, total_s=0.5) as late:
        with pytest.raises(ObjectsUnusable, match="connect"):
            await late.head(KEY)


async def test_a_body_that_stops_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.chassis.egress_objects._STALL_S", 0.2)

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await reader.read()

    async with played(stalls) as (store, _):
        with pytest.raises(ObjectsUnusable, match="timeout"):
            await got(store)


async def test_a_body_that_is_cut_off_is_not_taken_for_whole() -> None:
    async with played(answers(answer("200 OK", b"half", Content_Length="10"))) as (store, _):
        with pytest.raises(ObjectsUnusable):
            await got(store)


@pytest.mark.parametrize(
    "body",
    [
        b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        b"<html>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><ListBucketResult/>',
        b"<ListBucketResult><Contents><Key>a</Key><LastModified>soon</LastModified></Contents></ListBucketResult>",
        b"<a>" * 50 + b"</a>" * 50,
    ],
)
async def test_a_list_that_is_none_is_unusable(body: bytes) -> None:
    async with played(answers(answer("200 OK", body))) as (store, _):
        with pytest.raises(ObjectsUnusable, match="xml"):
            await anext(store.pages(""))


async def test_an_answer_without_end_is_not_kept() -> None:
    async with played(answers(answer("200 OK", b"<a>" + b"x" * 5_000_000))) as (store, _):
        with pytest.raises(ObjectsUnusable, match="too_large"):
            await anext(store.pages(""))


async def test_an_object_that_could_not_be_deleted_is_an_error() -> None:
    body = b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    async with played(answers(answer("200 OK", body))) as (store, _):
        with pytest.raises(ObjectsUnusable, match="AccessDenied"):
            await store.delete(["a"])


def test_elements_are_read_without_their_namespaces() -> None:
    document = b'<?xml version="1.0"?><s:a xmlns:s="urn:s"><s:b>1 &amp; 2</s:b><b/></s:a>'
    assert leaves(document) == [("a/b", "1 & 2"), ("a/b", ""), ("a", "")]
    with pytest.raises(NotXml):
        leaves(b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>')
