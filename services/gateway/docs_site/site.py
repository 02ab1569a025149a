"""Serves the documentation, rendered once a contract, when it is first asked for: nothing comes from elsewhere."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import jinja2
import msgspec
from aiohttp import web

from services.gateway import errors, openapi
from services.gateway.contract import Contract
from services.gateway.docs_site.page import page_of, prose
from services.gateway.hosts import Hosts

_HERE: Final = Path(__file__).parent
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# Short, so that a new edition shows the same hour; the ETag makes asking again cheap.
_CACHE_CONTROL: Final = "public, max-age=300"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class DocsSite:
    """The public pages. `/`, `/docs` and `/openapi.json` are the first contract's, or those of the host's own.

    `/docs/<name>` and `/openapi/<name>.json` are the others'. The first contract's page names no contract: it may be
    called like a provider. A host that is bound to a storefront shows no other storefront's pages.
    """

    def __init__(self, contracts: Sequence[Contract], public_url: str, hosts: Hosts) -> None:
        self._hosts = hosts
        self._first = contracts[0]
        self._assets = {
            f"/docs/static/{file.name}": _fixed(file.read_bytes(), _TYPES[file.suffix])
            for file in sorted((_HERE / "static").iterdir())
        }
        shelf = [
            Shelf("/docs" if place == 0 else f"/docs/{each.name}", each)
            for place, each in enumerate(contracts)
        ]
        self._sites = {
            each.name: _Site(each, hosts.url_of(each, public_url), shelf if place == 0 else ())
            for place, each in enumerate(contracts)
        }

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Adds every page, with GET and HEAD."""
        for path, asset in self._assets.items():
            router.add_get(path, asset)
        for path, part in (
            ("/", "landing"),
            ("/docs", "page"),
            ("/docs/", "page"),
            ("/openapi.json", "document"),
        ):
            router.add_get(path, self._of_host(part))
        for name, site in self._sites.items():
            router.add_get(f"/openapi/{name}.json", self._of_contract(site, "document"))
            router.add_get(f"/docs/{name}", self._of_contract(site, "page"))
            router.add_get(f"/docs/{name}/", self._of_contract(site, "page"))

    def _of_host(self, part: str) -> _Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            contract = self._hosts.contract_of(request) or self._first
            handler: _Handler = getattr(self._sites[contract.name], part)
            return await handler(request)

        return serve

    def _of_contract(self, site: _Site, part: str) -> _Handler:
        handler: _Handler = getattr(site, part)

        async def serve(request: web.Request) -> web.StreamResponse:
            bound = self._hosts.contract_of(request)
            if bound is not None and bound is not site.contract:
                raise errors.no_such_path()
            return await handler(request)

        return serve


@dataclass(frozen=True, slots=True)
class Shelf:
    """A storefront's documentation, as the landing page names it."""

    path: str
    contract: Contract


class _Site:
    """The three pages of one contract. Made when one is first asked for, beside the event loop: most gateways are
    never asked, and rendering them all would be most of what a start costs.
    """

    def __init__(self, contract: Contract, public_url: str, shelf: Sequence[Shelf]) -> None:
        self.contract = contract
        self._public_url = public_url
        self._shelf = shelf
        self._made: _Pages | None = None

    async def page(self, request: web.Request) -> web.StreamResponse:
        return await (await self._pages()).page(request)

    async def landing(self, request: web.Request) -> web.StreamResponse:
        return await (await self._pages()).landing(request)

    async def document(self, request: web.Request) -> web.StreamResponse:
        return await (await self._pages()).document(request)

    async def _pages(self) -> _Pages:
        # Two who ask first at the same moment make the same bytes twice, which harms nobody.
        if self._made is None:
            self._made = await asyncio.to_thread(_pages_of, self.contract, self._public_url, self._shelf)
        return self._made


@dataclass(frozen=True, slots=True)
class _Pages:
    """What answers, of one contract."""

    page: _Handler
    landing: _Handler
    document: _Handler


def _pages_of(contract: Contract, public_url: str, shelf: Sequence[Shelf]) -> _Pages:
    described = openapi.document(contract, public_url)
    page = page_of(contract, described, "/openapi.json" if shelf else f"/openapi/{contract.name}.json")
    templates = _templates()
    html = "text/html; charset=utf-8"
    encoded = msgspec.json.format(msgspec.json.encode(described), indent=2)
    return _Pages(
        _fixed(templates.get_template("reference.html").render(page=page).encode(), html),
        _fixed(templates.get_template("landing.html").render(page=page, shelf=shelf).encode(), html),
        _fixed(encoded, "application/json; charset=utf-8"),
    )


# Compiling a template costs more than filling it in, and there are as many pages as contracts.
@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    return environment


def _fixed(body: bytes, content_type: str) -> _Handler:
    packed = gzip.compress(body, mtime=0)
    etag = hashlib.sha256(body).hexdigest()[:32]

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.Response(headers=_HEADERS)
        response.headers["Content-Type"] = content_type
        response.headers["Cache-Control"] = _CACHE_CONTROL
        response.headers["Vary"] = "Accept-Encoding"
        response.etag = etag
        if any(tag.value in {etag, "*"} for tag in request.if_none_match or ()):
            response.set_status(304)
        elif "gzip" in request.headers.get("Accept-Encoding", ""):
            response.headers["Content-Encoding"] = "gzip"
            response.body = packed
        else:
            response.body = body
        return response

    return serve
