"""A gRPC server with everything a service should not have to think about: health, errors, context, limits, drain."""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.chassis import call_context, rpc_metrics, rpc_status
from services.chassis.errors import Kind, ServiceError, internal_error

log = logging.getLogger(__name__)

# Calls under way when the server is told to stop get this long to finish.
DRAIN_GRACE_S: Final = 5.0
# Of that, a stream of events gets this much to end by itself (`call_context.drain_signal`); then it is ended.
_STREAM_GRACE_S: Final = 0.2
# What is under way is cut by `drain` alone; a grace of gRPC's own is as good as none when it is this long.
_UNTIL_CUT_S: Final = 7 * 86_400.0
# Enough for every stream and watcher of a large house; a flood beyond it is refused, not queued.
MAXIMUM_CONCURRENT_RPCS: Final = 4096
MESSAGE_LIMIT_BYTES: Final = 4 * 1024 * 1024

_OPTIONS: Final = (
    # A taken port is an error: with port reuse a forgotten old process would silently take a share of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The default (5 minutes) answers the 30 s keepalive of a quiet stream with GOAWAY too_many_pings.
    # The name is gRPC core's; its C macro says RECV_PING, the option does not, and a wrong one is ignored.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
)

# A fence is an epoch, a 64-bit number; what is longer is not one.
_FENCE_DIGITS: Final = 19

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class RpcServer:
    """Serves `add`ed services on `listen` while inside `async with`; leaving drains for `DRAIN_GRACE_S`.

    listen: "127.0.0.1:0", "[::1]:50051" or "unix:/path". Without credentials only this machine may be served.
    service_names: full protobuf names ("billing.v1.BillingService"), for health and reflection.

    Entering raises ServiceError FAILED_PRECONDITION when the address may not or cannot be listened on.
    """

    def __init__(
        self,
        listen: str,
        add: Sequence[Callable[[grpc.aio.Server], None]],
        service_names: Sequence[str],
        *,
        credentials: grpc.ServerCredentials | None = None,
        maximum_concurrent_rpcs: int = MAXIMUM_CONCURRENT_RPCS,
        grace_s: float = DRAIN_GRACE_S,
    ) -> None:
        self._listen = listen
        self._add = tuple(add)
        self._service_names = tuple(service_names)
        self._credentials = credentials
        self._maximum_concurrent_rpcs = maximum_concurrent_rpcs
        self._grace_s = grace_s
        self._interceptor = _Interceptor()
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._leaving: asyncio.Future[None] | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """Where clients connect: the given host with the real port. Empty before entering."""
        return self._address

    async def __aenter__(self) -> Self:
        if self._credentials is None and not is_local(self._listen):
            raise ServiceError(
                Kind.FAILED_PRECONDITION,
                "PLAINTEXT_REFUSED",
                f"refusing to serve {self._listen} without TLS: only loopback addresses may be served in plaintext",
                {"listen": self._listen},
            )
        server = grpc.aio.server(
            interceptors=(self._interceptor,),
            options=_OPTIONS,
            maximum_concurrent_rpcs=self._maximum_concurrent_rpcs,
        )
        self._address = self._bind(server)
        self._add_services(server)
        await server.start()
        for name in self._service_names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server = server
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()

    async def leave(self) -> None:
        """Reports NOT_SERVING, lets long-lived streams end and refuses new calls, so that clients go elsewhere.

        Does not wait for the calls under way: they go on until `drain`.
        """
        server = self._server
        if server is None or self._leaving is not None:
            return
        await self._health.enter_graceful_shutdown()
        self._interceptor.draining.set()
        self._leaving = asyncio.ensure_future(server.stop(_UNTIL_CUT_S))
        await asyncio.wait({self._leaving}, timeout=min(_STREAM_GRACE_S, self._grace_s))
        self._interceptor.end_streams()

    async def drain(self, grace_s: float | None = None) -> None:
        """Leaves, and waits for the calls under way: for `grace_s`, or what the server was made with."""
        await self.leave()
        server, self._server = self._server, None
        if server is None or self._leaving is None:
            return
        await asyncio.wait({self._leaving}, timeout=self._grace_s if grace_s is None else grace_s)
        if not self._leaving.done():
            # Not by a second grace: of two that end in one moment, the later crashes the process.
            await server.stop(None)
        await self._leaving

    def _bind(self, server: grpc.aio.Server) -> str:
        try:
            if self._credentials is None:
                port = server.add_insecure_port(self._listen)
            else:
                port = server.add_secure_port(self._listen, self._credentials)
        except RuntimeError as error:
            raise ServiceError(
                Kind.FAILED_PRECONDITION,
                "ADDRESS_UNAVAILABLE",
                f"cannot listen on {self._listen}: the address is taken, not ours or malformed",
                {"listen": self._listen},
            ) from error
        if self._listen.startswith("unix:"):
            return self._listen
        return f"{self._listen.rpartition(':')[0]}:{port}"

    def _add_services(self, server: grpc.aio.Server) -> None:
        for add in self._add:
            add(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if is_local(self._listen):
            names = (*self._service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)


def is_local(address: str) -> bool:
    """Whether only processes of this machine can reach a listener on `address` ("host:port" or "unix:/path")."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Interceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler once: context in, errors out, metrics around."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        self._wrapped: dict[str, _Handler] = {}
        self._event_streams: set[asyncio.Task[Any]] = set()

    def end_streams(self) -> None:
        """Ends every stream of events; its client sees UNAVAILABLE and opens a new one elsewhere."""
        for task in self._event_streams:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        name = handler_call_details.method
        wrapped = self._wrapped.get(name)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[name] = self._wrap(handler, name.rpartition("/")[2])
        return wrapped

    def _wrap(self, handler: Any, method: str) -> _Handler:
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._single(handler.unary_unary, method), **coders)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(self._single(handler.stream_unary, method), **coders)
        if handler.unary_stream:
            events = self._until_drained(self._many(handler.unary_stream, method))
            return grpc.unary_stream_rpc_method_handler(events, **coders)
        return grpc.stream_stream_rpc_method_handler(self._many(handler.stream_stream, method), **coders)

    def _single(self, behavior: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Any]:
        async def serve(request: Any, context: Any) -> Any:
            started_s = time.perf_counter()
            try:
                call_context.enter_call(_context_of(context), self.draining)
                answer = await behavior(request, context)
            except BaseException as error:
                rpc_metrics.served(method, _code_of(error, context), time.perf_counter() - started_s)
                await _abort(context, error, method)
            rpc_metrics.served(method, "OK", time.perf_counter() - started_s)
            return answer

        return serve

    def _many(self, behavior: Callable[..., Any], method: str) -> Callable[..., AsyncIterator[Any]]:
        async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
            started_s = time.perf_counter()
            try:
                call_context.enter_call(_context_of(context), self.draining)
                answers = behavior(request, context)
                if inspect.isawaitable(answers):
                    await answers
                else:
                    async for answer in answers:
                        yield answer
            except GeneratorExit:
                rpc_metrics.served(method, Kind.CANCELLED.value, time.perf_counter() - started_s)
                raise
            except BaseException as error:
                rpc_metrics.served(method, _code_of(error, context), time.perf_counter() - started_s)
                await _abort(context, error, method)
            rpc_metrics.served(method, "OK", time.perf_counter() - started_s)

        return serve

    def _until_drained(self, behavior: Callable[..., AsyncIterator[Any]]) -> Callable[..., Any]:
        async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
            task = asyncio.current_task()
            assert task is not None
            self._event_streams.add(task)
            try:
                async for answer in behavior(request, context):
                    yield answer
            except asyncio.CancelledError:
                if not self.draining.is_set():
                    raise
                await context.abort(*rpc_status.to_trailers(rpc_status.plain_error(Kind.UNAVAILABLE)))
            finally:
                self._event_streams.discard(task)

        return serve


def _context_of(context: Any) -> call_context.CallContext:
    request_id = traceparent = ""
    fence = 0
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id":
            request_id = value
        elif key == "traceparent":
            traceparent = value
        elif key == "x-fence" and value.isascii() and value.isdigit() and len(value) <= _FENCE_DIGITS:
            fence = int(value)
    return call_context.received(request_id, traceparent, context.time_remaining(), fence)


def _code_of(error: BaseException, context: Any) -> str:
    if isinstance(error, asyncio.CancelledError):
        # gRPC cancels the handler both when the caller goes away and when its deadline passes.
        late = context.time_remaining() == 0
        return (Kind.DEADLINE_EXCEEDED if late else Kind.CANCELLED).value
    if isinstance(error, grpc.aio.AbortError):
        aborted: grpc.StatusCode = context.code()
        return aborted.name
    return _public(error, context).kind.value


def _public(error: BaseException, context: Any) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    # A method that the servicer does not have: the generated base class sets the code, then raises.
    if isinstance(error, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED:
        return rpc_status.plain_error(Kind.UNIMPLEMENTED)
    return internal_error()


async def _abort(context: Any, error: BaseException, method: str) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError) or not isinstance(error, Exception):
        raise error
    public = _public(error, context)
    if public.kind is Kind.INTERNAL:
        log.error("rpc.failed", exc_info=error, extra={"method": method})
    code, message, trailers = rpc_status.to_trailers(public)
    await context.abort(code, message, trailers)
    raise AssertionError("abort always raises")
