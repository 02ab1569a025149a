"""Media that lie in a bucket: passed on as they come, or opened to the holder of a link by an address of the store's own."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from email.utils import format_datetime
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from services.chassis.clock import Clock
from services.chassis.egress_objects import Arriving, ObjectFacts, ObjectStore, ObjectsUnusable, RangeBeyond
from services.gateway import errors
from services.gateway.media import SigningKeys, headers_of, opened
from services.gateway.media_conditions import range_counts, range_of, refusal

log = logging.getLogger(__name__)

_TOTAL_S: Final = 6 * 3600.0
"""One answer: a film of a gigabyte over a line of 400 kbit/s."""

_PATIENCE_S: Final = 60.0
"""With a client that takes nothing. Each holds a connection to the store, and there are not without end of those."""

_REDIRECT_S: Final = 60
"""How long an address of the store works at most. It is followed at once, and told to nobody else."""


class MediaObjects:
    """Serves a bucket to holders of links, with the answers that `MediaFiles` gives of files."""

    def __init__(self, keys: SigningKeys, objects: ObjectStore, clock: Clock, *, redirect: bool) -> None:
        self._keys = keys
        self._objects = objects
        self._clock = clock
        self._redirect = redirect

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The object behind a good link. Raises NO_SUCH_PATH for every other link, MEDIA_UNREACHABLE."""
        object_key, left_s = opened(request, self._keys, self._clock)
        try:
            if self._redirect:
                return await self._redirected(request, object_key, left_s)
            return await self._passed_on(request, object_key, headers_of(object_key, left_s))
        except ObjectsUnusable as failure:
            log.warning("media.unreachable", extra={"cause": failure.code, "status": failure.status})
        raise errors.media_unreachable()

    async def _redirected(self, request: web.Request, object_key: str, left_s: int) -> web.Response:
        # Looked for first: the store would answer in its own words.
        await self._facts(object_key)
        lifetime_s = max(1, min(left_s, _REDIRECT_S))
        headers = headers_of(object_key, left_s)
        told = {
            "response-content-type": headers["Content-Type"],
            "response-content-disposition": headers["Content-Disposition"],
            "response-cache-control": headers["Cache-Control"],
        }
        location = self._objects.presigned(request.method, object_key, lifetime_s, told)
        return web.Response(
            status=302,
            headers={"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
        )

    async def _passed_on(
        self, request: web.Request, object_key: str, headers: dict[str, str]
    ) -> web.StreamResponse:
        wanted = range_of(request)
        if request.method == "HEAD":
            facts = await self._facts(object_key)
            return _refused(request, facts, headers) or _whole(facts, headers)
        if wanted and "If-Range" in request.headers:
            facts = await self._facts(object_key)
            wanted = wanted if range_counts(request, _tag(facts), facts.modified_at) else ""
        async with AsyncExitStack() as open_now:
            try:
                opening = self._objects.open(object_key, wanted, total_s=_TOTAL_S)
                arriving = await open_now.enter_async_context(opening)
            except RangeBeyond:
                arriving = None
                facts = await self._facts(object_key)
                return _refused(request, facts, headers) or _beyond(facts, headers)
            if arriving is None:
                raise errors.link_not_valid()
            refused = _refused(request, arriving.facts, headers)
            return refused or _PassedOn(arriving, headers, open_now.pop_all())

    async def _facts(self, object_key: str) -> ObjectFacts:
        facts = await self._objects.head(object_key)
        if facts is None:
            raise errors.link_not_valid()
        return facts


class _PassedOn(web.StreamResponse):
    """An object that is on its way. Like a file, it is sent when the answer begins, after everybody has seen its head."""

    def __init__(self, arriving: Arriving, headers: dict[str, str], open_now: AsyncExitStack) -> None:
        facts = arriving.facts
        length = arriving.last - arriving.first + 1
        is_part = length < facts.size_bytes
        super().__init__(status=206 if is_part else 200, headers=headers | _marks(facts))
        self.content_length = length
        if is_part:
            self.headers["Content-Range"] = f"bytes {arriving.first}-{arriving.last}/{facts.size_bytes}"
        self._arriving = arriving
        self._open_now = open_now

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Starts the answer and sends it to its end. What breaks on the way breaks the connection: the head is sent."""
        async with self._open_now:
            writer = await super().prepare(request)
            try:
                async for chunk in self._arriving.chunks():
                    async with asyncio.timeout(_PATIENCE_S):
                        await self.write(chunk)
            except (ObjectsUnusable, TimeoutError) as failure:
                log.warning("media.broken_off", extra={"cause": getattr(failure, "code", "client")})
                if request.transport is not None:
                    request.transport.abort()
            return writer


def _tag(facts: ObjectFacts) -> str:
    # Of its content; of what was copied into the bucket by other means, what there is.
    return facts.sha256[:32] or f"{int(facts.modified_at.timestamp()):x}-{facts.size_bytes:x}"


def _marks(facts: ObjectFacts) -> dict[str, str]:
    return {"ETag": f'"{_tag(facts)}"', "Last-Modified": format_datetime(facts.modified_at, usegmt=True)}


def _whole(facts: ObjectFacts, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers | _marks(facts))
    response.content_length = facts.size_bytes
    return response


def _refused(request: web.Request, facts: ObjectFacts, headers: dict[str, str]) -> web.Response | None:
    status = refusal(request, _tag(facts), facts.modified_at)
    if status == 304:
        kept = {name: headers[name] for name in ("Cache-Control", "Accept-Ranges")}
        return web.Response(status=304, headers=kept | _marks(facts))
    return _without_body(412, headers) if status else None


def _beyond(facts: ObjectFacts, headers: dict[str, str]) -> web.Response:
    response = _without_body(416, headers)
    response.headers["Content-Range"] = f"bytes */{facts.size_bytes}"
    return response


def _without_body(status: int, headers: dict[str, str]) -> web.Response:
    """A refusal, which nobody is to keep."""
    left = {
        name: text for name, text in headers.items() if name not in ("Content-Type", "Content-Disposition")
    }
    response = web.Response(status=status, headers=left | {"Cache-Control": "no-store"})
    response.headers.pop("Content-Type", None)
    return response
