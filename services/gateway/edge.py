"""What happens around every request: its id, its time, who sent it, its limits, its errors, and a line about it."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Final

import msgspec
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import Counter, Gauge, Histogram

from services.chassis.call_context import CallContext, enter_call
from services.chassis.errors import ServiceError, internal_error
from services.chassis.metrics import LATENCY_BUCKETS_S
from services.gateway import errors, reading
from services.gateway.access_log import AccessLog
from services.gateway.auth import Authenticator, Caller, bearer_of
from services.gateway.contract import (
    BODY_LIMIT_BYTES,
    REST_LIMIT_BYTES,
    Answer,
    Call,
    Contract,
    House,
    Route,
)
from services.gateway.cors import Cors
from services.gateway.inline_uploads import Body, InlineUploads, Place
from services.gateway.listener import SERVER_NAME
from services.gateway.rate_limits import RateLimits

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REQUEST_ID: Final = re.compile(r"[\x20-\x7e]{1,128}")
_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_encode: Final = msgspec.json.Encoder().encode

_REQUESTS = Counter(
    "atelier_gateway_requests_total", "Requests answered.", ["contract", "route", "method", "status"]
)
_SECONDS = Histogram(
    "atelier_gateway_request_seconds", "Time to answer.", ["contract", "route"], buckets=LATENCY_BUCKETS_S
)
# Finding a labelled child costs more than using it.
_requests = cache(_REQUESTS.labels)
_seconds = cache(_SECONDS.labels)
_IN_FLIGHT = Gauge("atelier_gateway_requests_in_flight", "Requests being served.")
_EVERY_ANSWER: Final = {
    "Content-Type": "application/json; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
# Anything else a stranger sends as a method must not make a time series.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Exchange:
    """What is known so far of one request; the access line and the error envelope are made from it."""

    __slots__ = ("caller", "contract", "headers", "reason", "request_id", "route", "started_s")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        # Set by the route; who speaks for the other paths is found out only when there is something to say.
        self.contract: Contract | None = None
        self.route: Route | None = None
        self.caller: Caller | None = None
        self.headers: Mapping[str, str] = {}
        self.reason = ""
        self.started_s = time.perf_counter()


_EXCHANGE: Final = web.RequestKey("exchange", Exchange)


class Edge:
    """The one middleware, and the road of every contract route: key, rate, body, handler."""

    def __init__(
        self,
        contracts: Sequence[Contract],
        house: House,
        authenticator: Authenticator,
        rate_limits: RateLimits,
        *,
        cors: Cors,
        access_log: AccessLog | None,
        requests_in_flight: int,
        inline_uploads: int,
    ) -> None:
        self._contracts = contracts
        self._house = house
        self._authenticator = authenticator
        self._rate_limits = rate_limits
        self._cors = cors
        self._access_log = access_log
        self._limit = requests_in_flight
        self._in_flight = 0
        self._uploads = InlineUploads(inline_uploads)
        _IN_FLIGHT.set_function(lambda: self._in_flight)

    # Around every request.

    @web.middleware
    async def envelope(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Gives every request an id, an answer in a contract's shape whatever happens, metrics and an access line."""
        exchange = Exchange(_request_id(request))
        request[_EXCHANGE] = exchange
        self._in_flight += 1
        try:
            response = self._cors.preflight(request) or await self._served(request, handler, exchange)
        except Exception as error:
            response = self._refused(request, _understood(error), exchange)
        finally:
            self._in_flight -= 1
        response.headers["X-Request-Id"] = exchange.request_id
        response.headers["Server"] = SERVER_NAME
        self._cors.decorate(request, response)
        self._note(request, response.status, exchange)
        return response

    async def _served(self, request: web.Request, handler: Handler, exchange: Exchange) -> web.StreamResponse:
        if self._in_flight > self._limit:
            raise errors.overloaded()
        return await handler(request)

    def _refused(self, request: web.Request, error: ServiceError, exchange: Exchange) -> web.Response:
        exchange.reason = error.reason
        contract = exchange.contract = exchange.contract or self._contract_of(request.path)
        answer = contract.render_error(error, exchange.route, exchange.request_id)
        return _response(answer, exchange.headers)

    def _contract_of(self, path: str) -> Contract:
        best = self._contracts[0]
        longest = 0
        for contract in self._contracts:
            for prefix in contract.paths:
                if len(prefix) > longest and (path == prefix or path.startswith(prefix + "/")):
                    best, longest = contract, len(prefix)
        return best

    def _note(self, request: web.Request, status: int, exchange: Exchange) -> None:
        seconds = time.perf_counter() - exchange.started_s
        contract = exchange.contract.name if exchange.contract else "none"
        resource = request.match_info.route.resource
        route = exchange.route.name if exchange.route else (resource.canonical if resource else "unknown")
        method = request.method if request.method in _METHODS else "other"
        _requests(contract, route, method, status).inc()
        _seconds(contract, route).observe(seconds)
        if self._access_log is not None:
            self._access_log.add(
                request_id=exchange.request_id,
                method=method,
                route=route,
                status=status,
                duration_s=seconds,
                customer_id=exchange.caller.customer_id if exchange.caller else "",
                # Without a key, or without such a job, it is only what a stranger typed.
                job_id=request.match_info.get("jobId", "") if exchange.caller and status != 404 else "",
                reason=exchange.reason,
            )

    # The road of a contract's route.

    def endpoint(self, claims: Sequence[tuple[Contract, Route]]) -> Handler:
        """The handler of one method and path, which more than one contract may claim."""

        async def serve(request: web.Request) -> web.StreamResponse:
            exchange = request[_EXCHANGE]
            contract, route = claims[0] if len(claims) == 1 else _chosen(claims, request)
            exchange.contract, exchange.route = contract, route
            enter_call(_context(request, exchange, route), None)
            caller = exchange.caller = await self._caller(request, contract)
            await self._count(caller, exchange)
            with self._uploads.place(caller.customer_id) as place:
                body = await _body(request, route, place)
                if route.creates:
                    # The customer's upload is not what the deadline is for.
                    enter_call(_context(request, exchange, route), None)
                answer = await route.handler(Call(request, caller, body, self._house))
            return _response(answer, exchange.headers)

        return serve

    async def _caller(self, request: web.Request, contract: Contract) -> Caller:
        key = bearer_of(request)
        if not key.startswith(contract.key_prefixes):
            raise errors.invalid_api_key()
        caller = await self._authenticator.authenticate(key)
        if caller.storefront != contract.name:
            raise errors.invalid_api_key()
        return caller

    async def _count(self, caller: Caller, exchange: Exchange) -> None:
        if not caller.requests_per_minute:
            return
        window = await self._rate_limits.hit(caller.customer_id, caller.test, caller.requests_per_minute)
        exchange.headers = window.headers()
        if not window.allowed:
            raise errors.rate_limited(window.limit, window.reset_s)


