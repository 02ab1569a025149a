"""What the edge does with clients that are slow, leave, or are under way when it stops."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import prometheus_client
import pytest

from services.chassis.settings import load
from services.gateway.serving import serving
from services.gateway.settings import Settings
from tests.contracts.conftest import Opening
from tests.fakes import LIVE_KEY, FakeBilling, FakeJobs, eventually, serving_billing, serving_jobs

AUTHORIZED = f"Host: a\r\nAuthorization: Bearer {LIVE_KEY}\r\nIdempotency-Key: k\r\n"


async def test_a_body_that_does_not_arrive_is_400_and_the_connection_ends(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.reading._BODY_TIMEOUT_S", 0.2)
    monkeypatch.setattr("services.gateway.listener._LINGERING_TIME_S", 0.2)
    shop = await opening()
    start = f"POST /v1/images/generate HTTP/1.1\r\n{AUTHORIZED}Content-Length: 100\r\n\r\n"
    answered = await shop.bytes_back(start.encode() + b'{"prompt":')
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert b"did not arrive in time" in answered


@pytest.mark.parametrize("length_bytes", [100, 2_000_000])
async def test_a_client_that_leaves_in_the_middle_of_its_body_makes_no_noise(
    opening: Opening, caplog: pytest.LogCaptureFixture, length_bytes: int
) -> None:
    shop = await opening()
    address = urlsplit(shop.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    start = f"POST /v1/images/generate HTTP/1.1\r\n{AUTHORIZED}Content-Length: {length_bytes}\r\n\r\n"
    writer.write(start.encode() + b'{"prompt":')
    await eventually(lambda: in_flight() == 1)
    writer.transport.abort()
    await eventually(lambda: in_flight() == 0)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def in_flight() -> float | None:
    return prometheus_client.REGISTRY.get_sample_value("atelier_gateway_requests_in_flight")


async def test_headers_that_do_not_arrive_end_the_connection(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.listener._KEEPALIVE_TIMEOUT_S", 0.3)
    shop = await opening()
    began_s = time.monotonic()
    assert await shop.bytes_back(b"GET /v1/usage HTTP/1.1\r\nHost: a\r\nX-Slow: ") == b""
    assert time.monotonic() - began_s < 5


async def test_a_request_under_way_is_answered_when_the_gateway_stops(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 40)
    billing, jobs = FakeBilling(), FakeJobs(answer_after_s=0.4)
    async with AsyncExitStack() as stack:
        environment = {
            "ATELIER_GATEWAY_LISTEN": "127.0.0.1:0",
            "ATELIER_GATEWAY_BILLING_ADDRESS": await stack.enter_async_context(serving_billing(billing)),
            "ATELIER_GATEWAY_JOBS_ADDRESS": await stack.enter_async_context(serving_jobs(jobs)),
            "ATELIER_GATEWAY_POOL_ADDRESS": "127.0.0.1:1",
            "ATELIER_GATEWAY_MEDIA_FOLDER": str(tmp_path),
            "ATELIER_GATEWAY_MEDIA_SIGNING_KEY_FILE": str(tmp_path / "key"),
            "ATELIER_GATEWAY_ACCESS_LOG": "no",
        }
        client = await stack.enter_async_context(aiohttp.ClientSession())
        headers = {"Authorization": f"Bearer {LIVE_KEY}", "Idempotency-Key": "k"}
        async with serving(load(Settings, environment)) as gateway:
            url = gateway.url
            request = client.post(url + "/v1/images/generate", json={"prompt": "a"}, headers=headers)
            under_way = asyncio.ensure_future(request)
            await asyncio.sleep(0.2)
        assert (await under_way).status == 202
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(url + "/v1/usage")


async def test_connections_are_kept_for_the_next_request(opening: Opening) -> None:
    shop = await opening()
    request = f"GET /v1/usage HTTP/1.1\r\n{AUTHORIZED}\r\n".encode()
    last = request.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n")
    assert (await shop.bytes_back(request + request + last)).count(b"HTTP/1.1 200 OK") == 3
