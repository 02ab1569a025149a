from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.simulator.worlds import LONG_S, Simulated, simulated, until

KEY = "sk-simulated"


@pytest.fixture
async def sim() -> AsyncIterator[Simulated]:
    async with simulated() as running:
        await running.account("openai", KEY, balance=10)
        yield running


async def call(
    sim: Simulated, path: str, body: Any = None, *, key: str = KEY, form: aiohttp.FormData | None = None
) -> tuple[int, Any, dict[str, str]]:
    headers = {"Authorization": f"Bearer {key}"}
    method = "GET" if body is None and form is None else "POST"
    url = f"{sim.address}/openai/v1/{path}"
    async with sim.client.request(method, url, json=body, data=form, headers=headers) as answer:
        return (
            answer.status,
            await answer.json(),
            {name.lower(): value for name, value in answer.headers.items()},
        )


async def draw(sim: Simulated, **fields: Any) -> tuple[int, Any]:
    status, answer, _ = await call(sim, "images/generations", {"prompt": "A boat", **fields})
    return status, answer


def png(width: int = 64, height: int = 64) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def edit_form(*names: str, content: bytes | None = None, **fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData()
    for name, value in ({"prompt": "A boat", "model": "gpt-image-2"} | fields).items():
        form.add_field(name, value)
    for name in names:
        form.add_field(name, content or png(), filename="a.png", content_type="image/png")
    return form


async def test_an_image_comes_as_base64_with_its_usage(sim: Simulated) -> None:
    status, answer = await draw(sim, model="gpt-image-2", size="1536x1024", quality="high")
    assert status == 200
    assert (answer["size"], answer["quality"], answer["output_format"]) == ("1536x1024", "high", "png")
    image = Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
    assert (image.size, image.format) == ((1536, 1024), "PNG")
    usage = answer["usage"]
    assert usage["output_tokens"] == 6240
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_a_high_square_counts_as_the_document_shows_and_is_charged_by_its_tokens(
    sim: Simulated,
) -> None:
    _, answer = await draw(sim, size="1024x1024", quality="high")
    assert answer["usage"]["output_tokens"] == 4160
    (task,) = await sim.tasks()
    assert task["charged"] == pytest.approx((4160 * 30 + answer["usage"]["input_tokens"] * 5) / 1e6)


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": "b64_json"},
        {"colour": "red"},
        {"n": 11},
        {"n": "2"},
        {"size": "1000x1000"},
        {"size": "4096x1024"},
        {"size": "3840x1024"},
        {"size": "512x512"},
        {"quality": "hd"},
        {"quality": "xhigh"},
        {"background": "transparent", "output_format": "jpeg"},
        {"output_format": "bmp"},
        {"prompt": "x" * 32_001},
        {"prompt": None},
        {"partial_images": 4},
    ],
)
async def test_what_the_documents_forbid_is_refused(sim: Simulated, fields: dict[str, Any]) -> None:
    status, answer = await draw(sim, **fields)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] in fields
    assert await sim.tasks() == []


async def test_an_edit_takes_one_image_or_several_in_a_form(sim: Simulated) -> None:
    status, answer, _ = await call(sim, "images/edits", form=edit_form("image", n="2"))
    assert status == 200
    assert len(answer["data"]) == 2
    assert answer["usage"]["input_tokens_details"]["image_tokens"] > 0
    status, _, _ = await call(sim, "images/edits", form=edit_form("image[]", "image[]", "mask"))
    assert status == 200


@pytest.mark.parametrize(
    "form",
    [
        edit_form,
        lambda: edit_form("image", "image"),
        lambda: edit_form(*["image[]"] * 17),
        lambda: edit_form("image", content=b"no picture"),
        lambda: edit_form("image", input_fidelity="high"),
        lambda: edit_form("image", n="many"),
    ],
)
async def test_a_form_that_the_documents_forbid_is_refused(sim: Simulated, form: Any) -> None:
    status, answer, _ = await call(sim, "images/edits", form=form())
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


