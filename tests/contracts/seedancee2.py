"""A client of the contract `seedancee2` that knows its document and nothing else, and the document's examples."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Answer, Storefront
from tests.fakes import NOW_MS, key_of

VIDEOS = "/v1/videos/generations"
ID = re.compile(r"vid_[0-9a-hjkmnp-tv-z]{26}")
UNKNOWN_ID = "vid_01jz8b7q4x8k2p9w3m5c6n7r8s"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
# "pro 5 s 720p with two images 100"
PRO = {
    "model": "pro",
    "input": {
        "prompt": "a paper boat",
        "image_urls": ["https://example.com/a.png", "https://example.com/b.png"],
        "duration": 5,
        "resolution": "720p",
    },
}
FIGURES = (
    "total_jobs",
    "pending_jobs",
    "processing_jobs",
    "completed_jobs",
    "failed_jobs",
    "credits_charged",
    "credits_refunded",
    "net_credits",
)


class Client:
    """What a customer of this contract has: a key, and JSON over HTTP."""

    def __init__(self, shop: Storefront, key: str = "") -> None:
        self._shop = shop
        self._headers = {"Authorization": f"Bearer {key or key_of('seedancee2')}"}

    async def create(self, body: Any, *, key: str = "", **headers: str) -> Answer:
        """`body` is JSON unless it is bytes. key: the Idempotency-Key, where one is sent."""
        sent = {**self._headers, "Content-Type": "application/json", **headers}
        if key:
            sent["Idempotency-Key"] = key
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        return await self._shop.request("POST", VIDEOS, headers=sent, data=data)

    async def video(self, model: str = "mini", **given: Any) -> Answer:
        """Creates a video from fields of `input`."""
        return await self.create({"model": model, "input": {"prompt": "a boat", **given}})

    async def get(self, path: str, **query: str) -> Answer:
        return await self._shop.request("GET", path, headers=self._headers, params=query)

    async def data(self, path: str, **query: str) -> Any:
        """What a good answer holds."""
        answer = await self.get(path, **query)
        assert answer.status == 200, answer.raw
        return answer.body["data"]


def refused(answer: Answer, status: int, code: str, type_: str, param: str | None = None) -> str:
    """Checks the error's shape and returns its message."""
    assert answer.status == status, answer.raw
    assert list(answer.body) == ["error"]
    error: dict[str, Any] = answer.body["error"]
    expected = {"code": code, "type": type_} | ({"param": param} if param else {})
    assert {name: value for name, value in error.items() if name != "message"} == expected
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert error["message"]
    return str(error["message"])


async def made(shop: Storefront, body: Any = PRO) -> jobs.Job:
    """A video, as the jobs service keeps it."""
    answer = await Client(shop).create(body)
    return shop.jobs.kept[answer.body["data"]["id"]]


def finish(shop: Storefront, job: jobs.Job, *, last_frame: bool = False) -> None:
    """Ends a video well, with its files in the store where the contract says that they are."""
    job.stage, job.charged_millis, job.ended_at_ms = jobs.STAGE_ENDED_WELL, job.quoted_millis, NOW_MS + 90_000
    day = "2026/06/29"
    files = [
        (jobs.Output.ROLE_PRIMARY, f"videos/{day}/{job.job_id}.mp4", b"video"),
        (jobs.Output.ROLE_PREVIEW, f"video-posters/{day}/{job.job_id}.jpg", b"still"),
    ]
    if last_frame:
        files.append((jobs.Output.ROLE_LAST_FRAME, f"video-posters/{day}/{job.job_id}-last.jpg", b"last"))
    for role, object_key, content in files:
        shop.put(object_key, content)
        job.outputs.add(role=role, object_key=object_key, width=1280, height=720, duration_ms=5_000)


def fail(job: jobs.Job, reason: jobs.FailureReason.ValueType = jobs.FAILURE_REASON_GENERATION_FAILED) -> None:
    """Ends a video badly."""
    job.stage, job.failure, job.refunded_millis = jobs.STAGE_ENDED_BADLY, reason, job.quoted_millis
    job.ended_at_ms = NOW_MS + 90_000
