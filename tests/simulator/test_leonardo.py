from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.simulator.receivers import receiver
from tests.simulator.worlds import LONG_S, Simulated, simulated

KEY = "3f1e1f6e-6f5c-4d53-9d55-0a5b6f0d8a11"
# The guide's own example.
FAST: dict[str, Any] = {
    "model": "seedance-2.0-fast",
    "public": False,
    "parameters": {
        "prompt": "A boat in the rain",
        "width": 1280,
        "height": 720,
        "duration": 8,
        "motion_has_audio": True,
    },
}
PNG = b"\x89PNG\r\n\x1a\n0000"


@pytest.fixture
async def sim() -> AsyncIterator[Simulated]:
    async with simulated() as running:
        await running.account("leonardo", KEY, balance=5, options={"v2_form": "whole"})
        yield running


async def call(
    sim: Simulated, method: str, path: str, body: Any = None, *, key: str = KEY
) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{sim.address}/leonardo/api/rest/{path}"
    async with sim.client.request(method, url, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


def fast(**parameters: Any) -> dict[str, Any]:
    return FAST | {"parameters": FAST["parameters"] | parameters}


async def made(sim: Simulated, body: Any) -> Any:
    """A v2 generation when it has ended."""
    status, answer = await call(sim, "POST", "v2/generations", body)
    assert status == 200
    return await ended(sim, answer["generate"]["generationId"])


async def ended(sim: Simulated, generation_id: str) -> Any:
    for _ in range(400):
        _, answer = await call(sim, "GET", f"v1/generations/{generation_id}")
        if answer["generations_by_pk"]["status"] != "PENDING":
            return answer["generations_by_pk"]
        assert answer["generations_by_pk"]["generated_images"] == []
        await sim.world.clock.sleep(0.01)
    raise AssertionError("the generation does not end")


async def balance(sim: Simulated) -> float:
    return float((await sim.control("GET", f"accounts/leonardo/{KEY}"))["balance"])


async def upload(sim: Simulated, *, parts: list[str] | None = None, **headers: str) -> tuple[str, int]:
    """Posts the form in the order of `parts`; its id, and how the store answered."""
    _, answer = await call(sim, "POST", "v1/init-image", {"extension": "png"})
    form = answer["uploadInitImage"]
    fields: dict[str, str] = json.loads(form["fields"])
    data = aiohttp.FormData()
    for name in parts or [*fields, "file"]:
        if name == "file":
            data.add_field("file", PNG, filename="a.png", content_type="image/png")
        else:
            data.add_field(name, fields[name])
    async with sim.client.post(form["url"], data=data, headers=headers) as stored:
        return form["id"], stored.status


async def test_a_film_is_read_through_v1_with_its_mp4_beside_a_still(sim: Simulated) -> None:
    status, answer = await call(sim, "POST", "v2/generations", FAST)
    assert status == 200
    assert answer["generate"]["apiCreditCost"] is None
    assert answer["generate"]["cost"] == {"amount": "0.8000", "unit": "DOLLARS"}
    generation = await ended(sim, answer["generate"]["generationId"])
    assert generation["status"] == "COMPLETE"
    (image,) = generation["generated_images"]
    async with sim.client.get(image["motionMP4URL"]) as film, sim.client.get(image["url"]) as still:
        assert (film.content_type, still.content_type) == ("video/mp4", "image/jpeg")


async def test_v2_answers_in_one_of_two_forms(sim: Simulated) -> None:
    await sim.account("leonardo", KEY, options={"v2_form": "bare"})
    _, answer = await call(sim, "POST", "v2/generations", FAST)
    assert set(answer) == {"generationId", "apiCreditCost"}
    assert answer["apiCreditCost"] == 80


async def test_money_moves_at_submission_and_comes_back_for_a_failure_unless_told_not_to(
    sim: Simulated,
) -> None:
    await sim.account("leonardo", KEY, balance=5, latency_s=LONG_S)
    await call(sim, "POST", "v2/generations", FAST)
    assert await balance(sim) == pytest.approx(4.2)
    await sim.account("leonardo", KEY, balance=5, options={"v2_form": "whole"})
    assert (await made(sim, fast(prompt="[[sim:generation_failed]]")))["status"] == "FAILED"
    assert await balance(sim) == 5
    await sim.account("leonardo", KEY, balance=5, options={"v2_form": "whole", "refunds_failures": False})
    await made(sim, fast(prompt="[[sim:generation_failed]]"))
    assert await balance(sim) == pytest.approx(4.2)


async def test_a_balance_that_does_not_reach_is_refused_before_anything_is_charged(sim: Simulated) -> None:
    await sim.account("leonardo", KEY, balance="0.79")
    status, answer = await call(sim, "POST", "v2/generations", FAST)
    assert status == 400
    assert answer["error"].startswith("not enough api tokens userId: ")
    assert await balance(sim) == pytest.approx(0.79)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (fast(colour="red"), "Unexpected variable colour"),
        (fast(duration=16), "duration"),
        (fast(width=1281), "invalid dimensions"),
        (fast(width=1920, height=1080), "invalid dimensions"),
        (fast(quantity=2), "quantity"),
        (fast(prompt="x" * 5001), "prompt"),
        (fast(guidances={"end_frame": [{"image": {"id": "a", "type": "UPLOADED"}}]}), "start_frame"),
        (fast(guidances={"sketch": []}), "guidances.sketch"),
        (fast(guidances={"image_reference": [{"image": {"id": "a", "type": "X"}}]}), "type"),
        (fast(guidances={"image_reference": [{"image": {"id": "a", "type": "UPLOADED"}}] * 5}), "at most 4"),
        (fast(guidances={"audio_reference": [{"audio": {"id": "a", "type": "UPLOADED"}}] * 2}), "at most 1"),
        ({"model": "sora-2", "parameters": {"prompt": "a"}}, "not supported within the Production API"),
        ({"model": "gpt-image-2", "parameters": {"prompt": "a", "width": 1000}}, "invalid dimensions"),
        ({"model": "gpt-image-2", "parameters": {"prompt": "a", "quality": "AUTO"}}, "quality"),
        ({"model": "seedance-2.0-fast", "extra": 1, "parameters": {"prompt": "a"}}, "extra"),
    ],
)
async def test_v2_refuses_with_status_200_and_an_array(sim: Simulated, body: Any, part: str) -> None:
    status, answer = await call(sim, "POST", "v2/generations", body)
    assert status == 200
    assert part in answer[0]["message"]
    assert answer[0]["extensions"]["code"] == "VALIDATION_ERROR"
    assert await sim.tasks() == []


