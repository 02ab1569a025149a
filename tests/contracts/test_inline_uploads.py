"""Images inside of bodies, as they arrive: in any pieces, at any pace, so many at once."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import io
import json
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import urlsplit

import pytest

from services.gateway.inline_uploads import InlineUploads
from services.gateway.lifting import LiftedText
from tests.contracts.conftest import Answer, Opening, Storefront
from tests.contracts.leonardo import IMAGES, refused
from tests.fakes import LIVE_KEY, OTHER_KEY, eventually

SMALL = b"a small picture" * 20
LARGE = bytes(range(251)) * 8_000  # 2 MB


def asking(content: bytes) -> bytes:
    return json.dumps({"prompt": "a", "referenceImage": base64.b64encode(content).decode()}).encode()


async def in_pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


async def posted_in_pieces(shop: Storefront, body: bytes, size: int, key: str = LIVE_KEY) -> Answer:
    headers = {
        "Authorization": f"Bearer {key}",
        "Idempotency-Key": "k",
        "Content-Type": "application/json",
    }
    return await shop.request("POST", IMAGES, headers=headers, data=in_pieces(body, size))


@pytest.mark.parametrize("content,size", [(SMALL, 1), (LARGE, 999), (LARGE, 100_000)])
async def test_a_body_in_chunks_of_any_size_is_read(shop: Storefront, content: bytes, size: int) -> None:
    answer = await posted_in_pieces(shop, asking(content), size)
    assert answer.status == 202
    assert list(shop.pool.staged.values()) == [content]


async def test_a_compressed_body_may_hold_an_image(shop: Storefront) -> None:
    packed = gzip.compress(asking(LARGE))
    assert (await shop.post(IMAGES, packed, headers={"Content-Encoding": "gzip"})).status == 202
    assert list(shop.pool.staged.values()) == [LARGE]


class Upload:
    """A request whose body stops half-way until `go_on`."""

    def __init__(self, shop: Storefront, key: str = LIVE_KEY, number: int = 0) -> None:
        self._address = urlsplit(shop.url)
        self._body = asking(LARGE)
        self._head = (
            f"POST {IMAGES} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: k{number}\r\n"
            f"Connection: close\r\nContent-Length: {len(self._body)}\r\n\r\n"
        ).encode()
        self.answer: asyncio.Task[Answer] | None = None

    async def begin(self) -> None:
        reader, self._writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        self._writer.write(self._head + self._body[:500_000])
        await self._writer.drain()
        self.answer = asyncio.create_task(self._read(reader))

    def go_on(self) -> None:
        self._writer.write(self._body[500_000:])

    def abort(self) -> None:
        assert self.answer is not None
        self.answer.cancel()
        self._writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head, _, payload = (await reader.read(-1)).partition(b"\r\n\r\n")
        self._writer.close()
        return Answer(int(head.split(b" ", 2)[1]), {}, payload)

    async def ended(self) -> Answer:
        assert self.answer is not None
        return await asyncio.wait_for(self.answer, 10)


async def begun(shop: Storefront, *keys: str) -> list[Upload]:
    uploads = [Upload(shop, key, number) for number, key in enumerate(keys)]
    for upload in uploads:
        await upload.begin()
        # The edge has met it, one way or the other, once it answers a request that came later.
        await shop.get("/v1/usage")
    return uploads


async def test_a_customer_s_third_image_waits_and_another_customer_s_does_not(shop: Storefront) -> None:
    first, second, third, other = await begun(shop, LIVE_KEY, LIVE_KEY, LIVE_KEY, OTHER_KEY)
    third.go_on()
    other.go_on()
    assert (await other.ended()).status == 202
    assert third.answer is not None
    assert not third.answer.done()
    first.go_on()
    assert [(await each.ended()).status for each in (first, third)] == [202, 202]
    second.go_on()
    assert (await second.ended()).status == 202
    assert len(shop.pool.staged) == 4


async def test_who_waits_too_long_is_told_to_come_back(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.edge.InlineUploads", partial(InlineUploads, patience_s=0.1))
    monkeypatch.setattr("services.gateway.listener._LINGERING_TIME_S", 0.2)
    shop = await opening(inline_uploads=1)
    holder, late = await begun(shop, LIVE_KEY, OTHER_KEY)
    answer = await late.ended()
    assert (answer.status, answer.code) == (503, "provider_unavailable")
    assert (await shop.post(IMAGES, b'{"prompt": "a"}')).status == 202
    holder.go_on()
    assert (await holder.ended()).status == 202


async def test_a_small_inline_image_needs_a_place_too(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.edge.InlineUploads", partial(InlineUploads, patience_s=0.1))
    shop = await opening(inline_uploads=1)
    (holder,) = await begun(shop, LIVE_KEY)
    refused(await shop.post(IMAGES, asking(SMALL)), 503, "provider_unavailable")
    holder.go_on()
    assert (await holder.ended()).status == 202
    assert (await shop.post(IMAGES, asking(SMALL))).status == 202


async def test_many_small_images_at_once_are_all_taken_two_by_two(shop: Storefront) -> None:
    shop.pool.answer_after_s = 0.01
    answers = await asyncio.gather(*(shop.post(IMAGES, asking(SMALL)) for _ in range(30)))
    assert {answer.status for answer in answers} == {202}
    assert shop.pool.most_at_once == 2


async def test_an_upload_that_stops_loses_its_place(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.reading._STALL_TIMEOUT_S", 0.2)
    monkeypatch.setattr("services.gateway.listener._LINGERING_TIME_S", 0.2)
    shop = await opening(inline_uploads=1)
    (stopped,) = await begun(shop, LIVE_KEY)
    answer = await stopped.ended()
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert "did not arrive in time" in answer.body["error"]["message"]
    assert (await shop.post(IMAGES, asking(LARGE))).status == 202


async def test_an_upload_that_is_cut_off_loses_its_place(opening: Opening) -> None:
    shop = await opening(inline_uploads=1)
    (gone,) = await begun(shop, LIVE_KEY)
    gone.abort()
    assert (await shop.post(IMAGES, asking(LARGE))).status == 202


async def test_the_wait_for_a_place_is_not_counted_as_slowness(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.reading._BODY_TIMEOUT_S", 0.3)
    shop = await opening(inline_uploads=1)
    (holder,) = await begun(shop, LIVE_KEY)
    waiting = asyncio.create_task(posted_in_pieces(shop, asking(LARGE), 100_000, OTHER_KEY))
    await asyncio.sleep(0.6)
    holder.go_on()
    assert (await holder.ended()).status == 202
    assert (await waiting).status == 202


async def test_a_body_within_1_mib_is_not_searched_for_strings(
    shop: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million of empty ones in it would cost a second."""
    monkeypatch.setattr("services.gateway.reading.Lifter", None)
    body = b'{"prompt": "a", "x": [' + b'"",' * 340_000 + b"0]}"
    assert (await posted_in_pieces(shop, body, 100_000)).status == 202


