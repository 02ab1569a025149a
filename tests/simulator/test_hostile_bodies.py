from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulator.worlds import simulated

KEY = "3f1e1f6e-6f5c-4d53-9d55-0a5b6f0d8a11"
IMAGE = {"image": {"id": "a", "type": "UPLOADED"}, "strength": "LOW", "order": 1}
TEXT = {"type": "text", "text": "A boat --dur many"}
ARK_IMAGE = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}, "role": "reference_image"}
QUESTION = {"role": "user", "content": [{"type": "text", "text": "a"}]}
CHAT = {"messages": [QUESTION], "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 4}
# One sound body for each kind of order, with everything in it that is read.
BODIES: list[tuple[str, dict[str, Any]]] = [
    (
        "/ark/api/v3/contents/generations/tasks",
        {
            "model": "dreamina-seedance-2-0-260128",
            "content": [TEXT, ARK_IMAGE, {"type": "draft_task", "draft_task": {"id": "a"}}],
            "duration": 5,
            "callback_url": "http://127.0.0.1:1/",
            "tools": [],
        },
    ),
    (
        "/ark/api/v3/contents/generations/tasks",
        {"model": "seedance-1-0-pro-250528", "content": [TEXT], "frames": 29},
    ),
    (
        "/ark/api/v3/images/generations",
        {
            "model": "seedream-5-0-lite-260128",
            "prompt": "a",
            "size": "1K",
            "image": ["https://a.example/b.png"],
            "sequential_image_generation": "auto",
            "sequential_image_generation_options": {"max_images": 2},
        },
    ),
    ("/ark/api/v3/chat/completions", {"model": "seed-1-8-251228", **CHAT}),
    ("/openai/v1/chat/completions", {"model": "gpt-5.5", **CHAT}),
    (
        "/openai/v1/images/generations",
        {
            "model": "gpt-image-2",
            "prompt": "a",
            "n": 1,
            "size": "1024x1024",
            "quality": "low",
            "stream": False,
        },
    ),
    (
        "/openai/v1/audio/speech",
        {"model": "tts-1", "input": "a", "voice": {"id": "voice_a"}, "response_format": "pcm"},
    ),
    (
        "/leonardo/api/rest/v1/generations",
        {"prompt": "a", "width": 64, "height": 64, "num_images": 1, "contrast": 2.5, "init_image_id": "a"},
    ),
    (
        "/leonardo/api/rest/v1/generations-image-to-video",
        {
            "prompt": "a",
            "model": "KLING2_1",
            "imageId": "a",
            "imageType": "UPLOADED",
            "endFrameImage": {"id": "a"},
        },
    ),
    ("/leonardo/api/rest/v1/generations-motion-svd", {"imageId": "a"}),
    (
        "/leonardo/api/rest/v1/generations-video-upscale",
        {"sourceGenerationId": "a", "resolution": "RESOLUTION_720"},
    ),
    ("/leonardo/api/rest/v1/canvas-init-image", {"initExtension": "png", "maskExtension": "png"}),
    (
        "/leonardo/api/rest/v1/pricing-calculator",
        {"service": "IMAGE_GENERATION", "serviceParams": {"IMAGE_GENERATION": {"numImages": 2}}},
    ),
    (
        "/leonardo/api/rest/v2/generations",
        {
            "model": "seedance-2.0",
            "parameters": {
                "prompt": "a",
                "width": 1280,
                "height": 720,
                "duration": 4,
                "guidances": {"image_reference": [IMAGE]},
            },
        },
    ),
    (
        "/leonardo/api/rest/v2/generations",
        {
            "model": "gpt-image-2",
            "parameters": {"prompt": "a", "width": 1024, "quality": "LOW", "quantity": 1},
        },
    ),
    ("/leonardo/api/rest/v2/generations", {"model": "music-v1", "parameters": {"prompt": "a"}}),
    (
        "/leonardo/api/rest/v2/generationssync",
        {"model": "remove-bg", "parameters": {"guidances": {"image_reference": [IMAGE]}}},
    ),
]
WRONG: tuple[Any, ...] = (None, 1, -1, 1.5, "", "x", True, [], [1], {}, {"a": 1}, [{}], 10**30)


def mutants(value: Any) -> Iterator[Any]:
    """`value` with each of its parts replaced by what does not belong there, and with each left out."""
    yield from WRONG
    if isinstance(value, dict):
        for name in value:
            yield {other: value[other] for other in value if other != name}
            for mutant in mutants(value[name]):
                yield value | {name: mutant}
    elif isinstance(value, list):
        for number, item in enumerate(value):
            for mutant in mutants(item):
                yield [*value[:number], mutant, *value[number + 1 :]]


@pytest.mark.parametrize(("path", "body"), BODIES, ids=lambda value: value if isinstance(value, str) else "")
async def test_no_body_breaks_the_simulator(path: str, body: dict[str, Any]) -> None:
    async with simulated(pace=10_000) as sim:
        await sim.account(path.split("/")[1], KEY, concurrency=100_000, latency_s=0)
        headers = {"Authorization": f"Bearer {KEY}"}
        for mutant in (body, *mutants(body)):
            async with sim.client.post(f"{sim.address}{path}", json=mutant, headers=headers) as answer:
                assert answer.status < 500, mutant
                await answer.read()
