"""The simulator of fal, asked by fal's own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import fal_client
import pytest
from fal_client import client as fal_module

from tests.simulator.worlds import Simulated, simulated

KEY = "id-1:secret-1"
VIDEO = "bytedance/seedance-2.0/text-to-video"
PROMPT = {"prompt": "a fox in the snow", "duration": "4", "resolution": "480p"}


@pytest.fixture
async def world() -> AsyncIterator[Simulated]:
    async with simulated() as world:
        await world.account("fal", KEY, balance=10)
        yield world


@asynccontextmanager
async def opened(key: str) -> AsyncIterator[fal_client.AsyncClient]:
    client = fal_client.AsyncClient(key=key)
    try:
        yield client
    finally:
        await (await client._client).aclose()


@pytest.fixture
async def client(world: Simulated, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[fal_client.AsyncClient]:
    """The client knows its hosts as constants."""
    monkeypatch.setattr(fal_module, "QUEUE_URL_FORMAT", f"{world.address}/fal/queue/")
    monkeypatch.setattr(fal_module, "REST_URL", f"{world.address}/fal/rest")
    monkeypatch.setattr(fal_module, "CDN_URL", f"{world.address}/fal/media")
    async with opened(KEY) as client:
        yield client


@contextmanager
def refused(status: int) -> Iterator[pytest.ExceptionInfo[fal_client.FalClientHTTPError]]:
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        yield caught
    assert caught.value.status_code == status


async def test_a_submission_becomes_a_video(client: fal_client.AsyncClient, world: Simulated) -> None:
    handle = await client.submit(VIDEO, PROMPT)
    result = await handle.get(interval=0.02)
    assert result["video"]["content_type"] == "video/mp4"
    async with world.client.get(result["video"]["url"]) as answer:
        content = await answer.read()
    assert content[4:8] == b"ftyp"
    assert len(content) == result["video"]["file_size"]


async def test_returned_addresses_keep_owner_and_application_only(
    client: fal_client.AsyncClient, world: Simulated
) -> None:
    handle = await client.submit(VIDEO, PROMPT)
    base = f"{world.address}/fal/queue/bytedance/seedance-2.0/requests/{handle.request_id}"
    assert handle.response_url == base
    assert handle.status_url == f"{base}/status"
    assert handle.cancel_url == f"{base}/cancel"


async def test_states_come_in_order_with_logs(client: fal_client.AsyncClient, world: Simulated) -> None:
    await world.account("fal", KEY, concurrency=1)
    first = await client.submit(VIDEO, {**PROMPT, "prompt": "one [[sim:slow=60]]"})
    second = await client.submit(VIDEO, PROMPT)
    assert isinstance(await first.status(with_logs=True), fal_client.InProgress)
    waiting = await second.status()
    assert isinstance(waiting, fal_client.Queued)
    assert waiting.position == 0
    await world.advance(60)
    last = [state async for state in second.iter_events(with_logs=True, interval=0.02)][-1]
    assert isinstance(last, fal_client.Completed)
    assert last.logs
    assert last.metrics["inference_time"] > 0


async def test_a_wrong_input_is_accepted_and_refused_by_the_result(
    client: fal_client.AsyncClient, world: Simulated
) -> None:
    handle = await client.submit(VIDEO, {"prompt": "a fox", "duration": 5})
    with refused(422) as caught:
        await handle.get(interval=0.02)
    finding = caught.value.response.json()["detail"][0]
    assert finding["loc"] == ["body", "duration"]
    assert finding["type"] == "one_of"
    assert (await world.tasks())[0]["is_charged"] is False


async def test_a_request_that_waits_can_be_cancelled(
    client: fal_client.AsyncClient, world: Simulated
) -> None:
    handle = await client.submit(VIDEO, {**PROMPT, "prompt": "[[sim:slow=9]]"})
    await handle.cancel()
    status = await handle.status()
    assert isinstance(status, fal_client.Completed)
    assert status.error_type == "client_cancelled"
    with refused(400):
        await handle.cancel()


async def test_a_wrong_key_is_refused_with_its_type(world: Simulated, client: fal_client.AsyncClient) -> None:
    async with opened("nobody:knows") as stranger:
        with refused(401) as caught:
            await stranger.submit(VIDEO, PROMPT)
    assert caught.value.error_type == "auth_error"


async def test_an_exhausted_balance_locks_the_user(client: fal_client.AsyncClient, world: Simulated) -> None:
    await world.account("fal", KEY, balance=0)
    with refused(403) as caught:
        await client.submit(VIDEO, PROMPT)
    assert caught.value.message.startswith("User is locked. Reason: Exhausted balance")


async def test_uploads_by_the_file_network_can_be_used_as_references(
    client: fal_client.AsyncClient, world: Simulated
) -> None:
    url = await client.upload(b"\x89PNG picture", "image/png", "fox.png")
    async with world.client.get(url) as answer:
        assert await answer.read() == b"\x89PNG picture"
    handle = await client.submit(
        "bytedance/seedance-2.0/image-to-video", {"prompt": "it runs", "image_url": url, "duration": "4"}
    )
    assert (await handle.get(interval=0.02))["video"]["url"]


async def test_uploads_by_a_presigned_address_can_be_used_as_references(
    client: fal_client.AsyncClient, world: Simulated
) -> None:
    url = await client.upload(b"\x89PNG picture", "image/png", "fox.png", repository="fal")
    handle = await client.submit("openai/gpt-image-2/edit", {"prompt": "a hat", "image_urls": [url]})
    images = (await handle.get(interval=0.02))["images"]
    assert [(image["width"], image["height"]) for image in images] == [(1024, 768)]


async def test_a_file_that_is_not_there_cannot_be_downloaded(
    client: fal_client.AsyncClient, world: Simulated
) -> None:
    gone = f"{world.address}/fal/media/files/b/nothing/fox.png"
    handle = await client.submit("openai/gpt-image-2/edit", {"prompt": "a hat", "image_urls": [gone]})
    with refused(422) as caught:
        await handle.get(interval=0.02)
    assert caught.value.error_type == "file_download_error"


async def test_the_client_survives_many_requests_at_once(client: fal_client.AsyncClient) -> None:
    pictures = {"prompt": "dots", "image_size": "square_hd"}
    results = await asyncio.gather(*(client.subscribe("fal-ai/flux/schnell", pictures) for _ in range(12)))
    assert len({result["images"][0]["url"] for result in results}) == 12