async def test_nothing_that_was_lifted_out_is_held_while_the_job_is_being_made(shop: Storefront) -> None:
    shop.jobs.answer_after_s = 0.5
    for reference in ("https://example.com/a.png", base64.b64encode(SMALL).decode()):
        body = json.dumps({"prompt": "a", "referenceImage": reference, "x": "y" * 5_000_000}).encode()
        # What uploads before this one left in reference cycles is not what is looked for.
        gc.collect()
        made = asyncio.create_task(shop.post(IMAGES, body))
        jobs_before = len(shop.jobs.created)
        await eventually(lambda before=jobs_before: len(shop.jobs.created) > before)  # type: ignore[misc]
        assert [each for each in gc.get_objects() if isinstance(each, LiftedText)] == []
        assert not made.done()
        assert (await made).status == 202


async def test_a_place_is_free_again_while_the_job_is_being_made(opening: Opening) -> None:
    shop = await opening(inline_uploads=1)
    shop.jobs.answer_after_s = 0.5
    first = asyncio.create_task(shop.post(IMAGES, asking(LARGE)))
    await eventually(lambda: bool(shop.jobs.created))
    second = asyncio.create_task(shop.post(IMAGES, asking(LARGE)))
    await eventually(lambda: len(shop.pool.staged) == 2)
    assert not first.done()
    assert {(await each).status for each in (first, second)} == {202}


async def test_a_long_string_that_is_no_image_leaves_nothing_behind(opening: Opening) -> None:
    shop = await opening(inline_uploads=1)
    body = json.dumps({"prompt": "a", "x": "y" * 3_000_000}).encode()
    for _ in range(3):
        assert (await shop.request("POST", IMAGES, data=io.BytesIO(body))).status == 401
        assert (await shop.post(IMAGES, body)).status == 202
    assert shop.pool.staged == {}
