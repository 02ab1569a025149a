"""Routes, the other half: what the documentation says of each."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.contract import Operation, PathPart, Reply
from services.gateway.contracts.seedancee2.wire import (
    AcceptedBody,
    ModelPage,
    PageQuery,
    UsageBody,
    UsageQuery,
    VideoBody,
    VideoPage,
    VideoRequest,
)

_ID: Final = "vid_01jz8b7q4x8k2p9w3m5c6n7r8s"
_VIDEO: Final = {
    "id": _ID,
    "status": "processing",
    "model": "pro",
    "created_at": "2026-06-29T10:00:00.000Z",
    "metadata": {"order": "1842"},
}
_MEDIA: Final = "https://api.example.com/media"
_COMPLETED: Final = {
    **_VIDEO,
    "status": "completed",
    "completed_at": "2026-06-29T10:01:30.000Z",
    "credits_charged": 100,
    "output": {
        "video_url": f"{_MEDIA}/videos/2026/06/29/{_ID}.mp4?expires=1782813600&signature=…",
        "thumbnail_url": f"{_MEDIA}/video-posters/2026/06/29/{_ID}.jpg?expires=1782813600&signature=…",
    },
}
_FAILED: Final = {
    **_VIDEO,
    "status": "failed",
    "credits_charged": 0,
    "credits_refunded": 100,
    "error": {
        "code": "generation_failed",
        "message": "The video could not be generated. Please try again with a different prompt.",
        "type": "generation_error",
    },
}
_ACCEPTED: Final = {
    "id": _ID,
    "status": "pending",
    "model": "pro",
    "credits_reserved": 100,
    "created_at": "2026-06-29T10:00:00.000Z",
}


def _figures(pending: int, processing: int, completed: int, failed: int, charged: int) -> dict[str, Any]:
    refunded = failed * 40
    return {
        "total_jobs": pending + processing + completed + failed,
        "pending_jobs": pending,
        "processing_jobs": processing,
        "completed_jobs": completed,
        "failed_jobs": failed,
        "credits_charged": charged + refunded,
        "credits_refunded": refunded,
        "net_credits": charged,
    }


CREATE: Final = Operation(
    summary="Create a video",
    description="Accepts one video. Its price is reserved at once, charged when it is ready, and returned in full if it "
    "fails. With an `Idempotency-Key` header a repeated request answers the first video instead of making another.",
    request=VideoRequest,
    example={
        "model": "pro",
        "input": {
            "prompt": "A paper boat sails down a rainy street",
            "duration": 5,
            "resolution": "720p",
            "aspect_ratio": "16:9",
        },
    },
    more_examples={
        "references": {
            "model": "pro",
            "input": {
                "prompt": "The bottle on a beach at dawn, slow push in",
                "image_urls": ["https://example.com/bottle.png", "https://example.com/beach.jpg"],
                "duration": 5,
                "generate_audio": True,
            },
            "callback_url": "https://example.com/hooks/videos",
            "metadata": {"order": "1842"},
        },
        "firstAndLastFrames": {
            "model": "fast",
            "input": {
                "prompt": "The flower opens",
                "generation_type": "first_and_last_frames",
                "start_image_url": "https://example.com/closed.png",
                "end_image_url": "https://example.com/open.png",
                "duration": 10,
                "return_last_frame": True,
            },
        },
    },
    reply=Reply(200, "The video was accepted.", AcceptedBody, {"accepted": {"data": _ACCEPTED}}),
    errors=(
        "invalid_request",
        "insufficient_credits",
        "model_not_found",
        "idempotency_key_conflict",
        "payload_too_large",
    ),
)
GET: Final = Operation(
    summary="Get a video",
    description="The video as it stands, no older than two seconds. Ask every few seconds until `status` is `completed` or "
    "`failed`; it goes from `pending` to `processing` to one of these, and never back.",
    reply=Reply(
        200,
        "The video as it stands.",
        VideoBody,
        {
            "processing": {"data": _VIDEO},
            "completed": {"data": _COMPLETED},
            "failed": {"data": _FAILED},
        },
    ),
    errors=("task_not_found",),
    path={"id": PathPart("The id that the create request answered.", _ID)},
)
LIST: Final = Operation(
    summary="List videos",
    description="Your videos, newest first, each as getting it alone shows it.",
    reply=Reply(
        200,
        "A page of videos.",
        VideoPage,
        {"page": {"data": [_COMPLETED, _FAILED], "has_more": True, "next_cursor": "dmlkXzAxano4Yjdx"}},
    ),
    errors=("invalid_request",),
    query=PageQuery,
)
MODELS: Final = Operation(
    summary="List models",
    description="What each model makes.",
    reply=Reply(
        200,
        "All models.",
        ModelPage,
        {
            "models": {
                "data": [
                    {
                        "id": "pro",
                        "status": "active",
                        "resolutions": ["480p", "720p", "1080p"],
                        "duration": {"min": 4, "max": 15},
                    }
                ]
            }
        },
    ),
)
USAGE: Final = Operation(
    summary="Get usage",
    description="Counts and credits of the videos that were created in a range of time: in all, by model, and by UTC day. "
    "A video counts in the day and model of its creation; one that is not ready yet adds no credits.",
    reply=Reply(
        200,
        "The report.",
        UsageBody,
        {
            "july": {
                "data": {
                    "range": {"start": "2026-07-01T00:00:00.000Z", "end": "2026-07-31T23:59:59.999Z"},
                    "summary": _figures(1, 2, 8, 1, 240),
                    "by_model": [{**_figures(1, 2, 8, 1, 240), "model": "mini"}],
                    "timeline": [{**_figures(1, 2, 8, 1, 240), "date": "2026-07-01"}],
                }
            }
        },
    ),
    errors=("invalid_request",),
    query=UsageQuery,
)
