"""What happens around every request: its id, its time, who sent it, its limits, its errors, and a line about it."""

from __future__ import annotations

import logging
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
from services.gateway.auth import Authenticator, Caller
from services.gateway.client_address import Address, ClientAddresses
from services.gateway.contract import (
    BODY_LIMIT_BYTES,
    NOBODY,
    REST_LIMIT_BYTES,
    Answer,
    Call,
    Contract,
    House,
    Route,
)
from services.gateway.cors import Cors
from services.gateway.hosts import Hosts
from services.gateway.inline_uploads import Body, InlineUploads, Place
from services.gateway.listener import SERVER_NAME
from services.gateway.paths import Paths, methods_of
from services.gateway.rate_limits import RateLimits
from services.gateway.request_ids import request_id_of

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

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
        hosts: Hosts,
        client_addresses: ClientAddresses,
        access_log: AccessLog | None,
        requests_in_flight: int,
        inline_uploads: int,
    ) -> None:
        self._contracts = contracts
        self._paths = Paths(contracts)
        self._house = house
        self._authenticator = authenticator
        self._rate_limits = rate_limits
        self._cors = cors
        self._hosts = hosts
        self._client_addresses = client_addresses
        self._access_log = access_log
        self._limit = requests_in_flight
        self._in_flight = 0
        self._uploads = InlineUploads(inline_uploads)
        _IN_FLIGHT.set_function(lambda: self._in_flight)

    # Around every request.

    @web.middleware
    async def envelope(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Gives every request an id, an answer in a contract's shape whatever happens, metrics and an access line."""
        exchange = Exchange(request_id_of(request))
        request[_EXCHANGE] = exchange
        self._in_flight += 1
        try:
            response = self._cors.preflight(request) or await self._served(request, handler, exchange)
        except Exception as error:
            response = self._refused(request, self._understood(request, error), exchange)
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
        contract = exchange.contract = exchange.contract or self.contract_of(request)
        answer = contract.render_error(error, exchange.route, exchange.request_id)
        return _response(answer, exchange.headers)

    def _understood(self, request: web.Request, error: Exception) -> ServiceError:
        if isinstance(error, ServiceError):
            return error
        if isinstance(error, web.HTTPMethodNotAllowed):
            return self._wrong_method(request, error)
        if isinstance(error, web.HTTPNotFound):
            return errors.no_such_path()
        if isinstance(error, web.HTTPException) and 400 <= error.status < 500:
            return errors.malformed_request("The request could not be understood.")
        log.error("request.failed", exc_info=error)
        return internal_error()

    def _wrong_method(self, request: web.Request, error: web.HTTPMethodNotAllowed) -> ServiceError:
        claims = self._paths.claims_on(request.path)
        if not claims:
            return errors.method_not_allowed(error.allowed_methods)
        open_here = self._hosts.open_here(claims, request)
        return errors.method_not_allowed(methods_of(open_here)) if open_here else errors.no_such_path()

    def contract_of(self, request: web.BaseRequest) -> Contract:
        """Whose words an error has: the host's, else of the closest claims on the path the credential's, else the first."""
        bound = self._hosts.contract_of(request)
        if bound is not None:
            return bound
        closest = max(contract.claim_on(request.path) for contract in self._contracts)
        claimants = [each for each in self._contracts if each.claim_on(request.path) == closest]
        if closest:
            return next((each for each in claimants if _is_addressed(each, request)), claimants[0])
        return claimants[0]

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
                job_id=_named_job(request) if exchange.caller and status != 404 else "",
                reason=exchange.reason,
            )

    # The road of a contract's route.

    def endpoint(self, claims: Sequence[tuple[Contract, Route]]) -> Handler:
        """The handler of one method and path, which more than one contract may claim."""

        async def serve(request: web.Request) -> web.StreamResponse:
            exchange = request[_EXCHANGE]
            contract, route = self._chosen(claims, request)
            exchange.contract, exchange.route = contract, route
            enter_call(_context(request, exchange, route), None)
            address = self._client_addresses.of(request)
            caller = NOBODY
            if not route.public:
                caller = exchange.caller = await self._caller(request, contract, address)
                await self._count(caller, exchange)
            with self._uploads.place(caller.customer_id) as place:
                body = await _body(request, route, place)
                if route.creates:
                    # The customer's upload is not what the deadline is for.
                    enter_call(_context(request, exchange, route), None)
                call = Call(request, caller, body, self._house, contract, address)
                answer = await route.handler(call)
            return _response(answer, exchange.headers)

        return serve

    def _chosen(
        self, claims: Sequence[tuple[Contract, Route]], request: web.Request
    ) -> tuple[Contract, Route]:
        """By the host where it is bound, else by the credential's prefix, else the first. Raises NO_SUCH_PATH."""
        open_here = self._hosts.open_here(claims, request)
        if not open_here:
            raise errors.no_such_path()
        if len(open_here) == 1:
            return open_here[0]
        return next((claim for claim in open_here if _is_addressed(claim[0], request)), open_here[0])

    async def _caller(self, request: web.Request, contract: Contract, address: Address) -> Caller:
        key = contract.credentials(request)
        if not key.startswith(contract.credential_prefixes):
            raise errors.invalid_api_key()
        caller = await self._authenticator.authenticate(key)
        if caller.storefront != contract.name:
            raise errors.invalid_api_key()
        if not caller.may_come_from(address):
            raise errors.network_not_allowed()
        return caller

    async def _count(self, caller: Caller, exchange: Exchange) -> None:
        if not caller.requests_per_minute:
            return
        window = await self._rate_limits.hit(caller.customer_id, caller.test, caller.requests_per_minute)
        exchange.headers = window.headers()
        if not window.allowed:
            raise errors.rate_limited(window.limit, window.reset_s)


async def _body(request: web.Request, route: Route, place: Place) -> Body:
    if route.reads_body or route.form:
        small = await reading.body_of(request, REST_LIMIT_BYTES, REST_LIMIT_BYTES, place.take)
        return Body(small.json, small.texts, place)
    if route.creates:
        lifted = await reading.body_of(request, BODY_LIMIT_BYTES, REST_LIMIT_BYTES, place.take)
        return Body(lifted.json, lifted.texts, place)
    return Body(b"", {}, place)


def _is_addressed(contract: Contract, request: web.BaseRequest) -> bool:
    try:
        return contract.credentials(request).startswith(contract.credential_prefixes)
    except ServiceError:
        return False


def _named_job(request: web.Request) -> str:
    """Contracts that copy an older one call it `id`."""
    return request.match_info.get("jobId") or request.match_info.get("id", "")


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
