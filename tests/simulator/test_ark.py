from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.simulator.worlds import LONG_S, Simulated, simulated

KEY = "ark-key"
MODEL = "dreamina-seedance-2-0-260128"
TEXT = {"type": "text", "text": "A boat in the rain."}
TINY = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
async def sim() -> AsyncIterator[Simulated]:
    async with simulated() as running:
        await running.account("ark", KEY, balance=10)
        yield running


async def call(
    sim: Simulated, method: str, path: str, body: Any = None, *, key: str = KEY
) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{sim.address}/ark/api/v3/{path}"
    async with sim.client.request(method, url, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def create(sim: Simulated, **fields: Any) -> tuple[int, Any]:
    body = {"model": MODEL, "content": [TEXT], **fields}
    return await call(sim, "POST", "contents/generations/tasks", body)


async def ended(sim: Simulated, task_id: str) -> Any:
    for _ in range(400):
        _, task = await call(sim, "GET", f"contents/generations/tasks/{task_id}")
        if task["status"] not in {"queued", "running"}:
            return task
        await sim.world.clock.sleep(0.01)
    raise AssertionError("the task does not end")


def image(role: str | None = None, url: str = TINY) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}} | ({"role": role} if role else {})


async def test_a_task_is_answered_with_its_id_alone_and_ends_as_the_document_shows(sim: Simulated) -> None:
    status, created = await create(sim, resolution="720p", ratio="16:9", duration=5)
    assert status == 200
    assert list(created) == ["id"]
    assert created["id"].startswith("cgt-")
    task = await ended(sim, created["id"])
    assert task["status"] == "succeeded"
    assert task["error"] is None
    assert task["usage"] == {"completion_tokens": 108_900, "total_tokens": 108_900}
    assert task["duration"] == 5
    assert task["framespersecond"] == 24
    async with sim.client.get(task["content"]["video_url"]) as film:
        assert film.status == 200
        assert film.content_type == "video/mp4"


async def test_money_moves_when_a_task_succeeds_and_not_before(sim: Simulated) -> None:
    await sim.account("ark", KEY, balance=10, latency_s=LONG_S)
    await create(sim, duration=5)
    assert (await sim.control("GET", f"accounts/ark/{KEY}"))["balance"] == 10
    await sim.advance(LONG_S / 1000)
    account = await sim.control("GET", f"accounts/ark/{KEY}")
    assert account["balance"] == pytest.approx(10 - 108_900 * 7 / 1e6)


async def test_a_failed_task_costs_nothing_and_says_why(sim: Simulated) -> None:
    content = [{"type": "text", "text": "A boat [[sim:moderated_after]]"}]
    _, created = await create(sim, content=content)
    task = await ended(sim, created["id"])
    assert task["status"] == "failed"
    assert task["error"]["code"] == "OutputVideoSensitiveContentDetected"
    assert "content" not in task
    assert (await sim.tasks())[0]["is_charged"] is False


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"content": None}, "MissingParameter"),
        ({"colour": "red"}, "InvalidParameter"),
        ({"duration": 16}, "InvalidParameter"),
        ({"duration": 3}, "InvalidParameter"),
        ({"resolution": "8k"}, "InvalidParameter"),
        ({"ratio": "5:4"}, "InvalidParameter"),
        ({"frames": 29}, "InvalidParameter"),
        ({"service_tier": "flex"}, "InvalidParameter"),
        ({"output_format": "mov"}, "InvalidParameter"),
        ({"safety_identifier": "x" * 65}, "InvalidParameter"),
        ({"content": [TEXT, image("last_frame")]}, "InvalidParameter"),
        ({"content": [TEXT, image("first_frame"), image("reference_image")]}, "InvalidParameter"),
        ({"content": [TEXT] + [image("reference_image")] * 10}, "InvalidParameter"),
        ({"content": [TEXT, image(), image()]}, "InvalidParameter"),
        (
            {
                "content": [
                    TEXT,
                    {
                        "type": "audio_url",
                        "audio_url": {"url": "https://a.example/b.mp3"},
                        "role": "reference_audio",
                    },
                ]
            },
            "InvalidParameter",
        ),
        (
            {
                "content": [
                    TEXT,
                    {
                        "type": "video_url",
                        "video_url": {"url": "data:video/mp4;base64,AAAA"},
                        "role": "reference_video",
                    },
                ]
            },
            "InvalidParameter",
        ),
        (
            {"content": [TEXT, {"type": "image_url", "image_url": {"url": TINY, "role": "first_frame"}}]},
            "InvalidParameter",
        ),
    ],
)
async def test_what_the_documents_forbid_is_refused(
    sim: Simulated, fields: dict[str, Any], code: str
) -> None:
    status, body = await create(sim, **fields)
    assert (status, body["error"]["code"]) == (400, code)
    assert body["error"]["type"] == "BadRequest"
    assert await sim.tasks() == []