async def _body(request: web.Request, route: Route, place: Place) -> Body:
    if not route.creates:
        return Body(b"", {}, place)
    lifted = await reading.body_of(request, BODY_LIMIT_BYTES, REST_LIMIT_BYTES, place.take)
    return Body(lifted.json, lifted.texts, place)


def _chosen(claims: Sequence[tuple[Contract, Route]], request: web.Request) -> tuple[Contract, Route]:
    """By the key's prefix; without a key, or with one that nobody's begins like, the first."""
    token = request.headers.get("Authorization", "").partition(" ")[2].strip()
    return next((claim for claim in claims if token.startswith(claim[0].key_prefixes)), claims[0])


def _request_id(request: web.Request) -> str:
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{os.urandom(13).hex()}"


def _context(request: web.Request, exchange: Exchange, route: Route) -> CallContext:
    traceparent = request.headers.get("traceparent", "")
    return CallContext(
        request_id=exchange.request_id,
        deadline_s=time.monotonic() + route.deadline_s,
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
    )


def _response(answer: Answer, extra: Mapping[str, str]) -> web.Response:
    headers = CIMultiDict({**_EVERY_ANSWER, **extra, **answer.headers})
    return web.Response(
        status=answer.status, body=None if answer.body is None else _encode(answer.body), headers=headers
    )


def _understood(error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, web.HTTPMethodNotAllowed):
        return errors.method_not_allowed(error.allowed_methods)
    if isinstance(error, web.HTTPNotFound):
        return errors.no_such_path()
    if isinstance(error, web.HTTPException) and 400 <= error.status < 500:
        return errors.malformed_request("The request could not be understood.")
    log.error("request.failed", exc_info=error)
    return internal_error()