async def test_frames_and_references_do_not_mix(sim: Simulated) -> None:
    image = {"image": {"id": (await upload(sim))[0], "type": "UPLOADED"}}
    _, answer = await call(
        sim,
        "POST",
        "v2/generations",
        fast(guidances={"start_frame": [image], "image_reference": [image]}),
    )
    assert "cannot be used with frames" in answer[0]["message"]
    _, answer = await call(sim, "POST", "v2/generations", fast(guidances={"start_frame": [image]}))
    assert answer["generate"]["generationId"]


async def test_a_reference_must_have_arrived_and_be_ones_own(sim: Simulated) -> None:
    await sim.account("leonardo", "other")
    _, opened = await call(sim, "POST", "v1/init-image", {"extension": "png"})
    entry = {"image": {"id": opened["uploadInitImage"]["id"], "type": "UPLOADED"}}
    body = fast(guidances={"image_reference": [entry]})
    status, answer = await call(sim, "POST", "v2/generations", body)
    assert (status, answer["error"]) == (400, "couldn't access image")
    status, answer = await call(sim, "POST", "v2/generations", body, key="other")
    assert (status, answer["error"]) == (400, "invalid init image id")


async def test_a_form_is_stored_and_its_fields_are_a_json_text(sim: Simulated) -> None:
    upload_id, status = await upload(sim)
    assert status == 204
    _, answer = await call(sim, "GET", f"v1/init-image/{upload_id}")
    assert answer["init_images_by_pk"]["id"] == upload_id


async def test_the_store_refuses_credentials_fields_after_the_file_and_a_late_form(sim: Simulated) -> None:
    _, status = await upload(sim, Authorization=f"Bearer {KEY}")
    assert status == 400
    fields = ["Content-Type", "bucket", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date"]
    rest = ["X-Amz-Security-Token", "key", "Policy", "X-Amz-Signature"]
    _, status = await upload(sim, parts=["file", *fields, *rest])
    assert status == 400
    _, status = await upload(sim, parts=[*fields, *rest[:-1], "file", rest[-1]])
    assert status == 403
    _, answer = await call(sim, "POST", "v1/init-image", {"extension": "png"})
    form = answer["uploadInitImage"]
    await sim.advance(121)
    data = aiohttp.FormData(json.loads(form["fields"]))
    data.add_field("file", PNG, filename="a.png")
    async with sim.client.post(form["url"], data=data) as stored:
        assert stored.status == 403


async def test_v1_makes_four_images_of_1024_by_768_unless_told_otherwise(sim: Simulated) -> None:
    status, answer = await call(sim, "POST", "v1/generations", {"prompt": "A boat"})
    assert status == 200
    job = answer["sdGenerationJob"]
    assert job["cost"] == {"amount": "0.012", "unit": "DOLLARS"}
    generation = await ended(sim, job["generationId"])
    assert (generation["imageWidth"], generation["imageHeight"]) == (1024, 768)
    assert len(generation["generated_images"]) == 4


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"width": 1025}, "invalid dimensions"),
        ({"width": 2048}, "width"),
        ({"num_images": 8}, "Too many images"),
        ({"colour": "red"}, "Unexpected variable colour"),
        ({"modelId": "nothing"}, "not supported within the Production API"),
        ({"prompt": "x" * 1501}, "prompt"),
        ({"presetStyle": "BAROQUE"}, "presetStyle"),
        ({"modelId": "de7d3faf-762f-48e0-b3b7-9d0ac3a3fcf3", "contrast": 1.3}, "contrast"),
        ({"init_image_id": "nothing"}, "invalid init image id"),
    ],
)
async def test_v1_refuses_with_status_400(sim: Simulated, fields: dict[str, Any], part: str) -> None:
    status, answer = await call(sim, "POST", "v1/generations", {"prompt": "A boat"} | fields)
    assert status == 400
    assert part in answer["error"]
    assert answer["path"] == "$"


