"""fal as its documents have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.simulator.worlds import Simulated, simulated

KEY = "id-1:secret-1"
VIDEO = "bytedance/seedance-2.0/text-to-video"
REFERENCE = "bytedance/seedance-2.0/fast/reference-to-video"
INPUT = {"prompt": "a fox in the snow", "duration": "5", "resolution": "720p", "aspect_ratio": "16:9"}


@pytest.fixture
async def world() -> AsyncIterator[Simulated]:
    async with simulated() as world:
        await world.account("fal", KEY, balance=10)
        yield world


async def call(
    world: Simulated, method: str, path: str, body: Any = None, key: str = KEY, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON and headers; a path is below `/fal` unless it is a whole address."""
    url = path if path.startswith("http") else f"{world.address}/fal/{path}"
    given = {"Authorization": f"Key {key}", **{name.replace("_", "-"): headers[name] for name in headers}}
    async with world.client.request(method, url, json=body, headers=given) as answer:
        return answer.status, await answer.json(), dict(answer.headers)


async def submit(
    world: Simulated, body: Any = INPUT, endpoint: str = VIDEO, **headers: str
) -> dict[str, Any]:
    status, made, _ = await call(world, "POST", f"queue/{endpoint}", body, **headers)
    assert status == 200
    assert isinstance(made, dict)
    return made


async def ended(world: Simulated, made: dict[str, Any]) -> dict[str, Any]:
    while True:
        status, body, _ = await call(world, "GET", made["status_url"] + "?logs=1")
        if status == 200:
            assert isinstance(body, dict)
            return body
        await asyncio.sleep(0.02)


async def test_the_status_is_202_until_it_is_completed(world: Simulated) -> None:
    await world.account("fal", KEY, concurrency=1)
    first = await submit(world, {**INPUT, "prompt": "[[sim:slow=60]]"})
    second = await submit(world)
    status, body, _ = await call(world, "GET", first["status_url"])
    assert (status, body["status"]) == (202, "IN_PROGRESS")
    status, body, _ = await call(world, "GET", second["status_url"])
    assert (status, body["status"], body["queue_position"]) == (202, "IN_QUEUE", 0)
    await world.advance(60)
    assert (await ended(world, second))["status"] == "COMPLETED"


async def test_a_result_before_the_end_is_no_success(world: Simulated) -> None:
    made = await submit(world, {**INPUT, "prompt": "[[sim:slow=9]]"})
    status, _, _ = await call(world, "GET", made["response_url"])
    assert status == 400


async def test_the_long_path_of_an_endpoint_has_no_requests(world: Simulated) -> None:
    made = await submit(world)
    status, _, _ = await call(world, "GET", f"queue/{VIDEO}/requests/{made['request_id']}/status")
    assert status == 404


async def test_an_unknown_endpoint_is_not_found(world: Simulated) -> None:
    status, body, _ = await call(world, "POST", "queue/bytedance/seedance-9/text-to-video", INPUT)
    assert (status, body["error_type"]) == (404, "not_found")


async def test_units_times_price_is_what_is_charged(world: Simulated) -> None:
    made = await submit(world)
    await ended(world, made)
    _, _, headers = await call(world, "GET", made["response_url"])
    _, prices, _ = await call(world, "GET", f"api/v1/models/pricing?endpoint_id={VIDEO}")
    price = prices["prices"][0]
    assert (price["unit_price"], price["unit"], price["currency"]) == (0.014, "1000 tokens", "USD")
    # 1280 x 720 pixels, 24 frames a second, 5 seconds.
    assert float(headers["x-fal-billable-units"]) == 108.0
    assert (await world.tasks())[0]["charged"] == pytest.approx(1.512)


async def test_an_estimate_is_units_times_price(world: Simulated) -> None:
    wish = {"estimate_type": "unit_price", "endpoints": {VIDEO: {"unit_quantity": 108}}}
    _, body, _ = await call(world, "POST", "api/v1/models/pricing/estimate", wish)
    assert body["total_cost"] == pytest.approx(1.512)
    assert body["currency"] == "USD"


