"""Builds the aiohttp application from the contracts, the media files and the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from services.gateway import hints, media
from services.gateway.contract import BODY_LIMIT_BYTES, Contract, Route
from services.gateway.docs_site.site import DocsSite
from services.gateway.edge import Edge
from services.gateway.hints import Hints
from services.gateway.media import Media


def build(
    contracts: Sequence[Contract], edge: Edge, files: Media, docs: DocsSite, hinted: Hints
) -> web.Application:
    """The whole public port."""
    app = web.Application(middlewares=[edge.envelope], client_max_size=BODY_LIMIT_BYTES)
    for (method, path), claims in _claims(contracts).items():
        handler = edge.endpoint(claims)
        app.router.add_route(method, path, handler)
        if method == "GET":
            app.router.add_route("HEAD", path, handler)
    app.router.add_get(media.PATH_PREFIX + "{object_key:.+}", files.serve)
    app.router.add_post(hints.PATH, hinted.serve)
    docs.add_to(app.router)
    return app


def _claims(contracts: Sequence[Contract]) -> dict[tuple[str, str], list[tuple[Contract, Route]]]:
    claims: dict[tuple[str, str], list[tuple[Contract, Route]]] = {}
    for contract in contracts:
        for route in contract.routes:
            claims.setdefault((route.method, route.path), []).append((contract, route))
    return claims