async def test_v1_films_name_their_job_differently(sim: Simulated) -> None:
    status, answer = await call(sim, "POST", "v1/generations-text-to-video", {"prompt": "A boat"})
    assert status == 200
    generation = await ended(sim, answer["motionVideoGenerationJob"]["generationId"])
    assert generation["generated_images"][0]["motionMP4URL"]


async def test_an_unknown_or_anothers_generation_is_null(sim: Simulated) -> None:
    await sim.account("leonardo", "other")
    _, answer = await call(sim, "POST", "v2/generations", FAST)
    for key, generation_id in (("other", answer["generate"]["generationId"]), (KEY, "nothing")):
        status, answer = await call(sim, "GET", f"v1/generations/{generation_id}", key=key)
        assert (status, answer) == (200, {"generations_by_pk": None})


async def test_generations_are_listed_by_user_newest_first(sim: Simulated) -> None:
    _, me = await call(sim, "GET", "v1/me")
    user = me["user_details"][0]["user"]["id"]
    ids = []
    for _ in range(3):
        _, answer = await call(sim, "POST", "v2/generations", FAST)
        ids.append(answer["generate"]["generationId"])
    _, answer = await call(sim, "GET", f"v1/generations/user/{user}?offset=1&limit=2")
    assert [generation["id"] for generation in answer["generations"]] == [ids[1], ids[0]]


async def test_me_tells_balance_slots_and_renewal(sim: Simulated) -> None:
    await sim.account("leonardo", KEY, balance=5, concurrency=7, options={"renewal_date": "2026-12-01"})
    _, me = await call(sim, "GET", "v1/me")
    details = me["user_details"][0]
    assert (details["apiPaidTokens"], details["apiConcurrencySlots"]) == (500, 7)
    assert details["apiPlanTokenRenewalDate"] == "2026-12-01"


async def test_a_key_of_the_right_form_is_unauthorized_and_any_other_breaks_the_hook(sim: Simulated) -> None:
    status, answer = await call(sim, "GET", "v1/me", key="00000000-0000-4000-8000-000000000000")
    assert (status, answer["code"]) == (401, "access-denied")
    status, answer = await call(sim, "GET", "v1/me", key="nonsense")
    assert (status, answer["error"]) == (500, "Invalid response from authorization hook")


async def test_above_its_slots_an_account_waits_as_pending(sim: Simulated) -> None:
    await sim.account("leonardo", KEY, concurrency=1, latency_s=LONG_S)
    for _ in range(3):
        await call(sim, "POST", "v2/generations", FAST)
    account = await sim.control("GET", f"accounts/leonardo/{KEY}")
    assert (account["running"], account["waiting"], account["most_running"]) == (1, 2, 1)


async def test_a_webhook_brings_the_bearer_and_leaks_it_in_the_body(sim: Simulated) -> None:
    async with receiver() as heard:
        options = {"webhook_url": heard.url, "webhook_secret": "whisper", "v2_form": "whole"}
        await sim.account("leonardo", KEY, options=options)
        generation = await made(sim, {"model": "gpt-image-2", "parameters": {"prompt": "a"}})
        told = await heard.next()
    assert told.headers["authorization"] == "Bearer whisper"
    body = told.json()
    assert body["type"] == "image_generation.complete"
    assert body["data"]["object"]["id"] == generation["id"]
    assert body["data"]["object"]["apiKey"]["webhookCallbackApiKey"] == "whisper"


