"""The simulator of OpenAI, asked by OpenAI's own client."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from PIL import Image

from tests.simulator.worlds import Simulated, simulated

KEY = "sk-simulated"


@pytest.fixture
async def sim() -> AsyncIterator[Simulated]:
    async with simulated() as running:
        await running.account("openai", KEY, balance=10)
        yield running


@pytest.fixture
async def client(sim: Simulated) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=KEY, base_url=f"{sim.address}/openai/v1", max_retries=0) as client:
        yield client


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    return file.getvalue()


async def test_an_image_is_generated(client: AsyncOpenAI) -> None:
    answer = await client.images.generate(
        model="gpt-image-2", prompt="A boat", size="1024x1536", quality="low"
    )
    assert answer.data is not None
    assert answer.usage is not None
    image = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json or "")))
    assert image.size == (1024, 1536)
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.input_tokens_details.image_tokens == 0


async def test_one_image_and_several_are_edited(client: AsyncOpenAI) -> None:
    one = await client.images.edit(model="gpt-image-2", image=("a.png", png(), "image/png"), prompt="A boat")
    files = [("a.png", png(), "image/png"), ("b.png", png(), "image/png")]
    two = await client.images.edit(model="gpt-image-2", image=files, prompt="A boat", n=2, quality="low")
    assert one.data is not None
    assert two.data is not None
    assert (len(one.data), len(two.data)) == (1, 2)
    assert two.usage is not None
    assert two.usage.input_tokens_details.image_tokens == 2048


async def test_images_are_streamed(client: AsyncOpenAI) -> None:
    stream: Any = await client.images.generate(
        model="gpt-image-2", prompt="A boat", stream=True, partial_images=1
    )
    kinds = [event.type async for event in stream]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]


async def test_chat_answers_whole_and_in_chunks(client: AsyncOpenAI) -> None:
    question: Any = [{"role": "user", "content": "Describe a harbour."}]
    whole = await client.chat.completions.create(
        model="gpt-5.4-mini", messages=question, max_completion_tokens=12
    )
    text = whole.choices[0].message.content
    assert text is not None
    assert whole.usage is not None
    assert whole.usage.completion_tokens == len(text.split()) == 12
    stream = await client.chat.completions.create(
        model="gpt-5.4-mini",
        messages=question,
        max_completion_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed.strip() == text
    assert chunks[-1].usage == whole.usage


async def test_models_are_listed_with_the_day_they_end(client: AsyncOpenAI) -> None:
    models = {model.id: model async for model in client.models.list()}
    assert models["gpt-image-2"].object == "model"
    assert (await client.models.retrieve("gpt-image-2")).id == "gpt-image-2"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("dall-e-3")


async def test_speech_is_read(client: AsyncOpenAI) -> None:
    answer = await client.audio.speech.create(model="tts-1", voice="nova", input="Good morning.")
    assert len(answer.content) > 1000


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("unauthorized", openai.AuthenticationError, "invalid_api_key"),
        ("forbidden", openai.PermissionDeniedError, "unsupported_country_region_territory"),
        ("payment_required", openai.RateLimitError, "insufficient_quota"),
        ("rate_limited", openai.RateLimitError, "rate_limit_exceeded"),
        ("server_error", openai.InternalServerError, None),
        ("overloaded", openai.InternalServerError, "server_is_overloaded"),
        ("moderated_before", openai.BadRequestError, "moderation_blocked"),
    ],
)
async def test_the_client_knows_each_error(
    sim: Simulated, client: AsyncOpenAI, fault: str, error: type[openai.APIStatusError], code: str | None
) -> None:
    with pytest.raises(error) as caught:
        await client.images.generate(prompt=f"A boat [[sim:{fault}]]")
    assert caught.value.code == code


@pytest.mark.parametrize("fault", ["cut_before_read", "cut_after_read", "answer_lost"])
async def test_the_client_sees_a_lost_connection(sim: Simulated, client: AsyncOpenAI, fault: str) -> None:
    await sim.control("POST", "faults", {"fault": fault})
    with pytest.raises(openai.APIConnectionError):
        await client.images.generate(prompt="A boat")
