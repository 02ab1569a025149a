"""Runway as its documents have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.simulator.worlds import Simulated, simulated

KEY = "key_simulated"
BODY = {"model": "seedance2", "promptText": "a fox", "ratio": "1280:720", "duration": 5}
IMAGE = {"uri": "https://a.example/fox.png"}


@pytest.fixture
async def world() -> AsyncIterator[Simulated]:
    async with simulated() as world:
        await world.account("runway", KEY, balance=1000)
        yield world


async def call(
    world: Simulated, method: str, path: str, body: Any = None, version: str = "2024-11-06"
) -> tuple[int, Any, dict[str, str]]:
    headers = {"Authorization": f"Bearer {KEY}", "X-Runway-Version": version}
    url = f"{world.address}/runway/v1/{path}"
    async with world.client.request(method, url, json=body, headers=headers) as answer:
        found = None if answer.status == 204 else await answer.json()
        return answer.status, found, dict(answer.headers)


async def create(world: Simulated, path: str = "text_to_video", **change: Any) -> str:
    status, made, _ = await call(world, "POST", path, {**BODY, **change})
    assert status == 200, made
    return str(made["id"])


async def balance(world: Simulated) -> int:
    return int((await call(world, "GET", "organization"))[1]["creditBalance"])


async def ended(world: Simulated, task_id: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            _, task, _ = await call(world, "GET", f"tasks/{task_id}")
            assert isinstance(task, dict)
            if "cost" in task:
                return task
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("version", ["", "2023-01-01"])
async def test_the_version_is_required(world: Simulated, version: str) -> None:
    for method, path in (("POST", "text_to_video"), ("GET", "organization")):
        status, body, _ = await call(world, method, path, BODY, version)
        assert status == 400
        assert "X-Runway-Version" in body["error"]


async def test_the_estimate_is_taken_at_once(world: Simulated) -> None:
    _, made, _ = await call(world, "POST", "text_to_video", BODY)
    # Five seconds at 36 credits.
    assert made["estimatedCost"] == {"credits": 180}
    assert await balance(world) == 820


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        ("text_to_video", {"model": "seedance9"}, "model"),
        ("text_to_video", {"promptText": ""}, "promptText"),
        ("text_to_video", {"promptText": "x" * 3501}, "promptText"),
        ("text_to_video", {"ratio": "1281:720"}, "ratio"),
        ("text_to_video", {"model": "seedance2_5", "ratio": "864:496"}, "ratio"),
        ("text_to_video", {"duration": 16}, "duration"),
        ("text_to_video", {"duration": "5"}, "duration"),
        ("text_to_video", {"promptImage": IMAGE["uri"]}, "promptImage"),
        ("text_to_video", {"references": [IMAGE] * 10}, "references"),
        ("text_to_video", {"references": [{"type": "image"}]}, "references"),
        ("text_to_video", {"referenceAudio": [{"type": "audio", **IMAGE}]}, "references"),
        ("image_to_video", {}, "promptImage"),
        ("image_to_video", {"promptImage": [{**IMAGE, "position": "middle"}]}, "promptImage"),
        ("image_to_video", {"promptImage": [{**IMAGE, "position": "first"}, IMAGE]}, "promptImage"),
        ("image_to_video", {"promptImage": [{**IMAGE, "position": "first"}] * 2}, "promptImage"),
        ("image_to_video", {"promptImage": "runway://nothing"}, "promptImage"),
        ("text_to_image", {"model": "gpt_image_2", "ratio": "1:1"}, "ratio"),
    ],
)
async def test_a_wrong_body_names_the_field(
    world: Simulated, path: str, change: dict[str, Any], field: str
) -> None:
    status, body, _ = await call(world, "POST", path, {**BODY, **change})
    assert (status, body["error"]) == (400, "Validation of body failed")
    assert body["issues"][0]["path"][0] == field
    assert await balance(world) == 1000


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("text_to_video", {"duration": "auto", "audio": True, "seed": 7}),
        ("text_to_video", {"references": [{"type": "image", **IMAGE}] * 9}),
        ("text_to_video", {"referenceVideos": [{"type": "video", **IMAGE}]}),
        ("image_to_video", {"promptImage": IMAGE["uri"]}),
        ("image_to_video", {"promptImage": [IMAGE, IMAGE]}),
        (
            "image_to_video",
            {"promptImage": [{**IMAGE, "position": "first"}, {**IMAGE, "position": "last"}]},
        ),
    ],
)
async def test_every_way_to_refer_is_taken(world: Simulated, path: str, change: dict[str, Any]) -> None:
    assert (await ended(world, await create(world, path, **change)))["status"] == "SUCCEEDED"


async def test_a_throttled_task_that_is_cancelled_is_paid_back(world: Simulated) -> None:
    await world.account("runway", KEY, balance=1000, concurrency=1)
    await create(world, promptText="[[sim:slow=9]]")
    waiting = await create(world)
    assert await balance(world) == 640
    assert (await call(world, "DELETE", f"tasks/{waiting}"))[0] == 204
    assert await balance(world) == 820
    assert (await ended(world, waiting))["cost"] == {"credits": 0}


async def test_a_running_task_that_is_cancelled_stays_paid(world: Simulated) -> None:
    task_id = await create(world, promptText="[[sim:slow=9]]")
    await call(world, "DELETE", f"tasks/{task_id}")
    assert await balance(world) == 820


async def test_a_failed_task_is_paid_back(world: Simulated) -> None:
    task = await ended(world, await create(world, promptText="[[sim:fail]]"))
    assert task["failureCode"].startswith("INTERNAL.BAD_OUTPUT.")
    assert await balance(world) == 1000


async def test_success_without_output_lists_none(world: Simulated) -> None:
    task = await ended(world, await create(world, promptText="[[sim:no_output]]"))
    assert (task["status"], task["output"]) == ("SUCCEEDED", [])


async def test_a_link_that_has_expired_is_fresh_at_the_next_read(world: Simulated) -> None:
    async def fetched(task: dict[str, Any]) -> int:
        async with world.client.get(task["output"][0]) as answer:
            return answer.status

    task_id = await create(world, promptText="[[sim:output_expired]]")
    assert await fetched(await ended(world, task_id)) == 403
    assert await fetched(await ended(world, task_id)) == 200


async def test_above_the_days_generations_a_model_is_refused(world: Simulated) -> None:
    await world.account("runway", KEY, options={"daily_generations": 1})
    await create(world)
    status, body, _ = await call(world, "POST", "text_to_video", BODY)
    assert (status, "daily" in body["error"]) == (429, True)
    await create(world, model="seedance2_fast")
    await world.advance(24 * 3600)
    await create(world)


async def test_an_upload_expires_after_a_day(world: Simulated) -> None:
    wish = {"filename": "fox.png", "type": "ephemeral"}
    _, place, _ = await call(world, "POST", "uploads", wish)
    form = aiohttp.FormData()
    for name, value in place["fields"].items():
        form.add_field(name, value)
    form.add_field("file", b"png", filename="fox.png")
    async with world.client.post(place["uploadUrl"], data=form) as answer:
        assert answer.status == 204
    picture = {"promptImage": place["runwayUri"]}
    await create(world, "image_to_video", **picture)
    await world.advance(24 * 3600 + 1)
    assert (await call(world, "POST", "image_to_video", {**BODY, **picture}))[0] == 400


async def test_the_state_can_go_back(world: Simulated) -> None:
    task_id = await create(world, promptText="[[sim:backwards]] [[sim:slow=1000]]")
    seen: list[str] = []
    for _ in range(5):
        seen.append((await call(world, "GET", f"tasks/{task_id}"))[1]["status"])
        await world.advance(250)
    assert seen == ["PENDING", "RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ("unauthorized", 401, "key"),
        ("payment_required", 400, "enough credits"),
        ("forbidden", 403, "organization"),
        ("rate_limited", 429, "limit"),
        ("server_error", 503, "unavailable"),
    ],
)
async def test_faults_are_told_in_an_error(world: Simulated, fault: str, status: int, text: str) -> None:
    await world.control("POST", "faults", {"provider": "runway", "fault": fault})
    code, body, _ = await call(world, "POST", "text_to_video", BODY)
    assert code == status
    assert text in body["error"]
    assert await world.tasks() == []


async def test_there_is_no_list_of_tasks(world: Simulated) -> None:
    with pytest.raises(aiohttp.ClientError):
        await call(world, "POST", "text_to_video", {**BODY, "promptText": "[[sim:answer_lost]]"})
    assert (await world.tasks())[0]["is_charged"] is True
    assert (await call(world, "GET", "tasks"))[0] == 404
