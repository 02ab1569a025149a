"""Media links to what lies in a bucket: the answers of files, and nothing of the store's own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from yarl import URL

from services.chassis.clock import SystemClock
from services.chassis.egress_objects import ObjectStore
from services.chassis.object_place import ObjectPlace
from services.chassis.settings import Secret
from services.gateway.media import MediaLinks, SigningKeys
from tests.contracts.conftest import Answer, Opening, Storefront
from tests.object_server import ACCESS_KEY, SECRET_KEY, ObjectServer

KEY = "videos/2026/01/02/job_1.mp4"
CONTENT = bytes(range(256)) * 4_000
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def place(object_server: ObjectServer) -> ObjectPlace:
    return object_server.bucket()


def on(place: ObjectPlace) -> dict[str, Any]:
    return {
        "media_folder": None,
        "media_s3_endpoint": place.endpoint,
        "media_s3_bucket": place.bucket,
        "media_s3_access_key": place.access_key,
        "media_s3_secret_key": place.secret_key,
    }


@dataclass
class Shop:
    """A storefront on a bucket with one film in it."""

    front: Storefront
    objects: ObjectStore
    client: aiohttp.ClientSession = field(repr=False)

    async def ask(self, path: str = "", method: str = "GET", **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        address = URL(self.front.url + (path or link()), encoded=True)
        async with self.client.request(method, address, headers=names, allow_redirects=False) as answer:
            return Answer(answer.status, answer.headers, await answer.read())


def link(object_key: str = KEY, validity_ms: int = HOUR_MS) -> str:
    links = MediaLinks(SigningKeys(Secret("k" * 40)), "", validity_ms, SystemClock())
    return links.link("leonardo", object_key, 0).url


async def put(objects: ObjectStore, key: str = KEY, content: bytes = CONTENT) -> None:
    digest = hashlib.sha256(content).hexdigest()
    await objects.put(key, content, size_bytes=len(content), sha256=digest, content_type="text/html")


@pytest.fixture
async def shop(opening: Opening, place: ObjectPlace) -> AsyncIterator[Shop]:
    async with ObjectStore(place) as objects, aiohttp.ClientSession() as client:
        await put(objects)
        yield Shop(await opening(**on(place)), objects, client)


@pytest.fixture
async def sending_on(opening: Opening, place: ObjectPlace) -> AsyncIterator[Shop]:
    """A storefront that redirects."""
    async with ObjectStore(place) as objects, aiohttp.ClientSession() as client:
        await put(objects)
        yield Shop(await opening(**on(place), media_s3_redirect=True), objects, client)


async def test_a_link_opens_the_whole_object_with_the_headers_of_a_file(shop: Shop) -> None:
    shop.front.put(KEY, CONTENT)
    files = await shop.ask()
    assert (files.status, files.raw) == (200, CONTENT)
    assert files.headers["Content-Type"] == "video/mp4"
    assert files.headers["Content-Disposition"] == 'inline; filename="videos-2026-01-02-job_1.mp4"'
    assert files.headers["X-Content-Type-Options"] == "nosniff"
    assert files.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert files.headers["Accept-Ranges"] == "bytes"
    assert files.headers["Cache-Control"].startswith("private, max-age=3")
    assert files.headers["X-Request-Id"]
    assert files.headers["Last-Modified"].endswith("GMT")


async def test_the_headers_are_those_of_a_file(shop: Shop, opening: Opening) -> None:
    folder = await opening()
    folder.put(KEY, CONTENT)
    file = await folder.request("GET", link())
    assert set(file.headers) == set((await shop.ask()).headers)


async def test_nothing_of_the_store_shows(shop: Shop) -> None:
    for answer in (await shop.ask(), await shop.ask(method="HEAD"), await shop.ask(link("videos/none.mp4"))):
        told = f"{answer.headers}{answer.raw[:1000]!r}".lower()
        assert not any(word in told for word in ("amz", "seaweed", "bucket", ACCESS_KEY, "nosuchkey"))


@pytest.mark.parametrize(
    "asked,start,stop",
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, None),
        ("bytes=-10", -10, None),
        ("bytes=5-9999999", 5, None),
    ],
)
async def test_a_range_opens_a_part(shop: Shop, asked: str, start: int, stop: int | None) -> None:
    answer = await shop.ask(Range=asked)
    assert (answer.status, answer.raw) == (206, CONTENT[start:stop])
    first = start % len(CONTENT)
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.raw) - 1}/{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "bytes=5-2", "bytes=-0", "bytes=-", "lines=1-2", "junk"])
async def test_a_range_that_is_not_one_plain_range_is_ignored(shop: Shop, asked: str) -> None:
    answer = await shop.ask(Range=asked)
    assert (answer.status, answer.raw) == (200, CONTENT)


async def test_a_range_beyond_the_end_is_416_and_nobody_keeps_that(shop: Shop) -> None:
    answer = await shop.ask(Range="bytes=99999999-")
    assert (answer.status, answer.raw, answer.headers["Cache-Control"]) == (416, b"", "no-store")
    assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
    assert "Content-Disposition" not in answer.headers


async def test_head_tells_the_length_without_the_body_and_ignores_a_range(shop: Shop) -> None:
    answer = await shop.ask(method="HEAD", Range="bytes=0-9")
    assert (answer.status, answer.raw, answer.headers["Content-Length"]) == (200, b"", str(len(CONTENT)))
    assert answer.headers["ETag"] == (await shop.ask()).headers["ETag"]


async def test_what_the_client_has_already_is_304(shop: Shop) -> None:
    first = await shop.ask()
    for condition in (
        {"If_None_Match": first.headers["ETag"]},
        {"If_None_Match": f'"other", W/{first.headers["ETag"]}'},
        {"If_Modified_Since": first.headers["Last-Modified"]},
    ):
        for method in ("GET", "HEAD"):
            again = await shop.ask(method=method, **condition)
            assert (again.status, again.raw) == (304, b"")
            assert again.headers["ETag"] == first.headers["ETag"]


async def test_a_condition_that_fails_is_412_and_nobody_keeps_that(shop: Shop) -> None:
    for condition in (
        {"If_Match": '"another"'},
        {"If_Unmodified_Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
    ):
        answer = await shop.ask(**condition)
        assert (answer.status, answer.raw, answer.headers["Cache-Control"]) == (412, b"", "no-store")


@pytest.mark.parametrize("name", ["If_Modified_Since", "If_Unmodified_Since", "If_Range"])
@pytest.mark.parametrize("date", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "yesterday"])
async def test_a_date_that_is_none_is_ignored(shop: Shop, name: str, date: str) -> None:
    answer = await shop.ask(**{name: date})
    assert (answer.status, answer.raw) == (200, CONTENT)


async def test_a_range_is_of_the_object_that_the_condition_names_or_it_is_the_whole(shop: Shop) -> None:
    first = await shop.ask()
    for good in (first.headers["ETag"], first.headers["Last-Modified"]):
        assert (await shop.ask(Range="bytes=0-9", If_Range=good)).raw == CONTENT[:10]
    for other in ('"another"', f"W/{first.headers['ETag']}", "Sat, 01 Jan 2000 00:00:00 GMT", "neither"):
        answer = await shop.ask(Range="bytes=0-9", If_Range=other)
        assert (answer.status, len(answer.raw)) == (200, len(CONTENT))


async def test_a_link_to_what_is_gone_is_404_as_that_of_a_file(shop: Shop) -> None:
    for method in ("GET", "HEAD"):
        answer = await shop.ask(link("videos/2026/01/02/none.mp4"), method)
        assert answer.status == 404
    assert (await shop.ask(link("videos/2026/01/02/none.mp4"))).code == "not_found"


async def test_a_link_that_nobody_signed_never_reaches_the_store(shop: Shop) -> None:
    for wrong in (link().replace("job_1", "job_2"), link()[:-2], link("../bucket-1/x"), f"/media/{KEY}"):
        assert (await shop.ask(wrong)).status == 404


async def test_an_unreachable_store_is_503_and_says_nothing_of_it(
    opening: Opening, place: ObjectPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.chassis.egress_objects._BACKOFF_FIRST_S", 0.01)
    for redirect in (False, True):
        front = await opening(
            **on(place) | {"media_s3_endpoint": "http://127.0.0.1:9", "media_s3_redirect": redirect}
        )
        answer = await front.request("GET", link())
        assert answer.status == 503
        assert answer.headers["Retry-After"]
        assert "127.0.0.1:9" not in answer.raw.decode()


async def test_a_key_that_no_longer_opens_the_bucket_is_503(opening: Opening, place: ObjectPlace) -> None:
    front = await opening(**on(place) | {"media_s3_secret_key": Secret("changed")})
    answer = await front.request("GET", link())
    assert answer.status == 503
    assert b"Signature" not in answer.raw


async def test_a_redirect_leads_to_the_store_for_no_longer_than_the_link(sending_on: Shop) -> None:
    for validity_ms, longest_s in ((HOUR_MS, 60), (20_000, 20)):
        answer = await sending_on.ask(link(validity_ms=validity_ms))
        assert (answer.status, answer.headers["Cache-Control"]) == (302, "no-store")
        location = answer.headers["Location"]
        assert 1 <= int(parse_qs(urlsplit(location).query)["X-Amz-Expires"][0]) <= longest_s
        assert SECRET_KEY not in location
        async with sending_on.client.get(URL(location, encoded=True)) as opened:
            assert (opened.status, await opened.read()) == (200, CONTENT)
            assert opened.headers["Content-Type"] == "video/mp4"
            assert opened.headers["Content-Disposition"] == 'inline; filename="videos-2026-01-02-job_1.mp4"'
        async with sending_on.client.get(URL(location, encoded=True), headers={"Range": "bytes=5-6"}) as part:
            assert (part.status, await part.read()) == (206, CONTENT[5:7])


async def test_a_redirected_head_may_be_followed(sending_on: Shop) -> None:
    answer = await sending_on.ask(method="HEAD")
    async with sending_on.client.head(URL(answer.headers["Location"], encoded=True)) as opened:
        assert (answer.status, opened.status) == (302, 200)


async def test_no_redirect_leads_to_what_is_gone(sending_on: Shop) -> None:
    answer = await sending_on.ask(link("videos/2026/01/02/none.mp4"))
    assert (answer.status, answer.code) == (404, "not_found")


async def test_a_client_that_leaves_in_the_middle_harms_nobody(shop: Shop) -> None:
    await put(shop.objects, "videos/2026/01/02/long.mp4", CONTENT * 20)
    for _ in range(5):
        async with shop.client.get(shop.front.url + link("videos/2026/01/02/long.mp4")) as answer:
            await answer.content.readexactly(1_000)
            answer.close()
    assert (await shop.ask()).raw == CONTENT


async def test_an_object_that_breaks_off_on_its_way_is_not_taken_for_whole(
    opening: Opening, place: ObjectPlace
) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        front = await opening(**on(place) | {"media_s3_endpoint": f"http://127.0.0.1:{port}"})
        with pytest.raises(aiohttp.ClientError):
            await front.request("GET", link())
