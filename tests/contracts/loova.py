"""The examples of the contract `loova`, and a client written from its document alone."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Answer, Storefront
from tests.fakes import NOW_MS, key_of

VIDEOS = "/api/v1/video/seedance-2"
VIDEO = {"prompt": "drone shot over rice fields", "model": "seedance_2_0", "duration": 5}
TASK_ID = re.compile(r"task_[0-9a-hjkmnp-tv-z]{26}")
UNKNOWN_ID = "task_01jz8b7q4x8k2p9w3m5c6n7r8s"


class Client:
    """Sends what the document says, and checks what every answer has: the envelope."""

    def __init__(self, shop: Storefront, key: str = "") -> None:
        self._shop = shop
        self._key = key or key_of("loova")

    async def create(self, body: Any, *, key: str = "", path: str = VIDEOS, **headers: str) -> Answer:
        if key:
            headers["Idempotency-Key"] = key
        headers.setdefault("Content-Type", "application/json")
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        return await self.call("POST", path, headers=headers, data=data)

    async def task(self, task_id: str) -> Answer:
        return await self.call("GET", "/api/v1/tasks", params={"task_id": task_id})

    async def credits(self) -> Answer:
        return await self.call("GET", "/api/v1/credits")

    async def call(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self._key}"} | (headers or {})
        answer = await self._shop.request(method, path, headers=sent, **options)
        envelope(answer)
        return answer

    async def made(self, body: Any = VIDEO) -> jobs.Job:
        """A job, as the jobs service keeps it."""
        return self._shop.jobs.kept[(await self.create(body)).body["data"]["task_id"]]


def envelope(answer: Answer) -> dict[str, Any]:
    """Checks what every answer of the contract has."""
    body: dict[str, Any] = answer.body
    assert list(body) == ["code", "trace_id", "message", "data"]
    assert body["code"] == answer.status
    assert re.fullmatch(r"[0-9a-f]{32}", body["trace_id"])
    assert (body["message"] == "success") == (answer.status == 200)
    assert (body["data"] is None) == (answer.status != 200)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    return body


def refused(answer: Answer, status: int, message: str = "") -> str:
    """Checks the status of an error and, where one is given, its message."""
    assert answer.status == status, answer.raw
    told = str(envelope(answer)["message"])
    assert told
    assert message in {"", told}
    return told


def finish(shop: Storefront, job: jobs.Job) -> None:
    """Ends a job well, with its film in the store."""
    job.stage, job.charged_millis = jobs.STAGE_ENDED_WELL, job.quoted_millis
    job.updated_at_ms = job.ended_at_ms = NOW_MS + 120_000
    key = f"videos/{job.job_id}.mp4"
    shop.put(key, b"film")
    job.outputs.add(
        role=jobs.Output.ROLE_PRIMARY,
        object_key=key,
        content_type="video/mp4",
        width=1280,
        height=720,
        duration_ms=5_000,
    )
