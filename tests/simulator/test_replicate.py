"""Replicate as its documents have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.simulator.receivers import receiver
from tests.simulator.worlds import Simulated, simulated

KEY = "r8_simulated"
MODEL = "models/bytedance/seedance-2.0/predictions"
INPUT = {"prompt": "a fox in the snow", "duration": 5, "resolution": "720p", "aspect_ratio": "16:9"}
IMAGE = "https://a.example/fox.png"


@pytest.fixture
async def world() -> AsyncIterator[Simulated]:
    async with simulated() as world:
        await world.account("replicate", KEY, balance=10)
        yield world


async def call(
    world: Simulated, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    url = path if path.startswith("http") else f"{world.address}/replicate/v1/{path}"
    given = {"Authorization": f"Bearer {KEY}", **{name.replace("_", "-"): headers[name] for name in headers}}
    async with world.client.request(method, url, json=body, headers=given) as answer:
        return answer.status, await answer.json(), dict(answer.headers)


async def create(world: Simulated, given: Any = INPUT, **headers: str) -> dict[str, Any]:
    status, made, _ = await call(world, "POST", MODEL, {"input": given}, **headers)
    assert status == 201
    assert isinstance(made, dict)
    return made


async def ended(world: Simulated, made: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            _, body, _ = await call(world, "GET", made["urls"]["get"])
            assert isinstance(body, dict)
            if body["completed_at"] is not None:
                return body
            await asyncio.sleep(0.02)


async def test_a_fixed_price_is_charged_on_success(world: Simulated) -> None:
    done = await ended(world, await create(world))
    assert done["status"] == "succeeded"
    # Five seconds at $0.28.
    assert (await world.tasks())[0]["charged"] == pytest.approx(1.4)


async def test_who_waits_gets_201_at_the_end_and_202_before_it(world: Simulated) -> None:
    status, body, _ = await call(world, "POST", MODEL, {"input": INPUT}, Prefer="wait=5")
    assert (status, body["status"]) == (201, "succeeded")
    slow = {"input": {**INPUT, "prompt": "[[sim:slow=9]]"}}
    status, body, _ = await call(world, "POST", MODEL, slow, Prefer="wait=1")
    assert (status, body["status"]) == (202, "processing")


async def test_data_is_removed_an_hour_after_the_end(world: Simulated) -> None:
    done = await ended(world, await create(world))
    await world.advance(3601)
    _, later, _ = await call(world, "GET", done["urls"]["get"])
    assert (later["data_removed"], later["output"], later["input"], later["logs"]) == (True, None, {}, "")
    async with world.client.get(done["output"]) as answer:
        assert answer.status == 403


async def test_a_deadline_before_the_start_aborts_and_costs_nothing(world: Simulated) -> None:
    await world.account("replicate", KEY, concurrency=1)
    await create(world, {**INPUT, "prompt": "[[sim:slow=9]]"})
    made = await create(world, Cancel_After="1s")
    assert made["status"] == "starting"
    await world.advance(1.5)
    assert (await ended(world, made))["status"] == "aborted"
    assert (await world.tasks())[1]["charged"] == 0


async def test_a_deadline_after_the_start_cancels_and_charges_what_ran(world: Simulated) -> None:
    made = await create(world, {**INPUT, "prompt": "[[sim:slow=10]]"}, Cancel_After="5s")
    await world.advance(6)
    assert (await ended(world, made))["status"] == "canceled"
    assert (await world.tasks())[0]["charged"] == pytest.approx(0.7, abs=0.02)


async def test_a_canceled_prediction_is_charged_for_what_ran(world: Simulated) -> None:
    made = await create(world, {**INPUT, "prompt": "[[sim:slow=1000]]"})
    await world.advance(500)
    _, body, _ = await call(world, "POST", made["urls"]["cancel"])
    assert body["status"] == "canceled"
    assert (await world.tasks())[0]["charged"] == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"prompt": None}, "input.prompt: Invalid type"),
        ({"duration": "5"}, "input.duration: Invalid type"),
        ({"duration": 16}, "input.duration: Must be less than or equal to 15"),
        ({"duration": 2}, "input.duration: Must be greater than or equal to 4"),
        ({"resolution": "4k"}, "input.resolution: resolution must be one of the following"),
        ({"last_frame_image": IMAGE}, "input: image is required"),
        ({"image": IMAGE, "reference_images": [IMAGE]}, "input.reference_images: "),
        ({"reference_audios": [IMAGE]}, "input: reference_images is required"),
        ({"reference_images": [IMAGE] * 10}, "input.reference_images: Must have at most 9"),
        ({"fps": 24}, "input: Additional property fps is not allowed"),
    ],
)
async def test_a_wrong_input_is_refused_at_once(world: Simulated, change: dict[str, Any], text: str) -> None:
    status, body, headers = await call(world, "POST", MODEL, {"input": {**INPUT, **change}})
    assert (status, body["title"], body["status"]) == (422, "Input validation failed", 422)
    assert body["detail"].startswith(f"- {text}")
    assert body["invalid_fields"]
    assert headers["Content-Type"].startswith("application/problem+json")
    assert await world.tasks() == []


async def test_the_request_itself_has_no_further_members(world: Simulated) -> None:
    status, body, _ = await call(world, "POST", MODEL, {"input": INPUT, "callback": "https://a.example"})
    assert (status, body["detail"]) == (422, "- Additional property callback is not allowed\n")


async def test_a_version_names_its_model(world: Simulated) -> None:
    version = {"version": "bytedance/seedance-2.0:" + "0" * 64, "input": INPUT}
    status, body, _ = await call(world, "POST", "predictions", version)
    assert (status, body["model"]) == (201, "bytedance/seedance-2.0")
    status, body, _ = await call(world, "POST", "predictions", {"version": "0" * 64, "input": INPUT})
    assert (status, body["title"]) == (422, "Invalid version or not permitted")


@pytest.mark.parametrize("mark", ["moderated_before", "moderated_after"])
async def test_moderation_fails_a_prediction_that_was_accepted(world: Simulated, mark: str) -> None:
    done = await ended(world, await create(world, {**INPUT, "prompt": f"[[sim:{mark}]]"}))
    assert done["status"] == "failed"
    assert "flagged as sensitive" in done["error"]
    assert (await world.tasks())[0]["charged"] == 0


async def test_a_failure_names_its_code(world: Simulated) -> None:
    done = await ended(world, await create(world, {**INPUT, "prompt": "[[sim:fail]]"}))
    assert "E1000" in done["error"]
    assert done["output"] is None


async def test_a_file_of_another_account_cannot_be_loaded(world: Simulated) -> None:
    await world.account("replicate", "r8_other")
    form = aiohttp.FormData()
    form.add_field("content", b"png", filename="fox.png", content_type="image/png")
    headers = {"Authorization": "Bearer r8_other"}
    async with world.client.post(f"{world.address}/replicate/v1/files", data=form, headers=headers) as answer:
        assert answer.status == 201
        url = (await answer.json())["urls"]["get"]
    done = await ended(world, await create(world, {**INPUT, "image": url}))
    assert (done["status"], "download" in done["error"]) == ("failed", True)


async def test_predictions_of_a_minute_are_limited_by_plan(world: Simulated) -> None:
    async with simulated(pace=1.0) as slow:
        await slow.account("replicate", KEY, plan="granted")
        for _ in range(6):
            await create(slow)
        status, body, headers = await call(slow, "POST", MODEL, {"input": INPUT})
        assert status == 429
        assert body["detail"].startswith("Request was throttled. Your rate limit resets in ~")
        assert 0 < int(headers["Retry-After"]) <= 60
        await slow.advance(60)
        await create(slow)


async def test_a_lost_answer_is_found_in_the_list(world: Simulated) -> None:
    lost = {**INPUT, "prompt": "lost [[sim:answer_lost]]"}
    with pytest.raises(aiohttp.ClientError):
        await create(world, lost)
    _, page, _ = await call(world, "GET", "predictions")
    assert [prediction["input"] for prediction in page["results"]] == [lost]


@pytest.mark.parametrize(
    ("fault", "status", "title"),
    [
        ("unauthorized", 401, "Unauthenticated"),
        ("payment_required", 402, "Insufficient credit"),
        ("forbidden", 403, "Forbidden"),
        ("rate_limited", 429, "Too many requests"),
        ("server_error", 503, "Service unavailable"),
    ],
)
async def test_faults_are_problems(world: Simulated, fault: str, status: int, title: str) -> None:
    await world.control("POST", "faults", {"provider": "replicate", "fault": fault})
    code, body, headers = await call(world, "POST", MODEL, {"input": INPUT})
    assert (code, body["title"]) == (status, title)
    assert "Retry-After" not in headers
    assert await world.tasks() == []


async def statuses_told(world: Simulated, **more: Any) -> list[str]:
    async with receiver() as received:
        await call(world, "POST", MODEL, {"input": INPUT, "webhook": received.url, **more})
        told: list[str] = []
        while not told or told[-1] != "succeeded":
            told.append((await received.next()).json()["status"])
        return told


async def test_webhooks_come_at_the_events_that_were_asked_for(world: Simulated) -> None:
    assert await statuses_told(world, webhook_events_filter=["completed"]) == ["succeeded"]
    assert (await statuses_told(world, webhook_events_filter=["start", "completed"]))[0] == "processing"


async def test_a_webhook_without_https_is_refused(world: Simulated) -> None:
    status, _, _ = await call(world, "POST", MODEL, {"input": INPUT, "webhook": "http://a.example/hook"})
    assert status == 422


async def test_a_prediction_has_the_documented_members(world: Simulated) -> None:
    made = await create(world)
    members = (
        "id model version input logs output data_removed error status created_at started_at completed_at "
        "metrics urls"
    )
    assert set(members.split()) <= set(made)
    assert set(made["urls"]) == {"get", "cancel", "stream", "web"}
    assert made["input"] == INPUT


@pytest.mark.parametrize(("mark", "status"), [("output_expired", 403), ("wrong_type", 200)])
async def test_an_output_can_be_gone_or_something_else(world: Simulated, mark: str, status: int) -> None:
    done = await ended(world, await create(world, {**INPUT, "prompt": f"[[sim:{mark}]]"}))
    assert done["status"] == "succeeded"
    async with world.client.get(done["output"]) as answer:
        assert (answer.status, answer.content_type == "video/mp4") == (status, False)


async def test_success_without_output_has_none(world: Simulated) -> None:
    done = await ended(world, await create(world, {**INPUT, "prompt": "[[sim:no_output]]"}))
    assert (done["status"], done["output"]) == ("succeeded", None)


async def test_a_stuck_prediction_is_ended_by_the_limit_of_half_an_hour(world: Simulated) -> None:
    made = await create(world, {**INPUT, "prompt": "[[sim:stuck]]"})
    await world.advance(29 * 60)
    assert (await call(world, "GET", made["urls"]["get"]))[1]["status"] == "processing"
    await world.advance(61)
    assert (await ended(world, made))["status"] == "canceled"
