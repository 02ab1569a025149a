"""Creating jobs on `leonardo`: examples, fields, idempotency."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Storefront
from tests.contracts.leonardo import IMAGE, IMAGES, VIDEO, VIDEOS, refused, varying
from tests.fakes import TEST_KEY

# ---- creating -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path,body,kind,model,price",
    [
        (IMAGES, IMAGE, "image", "gpt-image-2", 20),
        (VIDEOS, VIDEO, "video", "seedance-2.0-fast", 9000),
    ],
)
async def test_the_examples_are_answered_as_documented(
    shop: Storefront, path: str, body: Any, kind: str, model: str, price: int
) -> None:
    answer = await shop.post(path, body)
    assert answer.status == 202
    assert varying(answer.body) == {
        "ok": True,
        "jobId": "job_…",
        "status": "processing",
        "type": kind,
        "chargedCredits": price,
        "model": model,
        "idempotentReplay": False,
    }
    assert "Idempotent-Replayed" not in answer.headers


@pytest.mark.parametrize(
    "size,width,height",
    [
        ("16:9_SMALL", 1376, 768),
        ("1:1_SMALL", 1024, 1024),
        ("2:3_SMALL", 848, 1264),
        ("9:16_SMALL", 768, 1376),
    ],
)
@pytest.mark.parametrize("quality", ["LOW", "MEDIUM"])
async def test_an_image_is_asked_for_in_its_pixels_and_sold_by_its_quality(
    shop: Storefront, size: str, width: int, height: int, quality: str
) -> None:
    await shop.post(IMAGES, {"prompt": "a", "size": size, "quality": quality})
    sent = shop.jobs.created[0]
    assert sent.generation == jobs.Generation(
        kind=jobs.KIND_IMAGE,
        model="gpt-image-2",
        prompt="a",
        width=width,
        height=height,
        quality=quality.lower(),
    )
    assert (sent.sku, sent.quantity, sent.id_prefix) == (f"image.{quality.lower()}", 1, "job")


@pytest.mark.parametrize(
    "size,width,height",
    [
        ("16:9_SMALL", 1280, 720),
        ("1:1_SMALL", 960, 960),
        ("2:3_SMALL", 720, 1080),
        ("9:16_SMALL", 720, 1280),
    ],
)
async def test_a_video_is_asked_for_in_its_pixels_and_sold_by_the_second(
    shop: Storefront, size: str, width: int, height: int
) -> None:
    await shop.post(VIDEOS, {"prompt": "a", "size": size, "duration": 4, "motionHasAudio": True})
    sent = shop.jobs.created[0]
    assert sent.generation == jobs.Generation(
        kind=jobs.KIND_VIDEO,
        model="seedance-2.0-fast",
        prompt="a",
        width=width,
        height=height,
        duration_s=4,
        audio=True,
    )
    assert (sent.sku, sent.quantity) == ("video.second", 4)


async def test_what_is_left_out_has_the_documented_default(shop: Storefront) -> None:
    await shop.post(IMAGES, {"prompt": "a"})
    await shop.post(VIDEOS, {"prompt": "a"})
    image, video = (sent.generation for sent in shop.jobs.created)
    assert (image.quality, image.width, image.height) == ("low", 1024, 1024)
    assert (video.duration_s, video.audio, video.width, video.height) == (5, False, 960, 960)


async def test_jobs_is_told_whose_job_it_is_and_what_they_may_have(shop: Storefront) -> None:
    await shop.post(IMAGES, IMAGE, key="k-1", headers={"Authorization": f"Bearer {TEST_KEY}"})
    sent = shop.jobs.created[0]
    assert (sent.customer_id, sent.mode, sent.storefront) == ("cus_1", jobs.MODE_TEST, "leonardo")
    assert sent.idempotency_key == "k-1"
    assert sent.limits == jobs.Limits(running_jobs=4, queued_jobs=16)


async def test_the_prompt_is_trimmed_and_keeps_its_lines(shop: Storefront) -> None:
    await shop.post(IMAGES, {"prompt": "  a\n\tb\u3000"})
    assert shop.jobs.created[0].generation.prompt == "a\n\tb"


@pytest.mark.parametrize("length,status", [(0, 400), (1, 202), (4000, 202), (4001, 400)])
async def test_a_prompt_has_1_to_4000_characters_after_trimming(
    shop: Storefront, length: int, status: int
) -> None:
    answer = await shop.post(IMAGES, {"prompt": " " + "é" * length + " "})
    assert answer.status == status


@pytest.mark.parametrize("duration,status", [(3, 400), (4, 202), (15, 202), (16, 400)])
async def test_a_video_has_4_to_15_seconds(shop: Storefront, duration: int, status: int) -> None:
    assert (await shop.post(VIDEOS, {"prompt": "a", "duration": duration})).status == status


async def test_unknown_fields_are_ignored(shop: Storefront) -> None:
    assert (await shop.post(IMAGES, {**IMAGE, "n": 3, "model": ["x"]})).status == 202


# ---- idempotency --------------------------------------------------------------------------------------------


async def test_a_repeated_request_gets_the_first_job_with_its_live_status(shop: Storefront) -> None:
    first = await shop.post(VIDEOS, VIDEO, key="order-1")
    shop.jobs.kept[first.body["jobId"]].stage = jobs.STAGE_ENDED_BADLY
    again = await shop.post(VIDEOS, VIDEO, key="order-1")
    assert again.status == 202
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.body == {**first.body, "status": "failed", "idempotentReplay": True}


@pytest.mark.parametrize(
    "same",
    [
        b'{"size":"16:9_SMALL","quality":"LOW","prompt":"cinematic product photo"}',
        b'{ "prompt": "cinematic product photo",\n "size": "16:9_SMALL" }',
        b'{"prompt": " cinematic product photo ", "size": "16:9_SMALL", "x": 1}',
    ],
)
async def test_the_same_request_is_one_that_parses_to_the_same(shop: Storefront, same: bytes) -> None:
    await shop.post(IMAGES, IMAGE, key="order-1")
    assert (await shop.post(IMAGES, same, key="order-1")).body["idempotentReplay"] is True


@pytest.mark.parametrize("path,body", [(IMAGES, {**IMAGE, "quality": "MEDIUM"}), (VIDEOS, {"prompt": "a"})])
async def test_a_key_used_with_another_request_is_a_conflict(shop: Storefront, path: str, body: Any) -> None:
    await shop.post(IMAGES, IMAGE, key="order-1")
    refused(await shop.post(path, body, key="order-1"), 409, "idempotency_key_conflict")


async def test_200_simultaneous_identical_requests_make_one_job(shop: Storefront) -> None:
    shop.jobs.answer_after_s = 0.01
    answers = await asyncio.gather(*(shop.post(IMAGES, IMAGE, key="order-1") for _ in range(200)))
    assert Counter(answer.status for answer in answers) == {202: 200}
    assert len({answer.body["jobId"] for answer in answers}) == 1
    assert [answer.body["idempotentReplay"] for answer in answers].count(False) == 1
    assert shop.billing.authentications == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "sch\u00f6n", "tab\there"])
async def test_an_idempotency_key_is_1_to_255_printable_ascii_characters(shop: Storefront, key: str) -> None:
    answer = await shop.raw(IMAGES, f"Idempotency-Key: {key}\r\n".encode())
    assert (answer.status, answer.code) == (400, "idempotency_key_required")
    assert shop.jobs.created == []


@pytest.mark.parametrize("key", ["x", "~" * 255, 'a "quoted" key'])
async def test_every_printable_key_is_taken_as_it_is(shop: Storefront, key: str) -> None:
    assert (await shop.post(IMAGES, IMAGE, key=key)).status == 202
    assert shop.jobs.created[0].idempotency_key == key


@pytest.mark.parametrize("headers", [b"", b"Idempotency-Key: a\r\nIdempotency-Key: a\r\n"])
async def test_one_idempotency_key_is_required(shop: Storefront, headers: bytes) -> None:
    answer = await shop.raw(IMAGES, headers)
    assert (answer.status, answer.code) == (400, "idempotency_key_required")
