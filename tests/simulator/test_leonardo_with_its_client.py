"""The simulator of Leonardo, asked by Leonardo's own client, which knows v1 only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from leonardo_ai_sdk import LeonardoAiSDK
from leonardo_ai_sdk.models import errors, operations

from tests.simulator.worlds import Simulated, simulated, until

KEY = "3f1e1f6e-6f5c-4d53-9d55-0a5b6f0d8a11"


@pytest.fixture
async def sim() -> AsyncIterator[Simulated]:
    async with simulated() as running:
        await running.account("leonardo", KEY, balance=5)
        yield running


@pytest.fixture
async def client(sim: Simulated) -> AsyncIterator[LeonardoAiSDK]:
    async with LeonardoAiSDK(bearer_auth=KEY, server_url=f"{sim.address}/leonardo/api/rest/v1") as client:
        yield client


async def create(client: LeonardoAiSDK, **fields: Any) -> Any:
    request = operations.CreateGenerationRequestBody(**{"prompt": "A boat", **fields})
    answer: Any = (await client.image.create_generation_async(request=request)).object
    return answer.sd_generation_job


async def ended(client: LeonardoAiSDK, generation_id: str) -> Any:
    async def look() -> Any:
        answer: Any = (await client.image.get_generation_by_id_async(id=generation_id)).object
        generation = answer.generations_by_pk
        return None if generation.status.value == "PENDING" else generation

    return await until(look)


async def test_images_are_made_read_and_deleted(client: LeonardoAiSDK) -> None:
    job = await create(client, width=512, height=768, num_images=2)
    assert (job.cost.amount, job.cost.unit) == ("0.006", "DOLLARS")
    generation = await ended(client, job.generation_id)
    assert generation.status.value == "COMPLETE"
    assert (generation.image_width, generation.image_height) == (512, 768)
    assert len(generation.generated_images) == 2
    deleted: Any = (await client.image.delete_generation_by_id_async(id=job.generation_id)).object
    assert deleted.delete_generations_by_pk.id == job.generation_id


async def test_generations_are_listed_by_the_user_that_me_names(client: LeonardoAiSDK) -> None:
    job = await create(client)
    me: Any = (await client.user.get_user_self_async()).object
    details = me.user_details[0]
    assert details.api_concurrency_slots == 10
    listed: Any = (
        await client.image.get_generations_by_user_id_async(user_id=details.user.id, offset=0, limit=5)
    ).object
    assert [generation.id for generation in listed.generations] == [job.generation_id]


async def test_an_image_is_uploaded_and_used(sim: Simulated, client: LeonardoAiSDK) -> None:
    body = operations.UploadInitImageRequestBody(extension="png")
    answer: Any = (await client.init_images.upload_init_image_async(request=body)).object
    form = answer.upload_init_image
    data = aiohttp.FormData(json.loads(form.fields))
    data.add_field("file", b"\x89PNG\r\n\x1a\n", filename="a.png")
    async with sim.client.post(form.url, data=data) as stored:
        assert stored.status == 204
    job = await create(client, init_image_id=form.id, init_strength=0.5)
    assert (await ended(client, job.generation_id)).status.value == "COMPLETE"


async def test_a_film_is_made_from_words(client: LeonardoAiSDK) -> None:
    request = operations.CreateTextToVideoGenerationRequestBody(prompt="A boat")
    answer: Any = (await client.motion.create_text_to_video_generation_async(request=request)).object
    generation = await ended(client, answer.motion_video_generation_job.generation_id)
    assert generation.generated_images[0].motion_mp4_url.endswith(".mp4")


async def test_an_unknown_generation_is_nothing(client: LeonardoAiSDK) -> None:
    answer: Any = (await client.image.get_generation_by_id_async(id="nothing")).object
    assert answer.generations_by_pk is None


@pytest.mark.parametrize(
    ("fault", "status"),
    [("unauthorized", 401), ("payment_required", 400), ("moderated_before", 403), ("rate_limited", 429)],
)
async def test_the_client_knows_each_error(client: LeonardoAiSDK, fault: str, status: int) -> None:
    with pytest.raises(errors.SDKError) as caught:
        await create(client, prompt=f"A boat [[sim:{fault}]]")
    assert caught.value.status_code == status
