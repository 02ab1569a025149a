"""Channels to other services: context travels with every call, and what the other side raised is raised here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar, cast

import grpc

from services.chassis import call_context, crash_points, rpc_status

# A unary call without a time-out of its own still gets one; a caller who knows better passes `timeout=`.
DEFAULT_TIMEOUT_S: Final = 10.0

_MESSAGE_LIMIT_BYTES: Final = 4 * 1024 * 1024
_OPTIONS: Final = (
    # Pings keep a quiet stream alive through NATs and find a dead peer within 40 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own backoff (1 s to 2 minutes) turns a restart of half a second into an outage.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Despite its name this is how long one attempt to connect may take; 100 ms would be too short for TLS.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_LIMIT_BYTES),
)
_RETRY_POLICY: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}

_Request = TypeVar("_Request")


def open_channel(
    address: str,
    *,
    repeatable: Sequence[str] = (),
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.aio.Channel:
    """A channel whose calls raise ServiceError, equal to the one the server raised.

    address: "host:port" or "unix:/path".
    repeatable: full method names ("billing.v1.BillingService/Hold") of the calls that may be sent twice, because
    they read or carry an idempotency key: these wait for a server that is starting, and are retried on UNAVAILABLE.
    credentials: for mutual TLS; without them the channel is plaintext.

    Every call passes on the request id and trace of the current call and never outlasts its deadline.
    Close the channel with `await channel.close()`.
    """
    options = (*_OPTIONS, ("grpc.service_config", _service_config(repeatable)))
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=_interceptors())
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=_interceptors())


def _service_config(repeatable: Sequence[str]) -> str:
    names = []
    for full_name in repeatable:
        service, _, method = full_name.strip("/").partition("/")
        names.append({"service": service, "method": method})
    if not names:
        return "{}"
    return json.dumps({"methodConfig": [{"name": names, "waitForReady": True, "retryPolicy": _RETRY_POLICY}]})


def _interceptors() -> list[grpc.aio.ClientInterceptor]:
    return [_UnaryUnary(), _UnaryStream(), _StreamUnary(), _StreamStream()]


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, _Request], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: _Request,
    ) -> Any:
        _pass(client_call_details, "before")
        call = await continuation(_outgoing(client_call_details, DEFAULT_TIMEOUT_S), request)
        return await _checked(call, client_call_details)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: AsyncIterable[_Request] | Iterable[_Request],
    ) -> Any:
        _pass(client_call_details, "before")
        call = await continuation(_outgoing(client_call_details, DEFAULT_TIMEOUT_S), request_iterator)
        return await _checked(call, client_call_details)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, _Request], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: _Request,
    ) -> Any:
        return _answers(await continuation(_outgoing(client_call_details, None), request))


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: AsyncIterable[_Request] | Iterable[_Request],
    ) -> Any:
        return _answers(await continuation(_outgoing(client_call_details, None), request_iterator))


async def _checked(call: Any, details: grpc.aio.ClientCallDetails) -> Any:
    """Waits for the one answer of `call`, and returns the call so that its metadata stays readable."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        raise rpc_status.from_rpc_error(error) from error
    finally:
        _pass(details, "after")
    return call


def _pass(details: grpc.aio.ClientCallDetails, side: str) -> None:
    # "/billing.v1.BillingService/Hold", and in bytes, whatever its annotation says.
    method = cast("bytes | str", details.method)
    method = method.decode() if isinstance(method, bytes) else method
    service, _, name = method.strip("/").partition("/")
    crash_points.reached("call", service.partition(".")[0], name, side)


async def _answers(call: Any) -> AsyncIterator[Any]:
    try:
        async for answer in call:
            yield answer
    except grpc.aio.AioRpcError as error:
        raise rpc_status.from_rpc_error(error) from error
    finally:
        # A reader that stops early must not leave the server writing to nobody.
        call.cancel()


def _outgoing(
    details: grpc.aio.ClientCallDetails, default_timeout_s: float | None
) -> grpc.aio.ClientCallDetails:
    context = call_context.current()
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    given = set(metadata.keys())
    fence = str(context.fence) if context.fence else ""
    carried = (("x-request-id", context.request_id), ("traceparent", context.traceparent), ("x-fence", fence))
    for key, value in carried:
        if value and key not in given:
            metadata.add(key, value)
    timeout_s = details.timeout if details.timeout is not None else default_timeout_s
    if timeout_s is not None:
        timeout_s = call_context.outgoing_timeout_s(timeout_s)
    elif context.deadline_s is not None:
        timeout_s = call_context.outgoing_timeout_s(float("inf"))
    return grpc.aio.ClientCallDetails(
        details.method, timeout_s, metadata, details.credentials, details.wait_for_ready
    )