async def test_the_balance_is_for_admin_keys_only(world: Simulated) -> None:
    await world.account("fal", KEY, balance=24.5, options={"admin_key": "admin:key"})
    status, _, _ = await call(world, "GET", "api/v1/account/billing?expand=credits")
    assert status == 403
    _, body, _ = await call(world, "GET", "api/v1/account/billing?expand=credits", key="admin:key")
    assert body["credits"] == {"current_balance": 24.5, "currency": "USD"}
    await world.control("PATCH", f"accounts/fal/{KEY}", {"options": {"scope": "admin"}})
    assert (await call(world, "GET", "api/v1/account/billing"))[0] == 200


@pytest.mark.parametrize(
    ("endpoint", "change", "field", "kind"),
    [
        (VIDEO, {"prompt": None}, "prompt", "string_type"),
        (VIDEO, {"duration": "16"}, "duration", "one_of"),
        (VIDEO, {"resolution": "4k"}, "resolution", "one_of"),
        (VIDEO, {"aspect_ratio": "2:1"}, "aspect_ratio", "one_of"),
        (VIDEO, {"generate_audio": "yes"}, "generate_audio", "bool_type"),
        (VIDEO, {"fps": 24}, "fps", "extra_forbidden"),
        ("bytedance/seedance-2.5/text-to-video", {"seed": 1}, "seed", "extra_forbidden"),
        ("bytedance/seedance-2.0/image-to-video", {}, "image_url", "missing"),
        (REFERENCE, {}, "image_urls", "missing"),
        (REFERENCE, {"image_urls": ["https://a.example/1.png"] * 10}, "image_urls", "sequence_too_long"),
        (REFERENCE, {"audio_urls": ["https://a.example/1.mp3"]}, "image_urls", "missing"),
    ],
)
async def test_a_wrong_input_is_a_finding_in_the_result(
    world: Simulated, endpoint: str, change: dict[str, Any], field: str, kind: str
) -> None:
    made = await submit(world, {**INPUT, **change}, endpoint)
    assert (await ended(world, made))["status"] == "COMPLETED"
    status, body, _ = await call(world, "GET", made["response_url"])
    assert status == 422
    assert (body["detail"][0]["loc"], body["detail"][0]["type"]) == (["body", field], kind)


@pytest.mark.parametrize(
    ("size", "is_right"),
    [
        ({"width": 1536, "height": 1024}, True),
        ({"width": 1000, "height": 1024}, False),
        ({"width": 3840, "height": 1024}, False),
        ({"width": 512, "height": 512}, False),
        ("landscape_16_9", True),
        ("huge", False),
    ],
)
async def test_pictures_have_sizes_of_sixteens_within_limits(
    world: Simulated, size: object, is_right: bool
) -> None:
    made = await submit(world, {"prompt": "dots", "image_size": size}, "openai/gpt-image-2")
    await ended(world, made)
    status, _, _ = await call(world, "GET", made["response_url"])
    assert status == (200 if is_right else 422)


async def test_moderated_prompts_end_as_content_policy_and_cost_nothing(world: Simulated) -> None:
    made = await submit(world, {**INPUT, "prompt": "[[sim:moderated_before]]"})
    assert (await ended(world, made))["error_type"] == "content_policy_violation"
    status, body, headers = await call(world, "GET", made["response_url"])
    assert (status, body["detail"][0]["type"]) == (422, "content_policy_violation")
    assert headers["X-Fal-Retryable"] == "false"
    assert (await world.tasks())[0]["charged"] == 0


async def test_a_failed_generation_is_a_retryable_500_and_costs_nothing(world: Simulated) -> None:
    made = await submit(world, {**INPUT, "prompt": "[[sim:fail]]"})
    await ended(world, made)
    status, _, headers = await call(world, "GET", made["response_url"])
    assert (status, headers["X-Fal-Retryable"]) == (500, "true")
    assert (await world.tasks())[0]["charged"] == 0


