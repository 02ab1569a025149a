"""The simulator's HTTP: every provider under its prefix, around each call the accounts, faults and records."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from services.simulator import files, uploads, wire
from services.simulator.control import Control
from services.simulator.drawings import Text
from services.simulator.faults import BEFORE, Call, Fault, Hit, Scope, marks_of
from services.simulator.files import File
from services.simulator.forms import MalformedForm, parts_of
from services.simulator.provider import Exchange, Gone, JudgesKeys, Provider, Refused, Route
from services.simulator.records import Record, without_credentials
from services.simulator.uploads import FormRefused, Upload
from services.simulator.world import World

log = logging.getLogger(__name__)

# The largest body that a provider's documents allow is 64 MB.
_BODY_LIMIT_BYTES: Final = 80 * 1024 * 1024
# What `rate_limited_wait` asks a client to wait unless its rule says otherwise.
_WAIT_S: Final = 2.0
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")
_NOT_A_FILE: Final = Text("<!DOCTYPE html><title>Not what you expected</title>", "text/html", "html")


def application(world: World, providers: Iterable[Provider]) -> web.Application:
    """Everything that is served."""
    app = web.Application(client_max_size=_BODY_LIMIT_BYTES)
    by_name = {provider.name: provider for provider in providers}
    for provider in by_name.values():
        world.tasks.listen(lambda task, to=provider: to.changed(task) if task.provider == to.name else None)  # type: ignore[misc]
        for route in provider.routes():
            app.router.add_route(route.method, route.path, _Door(world, provider, route).answer)
        app.router.add_route("*", f"/{provider.name}{{rest:.*}}", _Nothing(provider).answer)
    stores = _Stores(world)
    app.router.add_get(f"{files.PREFIX}/{{token}}/{{name}}", stores.download)
    app.router.add_post(f"{uploads.PREFIX}/{{bucket}}/", stores.take_form)
    Control(world, by_name).add_to(app.router)
    return app


class _Nothing:
    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def answer(self, request: web.Request) -> web.Response:
        return self._provider.not_found()


class _Door:
    """One route of a provider, with everything that happens to a request on its way in and out."""

    def __init__(self, world: World, provider: Provider, route: Route) -> None:
        self._world = world
        self._provider = provider
        self._route = route

    async def answer(self, request: web.Request) -> web.StreamResponse:
        world = self._world
        world.advance()
        key = self._provider.key_of(request)
        hits = world.faults.draw(Scope(self._provider.name, key, self._route.call, world.now_ms()))
        record = Record(
            provider=self._provider.name,
            key=key,
            at_ms=world.now_ms(),
            method=request.method,
            path=request.path,
            query=request.query_string,
            headers=without_credentials(request.headers, key),
            body=b"",
        )
        try:
            answer = await self._answer(request, key, hits, record)
            record.answer = record.answer or str(answer.status)
        except (wire.Cut, Gone):
            # Nobody is there to read it.
            record.answer = record.answer or "cut"
            return web.Response()
        finally:
            world.records.add(record)
        return answer

    async def _answer(
        self, request: web.Request, key: str, hits: tuple[Hit, ...], record: Record
    ) -> web.StreamResponse:
        if any(hit.fault is Fault.CUT_BEFORE_READ for hit in hits):
            record.answer = Fault.CUT_BEFORE_READ.value
            raise wire.abort(request)
        record.body = body = await request.read()
        if self._route.call is Call.CREATE:
            hits = (*marks_of(body), *hits)
        early = next((hit for hit in hits if hit.fault in BEFORE), None)
        if early is not None:
            record.answer = early.fault.value
            return self._refuse(request, early)
        answer = await self._handled(Exchange(self._world, self._provider, request, body, hits), key)
        if answer.status < 400:
            record.answer = "+".join([str(answer.status), *(hit.fault.value for hit in hits)])
            return await wire.deliver(request, answer, hits)
        return answer

    def _refuse(self, request: web.Request, hit: Hit) -> web.Response:
        match hit.fault:
            case Fault.CUT_BEFORE_READ:
                raise wire.abort(request)
            case Fault.CUT_AFTER_READ:
                raise wire.hang_up(request)
            case Fault.HTML_ERROR:
                return wire.html_error()
            case Fault.RATE_LIMITED_WAIT:
                return self._provider.refusal(hit.fault, _WAIT_S if hit.value is None else hit.value)
            case _:
                return self._provider.refusal(hit.fault)

    async def _handled(self, exchange: Exchange, key: str) -> web.Response:
        try:
            if self._route.call is not Call.OPEN:
                exchange.caller = self._world.accounts.find(self._provider.name, key)
                if exchange.caller is None:
                    raise Refused(self._unknown(key), "unknown key")
            return await self._route.handler(exchange)
        except Refused as refused:
            if exchange.caller is not None:
                exchange.caller.refusals[refused.reason] += 1
            return refused.answer

    def _unknown(self, key: str) -> web.Response:
        if isinstance(self._provider, JudgesKeys):
            return self._provider.unknown_key(key)
        return self._provider.refusal(Fault.UNAUTHORIZED)


class _Stores:
    """Where providers keep files: links that expire, and forms that take uploads."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def download(self, request: web.Request) -> web.StreamResponse:
        file = self._world.files.find(request.match_info["token"])
        if file is None:
            return _store_error(404, "NoSuchKey", "The specified key does not exist.")
        now_ms = self._world.now_ms()
        hits = self._world.faults.draw(Scope(file.provider, file.key, Call.MEDIA, now_ms))
        try:
            return await self._sent(request, file, hits, now_ms)
        except wire.Cut:
            return web.Response()

    async def _sent(
        self, request: web.Request, file: File, hits: tuple[Hit, ...], now_ms: int
    ) -> web.StreamResponse:
        if (early := _store_fault(request, hits)) is not None:
            return early
        if file.is_expired(now_ms) or any(hit.fault is Fault.OUTPUT_EXPIRED for hit in hits):
            return _store_error(403, "AccessDenied", "Request has expired")
        is_wrong = file.has_wrong_type or any(hit.fault is Fault.WRONG_TYPE for hit in hits)
        drawing = _NOT_A_FILE if is_wrong else file.drawing
        content = await self._world.studio.draw(drawing)
        return await wire.deliver(request, _part_of(request, content, drawing.content_type), hits)

    async def take_form(self, request: web.Request) -> web.StreamResponse:
        body, now_ms = await request.read(), self._world.now_ms()
        try:
            parts = parts_of(request.headers.get("Content-Type", ""), body)
            upload = self._world.uploads.named(parts)
            hits: tuple[Hit, ...] = ()
            if upload is not None:
                hits = self._world.faults.draw(Scope(upload.provider, upload.key, Call.UPLOAD, now_ms))
                self._world.records.add(_record_of(request, upload, body, now_ms))
            if (early := _store_fault(request, hits)) is not None:
                return early
            self._world.uploads.take_form(request.headers, parts, now_ms)
            return await wire.deliver(request, web.Response(status=204), hits)
        except MalformedForm as fault:
            return _store_error(400, "MalformedPOSTRequest", str(fault))
        except FormRefused as fault:
            return _store_error(fault.status, fault.code, fault.message)
        except wire.Cut:
            return web.Response()


