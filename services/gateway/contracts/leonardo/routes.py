"""Routes: the handlers, what the documentation says of them, and the contract itself."""

from __future__ import annotations

from typing import Any, Final

from services.gateway import reading
from services.gateway.contract import (
    CREATE_DEADLINE_S,
    Answer,
    Call,
    Contract,
    Operation,
    PathPart,
    Reply,
    Route,
    Tracking,
)
from services.gateway.contracts.leonardo import inward, outward
from services.gateway.contracts.leonardo.errors import ERROR_CODES, error_example, render_error
from services.gateway.contracts.leonardo.guide import GUIDE
from services.gateway.contracts.leonardo.wire import (
    AcceptedJob,
    ErrorBody,
    ImageRequest,
    JobView,
    ResultView,
    UsageView,
    VideoRequest,
)
from services.gateway.creating import Order, create, replay_headers
from services.gen.jobs.v1 import jobs_pb2 as pb

_NAME: Final = "leonardo"
_EXAMPLE_ID: Final = "job_01jz8b7q4x8k2p9w3m5c6n7r8s"
# One blue pixel, so that the example can be sent as it stands.
_TINY_PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mPQyr8NAAI7AXWRW14QAAAAAElFTkSuQmCC"
)


async def generate_image(call: Call) -> Answer:
    reading.require_json(call.request)
    wire = inward.read_image(call.body.json)
    return await _create(call, wire, inward.image_job(wire))


async def generate_video(call: Call) -> Answer:
    reading.require_json(call.request)
    wire = inward.read_video(call.body.json)
    return await _create(call, wire, inward.video_job(wire))


async def _create(call: Call, wire: inward.W, request: pb.CreateJobRequest) -> Answer:
    order = Order(
        request,
        compared=lambda identities: inward.compared(wire, identities),
        references=inward.references(wire),
        limits=inward.REFERENCE_LIMITS,
    )
    answer = await create(call, order)
    return Answer(202, outward.accepted(answer), replay_headers(answer))


async def get_job(call: Call) -> Answer:
    return Answer(200, outward.view(await _job(call)))


async def get_result(call: Call) -> Answer:
    job = await _job(call)
    primary = outward.primary_of(job)
    link = call.link(primary.object_key, job.media_expires_at_ms)
    preview = outward.output_of(job, pb.Output.ROLE_PREVIEW)
    preview_link = call.link(preview.object_key, job.media_expires_at_ms) if preview else None
    return Answer(200, outward.result(job, primary, link, preview_link))


async def _job(call: Call) -> pb.Job:
    job_id = inward.job_id(call.request.match_info["jobId"])
    return await call.house.backends.job(call.caller, job_id)


async def get_usage(call: Call) -> Answer:
    return Answer(200, outward.usage(await call.house.backends.balance(call.caller)))


_CREATE_ERRORS: Final = (
    "invalid_request",
    "idempotency_key_required",
    "invalid_reference_image",
    "insufficient_credits",
    "idempotency_key_conflict",
    "payload_too_large",
    "queue_full",
    "concurrency_limited",
    "provider_unavailable",
)


def _accepted(kind: str, model: str, credit_count: int) -> dict[str, Any]:
    return {
        "ok": True,
        "jobId": _EXAMPLE_ID,
        "status": "processing",
        "type": kind,
        "chargedCredits": credit_count,
        "model": model,
        "idempotentReplay": False,
    }