async def test_success_without_output_has_no_video(world: Simulated) -> None:
    made = await submit(world, {**INPUT, "prompt": "[[sim:no_output]]"})
    await ended(world, made)
    status, body, _ = await call(world, "GET", made["response_url"])
    assert (status, body["video"]) == (200, None)


async def test_cancelling_says_which_of_three_things_happened(world: Simulated) -> None:
    made = await submit(world, {**INPUT, "prompt": "[[sim:slow=9]]"})
    assert (await call(world, "PUT", made["cancel_url"]))[:2] == (202, {"status": "CANCELLATION_REQUESTED"})
    assert (await call(world, "PUT", made["cancel_url"]))[:2] == (400, {"status": "ALREADY_COMPLETED"})
    gone = made["cancel_url"].replace(made["request_id"], "nobody")
    assert (await call(world, "PUT", gone))[:2] == (404, {"status": "NOT_FOUND"})


async def test_a_request_that_did_not_start_in_time_ends_as_504_of_the_user(world: Simulated) -> None:
    await world.account("fal", KEY, concurrency=1)
    await submit(world, {**INPUT, "prompt": "[[sim:slow=9]]"})
    made = await submit(world, X_Fal_Request_Timeout="0.2")
    await asyncio.sleep(0.25)
    assert (await ended(world, made))["error_type"] == "request_timeout"
    status, _, headers = await call(world, "GET", made["response_url"])
    assert (status, headers["X-Fal-Request-Timeout-Type"]) == (504, "user")


async def test_payloads_that_are_not_stored_are_gone_after_an_hour(world: Simulated) -> None:
    stored, unstored = await submit(world), await submit(world, X_Fal_Store_IO="0")
    await ended(world, stored)
    await ended(world, unstored)
    await world.advance(3700)
    assert (await call(world, "GET", stored["response_url"]))[0] == 200
    assert (await call(world, "GET", unstored["response_url"]))[0] == 404


async def test_a_lost_answer_is_found_by_its_input_when_it_has_ended(world: Simulated) -> None:
    lost = {**INPUT, "prompt": "lost [[sim:answer_lost]]"}
    with pytest.raises(aiohttp.ClientError):
        await submit(world, lost)
    path = f"api/v1/models/requests/by-endpoint?endpoint_id={VIDEO}&expand=payloads"
    async with asyncio.timeout(5):
        while not (page := (await call(world, "GET", path))[1])["items"]:
            await asyncio.sleep(0.02)
    item = page["items"][0]
    assert item["json_input"] == lost
    assert (item["endpoint_id"], item["status_code"], page["has_more"]) == (VIDEO, 200, False)
    base = f"queue/bytedance/seedance-2.0/requests/{item['request_id']}"
    assert (await call(world, "GET", base))[1]["video"]["url"]


async def test_ended_requests_are_listed_in_pages_and_by_their_outcome(world: Simulated) -> None:
    for prompt in ("one", "two", "[[sim:fail]]", "[[sim:moderated_after]]"):
        await ended(world, await submit(world, {**INPUT, "prompt": prompt}))
    path = f"api/v1/models/requests/by-endpoint?endpoint_id={VIDEO}"
    _, first, _ = await call(world, "GET", f"{path}&limit=3")
    _, second, _ = await call(world, "GET", f"{path}&limit=3&cursor={first['next_cursor']}")
    assert (len(first["items"]), first["has_more"], len(second["items"])) == (3, True, 1)
    _, failed, _ = await call(world, "GET", f"{path}&status=error,user_error")
    assert sorted(item["status_code"] for item in failed["items"]) == [422, 500]


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ("unauthorized", 401, "Authentication"),
        ("payment_required", 403, "Exhausted balance"),
        ("forbidden", 403, "scope"),
        ("rate_limited", 429, "Too many"),
        ("server_error", 500, "Internal"),
    ],
)
async def test_faults_are_told_in_fals_words(world: Simulated, fault: str, status: int, text: str) -> None:
    await world.control("POST", "faults", {"provider": "fal", "fault": fault})
    code, body, headers = await call(world, "POST", f"queue/{VIDEO}", INPUT)
    assert code == status
    assert text in body["detail"]
    assert "Retry-After" not in headers
    assert await world.tasks() == []


