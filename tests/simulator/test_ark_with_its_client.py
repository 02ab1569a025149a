"""The simulator of Ark, asked by Ark's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from volcenginesdkarkruntime import AsyncArk
from volcenginesdkarkruntime import _exceptions as errors

from tests.simulator.worlds import LONG_S, Simulated, simulated, until

KEY = "ark-key"
MODEL = "dreamina-seedance-2-0-260128"
TEXT: Any = {"type": "text", "text": "A boat in the rain."}
TINY = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
async def sim() -> AsyncIterator[Simulated]:
    async with simulated() as running:
        await running.account("ark", KEY, balance=10)
        yield running


@pytest.fixture
async def client(sim: Simulated) -> AsyncIterator[AsyncArk]:
    async with AsyncArk(api_key=KEY, base_url=f"{sim.address}/ark/api/v3", max_retries=0) as client:
        yield client


async def ended(client: AsyncArk, task_id: str) -> Any:
    async def look() -> Any:
        task = await client.content_generation.tasks.get(task_id=task_id)
        return task if task.status in {"succeeded", "failed"} else None

    return await until(look)


async def test_a_task_is_created_and_read_to_its_end(client: AsyncArk) -> None:
    content: Any = [
        TEXT,
        {"type": "image_url", "image_url": {"url": TINY}, "role": "first_frame"},
        {"type": "image_url", "image_url": {"url": TINY}, "role": "last_frame"},
    ]
    created = await client.content_generation.tasks.create(
        model=MODEL,
        content=content,
        resolution="480p",
        ratio="9:16",
        duration=4,
        return_last_frame=True,
        safety_identifier="abc",
    )
    assert created.safety_identifier == "abc"
    task = await ended(client, created.id)
    assert (task.status, task.resolution, task.ratio, task.duration) == ("succeeded", "480p", "9:16", 4)
    assert task.usage.completion_tokens == 97 * 496 * 864 // 1024
    assert ".mp4" in task.content.video_url
    assert ".png" in task.content.last_frame_url


async def test_tasks_are_listed_by_their_ids(client: AsyncArk) -> None:
    ids = [(await client.content_generation.tasks.create(model=MODEL, content=[TEXT])).id for _ in range(3)]
    found = await client.content_generation.tasks.list(task_ids=ids[:2])
    assert found.total == 2
    assert {item.id for item in found.items} == set(ids[:2])


async def test_a_queued_task_is_deleted(sim: Simulated, client: AsyncArk) -> None:
    await sim.account("ark", KEY, balance=10, concurrency=1, latency_s=LONG_S)
    running, queued = [
        (await client.content_generation.tasks.create(model=MODEL, content=[TEXT])).id for _ in range(2)
    ]
    await client.content_generation.tasks.delete(task_id=queued)
    assert (await client.content_generation.tasks.get(task_id=queued)).status == "cancelled"
    with pytest.raises(errors.ArkConflictError):
        await client.content_generation.tasks.delete(task_id=running)


async def test_an_image_comes_at_once(client: AsyncArk) -> None:
    answer = await client.images.generate(model="seedream-5-0-lite-260128", prompt="A boat", size="1K")
    assert answer.usage.generated_images == 1
    assert ".jpg" in str(answer.data[0].url)


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("unauthorized", errors.ArkAuthenticationError, "AuthenticationError"),
        ("forbidden", errors.ArkPermissionDeniedError, "AccessDenied"),
        ("payment_required", errors.ArkPermissionDeniedError, "AccountOverdueError"),
        ("rate_limited", errors.ArkRateLimitError, "ModelAccountRpmRateLimitExceeded"),
        ("overloaded", errors.ArkRateLimitError, "ServerOverloaded"),
        ("server_error", errors.ArkInternalServerError, "InternalServiceError"),
        ("moderated_before", errors.ArkBadRequestError, "InputTextSensitiveContentDetected"),
    ],
)
async def test_the_client_knows_each_error(
    client: AsyncArk, fault: str, error: type[errors.ArkAPIStatusError], code: str
) -> None:
    text: Any = {"type": "text", "text": f"A boat [[sim:{fault}]]"}
    with pytest.raises(error) as caught:
        await client.content_generation.tasks.create(model=MODEL, content=[text])
    assert caught.value.code == code