async def test_the_fast_model_makes_no_1080p_and_an_unknown_one_nothing(sim: Simulated) -> None:
    status, body = await create(sim, model="dreamina-seedance-2-0-fast-260128", resolution="1080p")
    assert (status, body["error"]["code"]) == (400, "InvalidParameter")
    status, body = await create(sim, model="seedance-9")
    assert (status, body["error"]["code"]) == (404, "InvalidEndpointOrModel.NotFound")


async def test_a_25_task_with_a_first_frame_must_be_adaptive(sim: Simulated) -> None:
    fields = {"model": "dreamina-seedance-2-5-260628", "content": [TEXT, image("first_frame")]}
    status, body = await create(sim, ratio="16:9", **fields)
    assert (status, body["error"]["code"]) == (400, "InvalidParameter.TaskTypeConstraint")
    status, _ = await create(sim, ratio="adaptive", **fields)
    assert status == 200


async def test_old_models_read_parameters_from_the_text(sim: Simulated) -> None:
    content = [{"type": "text", "text": "A boat --resolution 480p --dur 10"}]
    _, created = await create(sim, model="seedance-1-0-pro-250528", content=content, duration=5)
    task = await ended(sim, created["id"])
    assert (task["resolution"], task["duration"]) == ("480p", 10)


async def test_the_list_filters_by_several_ids_status_and_model(sim: Simulated) -> None:
    ids = [(await create(sim))[1]["id"] for _ in range(3)]
    for task_id in ids:
        await ended(sim, task_id)
    path = f"contents/generations/tasks?filter.task_ids={ids[0]}&filter.task_ids={ids[2]}"
    _, found = await call(sim, "GET", path)
    assert found["total"] == 2
    assert {item["id"] for item in found["items"]} == {ids[0], ids[2]}
    _, page = await call(
        sim, "GET", "contents/generations/tasks?page_num=2&page_size=2&filter.status=succeeded"
    )
    assert (page["total"], len(page["items"])) == (3, 1)
    _, none = await call(sim, "GET", "contents/generations/tasks?filter.model=other")
    assert none == {"total": 0, "items": []}


async def test_the_safety_identifier_comes_back_in_answers_and_lists(sim: Simulated) -> None:
    _, created = await create(sim, safety_identifier="abc123")
    assert created["safety_identifier"] == "abc123"
    _, found = await call(sim, "GET", "contents/generations/tasks")
    assert [item["safety_identifier"] for item in found["items"]] == ["abc123"]


async def test_a_queued_task_is_cancelled_a_running_one_is_not_and_an_ended_one_is_deleted(
    sim: Simulated,
) -> None:
    await sim.account("ark", KEY, balance=10, latency_s=LONG_S, concurrency=1)
    running, queued = [(await create(sim))[1]["id"] for _ in range(2)]
    status, body = await call(sim, "DELETE", f"contents/generations/tasks/{running}")
    assert (status, body["error"]["code"]) == (409, "TaskRunningCannotCancel")
    status, body = await call(sim, "DELETE", f"contents/generations/tasks/{queued}")
    assert (status, body) == (200, {})
    _, task = await call(sim, "GET", f"contents/generations/tasks/{queued}")
    assert task["status"] == "cancelled"
    await sim.advance(LONG_S / 1000)
    status, _ = await call(sim, "DELETE", f"contents/generations/tasks/{running}")
    assert status == 200
    status, body = await call(sim, "GET", f"contents/generations/tasks/{running}")
    assert (status, body["error"]["code"]) == (404, "ResourceNotFound")


async def test_output_links_die_after_a_day_and_tasks_after_a_week(sim: Simulated) -> None:
    _, created = await create(sim)
    task = await ended(sim, created["id"])
    await sim.advance(24 * 3600 + 60)
    async with sim.client.get(task["content"]["video_url"]) as film:
        assert film.status == 403
    await sim.advance(6 * 24 * 3600)
    status, _ = await call(sim, "GET", f"contents/generations/tasks/{created['id']}")
    assert status == 404


