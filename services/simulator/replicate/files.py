"""Files that customers keep at Replicate for their inputs."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from aiohttp import web

from services.chassis.clock import rfc3339
from services.simulator.faults import Call
from services.simulator.forms import MalformedForm, Part
from services.simulator.provider import Exchange, Refused, Route
from services.simulator.replicate import problems
from services.simulator.uploads import Upload
from services.simulator.world import World

# Of the documents' one day that `expires_at` shows.
_KEPT_S: Final = 24 * 3600.0
_PREFIX: Final = "/replicate/v1/files"


class Uploaded:
    """The calls of `/v1/files`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """Every call."""
        return [
            Route("POST", _PREFIX, self._create, Call.UPLOAD),
            Route("GET", f"{_PREFIX}/{{id}}", self._get, Call.READ),
            Route("DELETE", f"{_PREFIX}/{{id}}", self._delete, Call.UPLOAD),
        ]

    def is_reachable(self, exchange: Exchange, url: str) -> bool:
        """Whether a model could load it: an address of ours must be of a file that is there."""
        if not url.startswith(("https://", "http://127.0.0.1", "http://localhost", "data:")):
            return False
        start = f"{exchange.base_url}{_PREFIX}/"
        return not url.startswith(start) or self._find(exchange, url.removeprefix(start)) is not None

    async def _create(self, exchange: Exchange) -> web.Response:
        try:
            parts = {part.name: part for part in exchange.form()}
            metadata = json.loads(parts["metadata"].content) if "metadata" in parts else {}
            content = parts["content"]
        except (MalformedForm, ValueError, KeyError):
            raise refused(problems.body_refused(["content"], missing=True)) from None
        upload = self._world.uploads.open(
            "replicate",
            exchange.account.key,
            self._world.new_word(26),
            content_type=_type_of(content, parts),
            extension="bin",
            now_ms=exchange.now_ms,
            lifetime_s=_KEPT_S,
        )
        upload.fields = {"name": _name_of(content, parts), "metadata": json.dumps(metadata)}
        self._world.uploads.take(upload, content.content, exchange.now_ms)
        return web.json_response(_shown(exchange, upload), status=201)

    async def _get(self, exchange: Exchange) -> web.Response:
        return web.json_response(_shown(exchange, self._found(exchange)))

    async def _delete(self, exchange: Exchange) -> web.Response:
        self._world.uploads.remove(self._found(exchange))
        return web.Response(status=204)

    def _found(self, exchange: Exchange) -> Upload:
        upload = self._find(exchange, exchange.request.match_info["id"])
        if upload is None:
            raise refused(problems.NOT_FOUND)
        return upload

    def _find(self, exchange: Exchange, upload_id: str) -> Upload | None:
        upload = self._world.uploads.find("replicate", exchange.account.key, upload_id)
        return None if upload is None or exchange.now_ms >= upload.expires_ms else upload


def answer(problem: problems.Problem) -> web.Response:
    """A problem as a response."""
    return web.json_response(
        problem.body(),
        status=problem.status,
        headers=dict(problem.headers),
        content_type="application/problem+json",
    )


def refused(problem: problems.Problem, reason: str = "request") -> Refused:
    """A problem, to be raised."""
    return Refused(answer(problem), reason)


def _type_of(content: Part, parts: dict[str, Part]) -> str:
    return parts["type"].text if "type" in parts else content.content_type or "application/octet-stream"


def _name_of(content: Part, parts: dict[str, Part]) -> str:
    return parts["filename"].text if "filename" in parts else content.file_name or "file"


def _shown(exchange: Exchange, upload: Upload) -> dict[str, Any]:
    digest = hashlib.sha256(upload.content).hexdigest()
    return {
        "id": upload.id,
        "name": upload.fields["name"],
        "content_type": upload.content_type,
        "size": upload.size_bytes,
        "etag": digest[:32],
        "checksums": {"sha256": digest},
        "metadata": json.loads(upload.fields["metadata"]),
        "created_at": rfc3339(upload.made_ms),
        "expires_at": rfc3339(upload.expires_ms),
        "urls": {"get": f"{exchange.base_url}{_PREFIX}/{upload.id}"},
    }
