"""Cross-origin requests: answered only where the operator has named who may make them."""

from __future__ import annotations

from typing import Final

from aiohttp import web

_ALLOWED_METHODS: Final = "GET, HEAD, POST, DELETE"
_ALLOWED_HEADERS: Final = "Authorization, Content-Type, Idempotency-Key, X-Request-Id, X-Api-Key"
_EXPOSED_HEADERS: Final = (
    "X-Request-Id, Idempotent-Replayed, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"
)
# Browsers forget after two hours at most anyway.
_MAX_AGE_S: Final = "7200"


class Cors:
    """origins: `https://app.example.com`, …; `*` for any; empty turns all of this off."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origins)

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a browser that asks first; None where there is nothing to answer here."""
        if request.method != "OPTIONS" or not self._origins:
            return None
        if "Access-Control-Request-Method" not in request.headers or not self._allowed(request):
            return None
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": _ALLOWED_METHODS,
                "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
                "Access-Control-Max-Age": _MAX_AGE_S,
            },
        )

    def decorate(self, request: web.Request, response: web.StreamResponse) -> None:
        """Lets the page of an allowed origin read the response. Credentials are never cookies, so none are allowed."""
        if not self._origins:
            return
        response.headers.add("Vary", "Origin")
        if self._allowed(request):
            response.headers["Access-Control-Allow-Origin"] = (
                "*" if "*" in self._origins else request.headers["Origin"]
            )
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS

    def _allowed(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin", "")
        return bool(origin) and ("*" in self._origins or origin in self._origins)
