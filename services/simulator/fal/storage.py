"""Storage: a place to put a file, its public address, and the token of the file network."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from services.chassis.clock import rfc3339
from services.simulator.faults import Call
from services.simulator.provider import Exchange, Refused, Route
from services.simulator.uploads import Upload
from services.simulator.world import World

# A presigned address takes a file for so long; what was put there stays.
_PUT_S: Final = 3600.0
_TOKEN_S: Final = 3600
_TOKENS_LIMIT: Final = 10_000
_MEDIA: Final = "/fal/media/files/b"


class Storage:
    """Everything under rest.fal.ai/storage, and the files that it leads to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tokens: OrderedDict[str, tuple[str, int]] = OrderedDict()
        # A presigned address carries no key; whose it is, its id says.
        self._owners: OrderedDict[str, str] = OrderedDict()

    def routes(self) -> list[Route]:
        """Every call."""
        return [
            Route("POST", "/fal/rest/storage/upload/initiate", self._initiate, Call.UPLOAD),
            Route("PUT", "/fal/rest/storage/put/{id}", self._put, Call.UPLOAD),
            Route("POST", "/fal/rest/storage/auth/token", self._token, Call.UPLOAD),
            Route("POST", "/fal/media/files/upload", self._upload, Call.UPLOAD),
            Route("GET", f"{_MEDIA}/{{id}}/{{name}}", self._download, Call.OPEN),
        ]

    def key_of(self, request: web.Request) -> str | None:
        """The account's key behind a token or a presigned address; None elsewhere."""
        if request.path.startswith("/fal/rest/storage/put/"):
            return self._owners.get(request.path.rpartition("/")[2], "")
        if request.path == "/fal/media/files/upload":
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            key, expires_ms = self._tokens.get(token, ("", 0))
            return key if self._world.now_ms() < expires_ms else ""
        return None

    def is_reachable(self, exchange: Exchange, url: str) -> bool:
        """Whether a model could load it: what is ours must be there, everybody else is believed."""
        if not url.startswith(("https://", "http://127.0.0.1", "http://localhost", "data:")):
            return False
        start = f"{exchange.base_url}{_MEDIA}/"
        if not url.startswith(start):
            return True
        upload_id = url.removeprefix(start).partition("/")[0]
        upload = self._world.uploads.find("fal", self._owners.get(upload_id, ""), upload_id)
        return upload is not None and upload.has_arrived

    async def _initiate(self, exchange: Exchange) -> web.Response:
        wish = _object(exchange)
        name, content_type = wish.get("file_name"), wish.get("content_type")
        if not isinstance(content_type, str) or not content_type:
            raise _refused(422, "content_type is required")
        name = name if isinstance(name, str) and name else "file"
        upload = self._open(exchange, name, content_type)
        put = f"{exchange.base_url}/fal/rest/storage/put/{upload.id}"
        return web.json_response(
            {
                "upload_url": f"{put}?X-Signature={upload.fields['X-Amz-Signature'][:32]}",
                "file_url": _url(exchange, upload, name),
            }
        )

    async def _put(self, exchange: Exchange) -> web.Response:
        request = exchange.request
        upload = self._world.uploads.find("fal", exchange.account.key, request.match_info["id"])
        if upload is None:
            raise _refused(404, "No such upload")
        signature = upload.fields["X-Amz-Signature"][:32]
        if request.query.get("X-Signature") != signature or exchange.now_ms >= upload.expires_ms:
            raise _refused(403, "The signature does not match or has expired")
        if request.headers.get("Content-Type", "") != upload.content_type:
            raise _refused(403, "The Content-Type is not the one that was signed")
        self._world.uploads.take(upload, exchange.body, exchange.now_ms)
        return web.Response(status=200)

    async def _token(self, exchange: Exchange) -> web.Response:
        token = self._world.new_word(32)
        expires_ms = exchange.now_ms + _TOKEN_S * 1000
        self._tokens[token] = (exchange.account.key, expires_ms)
        if len(self._tokens) > _TOKENS_LIMIT:
            self._tokens.popitem(last=False)
        return web.json_response(
            {
                "token": token,
                "token_type": "Bearer",
                "base_url": f"{exchange.base_url}/fal/media",
                "expires_at": rfc3339(expires_ms).replace("Z", "+00:00"),
            }
        )

    async def _upload(self, exchange: Exchange) -> web.Response:
        headers = exchange.request.headers
        name = headers.get("X-Fal-File-Name", "file")
        upload = self._open(exchange, name, headers.get("Content-Type", "application/octet-stream"))
        self._world.uploads.take(upload, exchange.body, exchange.now_ms)
        return web.json_response({"access_url": _url(exchange, upload, name)})

    async def _download(self, exchange: Exchange) -> web.Response:
        upload_id = exchange.request.match_info["id"]
        upload = self._world.uploads.find("fal", self._owners.get(upload_id, ""), upload_id)
        if upload is None or not upload.has_arrived:
            raise _refused(404, "Not found")
        return web.Response(body=upload.content, headers={"Content-Type": upload.content_type})

    def _open(self, exchange: Exchange, name: str, content_type: str) -> Upload:
        upload = self._world.uploads.open(
            "fal",
            exchange.account.key,
            self._world.new_word(20),
            content_type=content_type,
            extension=name.rpartition(".")[2][:8] or "bin",
            now_ms=exchange.now_ms,
            lifetime_s=_PUT_S,
        )
        self._owners[upload.id] = upload.key
        if len(self._owners) > _TOKENS_LIMIT:
            self._owners.popitem(last=False)
        return upload


def _url(exchange: Exchange, upload: Upload, name: str) -> str:
    return f"{exchange.base_url}{_MEDIA}/{upload.id}/{quote(name, safe='')}"


def _object(exchange: Exchange) -> dict[str, Any]:
    try:
        body = exchange.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _refused(422, "The body is not a JSON object")
    return body


def _refused(status: int, detail: str) -> Refused:
    return Refused(web.json_response({"detail": detail}, status=status))
