"""Serves the documentation, rendered once at start: nothing is made per request, nothing comes from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import jinja2
import msgspec
from aiohttp import web

from services.gateway import openapi
from services.gateway.contract import Contract
from services.gateway.docs_site.page import page_of, prose

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
    """`/openapi/<name>.json` of every contract, and its page: `/docs` of the first, `/docs/<name>` of others.

    The first contract's file is at `/openapi.json` too: its page names no contract, for a contract may be
    called like a provider.
    """

    def __init__(self, contracts: Sequence[Contract], public_url: str) -> None:
        self._pages: dict[str, _Handler] = {}
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["prose"] = prose
        for place, contract in enumerate(contracts):
            described = openapi.document(contract, public_url)
            file_path = f"/openapi/{contract.name}.json"
            page = page_of(contract, described, "/openapi.json" if place == 0 else file_path)
            reference = environment.get_template("reference.html").render(page=page)
            page_path = "/docs" if place == 0 else f"/docs/{contract.name}"
            self._pages[page_path] = _fixed(reference.encode(), "text/html; charset=utf-8")
            self._pages[page_path + "/"] = self._pages[page_path]
            encoded = msgspec.json.format(msgspec.json.encode(described), indent=2)
            self._pages[file_path] = _fixed(encoded, "application/json; charset=utf-8")
            if place == 0:
                self._pages["/openapi.json"] = self._pages[file_path]
                landing = environment.get_template("landing.html").render(page=page)
                self._pages["/"] = _fixed(landing.encode(), "text/html; charset=utf-8")
        for file in sorted((_HERE / "static").iterdir()):
            self._pages[f"/docs/static/{file.name}"] = _fixed(file.read_bytes(), _TYPES[file.suffix])

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Adds every page, with GET and HEAD."""
        for path, handler in self._pages.items():
            router.add_get(path, handler)


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