def _store_fault(request: web.Request, hits: tuple[Hit, ...]) -> web.Response | None:
    """What befalls a store itself: it knows neither accounts nor their limits. Raises Cut."""
    for hit in hits:
        if hit.fault in {Fault.CUT_BEFORE_READ, Fault.CUT_AFTER_READ}:
            raise wire.abort(request)
        if hit.fault is Fault.HTML_ERROR:
            return wire.html_error()
        if hit.fault is Fault.SERVER_ERROR:
            return _store_error(503, "SlowDown", "Please reduce your request rate.")
    return None


def _record_of(request: web.Request, upload: Upload, body: bytes, now_ms: int) -> Record:
    return Record(
        provider=upload.provider,
        key=upload.key,
        at_ms=now_ms,
        method=request.method,
        path=request.path,
        query=request.query_string,
        headers=without_credentials(request.headers, upload.key),
        body=body,
    )


def _part_of(request: web.Request, content: bytes, content_type: str) -> web.Response:
    headers = {"Content-Type": content_type, "Accept-Ranges": "bytes"}
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    if found is None:
        return web.Response(body=content, headers=headers)
    start, end = int(found[1]), min(int(found[2] or len(content) - 1), len(content) - 1)
    if start > end:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
    return web.Response(status=206, body=content[start : end + 1], headers=headers)


def _store_error(status: int, code: str, message: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")


async def turn(world: World, interval_s: float = 0.02) -> None:
    """Moves the world on for ever, so that callbacks are sent though nobody asks."""
    while True:
        await asyncio.sleep(interval_s)
        world.advance()
