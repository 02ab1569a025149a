"""A client of the contract `seedance2pro` that knows its document and nothing else, and the document's examples."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Answer, Storefront
from tests.fakes import NOW_MS, key_of

CREATE = "/api/v1/jobs/createTask"
RECORD = "/api/v1/jobs/recordInfo"
ID = re.compile(r"task_[0-9a-hjkmnp-tv-z]{26}")
UNKNOWN_ID = "task_01jz8b7q4x8k2p9w3m5c6n7r8s"
WORKFLOW = "wan22-video-generation"
TASK = {"model": WORKFLOW, "inputs": {"model": "seedance-20", "prompt": "a paper boat", "duration": "5s"}}


class Client:
    """What a customer of this contract has: a key, and JSON over HTTP."""

    def __init__(self, shop: Storefront, key: str = "") -> None:
        self._shop = shop
        self._headers = {"Authorization": f"Bearer {key or key_of('seedance2pro')}"}

    async def create(self, body: Any, *, key: str = "") -> Answer:
        """`body` is JSON unless it is bytes. key: the Idempotency-Key, where one is sent."""
        sent = {**self._headers, "Content-Type": "application/json"}
        if key:
            sent["Idempotency-Key"] = key
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        return await self._shop.request("POST", CREATE, headers=sent, data=data)

    async def task(self, model: str = "seedance-20", **inputs: Any) -> Answer:
        """Creates a task of the workflow from fields of `inputs`."""
        return await self.create({"model": WORKFLOW, "inputs": {"model": model, "prompt": "a", **inputs}})

    async def record(self, task_id: str) -> Answer:
        return await self._shop.request("GET", RECORD, headers=self._headers, params={"taskId": task_id})


def refused(answer: Answer, status: int, message: str, **more: int) -> None:
    """Checks that the answer is the message and nothing but; `message` may leave out what follows its colon."""
    assert answer.status == status, answer.raw
    told = answer.body["message"]
    assert told == message or told.startswith(f"{message}: "), told
    assert {name: value for name, value in answer.body.items() if name != "message"} == more
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


async def made(shop: Storefront, body: Any = TASK) -> jobs.Job:
    """A task, as the jobs service keeps it."""
    return shop.jobs.kept[(await Client(shop).create(body)).body["taskId"]]


def finish(shop: Storefront, job: jobs.Job) -> None:
    """Ends a task well, with its video in the store."""
    job.stage, job.charged_millis, job.ended_at_ms = (
        jobs.STAGE_ENDED_WELL,
        job.quoted_millis,
        NOW_MS + 120_000,
    )
    key = f"videos/2026/06/29/{job.job_id}.mp4"
    shop.put(key, b"video")
    job.outputs.add(role=jobs.Output.ROLE_PRIMARY, object_key=key, width=1280, height=720)
    job.outputs.add(role=jobs.Output.ROLE_PREVIEW, object_key=f"{key}.jpg")


def fail(job: jobs.Job, reason: jobs.FailureReason.ValueType = jobs.FAILURE_REASON_GENERATION_FAILED) -> None:
    """Ends a task badly."""
    job.stage, job.failure, job.refunded_millis = jobs.STAGE_ENDED_BADLY, reason, job.quoted_millis
    job.ended_at_ms = NOW_MS + 120_000
