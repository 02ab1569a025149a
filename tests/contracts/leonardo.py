"""The examples of the contract `leonardo`, and what its tests do again and again."""

from __future__ import annotations

import re
from typing import Any

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Answer, Storefront
from tests.fakes import NOW_MS

IMAGES = "/v1/images/generate"
VIDEOS = "/v1/videos/generate"
IMAGE = {"prompt": "cinematic product photo", "quality": "LOW", "size": "16:9_SMALL"}
VIDEO = {
    "prompt": "drone shot over rice fields",
    "size": "16:9_SMALL",
    "duration": 15,
    "motionHasAudio": True,
}
JOB_ID = re.compile(r"job_[0-9a-hjkmnp-tv-z]{26}")
UNKNOWN_ID = "job_01jz8b7q4x8k2p9w3m5c6n7r8s"


def varying(body: dict[str, Any]) -> dict[str, Any]:
    """The body with its id replaced, after checking what it looks like."""
    assert JOB_ID.fullmatch(body["jobId"])
    return {**body, "jobId": "job_…"}


def refused(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """Checks the error shape and returns `error`."""
    assert (answer.status, answer.code) == (status, code)
    assert list(answer.body) == ["ok", "error", "requestId"]
    assert answer.body["ok"] is False
    assert answer.body["requestId"] == answer.headers["X-Request-Id"]
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    error: dict[str, Any] = answer.body["error"]
    assert error["message"]
    return error


async def made(shop: Storefront, path: str = VIDEOS, body: Any = VIDEO) -> jobs.Job:
    """A job, as the jobs service keeps it."""
    return shop.jobs.kept[(await shop.post(path, body)).body["jobId"]]


def finish(shop: Storefront, job: jobs.Job) -> None:
    """Ends a job well, with its files in the store."""
    job.stage, job.charged_millis, job.ended_at_ms = (
        jobs.STAGE_ENDED_WELL,
        job.quoted_millis,
        NOW_MS + 90_000,
    )
    video = job.kind == jobs.KIND_VIDEO
    key = f"outputs/{job.job_id}.{'mp4' if video else 'png'}"
    shop.put(key, b"primary")
    job.outputs.add(
        role=jobs.Output.ROLE_PRIMARY,
        object_key=key,
        content_type="video/mp4" if video else "image/png",
        width=1280,
        height=720,
        duration_ms=15_000 if video else 0,
    )
    if video:
        shop.put(f"outputs/{job.job_id}.jpg", b"still")
        job.outputs.add(
            role=jobs.Output.ROLE_PREVIEW,
            object_key=f"outputs/{job.job_id}.jpg",
            content_type="image/jpeg",
        )
