"""The simulator of Replicate, asked by Replicate's own client."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from replicate.client import Client
from replicate.exceptions import ReplicateError
from replicate.webhook import Webhooks

from tests.simulator.receivers import receiver
from tests.simulator.worlds import Simulated, simulated

KEY = "r8_simulated"
MODEL = "bytedance/seedance-2.0-fast"
INPUT = {"prompt": "a fox in the snow", "duration": 4, "resolution": "480p"}


@pytest.fixture
async def world() -> AsyncIterator[Simulated]:
    async with simulated() as world:
        await world.account("replicate", KEY, balance=100)
        yield world


@asynccontextmanager
async def opened(world: Simulated, key: str) -> AsyncIterator[Client]:
    client = Client(api_token=key, base_url=f"{world.address}/replicate")
    client.poll_interval = 0.02
    try:
        yield client
    finally:
        await client._async_client.aclose()


@pytest.fixture
async def client(world: Simulated) -> AsyncIterator[Client]:
    async with opened(world, KEY) as client:
        yield client


async def test_a_prediction_of_an_official_model_succeeds(client: Client, world: Simulated) -> None:
    prediction = await client.models.predictions.async_create(MODEL, INPUT)
    states: list[str] = [prediction.status]
    assert prediction.version == "hidden"
    await prediction.async_wait()
    states.append(prediction.status)
    assert states == ["processing", "succeeded"]
    assert isinstance(prediction.output, str)
    assert prediction.metrics is not None
    assert prediction.metrics["predict_time"] > 0
    async with world.client.get(prediction.output) as answer:
        assert answer.content_type == "video/mp4"


async def test_run_waits_and_gives_the_output(client: Client) -> None:
    output: Any = await client.async_run(MODEL, INPUT, use_file_output=False)
    assert output.startswith("http")


async def test_a_model_of_several_pictures_gives_a_list(client: Client) -> None:
    output: Any = await client.async_run(
        "black-forest-labs/flux-schnell", {"prompt": "dots", "num_outputs": 3}, use_file_output=False
    )
    assert len(output) == 3


async def test_progress_is_read_from_the_logs(client: Client) -> None:
    prediction = await client.models.predictions.async_create(MODEL, {**INPUT, "prompt": "[[sim:slow=0.5]]"})
    await prediction.async_reload()
    assert prediction.progress is not None
    assert prediction.progress.total == 100


async def test_a_prediction_can_be_canceled(client: Client, world: Simulated) -> None:
    prediction = await client.models.predictions.async_create(MODEL, {**INPUT, "prompt": "[[sim:slow=9]]"})
    canceled = await client.predictions.async_cancel(prediction.id)
    assert canceled.status == "canceled"
    assert (await world.tasks())[0]["state"] == "canceled"


async def test_predictions_are_listed_newest_first_in_pages_of_a_hundred(client: Client) -> None:
    for number in range(102):
        await client.models.predictions.async_create(MODEL, {**INPUT, "prompt": f"fox {number}"})
    first = await client.predictions.async_list()
    assert len(first) == 100
    assert first[0].input is not None
    assert first[0].input["prompt"] == "fox 101"
    assert first.next is not None
    second = await client.predictions.async_list(first.next)
    assert [prediction.input["prompt"] for prediction in second if prediction.input] == ["fox 1", "fox 0"]
    assert second.next is None


async def test_a_file_is_kept_shown_and_deleted(client: Client) -> None:
    file = await client.files.async_create(io.BytesIO(b"\x89PNG picture"), filename="fox.png")
    assert (file.name, file.content_type, file.size) == ("fox.png", "image/png", 12)
    prediction = await client.models.predictions.async_create(MODEL, {**INPUT, "image": file.urls["get"]})
    await prediction.async_wait()
    assert prediction.status == "succeeded"
    assert await client.files.async_delete(file.id)
    with pytest.raises(ReplicateError) as caught:
        await client.files.async_get(file.id)
    assert caught.value.status == 404


async def test_a_wrong_input_is_a_problem_of_validation(client: Client) -> None:
    with pytest.raises(ReplicateError) as caught:
        await client.models.predictions.async_create(MODEL, {**INPUT, "fps": 24})
    assert caught.value.status == 422
    assert caught.value.title == "Input validation failed"
    assert caught.value.detail == "- input: Additional property fps is not allowed\n"


async def test_a_wrong_token_is_a_problem(world: Simulated) -> None:
    async with opened(world, "r8_nobody") as stranger:
        with pytest.raises(ReplicateError) as caught:
            await stranger.accounts.async_current()
    assert caught.value.status == 401


async def test_no_credit_is_a_problem(client: Client, world: Simulated) -> None:
    await world.account("replicate", KEY, balance=0)
    with pytest.raises(ReplicateError) as caught:
        await client.models.predictions.async_create(MODEL, INPUT)
    assert (caught.value.status, caught.value.title) == (402, "Insufficient credit")


async def test_the_account_and_the_model_are_shown(client: Client) -> None:
    assert (await client.accounts.async_current()).username == KEY
    model = await client.models.async_get(MODEL)
    assert model.latest_version is not None
    given = model.latest_version.openapi_schema["components"]["schemas"]["Input"]
    assert "last_frame_image" in given["properties"]


async def test_a_webhook_has_a_signature_that_the_client_accepts(client: Client, world: Simulated) -> None:
    secret = await client.webhooks.default.async_secret()
    async with receiver() as received:
        await client.models.predictions.async_create(
            MODEL, INPUT, webhook=received.url, webhook_events_filter=["completed"]
        )
        post = await received.next()
    Webhooks.validate(headers=post.headers, body=post.text, secret=secret)
    assert post.json()["status"] == "succeeded"
