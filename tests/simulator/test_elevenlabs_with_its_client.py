"""The simulator of ElevenLabs, asked by ElevenLabs' own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from elevenlabs.client import AsyncElevenLabs
from elevenlabs.core.api_error import ApiError
from elevenlabs.core.request_options import RequestOptions

from tests.simulator.worlds import Simulated, simulated

KEY = "sk_simulated"
VOICE = "JBFqnCBsd6RMkjVDRZzb"
MODEL = "eleven_multilingual_v2"
ONCE = RequestOptions(max_retries=0)


@pytest.fixture
async def world() -> AsyncIterator[Simulated]:
    async with simulated() as world:
        await world.account("elevenlabs", KEY, balance=1000)
        yield world


@asynccontextmanager
async def opened(world: Simulated, key: str) -> AsyncIterator[AsyncElevenLabs]:
    async with httpx.AsyncClient() as http:
        yield AsyncElevenLabs(api_key=key, base_url=f"{world.address}/elevenlabs", httpx_client=http)


@pytest.fixture
async def client(world: Simulated) -> AsyncIterator[AsyncElevenLabs]:
    async with opened(world, KEY) as client:
        yield client


async def speak(client: AsyncElevenLabs, text: str, output_format: str = "mp3_44100_128") -> bytes:
    spoken = client.text_to_speech.convert(
        VOICE, text=text, model_id=MODEL, output_format=output_format, request_options=ONCE
    )
    return b"".join([chunk async for chunk in spoken])


def is_mp3(content: bytes) -> bool:
    return content[:3] == b"ID3" or content[0] == 0xFF


async def test_text_becomes_speech_and_credits_are_counted(client: AsyncElevenLabs) -> None:
    assert is_mp3(await speak(client, "Good morning."))
    subscription = await client.user.subscription.get()
    assert subscription.character_count == len("Good morning.")
    assert subscription.character_limit - subscription.character_count == 1000 - len("Good morning.")


async def test_headers_name_the_request_its_cost_and_the_concurrency(client: AsyncElevenLabs) -> None:
    async with client.text_to_speech.with_raw_response.convert(VOICE, text="Hello", model_id=MODEL) as answer:
        assert answer.headers["character-cost"] == "5"
        assert answer.headers["request-id"]
        assert answer.headers["maximum-concurrent-requests"] == "5"


async def test_a_wave_file_is_a_wave_file(client: AsyncElevenLabs) -> None:
    assert (await speak(client, "Hello", output_format="wav_22050"))[:4] == b"RIFF"


async def test_a_prompt_becomes_music(client: AsyncElevenLabs) -> None:
    music = client.music.compose(
        prompt="slow piano", music_length_ms=10_000, model_id="music_v1", request_options=ONCE
    )
    assert is_mp3(b"".join([chunk async for chunk in music]))
    # Ten seconds at 680 credits a minute.
    assert (await client.user.subscription.get()).character_count == 114


async def test_an_exhausted_quota_comes_as_401(client: AsyncElevenLabs, world: Simulated) -> None:
    await world.account("elevenlabs", KEY, balance=3)
    with pytest.raises(ApiError) as caught:
        await speak(client, "Too long")
    assert caught.value.status_code == 401
    assert caught.value.body["detail"]["status"] == "quota_exceeded"


async def test_a_wrong_key_comes_as_401_too(world: Simulated) -> None:
    async with opened(world, "sk_nobody") as stranger:
        with pytest.raises(ApiError) as caught:
            await stranger.user.subscription.get()
    assert caught.value.status_code == 401
    assert caught.value.body["detail"]["code"] == "invalid_api_key"


async def test_one_request_more_than_the_plan_has_is_refused(
    client: AsyncElevenLabs, world: Simulated
) -> None:
    await world.account("elevenlabs", KEY, concurrency=2)
    answers = await asyncio.gather(
        *(speak(client, f"number {number} [[sim:slow=3]]") for number in range(3)), return_exceptions=True
    )
    failures = [answer for answer in answers if isinstance(answer, ApiError)]
    assert [failure.status_code for failure in failures] == [429]
    assert failures[0].body["detail"]["code"] == "concurrent_limit_exceeded"
    assert failures[0].headers is not None
    assert failures[0].headers["maximum-concurrent-requests"] == "2"


async def test_an_unknown_voice_is_not_found(client: AsyncElevenLabs) -> None:
    with pytest.raises(ApiError) as caught:
        async for _ in client.text_to_speech.convert("nobody", text="Hello", request_options=ONCE):
            pass
    assert caught.value.status_code == 404
    assert caught.value.body["detail"]["status"] == "voice_not_found"


async def test_voices_and_models_are_listed(client: AsyncElevenLabs) -> None:
    assert VOICE in [voice.voice_id for voice in (await client.voices.search()).voices]
    assert MODEL in [model.model_id for model in await client.models.list()]


async def test_history_shows_what_was_spoken_newest_first(client: AsyncElevenLabs) -> None:
    await speak(client, "first")
    await speak(client, "second")
    history = (await client.history.list()).history
    assert [item.text for item in history] == ["second", "first"]


async def test_timestamps_cover_every_character(client: AsyncElevenLabs) -> None:
    answer = await client.text_to_speech.convert_with_timestamps(VOICE, text="Hello")
    assert answer.alignment is not None
    assert answer.alignment.characters == list("Hello")
