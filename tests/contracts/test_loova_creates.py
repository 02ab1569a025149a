"""Creating tasks on `loova`: the example, every field, media, idempotency."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any

import pytest
from PIL import Image

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Storefront
from tests.contracts.loova import TASK_ID, VIDEO, VIDEOS, Client, refused
from tests.fakes import key_of

URL = "https://example.com/a"


@pytest.fixture
def client(shop: Storefront) -> Client:
    return Client(shop)


async def test_the_example_is_answered_as_documented(client: Client) -> None:
    answer = await client.create({"prompt": "a"})
    assert answer.status == 200
    data = answer.body["data"]
    assert TASK_ID.fullmatch(data["task_id"])
    assert data == {
        "task_id": data["task_id"],
        "status": "running",
        "created_at": "2026-06-29T10:00:00Z",
        "credits_cost": 12.0,
    }
    # A whole amount keeps its decimal point.
    assert b'"credits_cost":12.0' in answer.raw
    assert "Idempotent-Replayed" not in answer.headers


@pytest.mark.parametrize(
    "model,internal,cost",
    [("seedance_2_0", "seedance-2.0", 9.6), ("seedance_2_0_fast", "seedance-2.0-fast", 7.6)],
)
async def test_a_model_is_sold_by_the_second(
    shop: Storefront, client: Client, model: str, internal: str, cost: float
) -> None:
    answer = await client.create({"prompt": "a", "model": model, "duration": 4})
    assert answer.body["data"]["credits_cost"] == cost
    sent = shop.jobs.created[0]
    assert (sent.generation.model, sent.public_model) == (internal, model)
    assert (sent.sku, sent.quantity, sent.id_prefix) == (f"{internal}.second", 4, "task")


@pytest.mark.parametrize(
    "ratio,width,height",
    [
        ("21:9", 1470, 630),
        ("16:9", 1280, 720),
        ("4:3", 1112, 834),
        ("1:1", 960, 960),
        ("3:4", 834, 1112),
        ("9:16", 720, 1280),
    ],
)
async def test_a_ratio_is_asked_for_in_its_pixels(
    shop: Storefront, client: Client, ratio: str, width: int, height: int
) -> None:
    await client.create({"prompt": " a\n", "ratio": ratio, "duration": 15})
    assert shop.jobs.created[0].generation == jobs.Generation(
        kind=jobs.KIND_VIDEO,
        model="seedance-2.0",
        prompt="a",
        width=width,
        height=height,
        duration_s=15,
        audio=True,
    )


async def test_what_is_left_out_has_the_documented_default(shop: Storefront, client: Client) -> None:
    defaults = {
        "model": "seedance_2_0",
        "function_mode": "omni_reference",
        "ratio": "16:9",
        "duration": 5,
        "image_urls": [],
        "audio_urls": [],
        "video_urls": [],
    }
    await client.create({"prompt": "a"}, key="one")
    again = await client.create({"prompt": "a", **defaults}, key="one")
    assert again.headers["Idempotent-Replayed"] == "true"
    generation = shop.jobs.created[0].generation
    assert (generation.width, generation.height, generation.duration_s) == (1280, 720, 5)
    assert not generation.references


async def test_jobs_is_told_whose_task_it_is_and_what_they_may_have(shop: Storefront) -> None:
    await Client(shop, key_of("loova", test=True)).create(VIDEO)
    sent = shop.jobs.created[0]
    assert (sent.customer_id, sent.mode, sent.storefront) == ("cus_1", jobs.MODE_TEST, "loova")
    # Only a key with a spend limit of its own has to be named.
    assert (sent.key_id, sent.limits) == ("", jobs.Limits(running_jobs=4, queued_jobs=16))
    assert sent.webhook_form_id


@pytest.mark.parametrize(
    "changes,field",
    [
        ({"prompt": 1}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": "a" * 4001}, "prompt"),
        ({"prompt": "a\x00"}, "prompt"),
        ({"model": "seedance_1_0"}, "model"),
        ({"function_mode": "frames"}, "function_mode"),
        ({"ratio": "2:1"}, "ratio"),
        ({"duration": 3}, "duration"),
        ({"duration": 16}, "duration"),
        ({"duration": 5.0}, "duration"),
        ({"duration": "5"}, "duration"),
        ({"duration": None}, "duration"),
        ({"image_urls": URL}, "image_urls"),
        ({"image_urls": [1]}, "image_urls"),
        ({"image_urls": [URL] * 10}, "image_urls"),
        ({"video_urls": [URL] * 4}, "video_urls"),
        ({"audio_urls": [URL] * 4, "image_urls": [URL]}, "audio_urls"),
        ({"image_urls": [URL, "http://example.com/b"]}, "image_urls[1]"),
        ({"image_urls": ["https://127.0.0.1/b"]}, "image_urls[0]"),
        ({"image_urls": ["not base64"]}, "image_urls[0]"),
        ({"video_urls": ["data:video/mp4;base64,AAAA"]}, "video_urls[0]"),
        ({"audio_urls": ["https://example.com:8443/b"], "image_urls": [URL]}, "audio_urls[0]"),
    ],
)
async def test_a_wrong_value_is_400_and_named(
    shop: Storefront, client: Client, changes: dict[str, Any], field: str
) -> None:
    assert field in refused(await client.create({**VIDEO, **changes}), 400)
    assert shop.jobs.created == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"a"', b"\xff", b"{}"])
async def test_what_is_no_request_is_400(client: Client, body: bytes) -> None:
    refused(await client.create(body, **{"Content-Type": "application/json"}), 400)


async def test_another_content_type_than_json_is_400(client: Client) -> None:
    refused(await client.create(b'{"prompt": "a"}', **{"Content-Type": "text/plain"}), 400)


async def test_unknown_fields_are_ignored(client: Client) -> None:
    assert (await client.create({**VIDEO, "n": 3, "resolution": ["x"]})).status == 200


# ---- media --------------------------------------------------------------------------------------------------


def roles(job: jobs.CreateJobRequest) -> list[tuple[int, str]]:
    return [(reference.role, reference.url) for reference in job.generation.references]


async def test_omni_reference_takes_nine_images_three_videos_and_three_sounds(
    shop: Storefront, client: Client
) -> None:
    body = {
        "prompt": "a",
        "image_urls": [f"{URL}{n}.png" for n in range(9)],
        "video_urls": [f"{URL}{n}.mp4" for n in range(3)],
        "audio_urls": [f"{URL}{n}.mp3" for n in range(3)],
    }
    assert (await client.create(body)).status == 200
    sent = shop.jobs.created[0]
    assert roles(sent) == [
        *((jobs.Reference.ROLE_IMAGE, url) for url in body["image_urls"]),
        *((jobs.Reference.ROLE_VIDEO, url) for url in body["video_urls"]),
        *((jobs.Reference.ROLE_AUDIO, url) for url in body["audio_urls"]),
    ]
    limits = sent.generation.reference_limits
    assert (limits.images, limits.videos, limits.audios) == (9, 3, 3)
    assert set(limits.image_formats) == {"jpeg", "png", "webp", "bmp", "tiff", "gif"}


async def test_audio_needs_an_image_or_a_video_beside_it(client: Client) -> None:
    told = refused(await client.create({"prompt": "a", "audio_urls": [URL]}), 400)
    assert "audio_urls" in told
    for beside in ("image_urls", "video_urls"):
        assert (await client.create({"prompt": "a", "audio_urls": [URL], beside: [URL]})).status == 200


async def test_first_last_frames_takes_the_first_frame_and_the_last(shop: Storefront, client: Client) -> None:
    body = {"prompt": "a", "function_mode": "first_last_frames", "image_urls": [f"{URL}1", f"{URL}2"]}
    assert (await client.create(body)).status == 200
    assert roles(shop.jobs.created[0]) == [
        (jobs.Reference.ROLE_FIRST_FRAME, f"{URL}1"),
        (jobs.Reference.ROLE_LAST_FRAME, f"{URL}2"),
    ]
    assert (await client.create({**body, "image_urls": [URL]})).status == 200
    assert "image_urls" in refused(await client.create({**body, "image_urls": [URL] * 3}), 400)


async def test_an_image_may_be_inside_the_request_and_is_compared_by_its_content(
    shop: Storefront, client: Client
) -> None:
    picture = io.BytesIO()
    Image.effect_noise((600, 600), 80).save(picture, "PNG")
    encoded = base64.b64encode(picture.getvalue()).decode()
    body = {"prompt": "a", "image_urls": [f"data:image/png;base64,{encoded}", URL]}
    assert (await client.create(body, key="one")).status == 200
    (reference, _) = shop.jobs.created[0].generation.references
    assert shop.pool.staged[reference.reference_id] == picture.getvalue()
    again = await client.create({**body, "image_urls": [encoded, URL]}, key="one")
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await client.create({**body, "image_urls": [URL, encoded]}, key="one")
    refused(other, 409)


async def test_a_body_may_be_large_with_images_and_only_with_images(client: Client) -> None:
    refused(await client.create({"prompt": "a", "x": ["a"] * 300_000}), 413)
    refused(await client.create(b" " * (28 * 1024 * 1024 + 1)), 413)


# ---- idempotency --------------------------------------------------------------------------------------------


async def test_a_request_without_an_idempotency_key_makes_a_task_each_time(
    shop: Storefront, client: Client
) -> None:
    first, second = await client.create(VIDEO), await client.create(VIDEO)
    assert first.body["data"]["task_id"] != second.body["data"]["task_id"]
    assert len({sent.idempotency_key for sent in shop.jobs.created}) == 2


async def test_a_repeated_request_gets_the_first_task_with_its_live_status(
    shop: Storefront, client: Client
) -> None:
    first = await client.create(VIDEO, key="order-1")
    shop.jobs.kept[first.body["data"]["task_id"]].stage = jobs.STAGE_ENDED_BADLY
    again = await client.create(VIDEO, key="order-1")
    assert again.status == 200
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.body["data"] == {**first.body["data"], "status": "failed"}


async def test_a_key_used_with_another_request_is_a_conflict(client: Client) -> None:
    await client.create(VIDEO, key="order-1")
    refused(await client.create({**VIDEO, "duration": 6}, key="order-1"), 409)


async def test_200_simultaneous_identical_requests_make_one_task(shop: Storefront, client: Client) -> None:
    shop.jobs.answer_after_s = 0.01
    answers = await asyncio.gather(*(client.create(VIDEO, key="order-1") for _ in range(200)))
    assert len({answer.body["data"]["task_id"] for answer in answers}) == 1
    assert len(shop.jobs.kept) == 1


@pytest.mark.parametrize("key", ["x" * 256, "sch\u00f6n"])
async def test_a_malformed_idempotency_key_is_400(shop: Storefront, key: str) -> None:
    answer = await shop.raw(
        VIDEOS, f"Authorization: Bearer {key_of('loova')}\r\nIdempotency-Key: {key}\r\n".encode()
    )
    assert (answer.status, answer.body["code"]) == (400, 400)
    assert shop.jobs.created == []
