"""What adapters send is what the providers' own clients send for the same wish: method, address, credentials, body."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fal_client
import httpx
import openai
import pytest
from aiohttp import web
from elevenlabs.client import AsyncElevenLabs
from fal_client import client as fal_module
from leonardo_ai_sdk import LeonardoAiSDK
from leonardo_ai_sdk.models import operations
from replicate.client import Client
from runwayml import AsyncRunwayML
from volcenginesdkarkruntime import AsyncArk

from services.provider_pool.adapters.ark.adapter import ArkAdapter
from services.provider_pool.adapters.elevenlabs.adapter import ElevenLabsAdapter
from services.provider_pool.adapters.fal.adapter import FalAdapter
from services.provider_pool.adapters.interface import Adapter, Generation, Kind, Reference
from services.provider_pool.adapters.leonardo.adapter import LeonardoAdapter
from services.provider_pool.adapters.openai.adapter import OpenAIAdapter
from services.provider_pool.adapters.replicate.adapter import ReplicateAdapter
from services.provider_pool.adapters.runway.adapter import RunwayAdapter
from tests.adapters.scripted import ScriptedCalls, Sent, account, answer, context, image_file

KEY = "key-1"
FILM = Generation(Kind.VIDEO, "seedance-2.0-fast", "A red balloon", 1280, 720, duration_s=5, audio=True)
PICTURE = Generation(Kind.IMAGE, "gpt-image-2", "A lighthouse", 1024, 1024, quality="low")


@dataclass
class Recorder:
    """Takes any request, answers nothing that a client understands, and keeps what came."""

    url: str = ""
    came: list[tuple[web.BaseRequest, bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.came.append((request, await request.read()))
        return web.json_response({}, status=400)

    @property
    def path(self) -> str:
        return self.came[0][0].path

    @property
    def query(self) -> list[tuple[str, str]]:
        return list(self.came[0][0].query.items())

    @property
    def json(self) -> Any:
        return json.loads(self.came[0][1])

    def header(self, name: str) -> str:
        return self.came[0][0].headers[name]


@asynccontextmanager
async def recorder() -> AsyncIterator[Recorder]:
    found = Recorder()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        await runner.cleanup()


@pytest.fixture
async def provider() -> AsyncIterator[Recorder]:
    async with recorder() as found:
        yield found


async def sent(
    adapter: Adapter, generation: Generation, *files: Any, base: str = "", callback_url: str = ""
) -> Sent:
    """What the adapter sends; the answer does not matter."""
    spec = next(spec for spec in adapter.models() if spec.model == generation.model)
    calls = ScriptedCalls(answer({}, 400))
    own = account(adapter.name, options={"base_url": base} if base else None)
    prepared = adapter.prepare(generation, spec, files)
    with pytest.raises(Exception, match="answered 400"):
        await adapter.submit(context(calls, callback_url=callback_url), own, prepared, "job_1:1")
    return calls.only


def same_place(ours: Sent, theirs: Recorder) -> None:
    assert ours.method == "POST"
    assert urlsplit(ours.url).path == theirs.path
    assert list(ours.query) == theirs.query


@asynccontextmanager
async def openai_client(provider: Recorder) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=KEY,
        base_url=f"{provider.url}/v1",
        organization="org-1",
        project="proj_1",
        max_retries=0,
    ) as client:
        yield client


async def test_a_picture_of_openai_s(provider: Recorder) -> None:
    async with openai_client(provider) as client:
        with pytest.raises(openai.BadRequestError):
            await client.images.generate(
                model="gpt-image-2",
                prompt="A lighthouse",
                n=1,
                size="1024x1024",
                quality="low",
                output_format="png",
            )
    ours = await sent(OpenAIAdapter(), PICTURE)
    same_place(ours, provider)
    assert ours.json == provider.json
    assert ours.headers["authorization"] == provider.header("authorization")


@pytest.mark.parametrize("count", [1, 2])
async def test_a_picture_of_openai_s_after_others(provider: Recorder, count: int, tmp_path: Path) -> None:
    files = [image_file(tmp_path, f"{number}.png") for number in range(count)]
    contents: list[Any] = [(file.path.name, file.path.read_bytes(), "image/png") for file in files]
    async with openai_client(provider) as client:
        with pytest.raises(openai.BadRequestError):
            await client.images.edit(
                model="gpt-image-2",
                prompt="A lighthouse",
                image=contents if count > 1 else contents[0],
                n=1,
                size="1024x1024",
                quality="low",
                output_format="png",
            )
    asked = Generation(
        Kind.IMAGE,
        "gpt-image-2",
        "A lighthouse",
        1024,
        1024,
        quality="low",
        references=(Reference(),) * count,
    )
    ours = await sent(OpenAIAdapter(), asked, *files)
    same_place(ours, provider)
    body = provider.came[0][1]
    for part in ours.form:
        assert f'name="{part.name}"'.encode() in body
        assert (part.text or part.content_type).encode() in body
    assert body.count(b'form-data; name="') == len(ours.form)


async def test_a_text_of_openai_s(provider: Recorder) -> None:
    adapter = OpenAIAdapter()
    asked = Generation(Kind.TEXT, "gpt-5-mini", "Describe a lighthouse", max_words=100)
    ours = await sent(adapter, asked)
    assert isinstance(ours.json, dict)
    async with openai_client(provider) as client:
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(**ours.json)
    same_place(ours, provider)
    assert ours.json == provider.json


async def test_speech_of_elevenlabs(provider: Recorder) -> None:
    async with httpx.AsyncClient() as http:
        client = AsyncElevenLabs(api_key=KEY, base_url=provider.url, httpx_client=http)
        with pytest.raises(Exception, match="400"):
            async for _ in client.text_to_speech.convert(
                "JBFqnCBsd6RMkjVDRZzb",
                text="Good evening",
                model_id="eleven_multilingual_v2",
                output_format="wav_24000",
            ):
                pass
    asked = Generation(Kind.VOICE, "eleven-multilingual-v2", "Good evening", voice="george", format="wav")
    ours = await sent(ElevenLabsAdapter(), asked)
    same_place(ours, provider)
    assert ours.json == provider.json
    assert ours.headers["xi-api-key"] == provider.header("xi-api-key")


async def test_music_of_elevenlabs(provider: Recorder) -> None:
    async with httpx.AsyncClient() as http:
        client = AsyncElevenLabs(api_key=KEY, base_url=provider.url, httpx_client=http)
        with pytest.raises(Exception, match="400"):
            async for _ in client.music.compose(
                prompt="A calm piano",
                music_length_ms=30_000,
                model_id="music_v1",
                force_instrumental=False,
                output_format="mp3_44100_128",
            ):
                pass
    ours = await sent(
        ElevenLabsAdapter(), Generation(Kind.MUSIC, "eleven-music-v1", "A calm piano", duration_s=30)
    )
    same_place(ours, provider)
    assert ours.json == provider.json


async def test_a_film_of_replicate_s(provider: Recorder) -> None:
    client = Client(api_token=KEY, base_url=provider.url)
    ours = await sent(ReplicateAdapter(), FILM, callback_url="https://api.example.com/hints/t0ken")
    assert isinstance(ours.json, dict)
    with pytest.raises(Exception, match="400"):
        await client.models.predictions.async_create(
            "bytedance/seedance-2.0-fast",
            ours.json["input"],
            webhook="https://api.example.com/hints/t0ken",
            webhook_events_filter=["completed"],
        )
    await client._async_client.aclose()
    same_place(ours, provider)
    assert ours.json == provider.json
    assert ours.headers["authorization"] == provider.header("authorization")


async def test_a_film_of_fal_s(provider: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fal_module, "QUEUE_URL_FORMAT", f"{provider.url}/")
    client = fal_client.AsyncClient(key=KEY)
    ours = await sent(FalAdapter(), FILM, callback_url="https://api.example.com/hints/t0ken")
    assert isinstance(ours.json, dict)
    with pytest.raises(fal_client.FalClientHTTPError):
        await client.submit(
            "bytedance/seedance-2.0/fast/text-to-video",
            ours.json,
            webhook_url="https://api.example.com/hints/t0ken",
        )
    await (await client._client).aclose()
    same_place(ours, provider)
    assert ours.json == provider.json
    assert ours.headers["authorization"] == provider.header("authorization")


async def test_a_film_of_ark_s(provider: Recorder) -> None:
    ours = await sent(ArkAdapter(), FILM, callback_url="https://api.example.com/hints/t0ken")
    body: Any = ours.json
    async with AsyncArk(api_key=KEY, base_url=f"{provider.url}/api/v3", max_retries=0) as client:
        # It knows every field by its name, and takes no other.
        with pytest.raises(Exception, match="400"):
            await client.content_generation.tasks.create(**body)
    same_place(ours, provider)
    # What was not said it says as null.
    assert ours.json == {name: value for name, value in provider.json.items() if value is not None}
    assert ours.headers["authorization"] == provider.header("authorization")


async def test_a_film_of_runway_s(provider: Recorder) -> None:
    ours = await sent(RunwayAdapter(), FILM)
    async with AsyncRunwayML(api_key=KEY, base_url=provider.url, max_retries=0) as client:
        with pytest.raises(Exception, match="400"):
            await client.text_to_video.create(
                model="seedance2_fast",
                prompt_text="A red balloon",
                ratio="1280:720",
                duration=5,
                audio=True,
            )
    same_place(ours, provider)
    assert ours.json == provider.json
    for name in ("authorization", "x-runway-version"):
        assert ours.headers[name] == provider.header(name)


async def test_a_picture_of_leonardo_s_first_api(provider: Recorder) -> None:
    wanted = Generation(Kind.IMAGE, "phoenix-1.0", "A lighthouse", 1024, 768, seed=7)
    ours = await sent(LeonardoAdapter(), wanted)
    body = operations.CreateGenerationRequestBody(
        prompt="A lighthouse",
        model_id="de7d3faf-762f-48e0-b3b7-9d0ac3a3fcf3",
        width=1024,
        height=768,
        num_images=1,
        public=False,
        contrast=3.5,
        alchemy=True,
        seed=7,
    )
    async with LeonardoAiSDK(bearer_auth=KEY, server_url=f"{provider.url}/api/rest/v1") as client:
        with pytest.raises(Exception, match="400"):
            await client.image.create_generation_async(request=body)
    same_place(ours, provider)
    # Older settings it says with what is usual, where nothing was said.
    assert isinstance(ours.json, dict)
    assert ours.json == {name: provider.json[name] for name in ours.json}
    assert ours.headers["authorization"] == provider.header("authorization")
