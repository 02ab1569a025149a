"""ElevenLabs as its documents have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.simulator.worlds import Simulated, simulated

KEY = "sk_simulated"
SPEECH = "v1/text-to-speech/JBFqnCBsd6RMkjVDRZzb"
TEXT = {"text": "Good morning."}


@pytest.fixture
async def world() -> AsyncIterator[Simulated]:
    async with simulated() as world:
        await world.account("elevenlabs", KEY, balance=20_000)
        yield world


async def call(
    world: Simulated, method: str, path: str, body: Any = None
) -> tuple[int, bytes, dict[str, str]]:
    url = f"{world.address}/elevenlabs/{path}"
    async with world.client.request(method, url, json=body, headers={"xi-api-key": KEY}) as answer:
        return answer.status, await answer.read(), dict(answer.headers)


async def detail(world: Simulated, path: str, body: Any) -> tuple[int, Any]:
    async with world.client.post(
        f"{world.address}/elevenlabs/{path}", json=body, headers={"xi-api-key": KEY}
    ) as answer:
        return answer.status, (await answer.json())["detail"]


@pytest.mark.parametrize(
    ("name", "starts", "content_type"),
    [
        ("mp3_22050_32", b"", "audio/mpeg"),
        ("mp3_44100_192", b"", "audio/mpeg"),
        ("wav_24000", b"RIFF", "audio/wav"),
        ("opus_48000_64", b"OggS", "audio/opus"),
        ("pcm_16000", b"", "audio/pcm"),
        ("ulaw_8000", b"", "audio/basic"),
        ("alaw_8000", b"", "audio/alaw"),
    ],
)
async def test_every_codec_is_served(world: Simulated, name: str, starts: bytes, content_type: str) -> None:
    status, content, headers = await call(world, "POST", f"{SPEECH}?output_format={name}", TEXT)
    assert (status, headers["Content-Type"]) == (200, content_type)
    assert content.startswith(starts)
    assert content


@pytest.mark.parametrize(
    ("plan", "name", "status"),
    [
        ("starter", "mp3_44100_192", 403),
        ("creator", "mp3_44100_192", 200),
        ("creator", "wav_44100", 403),
        ("pro", "wav_44100", 200),
        ("pro", "mp3_44100_999", 400),
    ],
)
async def test_formats_depend_on_the_plan(world: Simulated, plan: str, name: str, status: int) -> None:
    await world.account("elevenlabs", KEY, plan=plan)
    assert (await call(world, "POST", f"{SPEECH}?output_format={name}", TEXT))[0] == status


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (SPEECH, {"text": "x" * 10_001}, 400, "max_character_limit_exceeded"),
        (SPEECH, {**TEXT, "model_id": "eleven_v9"}, 400, "invalid_parameters"),
        (SPEECH, {**TEXT, "language_code": "de"}, 400, "invalid_parameters"),
        ("v1/music", {"prompt": "a", "composition_plan": {}}, 400, "invalid_parameters"),
        ("v1/music", {"prompt": "piano", "seed": 1}, 400, "invalid_parameters"),
        ("v1/music", {"composition_plan": {}, "music_length_ms": 9000}, 400, "invalid_parameters"),
        ("v1/music", {"prompt": "[[sim:moderated_before]]"}, 400, "bad_prompt"),
        (SPEECH, {"text": "[[sim:moderated_after]]"}, 400, "content_policy_violation"),
        (SPEECH, {"text": "[[sim:fail]]"}, 500, "internal_server_error"),
    ],
)
async def test_what_is_refused_has_a_code_and_costs_nothing(
    world: Simulated, path: str, body: Any, status: int, code: str
) -> None:
    answered, found = await detail(world, path, body)
    assert (answered, found["code"], found["status"]) == (status, code, code)
    assert found["request_id"]
    assert all(task["charged"] == 0 for task in await world.tasks())


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (SPEECH, {}, "text"),
        (SPEECH, {**TEXT, "seed": -1}, "seed"),
        (SPEECH, {**TEXT, "voice": "x"}, "voice"),
        (SPEECH, {**TEXT, "voice_settings": {"speed": 2}}, "voice_settings.speed"),
        (SPEECH, {**TEXT, "previous_request_ids": ["a"] * 4}, "previous_request_ids"),
        ("v1/music", {"prompt": "p" * 4101}, "prompt"),
        ("v1/music", {"prompt": "piano", "music_length_ms": 1000}, "music_length_ms"),
        ("v1/sound-generation", {"text": "rain", "duration_seconds": 31}, "duration_seconds"),
    ],
)
async def test_a_wrong_body_is_a_list_of_findings(world: Simulated, path: str, body: Any, field: str) -> None:
    status, found = await detail(world, path, body)
    assert (status, found[0]["loc"]) == (422, ["body", field])


async def test_flash_costs_half(world: Simulated) -> None:
    _, _, headers = await call(world, "POST", SPEECH, {"text": "x" * 101, "model_id": "eleven_flash_v2_5"})
    assert headers["character-cost"] == "51"


async def test_free_plans_have_no_music(world: Simulated) -> None:
    await world.account("elevenlabs", KEY, plan="free")
    assert (await detail(world, "v1/music", {"prompt": "piano"}))[0] == 402


async def test_what_is_under_way_counts_against_the_quota(world: Simulated) -> None:
    await world.account("elevenlabs", KEY, balance=40)
    slow = {"text": "thirty characters [[sim:slow=3]]"}
    answers = await asyncio.gather(*(call(world, "POST", SPEECH, slow) for _ in range(2)))
    assert sorted(status for status, _, _ in answers) == [200, 401]


async def test_who_hangs_up_is_charged_nevertheless(world: Simulated) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await call(world, "POST", SPEECH, {"text": "slowly [[sim:slow=60]]"})
    await world.advance(60)
    assert (await world.tasks())[0]["is_charged"] is True


async def test_a_lost_answer_is_charged(world: Simulated) -> None:
    with pytest.raises(aiohttp.ClientError):
        await call(world, "POST", SPEECH, {"text": "lost [[sim:answer_lost]]"})
    assert (await world.tasks())[0]["is_charged"] is True


async def test_a_key_without_a_permission_is_told_which(world: Simulated) -> None:
    await world.account("elevenlabs", KEY, options={"lacks": ["user_read"]})
    status, content, _ = await call(world, "GET", "v1/user/subscription")
    assert (status, b"missing_permissions" in content) == (401, True)
    assert (await call(world, "POST", SPEECH, TEXT))[0] == 200


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("unauthorized", 401, "invalid_api_key"),
        ("payment_required", 401, "quota_exceeded"),
        ("forbidden", 401, "detected_unusual_activity"),
        ("rate_limited", 429, "rate_limit_exceeded"),
        ("server_error", 500, "internal_server_error"),
    ],
)
async def test_faults_are_told_in_codes(world: Simulated, fault: str, status: int, code: str) -> None:
    await world.control("POST", "faults", {"provider": "elevenlabs", "fault": fault})
    answered, found = await detail(world, SPEECH, TEXT)
    assert (answered, found["code"]) == (status, code)
    assert await world.tasks() == []


async def test_a_wrong_type_is_a_page_where_sound_should_be(world: Simulated) -> None:
    status, content, headers = await call(world, "POST", SPEECH, {"text": "[[sim:wrong_type]]"})
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/html")
    assert content.startswith(b"<!DOCTYPE")


async def test_success_without_output_has_no_bytes(world: Simulated) -> None:
    status, content, _ = await call(world, "POST", SPEECH, {"text": "[[sim:no_output]]"})
    assert (status, content) == (200, b"")


async def test_a_stuck_call_holds_the_socket_and_charges_nothing(world: Simulated) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await call(world, "POST", SPEECH, {"text": "[[sim:stuck]]"})
    assert (await world.tasks())[0]["is_charged"] is False


async def test_a_truncated_sound_ends_before_its_length(world: Simulated) -> None:
    await world.control("POST", "faults", {"provider": "elevenlabs", "fault": "truncated"})
    with pytest.raises(aiohttp.ClientPayloadError):
        await call(world, "POST", SPEECH, TEXT)
    assert (await world.tasks())[0]["is_charged"] is True