async def test_a_limit_can_say_how_long_to_wait(world: Simulated) -> None:
    await world.control("POST", "faults", {"provider": "fal", "fault": "rate_limited_wait", "value": 7})
    _, _, headers = await call(world, "POST", f"queue/{VIDEO}", INPUT)
    assert headers["Retry-After"] == "7"


async def test_an_upload_needs_the_signed_address_and_the_signed_type(world: Simulated) -> None:
    wish = {"file_name": "fox.png", "content_type": "image/png"}
    _, place, _ = await call(world, "POST", "rest/storage/upload/initiate?storage_type=fal-cdn-v3", wish)

    async def put(url: str, content_type: str) -> int:
        async with world.client.put(url, data=b"png", headers={"Content-Type": content_type}) as answer:
            return answer.status

    assert await put(place["upload_url"].partition("?")[0], "image/png") == 403
    assert await put(place["upload_url"], "image/jpeg") == 403
    async with world.client.get(place["file_url"]) as answer:
        assert answer.status == 404
    assert await put(place["upload_url"], "image/png") == 200
    async with world.client.get(place["file_url"]) as answer:
        assert (await answer.read(), answer.content_type) == (b"png", "image/png")


async def test_a_submission_is_answered_with_the_documented_members(world: Simulated) -> None:
    made = await submit(world)
    members = {
        "request_id",
        "gateway_request_id",
        "response_url",
        "status_url",
        "cancel_url",
        "status",
        "queue_position",
    }
    assert members <= set(made)
    assert made["status"] == "IN_QUEUE"


async def test_the_stream_of_a_request_ends_with_its_completion(world: Simulated) -> None:
    made = await submit(world)
    url = made["status_url"] + "/stream?logs=1"
    async with world.client.get(url, headers={"Authorization": f"Key {KEY}"}) as answer:
        events = [line for line in (await answer.text()).splitlines() if line]
    assert answer.content_type == "text/event-stream"
    assert '"COMPLETED"' in events[-1]


async def test_another_account_does_not_see_a_request(world: Simulated) -> None:
    await world.account("fal", "id-2:secret-2")
    made = await submit(world)
    assert (await call(world, "GET", made["status_url"], key="id-2:secret-2"))[0] == 404


async def test_a_stuck_request_is_in_progress_for_ever(world: Simulated) -> None:
    made = await submit(world, {**INPUT, "prompt": "[[sim:stuck]]"})
    await world.advance(24 * 3600)
    assert (await call(world, "GET", made["status_url"]))[:2][0] == 202
    assert (await world.tasks())[0]["charged"] == 0


async def test_the_status_can_go_back(world: Simulated) -> None:
    made = await submit(world, {**INPUT, "prompt": "[[sim:backwards]] [[sim:slow=1000]]"})
    seen: list[str] = []
    for _ in range(5):
        seen.append((await call(world, "GET", made["status_url"]))[1]["status"])
        await world.advance(250)
    assert seen == ["IN_PROGRESS", "IN_PROGRESS", "IN_QUEUE", "IN_PROGRESS", "COMPLETED"]


@pytest.mark.parametrize(("mark", "status"), [("output_expired", 403), ("wrong_type", 200)])
async def test_an_output_can_be_gone_or_something_else(world: Simulated, mark: str, status: int) -> None:
    made = await submit(world, {**INPUT, "prompt": f"[[sim:{mark}]]"})
    await ended(world, made)
    _, result, _ = await call(world, "GET", made["response_url"])
    async with world.client.get(result["video"]["url"]) as answer:
        assert (answer.status, answer.content_type == "video/mp4") == (status, False)


async def test_media_live_as_long_as_the_submission_asks(world: Simulated) -> None:
    preference = '{"expiration_duration_seconds": 3600}'
    made = await submit(world, X_Fal_Object_Lifecycle_Preference=preference)
    await ended(world, made)
    _, result, _ = await call(world, "GET", made["response_url"])
    await world.advance(3601)
    async with world.client.get(result["video"]["url"]) as answer:
        assert answer.status == 403