async def test_a_task_that_waits_too_long_expires(sim: Simulated) -> None:
    await sim.account("ark", KEY, balance=10, latency_s=10_000 * LONG_S, concurrency=1)
    _, created = await create(sim, execution_expires_after=3600)
    await sim.advance(3601)
    _, task = await call(sim, "GET", f"contents/generations/tasks/{created['id']}")
    assert task["status"] == "expired"


async def test_an_account_without_money_is_overdue(sim: Simulated) -> None:
    await sim.account("ark", KEY, balance=0)
    status, body = await create(sim)
    assert (status, body["error"]["code"]) == (403, "AccountOverdueError")


async def test_above_its_concurrency_an_account_waits_or_is_refused_as_it_is_told(sim: Simulated) -> None:
    await sim.account("ark", KEY, balance=10, concurrency=1, latency_s=LONG_S)
    states = []
    for _ in range(2):
        _, created = await create(sim)
        _, task = await call(sim, "GET", f"contents/generations/tasks/{created['id']}")
        states.append(task["status"])
    assert states == ["running", "queued"]
    await sim.account("ark", "strict", balance=10, concurrency=1, latency_s=LONG_S, overflow="refuse")
    body = {"model": MODEL, "content": [TEXT]}
    answers = [await call(sim, "POST", "contents/generations/tasks", body, key="strict") for _ in range(2)]
    assert [status for status, _ in answers] == [200, 429]
    assert answers[1][1]["error"]["code"] == "RateLimitExceeded.EndpointRPMExceeded"
    account = await sim.control("GET", "accounts/ark/strict")
    assert (account["most_running"], account["refusals"]) == (1, {"concurrency": 1})


async def test_another_key_does_not_see_a_task(sim: Simulated) -> None:
    await sim.account("ark", "other")
    _, created = await create(sim)
    status, _ = await call(sim, "GET", f"contents/generations/tasks/{created['id']}", key="other")
    assert status == 404
    status, body = await call(sim, "GET", "contents/generations/tasks", key="nobody")
    assert (status, body["error"]["code"]) == (401, "AuthenticationError")


async def test_each_state_is_called_back_and_repeated_until_it_is_acknowledged(sim: Simulated) -> None:
    heard: list[str] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append((await request.json())["status"])
        return web.Response(status=500 if len(heard) == 1 else 200)

    app = web.Application()
    app.router.add_post("/hints/token", hear)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        await create(sim, callback_url=f"http://127.0.0.1:{port}/hints/token")
        for _ in range(300):
            if len(heard) >= 4:
                break
            await sim.world.clock.sleep(0.01)
    finally:
        await runner.cleanup()
    assert sorted(set(heard)) == ["queued", "running", "succeeded"]
    assert len(heard) == 4


async def test_an_image_comes_at_once_as_a_link_or_as_its_bytes(sim: Simulated) -> None:
    body = {"model": "seedream-5-0-lite-260128", "prompt": "A boat", "size": "1K"}
    status, answer = await call(sim, "POST", "images/generations", body)
    assert status == 200
    assert answer["usage"]["generated_images"] == 1
    async with sim.client.get(answer["data"][0]["url"]) as picture:
        assert picture.content_type == "image/jpeg"
    _, answer = await call(sim, "POST", "images/generations", body | {"response_format": "b64_json"})
    assert answer["data"][0]["b64_json"].startswith("/9j/")


async def test_the_status_goes_back_for_a_while_when_told_to(sim: Simulated) -> None:
    content = [{"type": "text", "text": "[[sim:backwards]] [[sim:slow=1000]]"}]
    _, created = await create(sim, content=content)
    seen = []
    for _ in range(4):
        _, task = await call(sim, "GET", f"contents/generations/tasks/{created['id']}")
        seen.append(task["status"])
        await sim.advance(400)
    assert seen == ["running", "queued", "running", "succeeded"]


async def test_a_draft_is_made_in_full_once_it_has_ended(sim: Simulated) -> None:
    model = "seedance-1-5-pro-251215"
    _, draft = await create(sim, model=model, draft=True, resolution="480p")
    content = [{"type": "draft_task", "draft_task": {"id": draft["id"]}}]
    await ended(sim, draft["id"])
    status, whole = await create(sim, model=model, content=content, resolution="720p")
    assert status == 200
    assert (await ended(sim, whole["id"]))["status"] == "succeeded"
    for wrong in ({"model": MODEL}, {"content": [{"type": "draft_task", "draft_task": {"id": "cgt-0"}}]}):
        status, body = await create(sim, **({"model": model, "content": content} | wrong))
        assert (status, body["error"]["code"]) == (400, "InvalidParameter")
