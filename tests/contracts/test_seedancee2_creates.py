"""Creating videos on `seedancee2`: the example, every field, prices, pixels, idempotency."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Storefront
from tests.contracts.seedancee2 import ID, MOMENT, PRO, VIDEOS, Client, refused
from tests.fakes import key_of

REQUEST = ("invalid_request", "invalid_request_error")
ROLES = jobs.Reference.Role.Name
A, B, C = (f"https://example.com/{name}" for name in "abc")


def order(shop: Storefront) -> jobs.CreateJobRequest:
    """The last one that was sent to the jobs service."""
    return shop.jobs.created[-1]


def sent(shop: Storefront) -> jobs.Generation:
    return order(shop).generation


def roles(shop: Storefront) -> list[tuple[str, str]]:
    return [(each.url, ROLES(each.role).removeprefix("ROLE_")) for each in sent(shop).references]


# ---- the example --------------------------------------------------------------------------------------------


async def test_the_example_is_answered_as_documented(shop: Storefront) -> None:
    answer = await Client(shop).create(PRO)
    assert answer.status == 200
    data = answer.body["data"]
    assert ID.fullmatch(data["id"])
    assert MOMENT.fullmatch(data["created_at"])
    assert answer.body == {
        "data": {
            "id": data["id"],
            "status": "pending",
            "model": "pro",
            "credits_reserved": 100,
            "created_at": "2026-06-29T10:00:00.000Z",
        }
    }
    assert "Idempotent-Replayed" not in answer.headers


@pytest.mark.parametrize(
    "model,given,reserved",
    [
        ("mini", {"duration": 5, "resolution": "720p"}, 50),
        ("pro", {"duration": 4, "resolution": "480p"}, 40),
        ("fast", {"duration": 10, "resolution": "720p"}, 160),
        ("pro", {"duration": 5, "resolution": "720p", "image_urls": [A, B]}, 100),
        ("pro", {"duration": 15, "resolution": "1080p"}, 750),
        ("fast", {"duration": 4, "resolution": "480p"}, 32),
        ("mini", {"duration": 4, "resolution": "480p"}, 20),
        ("pro", {"audio_urls": [A], "video_urls": [B], "generate_audio": True}, 100),
    ],
)
async def test_prices_are_by_model_resolution_and_second(
    shop: Storefront, model: str, given: Any, reserved: int
) -> None:
    answer = await Client(shop).video(model, **given)
    assert answer.body["data"]["credits_reserved"] == reserved


@pytest.mark.parametrize(
    "name,model", [("pro", "seedance-2.0"), ("fast", "seedance-2.0-fast"), ("mini", "seedance-2.0-mini")]
)
async def test_each_name_is_a_model_of_the_house_and_stays_the_name_outside(
    shop: Storefront, name: str, model: str
) -> None:
    answer = await Client(shop).video(name)
    assert answer.body["data"]["model"] == name
    assert (sent(shop).model, sent(shop).kind, order(shop).public_model) == (model, jobs.KIND_VIDEO, name)


# ---- fields -------------------------------------------------------------------------------------------------


async def test_what_is_left_out_has_the_documented_default(shop: Storefront) -> None:
    await Client(shop).video("mini")
    assert sent(shop) == jobs.Generation(
        kind=jobs.KIND_VIDEO,
        model="seedance-2.0-mini",
        prompt="a boat",
        width=1280,
        height=720,
        duration_s=5,
    )
    request = order(shop)
    assert (request.sku, request.quantity, request.id_prefix) == ("mini.720p.second", 5, "vid")
    assert (request.echo, request.callback_url) == (b"", "")


async def test_jobs_is_told_whose_video_it_is_and_how_its_end_is_told(shop: Storefront) -> None:
    client = Client(shop, key_of("seedancee2", test=True))
    await client.create(
        {"model": "mini", "input": {"prompt": "a"}, "callback_url": "https://example.com/hook?x=1"}, key="k-1"
    )
    request = order(shop)
    assert (request.customer_id, request.mode, request.storefront) == ("cus_1", jobs.MODE_TEST, "seedancee2")
    assert request.idempotency_key == "k-1"
    assert (request.callback_url, request.webhook_form_id) == (
        "https://example.com/hook?x=1",
        "form-of-seedancee2",
    )
    assert request.limits == jobs.Limits(running_jobs=4, queued_jobs=16)


@pytest.mark.parametrize(
    "given,told",
    [
        ({"generate_audio": True}, {"audio": True}),
        ({"watermark": True}, {"watermark": True}),
        ({"return_last_frame": True}, {"last_frame": True}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": 4294967295}, {"seed": 4294967295}),
    ],
)
async def test_every_wish_reaches_the_job(shop: Storefront, given: Any, told: dict[str, Any]) -> None:
    await Client(shop).video(**given)
    assert {name: getattr(sent(shop), name) for name in told} == told


async def test_a_seed_of_minus_one_is_none(shop: Storefront) -> None:
    await Client(shop).video(seed=-1)
    assert not sent(shop).HasField("seed")


PIXELS = {
    ("480p", "16:9"): (864, 496),
    ("480p", "21:9"): (992, 432),
    ("480p", "4:3"): (752, 560),
    ("480p", "1:1"): (640, 640),
    ("480p", "3:4"): (560, 752),
    ("480p", "9:16"): (496, 864),
    ("720p", "16:9"): (1280, 720),
    ("720p", "21:9"): (1470, 630),
    ("720p", "4:3"): (1112, 834),
    ("720p", "1:1"): (960, 960),
    ("720p", "3:4"): (834, 1112),
    ("720p", "9:16"): (720, 1280),
    ("1080p", "16:9"): (1920, 1080),
    ("1080p", "21:9"): (2206, 946),
    ("1080p", "4:3"): (1664, 1248),
    ("1080p", "1:1"): (1440, 1440),
    ("1080p", "3:4"): (1248, 1664),
    ("1080p", "9:16"): (1080, 1920),
}


@pytest.mark.parametrize("resolution,ratio", PIXELS)
async def test_resolution_and_ratio_are_pixels(shop: Storefront, resolution: str, ratio: str) -> None:
    await Client(shop).video("pro", resolution=resolution, aspect_ratio=ratio)
    assert (sent(shop).width, sent(shop).height) == PIXELS[resolution, ratio]
    assert not sent(shop).adaptive_ratio


@pytest.mark.parametrize("given", [{"image_urls": [A]}, {"video_url": A}, {"video_urls": [A]}])
async def test_adaptive_leaves_room_for_the_shape_of_what_is_followed(shop: Storefront, given: Any) -> None:
    await Client(shop).video("fast", aspect_ratio="adaptive", **given)
    assert (sent(shop).adaptive_ratio, sent(shop).width, sent(shop).height) == (True, 1280, 1280)


@pytest.mark.parametrize("given", [{}, {"audio_urls": [A]}])
async def test_adaptive_to_nothing_is_the_default_ratio(shop: Storefront, given: Any) -> None:
    await Client(shop).video("fast", aspect_ratio="adaptive", **given)
    assert (sent(shop).adaptive_ratio, sent(shop).width, sent(shop).height) == (False, 1280, 720)


@pytest.mark.parametrize("length,status", [(0, 400), (1, 200), (4000, 200), (4001, 400)])
async def test_a_prompt_has_1_to_4000_characters_after_trimming(
    shop: Storefront, length: int, status: int
) -> None:
    answer = await Client(shop).video(prompt=" " + "é" * length + "\n")
    assert answer.status == status
    if status == 200:
        assert sent(shop).prompt == "é" * length


async def test_unknown_fields_are_ignored(shop: Storefront) -> None:
    body = {**PRO, "n": [1], "input": {**PRO["input"], "fps": "many"}}  # type: ignore[dict-item]
    assert (await Client(shop).create(body)).status == 200


@pytest.mark.parametrize(
    "given,param",
    [
        ({"duration": 3}, "input.duration"),
        ({"duration": 16}, "input.duration"),
        ({"duration": "5"}, "input.duration"),
        ({"duration": 5.0}, "input.duration"),
        ({"resolution": "4k"}, "input.resolution"),
        ({"aspect_ratio": "2:1"}, "input.aspect_ratio"),
        ({"generation_type": "text"}, "input.generation_type"),
        ({"generate_audio": "yes"}, "input.generate_audio"),
        ({"watermark": 1}, "input.watermark"),
        ({"return_last_frame": None}, "input.return_last_frame"),
        ({"seed": -2}, "input.seed"),
        ({"seed": 4294967296}, "input.seed"),
        ({"seed": 1.5}, "input.seed"),
        ({"prompt": 5}, "input.prompt"),
        ({"prompt": "a\x00b"}, "input.prompt"),
        ({"image_urls": A}, "input.image_urls"),
        ({"image_urls": [A, 5]}, "input.image_urls"),
        ({"image_urls": [A] * 10}, "input.image_urls"),
        ({"video_urls": [A] * 4}, "input.video_urls"),
        ({"audio_urls": [A] * 4}, "input.audio_urls"),
        ({"video_url": A, "video_urls": [B]}, "input.video_url"),
        ({"start_image_url": A}, "input.start_image_url"),
        ({"image_urls": ["http://example.com/a.png"]}, "input.image_urls"),
        ({"video_url": "https://127.0.0.1/a.mp4"}, "input.video_url"),
        ({"audio_urls": ["data:audio/mpeg;base64,QUJD"]}, "input.audio_urls"),
    ],
)
async def test_a_wrong_value_is_400_and_named(shop: Storefront, given: Any, param: str) -> None:
    refused(await Client(shop).video("pro", **given), 400, *REQUEST, param)
    assert shop.jobs.created == []


@pytest.mark.parametrize(
    "body,param",
    [
        ({"input": {"prompt": "a"}}, "model"),
        ({"model": "pro"}, "input"),
        ({"model": "pro", "input": {}}, "input.prompt"),
        ({"model": "pro", "input": "a"}, "input"),
        ({"model": 5, "input": {"prompt": "a"}}, "model"),
        ({"model": "pro", "input": {"prompt": "a"}, "callback_url": 5}, "callback_url"),
        ({"model": "pro", "input": {"prompt": "a"}, "callback_url": ""}, "callback_url"),
        ({**PRO, "callback_url": "https://example.com/" + "a" * 2029}, "callback_url"),
        ({**PRO, "callback_url": "https://example.com/\0"}, "callback_url"),
        ({"model": "pro", "input": {"prompt": "a"}, "metadata": "x"}, "metadata"),
        ({"model": "pro", "input": {"prompt": "a"}, "metadata": []}, "metadata"),
    ],
)
async def test_a_wrong_body_is_400_and_names_the_part(shop: Storefront, body: Any, param: str) -> None:
    refused(await Client(shop).create(body), 400, *REQUEST, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": "pro"', b"\xff", b"[" * 100_000])
async def test_what_is_no_json_object_is_400(shop: Storefront, body: bytes) -> None:
    refused(await Client(shop).create(body), 400, *REQUEST)


@pytest.mark.parametrize("model", ["seedance-2.0", "PRO", "", "pro ", "x" * 5000])
async def test_an_unknown_model_is_404(shop: Storefront, model: str) -> None:
    answer = await Client(shop).video(model)
    refused(answer, 404, "model_not_found", "invalid_request_error", "model")


@pytest.mark.parametrize("model", ["fast", "mini"])
async def test_a_resolution_that_the_model_lacks_is_400(shop: Storefront, model: str) -> None:
    answer = await Client(shop).video(model, resolution="1080p")
    refused(answer, 400, *REQUEST, "input.resolution")


# ---- references ---------------------------------------------------------------------------------------------


async def test_references_go_to_the_job_in_order_with_their_roles(shop: Storefront) -> None:
    given: dict[str, Any] = {"image_urls": [A, B], "video_urls": [C], "audio_urls": [B]}
    assert (await Client(shop).video(**given)).status == 200
    assert roles(shop) == [(A, "IMAGE"), (B, "IMAGE"), (C, "VIDEO"), (B, "AUDIO")]
    limits = sent(shop).reference_limits
    assert (limits.images, limits.videos, limits.audios) == (9, 3, 3)
    assert list(limits.image_formats) == ["jpeg", "png", "webp", "bmp", "tiff", "gif"]
    assert limits.first_frame_of_animations


async def test_as_many_references_as_are_promised_are_taken(shop: Storefront) -> None:
    given: dict[str, Any] = {"image_urls": [A] * 9, "video_urls": [B] * 3, "audio_urls": [C] * 3}
    assert (await Client(shop).video(**given)).status == 200
    assert len(sent(shop).references) == 15


async def test_one_video_may_be_given_alone(shop: Storefront) -> None:
    assert (await Client(shop).video(video_url=A, video_urls=[])).status == 200
    assert roles(shop) == [(A, "VIDEO")]


@pytest.mark.parametrize("given", [{"start_image_url": A, "end_image_url": B}, {"image_urls": [A, B]}])
async def test_two_frames_come_either_way(shop: Storefront, given: Any) -> None:
    answer = await Client(shop).video(generation_type="first_and_last_frames", **given)
    assert answer.status == 200
    assert roles(shop) == [(A, "FIRST_FRAME"), (B, "LAST_FRAME")]


@pytest.mark.parametrize(
    "given,param",
    [
        ({}, "input.image_urls"),
        ({"image_urls": [A]}, "input.image_urls"),
        ({"image_urls": [A, B, C]}, "input.image_urls"),
        ({"start_image_url": A}, "input.end_image_url"),
        ({"end_image_url": A}, "input.start_image_url"),
        ({"start_image_url": A, "image_urls": [B]}, "input.image_urls"),
        ({"start_image_url": A, "end_image_url": B, "image_urls": [A, B]}, "input.image_urls"),
        ({"image_urls": [A, B], "video_urls": [C]}, "input.video_urls"),
        ({"image_urls": [A, B], "video_url": C}, "input.video_url"),
        ({"image_urls": [A, B], "audio_urls": [C]}, "input.audio_urls"),
    ],
)
async def test_first_and_last_frames_takes_exactly_two_images(
    shop: Storefront, given: Any, param: str
) -> None:
    answer = await Client(shop).video(generation_type="first_and_last_frames", **given)
    refused(answer, 400, *REQUEST, param)


async def test_images_may_be_inline(shop: Storefront) -> None:
    answer = await Client(shop).video(image_urls=["data:image/png;base64,QUJD", A, "REVG"])
    assert answer.status == 200
    assert list(shop.pool.staged.values()) == [b"ABC", b"DEF"]
    assert [bool(each.reference_id) for each in sent(shop).references] == [True, False, True]


# ---- metadata -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"order": "1842", "nested": {"a": [1, 2.5, None, True]}, "größe": "ä\u0000"},
        {str(number): number for number in range(50)},
        {"big": 123456789012345678901234567890},
        {"long": "x" * (16 * 1024 - len('{"long":""}'))},
    ],
)
async def test_metadata_is_kept_as_it_was_given(shop: Storefront, metadata: Any) -> None:
    answer = await Client(shop).create({**PRO, "metadata": metadata})
    assert answer.status == 200
    assert json.loads(order(shop).echo) == metadata


@pytest.mark.parametrize(
    "metadata",
    [
        {str(number): number for number in range(51)},
        {"long": "x" * (16 * 1024 - len('{"long":""}') + 1)},
        {"long": "x" * 2_000_000},
        {"place": "\0lifted:" + "0" * 32 + ":0"},
    ],
)
async def test_metadata_has_50_keys_and_16_kib_at_most(shop: Storefront, metadata: Any) -> None:
    refused(await Client(shop).create({**PRO, "metadata": metadata}), 400, *REQUEST, "metadata")


def nested(levels: int) -> bytes:
    """A video whose metadata are so many objects and arrays in each other."""
    metadata = b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"
    return b'{"model": "pro", "input": {"prompt": "a boat"}, "metadata": %s}' % metadata


async def test_metadata_may_be_nested_as_deep_as_they_can_be_given_back(shop: Storefront) -> None:
    answer = await Client(shop).create(nested(500))
    assert answer.status == 200
    assert order(shop).echo in nested(500)


@pytest.mark.parametrize("levels", [501, 900, *range(950, 1000, 2), 1_500])
async def test_metadata_that_are_nested_deeper_are_400(shop: Storefront, levels: int) -> None:
    answer = await Client(shop).create(nested(levels))
    assert (answer.status, answer.code) == (400, "invalid_request")


# ---- idempotency --------------------------------------------------------------------------------------------


async def test_without_a_key_every_request_makes_a_video(shop: Storefront) -> None:
    first, second = [(await Client(shop).create(PRO)).body["data"]["id"] for _ in range(2)]
    assert first != second
    assert len({request.idempotency_key for request in shop.jobs.created}) == 2


async def test_a_repeated_request_gets_the_first_video_with_its_live_status(shop: Storefront) -> None:
    client = Client(shop)
    first = await client.create(PRO, key="order-1")
    shop.jobs.kept[first.body["data"]["id"]].stage = jobs.STAGE_AT_PROVIDER
    again = await client.create(PRO, key="order-1")
    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.body["data"] == {**first.body["data"], "status": "processing"}


@pytest.mark.parametrize(
    "change",
    [
        {"model": "fast"},
        {"metadata": {"a": 1}},
        {"callback_url": "https://example.com/hook"},
        {"input": {**PRO["input"], "duration": 6}},  # type: ignore[dict-item]
        {"input": {**PRO["input"], "image_urls": [B, A]}},  # type: ignore[dict-item]
        {"input": {**PRO["input"], "image_urls": []}},  # type: ignore[dict-item]
    ],
)
async def test_a_key_used_with_another_request_is_a_conflict(shop: Storefront, change: Any) -> None:
    client = Client(shop)
    await client.create(PRO, key="order-1")
    answer = await client.create({**PRO, **change}, key="order-1")
    refused(answer, 409, "idempotency_key_conflict", "invalid_request_error")


async def test_the_same_request_is_one_that_parses_to_the_same(shop: Storefront) -> None:
    client = Client(shop)
    body = {**PRO, "metadata": {"a": 1, "b": {"c": 2, "d": 3}}}
    await client.create(body, key="order-1")
    turned: Any = {"metadata": {"b": {"d": 3, "c": 2}, "a": 1}, "x": 1, **PRO}
    turned["input"] = {**turned["input"], "prompt": " a paper boat ", "generation_type": "omni_reference"}
    same = json.dumps(turned, indent=3).encode()
    assert (await client.create(same, key="order-1")).headers["Idempotent-Replayed"] == "true"


async def test_simultaneous_identical_requests_make_one_video(shop: Storefront) -> None:
    shop.jobs.answer_after_s = 0.01
    answers = await asyncio.gather(*(Client(shop).create(PRO, key="order-1") for _ in range(50)))
    assert len({answer.body["data"]["id"] for answer in answers}) == 1


async def test_an_idempotency_key_that_is_none_is_400(shop: Storefront) -> None:
    authorization = f"Authorization: Bearer {key_of('seedancee2')}\r\n".encode()
    body = json.dumps(PRO).encode()
    for key in (b"", b"x" * 256, b"tab\there"):
        header = authorization + b"Idempotency-Key: " + key + b"\r\n"
        answer = await shop.raw(VIDEOS, header, body)
        assert (answer.status, answer.code) == (400, "invalid_request")
        assert answer.body["error"]["param"] == "Idempotency-Key"
    assert shop.jobs.created == []