async def test_a_deleted_generation_is_gone(sim: Simulated) -> None:
    generation = await made(sim, FAST)
    _, answer = await call(sim, "DELETE", f"v1/generations/{generation['id']}")
    assert answer == {"delete_generations_by_pk": {"id": generation["id"]}}
    _, answer = await call(sim, "GET", f"v1/generations/{generation['id']}")
    assert answer == {"generations_by_pk": None}


async def test_music_and_speech_are_sounds(sim: Simulated) -> None:
    for body in (
        {"model": "music-v1", "parameters": {"prompt": "calm", "duration_minutes": 1}},
        {"model": "seed-audio-1.0", "parameters": {"prompt": "Good morning."}},
    ):
        generation = await made(sim, body)
        async with sim.client.get(generation["generated_images"][0]["url"]) as sound:
            assert sound.content_type == "audio/mpeg"


async def test_models_are_listed_with_their_schema(sim: Simulated) -> None:
    _, answer = await call(sim, "GET", "v2/models")
    models = answer["productionApiAvailableModels"]
    assert all(model["parameters"]["required"] == ["prompt"] for model in models)
    assert all(model["parameters"]["additionalProperties"] is False for model in models)


async def test_a_film_is_made_larger_and_an_uploaded_image_is_set_in_motion(sim: Simulated) -> None:
    film = await made(sim, fast(duration=4))
    body = {"sourceGenerationId": film["id"], "resolution": "RESOLUTION_1080"}
    _, answer = await call(sim, "POST", "v1/generations-video-upscale", body)
    job = answer["motionVideoGenerationJob"]
    assert job["variationId"]
    assert (await ended(sim, job["generationId"]))["imageWidth"] == 1920
    status, answer = await call(
        sim, "POST", "v1/generations-video-upscale", body | {"sourceGenerationId": "x"}
    )
    assert (status, answer["error"]) == (400, "invalid source generation id")
    upload_id, _ = await upload(sim)
    body = {"imageId": upload_id, "isInitImage": True, "motionStrength": 5}
    _, answer = await call(sim, "POST", "v1/generations-motion-svd", body)
    assert (await ended(sim, answer["motionSvdGenerationJob"]["generationId"]))["status"] == "COMPLETE"


async def test_a_background_is_removed_at_once_as_a_link_that_dies_or_as_bytes(sim: Simulated) -> None:
    image = {"image": {"id": (await upload(sim))[0], "type": "UPLOADED"}}
    body = {
        "model": "remove-bg",
        "ephemeral": True,
        "parameters": {"guidances": {"image_reference": [image]}},
    }
    _, answer = await call(sim, "POST", "v2/generationssync", body)
    (result,) = answer["results"]
    assert (answer["blockedCount"], result["contentType"]) == (0, "image/png")
    await sim.advance(30 * 60 + 1)
    async with sim.client.get(result["url"]) as gone:
        assert gone.status == 403
    _, answer = await call(sim, "POST", "v2/generationssync", body | {"base64": True})
    assert answer["results"][0]["dataB64"].startswith("iVBOR")


async def test_a_canvas_opens_two_forms(sim: Simulated) -> None:
    body = {"initExtension": "png", "maskExtension": "jpg"}
    _, answer = await call(sim, "POST", "v1/canvas-init-image", body)
    forms = answer["uploadCanvasInitImage"]
    assert json.loads(forms["initFields"])["Content-Type"] == "image/png"
    assert json.loads(forms["maskFields"])["Content-Type"] == "image/jpeg"
    assert forms["initImageId"] != forms["maskImageId"]


async def test_a_store_may_be_busy_and_keeps_nothing_then(sim: Simulated) -> None:
    _, answer = await call(sim, "POST", "v1/init-image", {"extension": "png"})
    form = answer["uploadInitImage"]
    await sim.control("POST", "faults", {"fault": "server_error", "calls": ["upload"], "times": 1})
    for expected in (503, 204):
        data = aiohttp.FormData(json.loads(form["fields"]))
        data.add_field("file", PNG, filename="a.png")
        async with sim.client.post(form["url"], data=data) as stored:
            assert stored.status == expected


async def test_a_route_that_begins_something_takes_a_hundred_a_minute() -> None:
    cheap = {"model": "flux-schnell", "parameters": {"prompt": "a boat", "quantity": 1}}
    async with simulated(pace=1) as sim:
        await sim.account("leonardo", KEY, balance=1000, concurrency=1000)
        for _ in range(100):
            assert (await call(sim, "POST", "v2/generations", cheap))[0] == 200
        assert (await call(sim, "POST", "v2/generations", cheap))[0] == 429
        # Each route has its own hundred.
        assert (await call(sim, "POST", "v1/generations", {"prompt": "a boat", "num_images": 1}))[0] == 200
        await sim.advance(61)
        assert (await call(sim, "POST", "v2/generations", cheap))[0] == 200
