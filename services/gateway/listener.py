"""The public port: aiohttp's server, less what it tells strangers and what it lets them hold."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final, Self

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from services.chassis.errors import ServiceError, internal_error
from services.gateway import errors
from services.gateway.contract import Contract
from services.gateway.request_ids import request_id_of
from services.gateway.unread_requests import BEGINNING_BYTES, read_as_far

# Longer than the idle time of usual reverse proxies (60 s), so that they close first. It also bounds how long a
# client may take over the headers of its first request.
_KEEPALIVE_TIMEOUT_S: Final = 75.0
# What a client may still send of a body that was refused before its connection is closed.
_LINGERING_TIME_S: Final = 5.0
# Requests under way at a stop get this long: the longest deadline of a route.
_SHUTDOWN_TIMEOUT_S: Final = 15.0
_BACKLOG: Final = 1024
# No version, so that nobody can look up what it is vulnerable to.
SERVER_NAME: Final = "atelier"

log = logging.getLogger(__name__)

ContractOf = Callable[[web.BaseRequest], Contract]


class _Protocol(RequestHandler):
    """One connection. What cannot be read is answered in the shape of its path's contract, and not quoted back."""

    __slots__ = ("_beginning", "_contract_of", "_read_before")

    def __init__(self, manager: Server, contract_of: ContractOf, **options: Any) -> None:
        super().__init__(manager, **options)
        self._contract_of = contract_of
        self._beginning = b""
        self._read_before = 0

    def data_received(self, data: bytes) -> None:
        """Keeps how the next request begins, and hands it on."""
        if self._read_before != self._request_count:
            self._read_before, self._beginning = self._request_count, b""
        if len(self._beginning) < BEGINNING_BYTES:
            self._beginning += data[:BEGINNING_BYTES]
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what no handler saw, or could not answer; the connection is closed after it."""
        if status >= 500:
            log.error("connection.failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer was sent already")
        if status >= 500:
            return _last_answer(request, self._contract_of, internal_error())
        known = read_as_far(request, self._beginning)
        return _last_answer(
            known, self._contract_of, errors.malformed_request("This is not a valid HTTP request.")
        )

    def log_exception(self, *args: Any, **options: Any) -> None:
        """A broken body that is met while the rest of it is thrown away is no fault of ours, and says nothing new."""
        if isinstance(options.get("exc_info"), (web.RequestPayloadError, HttpProcessingError)):
            self.log_debug(*args, **options)
        else:
            super().log_exception(*args, **options)


def _last_answer(request: web.BaseRequest, contract_of: ContractOf, error: ServiceError) -> web.Response:
    request_id = request_id_of(request)
    answer = contract_of(request).render_error(error, None, request_id)
    response = web.Response(
        status=answer.status,
        body=msgspec.json.encode(answer.body),
        headers={
            "Content-Type": "application/json; charset=utf-8",
            "X-Request-Id": request_id,
            "Server": SERVER_NAME,
        },
    )
    response.force_close()
    return response


class _Server(Server):
    """aiohttp's server with our own connections."""

    def __init__(self, server: Server, contract_of: ContractOf) -> None:
        super().__init__(self._handled, request_factory=server.request_factory)
        self._to_application = server.request_handler
        self._contract_of = contract_of

    async def _handled(self, request: web.BaseRequest) -> web.StreamResponse:
        # aiohttp looks at this header before any middleware, and answers in its own words and name.
        if request.headers.get("Expect", "100-continue").lower() != "100-continue":
            fault = "The Expect header can only be 100-continue."
            return _last_answer(request, self._contract_of, errors.malformed_request(fault))
        return await self._to_application(request)

    def __call__(self) -> RequestHandler:
        return _Protocol(
            self,
            self._contract_of,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_KEEPALIVE_TIMEOUT_S,
            lingering_time=_LINGERING_TIME_S,
            # None is how aiohttp turns its own off, whatever the annotation says.
            access_log=None,
        )


class _Runner(web.AppRunner):
    def __init__(self, app: web.Application, contract_of: ContractOf) -> None:
        super().__init__(app, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        self._contract_of = contract_of

    async def _make_server(self) -> Server:
        return _Server(await super()._make_server(), self._contract_of)


def bind(listen: str, *, reuse_port: bool) -> socket.socket:
    """A listening socket on `host:port`. Raises OSError where that is taken."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=_BACKLOG, reuse_port=reuse_port)


def url_of(bound: socket.socket) -> str:
    """`http://host:port` of a listening socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Listener:
    """Serves an application on a bound socket while entered; leaving waits for requests under way."""

    def __init__(self, app: web.Application, contract_of: ContractOf, bound: socket.socket) -> None:
        """contract_of: in whose words a request is answered that no route could look at."""
        self._runner = _Runner(app, contract_of)
        self._bound = bound

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.SockSite(self._runner, self._bound, backlog=_BACKLOG).start()
        return self

    async def __aexit__(self, *exit_info: object) -> None:
        await self._runner.cleanup()
