"""Routes: the handlers, what the documentation says of them, and the contract itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from services.chassis import call_context
from services.chassis.errors import ServiceError
from services.gateway import pairs, reading
from services.gateway.contract import (
    CREATE_DEADLINE_S,
    Answer,
    Call,
    Contract,
    Operation,
    Reply,
    Route,
    Tracking,
)
from services.gateway.contracts.loova import inward, outward
from services.gateway.contracts.loova.errors import ERROR_CODES, error_example, render_error, trace_id
from services.gateway.contracts.loova.guide import GUIDE
from services.gateway.contracts.loova.wire import (
    AcceptedAnswer,
    CreditsAnswer,
    ErrorBody,
    TaskAnswer,
    VideoRequest,
)
from services.gateway.creating import Order, create, replay_headers
from services.gen.jobs.v1 import jobs_pb2 as pb

_EXAMPLE_ID: Final = "task_01jz8b7q4x8k2p9w3m5c6n7r8s"
_EXAMPLE_TRACE: Final = "45c30d76f06549b199a3775544523689"


class TaskQuery(msgspec.Struct, frozen=True):
    """Which task."""

    task_id: Annotated[
        str,
        Meta(description="What the create request answered.", examples=["task_01jz8b7q4x8k2p9w3m5c6n7r8s"]),
    ]


async def create_video(call: Call) -> Answer:
    reading.require_json(call.request)
    wire = inward.read_video(call.body.json)
    order = Order(
        request=inward.video_job(wire),
        compared=partial(inward.compared, wire),
        references=inward.references(wire),
        limits=inward.REFERENCE_LIMITS,
    )
    answer = await create(call, order)
    body = AcceptedAnswer(200, _trace_id(), "success", outward.accepted(answer))
    return Answer(200, body, replay_headers(answer))


async def get_task(call: Call) -> Answer:
    task_id = inward.task_id(pairs.query(call.request, TaskQuery).task_id)
    job = await call.house.backends.job(call.caller, task_id)
    return Answer(200, TaskAnswer(200, _trace_id(), "success", outward.task(job, _video_url(call, job))))


def _video_url(call: Call, job: pb.Job) -> str | None:
    video = outward.primary_of(job)
    if video is None:
        return None
    try:
        return call.link(video.object_key, job.media_expires_at_ms).url
    except ServiceError:
        # The task is remembered longer than its video is kept.
        return None


async def get_credits(call: Call) -> Answer:
    wallet = outward.wallet(await call.house.backends.wallet(call.caller))
    return Answer(200, CreditsAnswer(200, _trace_id(), "success", wallet))


def _trace_id() -> str:
    return trace_id(call_context.current().request_id)


def _enveloped(data: dict[str, Any]) -> dict[str, Any]:
    return {"code": 200, "trace_id": _EXAMPLE_TRACE, "message": "success", "data": data}


_VIDEO: Final = Operation(
    summary="Generate a video",
    description="Accepts one Seedance 2.0 task: 720p, 4 to 15 seconds, with sound. The price is reserved at once, charged "
    "when the video is ready, and returned in full if the task fails.",
    request=VideoRequest,
    example={
        "prompt": "drone shot over rice fields",
        "model": "seedance_2_0",
        "ratio": "16:9",
        "duration": 5,
    },
    more_examples={
        "references": {
            "prompt": "the bottle of the picture on a beach, to this music",
            "function_mode": "omni_reference",
            "image_urls": ["https://example.com/bottle.png"],
            "audio_urls": ["https://example.com/waves.mp3"],
        },
        "firstAndLastFrame": {
            "prompt": "the bud opens",
            "function_mode": "first_last_frames",
            "image_urls": ["https://example.com/bud.png", "https://example.com/flower.png"],
        },
    },
    reply=Reply(
        200,
        "The task was accepted.",
        AcceptedAnswer,
        {
            "accepted": _enveloped(
                {
                    "task_id": _EXAMPLE_ID,
                    "status": "running",
                    "created_at": "2024-01-01T12:00:00Z",
                    "credits_cost": 12.0,
                }
            )
        },
    ),
    errors=("400", "402", "409", "413", "503"),
)
_RUNNING: Final[dict[str, Any]] = {
    "task_id": _EXAMPLE_ID,
    "status": "running",
    "model": "seedance_2_0",
    "created_at": "2024-01-01T12:00:00Z",
    "updated_at": "2024-01-01T12:00:05Z",
    "credits_cost": 12.0,
    "result": None,
}
_SUCCEEDED: Final[dict[str, Any]] = {
    **_RUNNING,
    "status": "succeeded",
    "updated_at": "2024-01-01T12:02:00Z",
    "result": {
        "status": "succeeded",
        "video_url": "https://api.example.com/media/video.mp4?expires=1704196920&signature=…",
        "error_message": None,
        "finished_at": "2024-01-01T12:02:00Z",
    },
}
_FAILED: Final[dict[str, Any]] = {
    **_SUCCEEDED,
    "status": "failed",
    "credits_cost": 0.0,
    "result": {
        "status": "failed",
        "video_url": None,
        "error_message": "The video could not be generated. Your credits were returned; please try again.",
        "finished_at": "2024-01-01T12:02:00Z",
    },
}
_TASK: Final = Operation(
    summary="Get a task",
    description="A task as it stands, no older than two seconds. Ask every few seconds until `status` is `succeeded` or "
    "`failed`; each read gives a fresh link to the video.",
    query=TaskQuery,
    reply=Reply(
        200,
        "The task.",
        TaskAnswer,
        {
            "running": _enveloped(_RUNNING),
            "succeeded": _enveloped(_SUCCEEDED),
            "failed": _enveloped(_FAILED),
        },
    ),
    errors=("400", "404", "503"),
)
_CREDITS: Final = Operation(
    summary="Get the balance",
    description="The wallet of the key's mode: what new tasks can spend, and all that was ever bought.",
    reply=Reply(
        200,
        "The wallet.",
        CreditsAnswer,
        {"wallet": _enveloped({"api_available_credits": 47995, "api_total_credits": 51000})},
    ),
    errors=("503",),
)

_ROUTES: Final = (
    Route(
        "createVideo",
        "POST",
        "/api/v1/video/seedance-2",
        create_video,
        _VIDEO,
        creates=True,
        deadline_s=CREATE_DEADLINE_S,
    ),
    Route("getTask", "GET", "/api/v1/tasks", get_task, _TASK),
    Route("getCredits", "GET", "/api/v1/credits", get_credits, _CREDITS),
)

CONTRACT: Final = Contract(
    name="loova",
    title="Atelier Seedance API",
    summary="Seedance 2.0 videos as tasks: text, images, videos and audio in, one film out.",
    paths=("/api/v1/video", "/api/v1/tasks"),
    exact_paths=("/api/v1/credits",),
    key_prefixes=("lv_live_", "lv_test_"),
    routes=(
        *_ROUTES,
        *(replace(route, path=route.path.removeprefix("/api"), bound=True) for route in _ROUTES),
    ),
    render_error=render_error,
    error_body=ErrorBody,
    error_codes=ERROR_CODES,
    error_example=error_example,
    common_errors=("401", "429", "500"),
    guide=GUIDE,
    webhook_form=outward.WEBHOOK_FORM,
    tracking=Tracking("data.task_id", "task_id", "/api/v1/tasks", "data.status", ("succeeded", "failed")),
)
