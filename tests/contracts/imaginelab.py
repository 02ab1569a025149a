"""The examples of the contract `imaginelab`, and a client written from its document alone."""

from __future__ import annotations

import io
import json
from typing import Any

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Answer, Storefront
from tests.fakes import NOW_MS, key_of

GENERATIONS = "/api/v1/generations"
LOGIN = "/api/v1/auth/login"
ADA = {"email": "ada@example.com", "password": "correct horse battery", "full_name": "Ada Lovelace"}
# The request of the document.
IMAGE = {
    "generation_type": "image",
    "model_name": "seedream-5.0-lite",
    "prompt": "A neon city skyline at dusk",
    "settings": {"aspect_ratio": "16:9"},
    "project_id": None,
}
MODELS = {
    "image": "seedream-5.0-lite",
    "video": "seedance-2.0",
    "voice": "eleven-multilingual-v2",
    "music": "eleven-music-v1",
    "infographic": "infographic-1",
    "text": "gpt-5-mini",
}


def asking(kind: str, **settings: Any) -> dict[str, Any]:
    """A request of that type."""
    return {"generation_type": kind, "model_name": MODELS[kind], "prompt": "a", "settings": settings}


class Client:
    """Sends what the document says. token: a JWT or a key."""

    def __init__(self, shop: Storefront, token: str = "") -> None:
        self._shop = shop
        self._token = token or key_of("imaginelab")

    async def create(self, body: Any, *, key: str = "", **headers: str) -> Answer:
        if key:
            headers["Idempotency-Key"] = key
        return await self.post(GENERATIONS, body, headers)

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        sent = {"Content-Type": "application/json"} | (headers or {})
        return await self.call("POST", path, headers=sent, data=data)

    async def get(self, path: str, **params: Any) -> Answer:
        return await self.call("GET", f"/api/v1/{path}", params=params)

    async def call(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self._token}"} | (headers or {})
        return await self._shop.request(method, path, headers=sent, **options)

    async def made(self, body: Any = IMAGE) -> jobs.Job:
        """A job, as the jobs service keeps it."""
        number = (await self.create(body)).body["id"]
        return next(job for job in self._shop.jobs.kept.values() if job.public_number == number)


async def sign_up(shop: Storefront, body: Any = ADA) -> Answer:
    """Signs up without a token."""
    return await shop.request("POST", "/api/v1/auth/signup", json=body)


async def log_in(shop: Storefront, email: str = ADA["email"], password: str = ADA["password"]) -> Answer:
    """Logs in with a form, as OAuth 2 has it."""
    return await shop.request("POST", LOGIN, data={"username": email, "password": password})


async def signed_in(shop: Storefront) -> Client:
    """A new user with the token of a login."""
    await sign_up(shop)
    return Client(shop, (await log_in(shop)).body["access_token"])


def refused(answer: Answer, status: int, detail: str = "") -> str:
    """Checks the error shape and, where one is given, its sentence."""
    assert answer.status == status, answer.raw
    assert list(answer.body) == ["detail"]
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    told = str(answer.body["detail"])
    assert told
    assert detail in {"", told}
    return told


def finish(shop: Storefront, job: jobs.Job) -> None:
    """Ends a job well, with what it made in the store."""
    job.stage, job.charged_millis, job.ended_at_ms = jobs.STAGE_ENDED_WELL, job.quoted_millis, NOW_MS + 9_000
    content_type, ending = {
        jobs.KIND_IMAGE: ("image/png", "png"),
        jobs.KIND_VIDEO: ("video/mp4", "mp4"),
        jobs.KIND_VOICE: ("audio/mpeg", "mp3"),
        jobs.KIND_MUSIC: ("audio/mpeg", "mp3"),
        jobs.KIND_INFOGRAPHIC: ("image/png", "png"),
        jobs.KIND_TEXT: ("text/plain; charset=utf-8", "txt"),
    }[job.kind]
    seen = job.kind in {jobs.KIND_IMAGE, jobs.KIND_VIDEO, jobs.KIND_INFOGRAPHIC}
    long = job.kind in {jobs.KIND_VIDEO, jobs.KIND_VOICE, jobs.KIND_MUSIC}
    key = f"outputs/{job.job_id}.{ending}"
    shop.put(key, b"content")
    job.outputs.add(
        role=jobs.Output.ROLE_PRIMARY,
        object_key=key,
        content_type=content_type,
        width=1280 if seen else 0,
        height=720 if seen else 0,
        duration_ms=2_400 if long else 0,
        text="Cross “calmly”." if job.kind == jobs.KIND_TEXT else "",
    )
