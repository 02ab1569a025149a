"""What upstream services send by themselves: taken from whoever knows an address, and telling nobody anything."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gateway import hints
from tests.contracts.conftest import Answer, Opening, Storefront
from tests.fakes import eventually

TOKEN = "Zx_-" * 40


async def sent(shop: Storefront, body: bytes = b"{}", token: str = TOKEN, **headers: str) -> Answer:
    return await shop.request("POST", f"/hints/{token}", data=io.BytesIO(body), headers=headers)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/octet-stream"])
async def test_a_hint_is_passed_on_as_it_came_and_answered_without_a_word(
    shop: Storefront, content_type: str
) -> None:
    answer = await sent(
        shop, b"\x00\xff{", **{"Content-Type": content_type, "X-Signature": "ab", "Cookie": "c=1"}
    )
    assert (answer.status, answer.raw) == (204, b"")
    (taken,) = shop.pool.hints
    assert (taken.token, taken.body) == (TOKEN, b"\x00\xff{")
    assert (taken.headers["x-signature"], taken.headers["content-type"]) == ("ab", content_type)
    assert "cookie" not in taken.headers
    assert "host" not in taken.headers


@pytest.mark.parametrize(
    "refusal",
    [
        ServiceError(Kind.NOT_FOUND, "UNKNOWN_HINT", "canary"),
        ServiceError(Kind.INTERNAL, "INTERNAL", "canary"),
        ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "canary"),
    ],
    ids=lambda refusal: str(refusal.reason),
)
async def test_an_address_that_means_nothing_is_answered_like_one_that_does(
    shop: Storefront, refusal: ServiceError
) -> None:
    shop.pool.refusal = refusal
    answer = await sent(shop)
    assert (answer.status, answer.raw) == (204, b"")


async def test_a_pool_that_is_away_or_slow_is_not_told_either(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await sent(await opening(pool_listens=False))).status == 204
    monkeypatch.setattr(hints, "_PASS_ON_WITHIN_S", 0.1)
    slow = await opening()
    slow.pool.answer_after_s = 5.0
    assert (await sent(slow)).status == 204


@pytest.mark.parametrize("token", ["short", "a" * 99, "a" * 601, "a" * 120 + ".", "a" * 60 + "/" + "a" * 60])
async def test_what_cannot_be_an_address_leads_nowhere(shop: Storefront, token: str) -> None:
    assert (await sent(shop, token=token)).status == 404
    assert (await shop.request("GET", f"/hints/{TOKEN}")).status in (404, 405)
    assert shop.pool.hints == []


async def test_a_hint_that_is_too_large_is_not_read_to_its_end(shop: Storefront) -> None:
    largest = b"x" * hints.BODY_LIMIT_BYTES
    assert (await sent(shop, largest)).status == 204
    assert len(shop.pool.hints[0].body) == hints.BODY_LIMIT_BYTES
    assert (await sent(shop, largest + b"x")).status == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 65_536

    async with shop.client.post(f"{shop.url}/hints/{TOKEN}", data=endless()) as response:
        assert response.status == 413
    assert len(shop.pool.hints) == 1


async def test_a_hint_that_does_not_arrive_gives_its_place_back(
    shop: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "_BODY_WITHIN_S", 0.1)
    monkeypatch.setattr("services.gateway.listener._LINGERING_TIME_S", 0.2)
    monkeypatch.setattr(hints, "_AT_ONCE", 1)
    start = f"POST /hints/{TOKEN} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n".encode()
    assert (await shop.bytes_back(start + b"{")).startswith(b"HTTP/1.1 408 ")
    assert (await sent(shop)).status == 204


async def test_a_sender_that_leaves_makes_no_noise(
    shop: Storefront, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "_AT_ONCE", 1)
    address = urlsplit(shop.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"POST /hints/{TOKEN} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{{".encode())

    async def is_full() -> bool:
        return (await sent(shop)).status == 503

    async with asyncio.timeout(5):
        while not await is_full():
            await asyncio.sleep(0.01)
    writer.transport.abort()
    async with asyncio.timeout(5):
        while await is_full():
            await asyncio.sleep(0.01)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("bound", ["_AT_ONCE", "_AT_ONCE_FROM_ONE"])
async def test_only_so_many_are_taken_at_once(
    shop: Storefront, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(hints, bound, 2)
    shop.pool.answer_after_s = 0.5
    waiting = [asyncio.create_task(sent(shop)) for _ in range(2)]
    await eventually(lambda: len(shop.pool.hints) == 2)
    assert (await sent(shop)).status == 503
    assert {(await one).status for one in waiting} == {204}
    shop.pool.answer_after_s = 0.0
    assert (await sent(shop)).status == 204


async def test_nothing_of_a_hint_is_written_down(opening: Opening, capfd: pytest.CaptureFixture[str]) -> None:
    shop = await opening(access_log=True)
    shop.pool.refusal = ServiceError(Kind.INTERNAL, "INTERNAL", "canary")
    await sent(shop, b"canary-body", **{"Authorization": "Bearer canary-secret", "X-Canary": "canary-header"})
    await asyncio.sleep(0.4)
    written = capfd.readouterr().err
    assert '"route":"/hints/{token}"' in written
    for secret in ("canary", TOKEN):
        assert secret not in written