_IMAGE: Final = Operation(
    summary="Generate an image",
    description="Accepts one GPT Image 2 job. The price is reserved at once, charged when the image is ready, and "
    "returned in full if the job fails.",
    request=ImageRequest,
    example={"prompt": "cinematic product photo", "quality": "LOW", "size": "16:9_SMALL"},
    more_examples={
        "referenceImage": {
            "prompt": "the same bottle on a beach",
            "referenceImage": {"imageUrl": "https://example.com/reference.png", "strength": "MID"},
        },
        "inlineReferenceImage": {
            "prompt": "the same bottle on a beach",
            "referenceImage": {"imageUrl": f"data:image/png;base64,{_TINY_PNG}", "strength": "HIGH"},
        },
    },
    reply=Reply(202, "The job was accepted.", AcceptedJob, {"image": _accepted("image", "gpt-image-2", 20)}),
    errors=_CREATE_ERRORS,
)
_VIDEO: Final = Operation(
    summary="Generate a video",
    description="Accepts one Seedance 2.0 Fast job: 720p, 4 to 15 seconds, 600 credits a second, with sound or without. "
    "The price is reserved at once, charged when the video is ready, and returned in full if the job fails.",
    request=VideoRequest,
    example={
        "prompt": "drone shot over rice fields",
        "size": "16:9_SMALL",
        "duration": 15,
        "motionHasAudio": True,
    },
    more_examples={
        "referenceImage": {
            "prompt": "the camera circles the bottle",
            "size": "16:9_SMALL",
            "referenceImage": {"imageUrl": "https://example.com/reference.png"},
        },
    },
    reply=Reply(
        202, "The job was accepted.", AcceptedJob, {"video": _accepted("video", "seedance-2.0-fast", 9000)}
    ),
    errors=_CREATE_ERRORS,
)
_PROCESSING: Final[dict[str, Any]] = {
    "ok": True,
    "jobId": _EXAMPLE_ID,
    "type": "video",
    "model": "seedance-2.0-fast",
    "status": "processing",
    "progress": 40,
    "chargedCredits": 9000,
    "createdAt": "2026-06-29T10:00:00.000Z",
    "updatedAt": "2026-06-29T10:00:42.000Z",
    "completedAt": None,
    "error": None,
}
_COMPLETE: Final = {
    **_PROCESSING,
    "status": "complete",
    "progress": 100,
    "updatedAt": "2026-06-29T10:01:30.000Z",
    "completedAt": "2026-06-29T10:01:30.000Z",
}
_FAILED: Final = {
    **_PROCESSING,
    "status": "failed",
    "chargedCredits": 0,
    "refundedCredits": 9000,
    "completedAt": "2026-06-29T10:00:42.000Z",
    "error": {
        "code": "generation_failed",
        "message": "The generation failed. Your credits were returned; please try again.",
    },
}
_REFERENCE_FAILED: Final = {
    **_FAILED,
    "error": {
        "code": "reference_unavailable",
        "message": "The reference image could not be fetched from its URL. Your credits were returned; "
        "please check that anybody can open it over HTTPS.",
    },
}
_PATH: Final = {"jobId": PathPart("The id that the create request answered.", _EXAMPLE_ID)}
_STATUS: Final = Operation(
    summary="Get a job",
    description="The status of a job, no older than two seconds. Ask every few seconds until `status` is `complete` or "
    "`failed`; it goes from `queued` to `processing` to one of these, and never back.",
    reply=Reply(
        200,
        "The job as it stands.",
        JobView,
        {
            "processing": _PROCESSING,
            "complete": _COMPLETE,
            "failed": _FAILED,
            "referenceUnavailable": _REFERENCE_FAILED,
        },
    ),
    errors=("job_not_found", "job_status_unavailable"),
    path=_PATH,
)
_RESULT: Final = Operation(
    summary="Get a result",
    description="Links to the finished media. They work without an API key until `expiresAt`; reading the result again "
    "gives fresh ones, for as long as the media are kept.",
    reply=Reply(
        200,
        "The media are ready.",
        ResultView,
        {
            "video": {
                "ok": True,
                "jobId": _EXAMPLE_ID,
                "type": "video",
                "status": "complete",
                "url": "https://api.example.com/media/video.mp4?expires=1782813600&signature=…",
                "previewUrl": "https://api.example.com/media/preview.jpg?expires=1782813600&signature=…",
                "contentType": "video/mp4",
                "width": 1280,
                "height": 720,
                "duration": 15.0,
                "expiresAt": "2026-06-30T10:00:00.000Z",
            }
        },
    ),
    errors=("job_not_found", "job_not_complete", "job_failed", "job_status_unavailable"),
    path=_PATH,
)
_USAGE: Final = Operation(
    summary="Get the balance",
    description="The wallet of the key's mode. `creditsAvailable` is always `creditsBalance` less `creditsReserved`.",
    reply=Reply(
        200,
        "The wallet.",
        UsageView,
        {"wallet": {"creditsBalance": 12000, "creditsReserved": 9000, "creditsAvailable": 3000}},
    ),
    errors=("job_status_unavailable",),
)

CONTRACT: Final = Contract(
    name=_NAME,
    title="Atelier Image & Video API",
    summary="Images and videos from a line of text, over one small JSON API.",
    paths=("/v1/images", "/v1/videos", "/v1/jobs", "/v1/usage"),
    key_prefixes=("ak_live_", "ak_test_"),
    routes=(
        Route(
            "generateImage",
            "POST",
            "/v1/images/generate",
            generate_image,
            _IMAGE,
            creates=True,
            deadline_s=CREATE_DEADLINE_S,
        ),
        Route(
            "generateVideo",
            "POST",
            "/v1/videos/generate",
            generate_video,
            _VIDEO,
            creates=True,
            deadline_s=CREATE_DEADLINE_S,
        ),
        Route("getJob", "GET", "/v1/jobs/{jobId}", get_job, _STATUS),
        Route("getResult", "GET", "/v1/jobs/{jobId}/result", get_result, _RESULT),
        Route("getUsage", "GET", "/v1/usage", get_usage, _USAGE),
    ),
    render_error=render_error,
    error_body=ErrorBody,
    error_codes=ERROR_CODES,
    error_example=error_example,
    common_errors=("invalid_api_key", "rate_limited", "internal_error"),
    guide=GUIDE,
    webhook_form=outward.WEBHOOK_FORM,
    tracking=Tracking(
        "jobId", "jobId", "/v1/jobs/{jobId}", "status", ("complete", "failed"), "/v1/jobs/{jobId}/result"
    ),
    key_required=True,
)
