"""Reading jobs, results and the wallet on `leonardo`."""

from __future__ import annotations

import re

import pytest

from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Storefront
from tests.contracts.leonardo import IMAGE, IMAGES, finish, made, refused, varying

CODES: dict[int, str] = {
    jobs.FAILURE_REASON_INVALID_REFERENCE: "invalid_reference_image",
    jobs.FAILURE_REASON_REFERENCE_UNAVAILABLE: "reference_unavailable",
    jobs.FAILURE_REASON_REFERENCE_UNSUITABLE: "invalid_reference_image",
}


@pytest.mark.parametrize(
    "stage,status",
    [
        (jobs.STAGE_WAITING, "queued"),
        (jobs.STAGE_ACCOUNT_CHOSEN, "processing"),
        (jobs.STAGE_AT_PROVIDER, "processing"),
        (jobs.STAGE_ENDED_WELL, "complete"),
        (jobs.STAGE_ENDED_BADLY, "failed"),
    ],
)
async def test_every_stage_has_its_word(shop: Storefront, stage: jobs.Stage.ValueType, status: str) -> None:
    shop.jobs.stage = stage
    created = await shop.post(IMAGES, IMAGE)
    assert created.body["status"] == status
    assert (await shop.get(f"/v1/jobs/{created.body['jobId']}")).body["status"] == status


async def test_a_running_job_reads_as_documented(shop: Storefront) -> None:
    job = await made(shop)
    job.stage, job.progress = jobs.STAGE_AT_PROVIDER, 40
    answer = await shop.get(f"/v1/jobs/{job.job_id}")
    assert answer.status == 200
    assert varying(answer.body) == {
        "ok": True,
        "jobId": "job_…",
        "type": "video",
        "model": "seedance-2.0-fast",
        "status": "processing",
        "progress": 40,
        "chargedCredits": 9000,
        "createdAt": "2026-06-29T10:00:00.000Z",
        "updatedAt": "2026-06-29T10:00:00.000Z",
        "completedAt": None,
        "error": None,
    }
    assert shop.jobs.asked[0].sync


async def test_a_cancelled_job_says_so(shop: Storefront) -> None:
    job = await made(shop)
    job.stage, job.failure = jobs.STAGE_ENDED_BADLY, jobs.FAILURE_REASON_CANCELED
    body = (await shop.get(f"/v1/jobs/{job.job_id}")).body
    assert (body["status"], body["refundedCredits"]) == ("failed", 9000)
    assert body["error"] == {
        "code": "generation_failed",
        "message": "The job was cancelled. Your credits were returned.",
    }


async def test_a_complete_job_shows_what_was_charged(shop: Storefront) -> None:
    job = await made(shop)
    finish(shop, job)
    job.charged_millis = 8_400_500
    view = (await shop.get(f"/v1/jobs/{job.job_id}")).body
    assert (view["status"], view["progress"], view["chargedCredits"]) == ("complete", 100, 8400.5)
    assert view["completedAt"] == "2026-06-29T10:01:30.000Z"
    assert "refundedCredits" not in view


@pytest.mark.parametrize("reason", [value for value in jobs.FailureReason.values() if value])
async def test_a_failed_job_shows_its_refund_and_a_sentence_for_its_reason(
    shop: Storefront, reason: jobs.FailureReason.ValueType
) -> None:
    job = await made(shop)
    job.stage, job.failure, job.refunded_millis = jobs.STAGE_ENDED_BADLY, reason, 9_000_000
    view = (await shop.get(f"/v1/jobs/{job.job_id}")).body
    assert (view["chargedCredits"], view["refundedCredits"]) == (0, 9000)
    assert view["error"]["code"] == CODES.get(reason, "generation_failed")
    assert view["error"]["message"].endswith(".")
    error = refused(await shop.get(f"/v1/jobs/{job.job_id}/result"), 409, "job_failed")
    assert error["message"] == view["error"]["message"]


async def test_every_failure_reason_has_a_sentence_of_its_own(shop: Storefront) -> None:
    job = await made(shop)
    job.stage = jobs.STAGE_ENDED_BADLY
    messages = set()
    for reason in jobs.FailureReason.values():
        job.failure = reason
        messages.add((await shop.get(f"/v1/jobs/{job.job_id}")).body["error"]["message"])
    # An unnamed reason reads as the plain failure.
    assert len(messages) == len(jobs.FailureReason.values()) - 1


async def test_a_video_result_reads_as_documented_and_its_links_work(shop: Storefront) -> None:
    job = await made(shop)
    finish(shop, job)
    answer = await shop.get(f"/v1/jobs/{job.job_id}/result")
    assert answer.status == 200
    body = varying(answer.body)
    url, preview_url, expires_at = (body.pop(name) for name in ("url", "previewUrl", "expiresAt"))
    assert body == {
        "ok": True,
        "jobId": "job_…",
        "type": "video",
        "status": "complete",
        "contentType": "video/mp4",
        "width": 1280,
        "height": 720,
        "duration": 15.0,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", expires_at)
    assert (await shop.fetched(url), await shop.fetched(preview_url)) == (b"primary", b"still")


async def test_an_image_result_has_no_preview_and_no_duration(shop: Storefront) -> None:
    job = await made(shop, IMAGES, IMAGE)
    finish(shop, job)
    body = (await shop.get(f"/v1/jobs/{job.job_id}/result")).body
    assert (body["type"], body["contentType"]) == ("image", "image/png")
    assert {"previewUrl", "duration"}.isdisjoint(body)
    assert await shop.fetched(body["url"]) == b"primary"


async def test_a_result_before_the_end_is_a_conflict_with_a_time_to_ask_again(shop: Storefront) -> None:
    answer = await shop.get(f"/v1/jobs/{(await made(shop)).job_id}/result")
    refused(answer, 409, "job_not_complete")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "held,spoken",
    [
        ((12_000_000, 9_000_000), (12000, 9000, 3000)),
        ((12_500, 9_250), (12.5, 9.25, 3.25)),
        ((0, 0), (0, 0, 0)),
    ],
)
async def test_the_wallet_reads_as_documented(
    shop: Storefront, held: tuple[int, int], spoken: tuple[float, float, float]
) -> None:
    shop.billing.balance = billing.Balance(balance_millis=held[0], reserved_millis=held[1])
    answer = await shop.get("/v1/usage")
    names = ("creditsBalance", "creditsReserved", "creditsAvailable")
    assert answer.body == dict(zip(names, spoken, strict=True))
    assert all(type(answer.body[name]) is type(value) for name, value in zip(names, spoken, strict=True))