async def test_images_are_streamed_as_events(sim: Simulated) -> None:
    body = {"prompt": "A boat", "stream": True, "partial_images": 2}
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{sim.address}/openai/v1/images/generations"
    async with sim.client.post(url, json=body, headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        lines = (await answer.text()).splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    kinds = [event["type"].removeprefix("image_generation.") for event in events]
    assert kinds == ["partial_image", "partial_image", "completed"]
    assert events[-1]["usage"]["output_tokens"] > 0


async def test_a_model_is_gone_from_the_day_it_ends(sim: Simulated) -> None:
    status, answer = await draw(sim, model="gpt-image-1")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    _, listed, _ = await call(sim, "models")
    ends = {model["id"]: model["shutdown_date"] for model in listed["data"]}
    assert ends["gpt-image-2"] is None
    assert "gpt-image-1" not in ends
    await sim.advance(366 * 24 * 3600)
    for model in ("gpt-image-1.5", "gpt-image-1-mini"):
        status, _ = await draw(sim, model=model)
        assert status == 404
    _, listed, _ = await call(sim, "models")
    assert not {"gpt-5-mini", "gpt-image-1.5"} & {model["id"] for model in listed["data"]}


async def test_the_two_kinds_of_429_differ(sim: Simulated) -> None:
    await sim.account("openai", KEY, balance=0)
    status, answer = await draw(sim)
    assert (status, answer["error"]["type"]) == (429, "insufficient_quota")
    await sim.account("openai", KEY, options={"rpm": 1})
    assert (await draw(sim))[0] == 200
    status, answer, headers = await call(sim, "images/generations", {"prompt": "A boat"})
    assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
    assert float(headers["retry-after"]) == pytest.approx(float(headers["retry-after-ms"]) / 1000)


async def test_every_answer_tells_its_limits(sim: Simulated) -> None:
    _, _, headers = await call(sim, "images/generations", {"prompt": "A boat"})
    assert headers["x-ratelimit-limit-requests"] == "500"
    assert headers["x-ratelimit-remaining-requests"] == "499"
    assert headers["x-request-id"].startswith("req_")
    assert int(headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize("mark", ["moderated_before", "moderated_after"])
async def test_moderation_is_a_400_that_costs_nothing(sim: Simulated, mark: str) -> None:
    status, answer = await draw(sim, prompt=f"A boat [[sim:{mark}]]")
    assert (status, answer["error"]["code"]) == (400, "moderation_blocked")
    assert (await sim.control("GET", f"accounts/openai/{KEY}"))["charged"] == 0


async def test_hanging_up_loses_the_image_and_not_its_price(sim: Simulated) -> None:
    await sim.account("openai", KEY, balance=10, latency_s=LONG_S)
    asking = asyncio.create_task(draw(sim))
    await until(sim.tasks)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    await sim.advance(LONG_S / 1000)
    (task,) = await sim.ended()
    assert (task["state"], task["is_charged"]) == ("succeeded", True)


async def test_chat_answers_with_words_and_their_usage(sim: Simulated) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Describe a harbour."},
    ]
    body = {"model": "gpt-5.4-mini", "messages": messages, "max_completion_tokens": 10}
    status, answer, _ = await call(sim, "chat/completions", body)
    assert status == 200
    (choice,) = answer["choices"]
    assert len(choice["message"]["content"].split()) == 10
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 10
    (task,) = await sim.tasks()
    assert task["is_charged"] is True


async def test_chat_refuses_what_it_does_not_know(sim: Simulated) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    status, answer, _ = await call(sim, "chat/completions", {"model": "gpt-3", "messages": messages})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    wrongs: list[dict[str, Any]] = [
        {"temperature": 3},
        {"messages": []},
        {"messages": [{"role": "x"}]},
        {"a": 1},
    ]
    for wrong in wrongs:
        body = {"model": "gpt-5.5", "messages": messages} | wrong
        status, answer, _ = await call(sim, "chat/completions", body)
        assert (status, answer["error"]["param"]) == (400, next(iter(wrong)))


async def test_speech_is_bytes(sim: Simulated) -> None:
    body = {"model": "tts-1", "input": "Good morning to you.", "voice": "nova"}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with sim.client.post(f"{sim.address}/openai/v1/audio/speech", json=body, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "audio/mpeg")
        assert len(await answer.read()) > 1000
    status, refused, _ = await call(sim, "audio/speech", body | {"voice": "bass"})
    assert (status, refused["error"]["param"]) == (400, "voice")


async def test_a_path_that_has_been_shut_down_is_not_found(sim: Simulated) -> None:
    status, answer, _ = await call(sim, "videos", {"prompt": "A boat", "model": "sora-2"})
    assert (status, answer["error"]["type"]) == (404, "invalid_request_error")
