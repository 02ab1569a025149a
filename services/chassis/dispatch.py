"""The server side of coalesced calls: many calls on one stream, each with its own deadline, answer and fate."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from services.chassis import call_context, rpc_metrics, rpc_status
from services.chassis.deadlines import Deadlines
from services.chassis.errors import Kind, ServiceError, internal_error

log = logging.getLogger(__name__)

# Twice what our own client keeps in flight, so that calls it has given up on never crowd out new ones.
IN_FLIGHT_LIMIT: Final = 2048
# Our client sends at most 128; far beyond it a batch is an attack on the loop.
_BATCH_LIMIT_ITEMS: Final = 1024
# With so much unwritten the client does not read: nothing more is read from it until it does.
_UNWRITTEN_LIMIT_REPLIES: Final = 4096
_UNWRITTEN_LIMIT_BYTES: Final = 32 * 1024 * 1024
# How long a client has to end its side after the server said that it leaves.
_GOODBYE_S: Final = 2.0
_WRITE_LIMIT_REPLIES: Final = 128
_WRITE_LIMIT_BYTES: Final = 256 * 1024
# A message may be 4 MiB; a batch already holding its 256 KiB must still take one more item.
ITEM_LIMIT_BYTES: Final = 3 * 1024 * 1024
# For items that name no time-out, and for those that name an absurd one.
_DEFAULT_TIMEOUT_S: Final = 30.0
_TIMEOUT_LIMIT_S: Final = 600.0


class Item(Protocol):
    """One call, as the client sends it; see the protos."""

    @property
    def sequence(self) -> int: ...
    @property
    def method(self) -> str: ...
    @property
    def request(self) -> bytes: ...
    @property
    def timeout_ms(self) -> int: ...
    @property
    def request_id(self) -> str: ...
    @property
    def traceparent(self) -> str: ...
    @property
    def fence(self) -> int: ...
    @property
    def cancel(self) -> bool: ...


class Batch(Protocol):
    @property
    def items(self) -> Iterable[Item]: ...


class Reply(Protocol):
    """One answer; see the protos."""

    @property
    def sequence(self) -> int: ...
    @property
    def code(self) -> int: ...
    @property
    def details(self) -> bytes: ...
    @property
    def response(self) -> bytes: ...


R = TypeVar("R", bound=Reply)
B = TypeVar("B")
Q = TypeVar("Q", bound=Message)


@dataclass(frozen=True, slots=True)
class Handler(Generic[Q]):
    """A unary method as it is served on the stream: its request type and the very same coroutine function."""

    request_type: type[Q]
    behavior: Callable[[Q, Any], Awaitable[Message]]


class ItemContext:
    """What a handler may ask of its `context` when its call came on a stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def time_remaining(self) -> float | None:
        """Seconds until the deadline of this call."""
        return call_context.remaining_s(_DEFAULT_TIMEOUT_S)

    def peer(self) -> str:
        return str(self._stream.peer())

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """The identity of the client, as proven when the connection was made."""
        identity: Mapping[str, Iterable[bytes]] = self._stream.auth_context()
        return identity

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()
    ) -> NoReturn:
        """Raises the ServiceError of this code: a call on a stream has no trailing metadata of its own."""
        kind = rpc_status.from_details(code.value[0], b"").kind
        raise ServiceError(kind, kind.value, details)


def dispatcher(
    handlers: Mapping[str, Handler[Any]],
    response: Callable[..., B],
    reply: Callable[..., R],
    *,
    in_flight_limit: int = IN_FLIGHT_LIMIT,
) -> Callable[[AsyncIterator[Batch], Any], AsyncIterator[B]]:
    """The body of `rpc Dispatch`: call it with (request_iterator, context) and return what it returns.

    handlers: by unary method name ("Hold"). response, reply: the service's DispatchResponse and DispatchReply.

    Every item is answered exactly once, in the order in which they finish.
    When the server drains it begins nothing more, sends a response without replies, finishes what it began, and
    ends the stream with OK once the client has ended its side (gRPC turns an end that crosses a write into an error).
    An OK end therefore tells the client that what is unanswered was never begun.
    """

    def dispatch(batches: AsyncIterator[Batch], context: Any) -> AsyncIterator[B]:
        return _Stream(handlers, response, reply, in_flight_limit, context).serve(batches)

    return dispatch


class _Running:
    """One item being served."""

    __slots__ = ("late", "method", "started_s", "task")

    def __init__(self, method: str, task: asyncio.Task[bytes | ServiceError]) -> None:
        self.method = method
        self.task = task
        self.late = False
        self.started_s = time.perf_counter()

    def expire(self) -> None:
        self.late = True
        self.task.cancel()


class _Stream(Generic[B, R]):
    """One client's stream: a reader that starts items, a task for each, a writer that sends what has finished."""

    def __init__(
        self,
        handlers: Mapping[str, Handler[Any]],
        response: Callable[..., B],
        reply: Callable[..., R],
        in_flight_limit: int,
        context: Any,
    ) -> None:
        self._handlers = handlers
        self._response = response
        self._reply = reply
        self._in_flight_limit = in_flight_limit
        self._stream_context = context
        self._context = ItemContext(context)
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, _Running] = {}
        self._deadlines = Deadlines[int](lambda sequence: self._running[sequence].expire())
        self._replies: deque[tuple[R, int]] = deque()
        self._unwritten_bytes = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._accepting = True
        self._reading = True
        self._leaving = False
        self._refusal: ServiceError | None = None

    async def serve(self, batches: AsyncIterator[Batch]) -> AsyncIterator[B]:
        # Tells the client that a handler listens: what it sends from now on is answered, or never begun.
        await self._stream_context.send_initial_metadata(())
        attendants = [self._loop.create_task(self._read(batches))]
        draining = call_context.drain_signal()
        if draining is not None:
            attendants.append(self._loop.create_task(self._watch(draining)))
        try:
            while self._reading or self._running or self._replies:
                await self._wake.wait()
                self._wake.clear()
                if self._refusal is not None:
                    raise self._refusal
                if self._leaving:
                    self._leaving = False
                    yield self._response()
                while self._replies:
                    yield self._next_write()
        finally:
            for attendant in attendants:
                attendant.cancel()
            for running in list(self._running.values()):
                running.task.cancel()
            self._deadlines.close()

    async def _watch(self, draining: asyncio.Event) -> None:
        await draining.wait()
        self._accepting = False
        self._leaving = True
        self._wake.set()
        await asyncio.sleep(_GOODBYE_S)
        self._stop_reading()

    def _stop_reading(self) -> None:
        self._reading = False
        self._wake.set()

    async def _read(self, batches: AsyncIterator[Batch]) -> None:
        try:
            async for batch in batches:
                items = list(batch.items)
                if len(items) > _BATCH_LIMIT_ITEMS:
                    self._refuse("BATCH_TOO_LARGE", "too many items in one batch")
                    return
                for item in items:
                    self._accept(item)
                while self._is_clogged():
                    self._room.clear()
                    await self._room.wait()
        except Exception:
            # Either the bytes are no batch, or the stream is gone and nobody will read this refusal.
            log.info("dispatch.unreadable", exc_info=True)
            self._refuse("MALFORMED_BATCH", "the stream does not hold dispatch requests")
        finally:
            self._stop_reading()

    def _is_clogged(self) -> bool:
        return len(self._replies) > _UNWRITTEN_LIMIT_REPLIES or self._unwritten_bytes > _UNWRITTEN_LIMIT_BYTES

    def _refuse(self, reason: str, message: str) -> None:
        self._refusal = ServiceError(Kind.INVALID_ARGUMENT, reason, message)

    def _accept(self, item: Item) -> None:
        sequence = item.sequence
        running = self._running.get(sequence)
        if item.cancel:
            if running is not None:
                running.task.cancel()
            return
        if not self._accepting:
            return
        if running is not None:
            # Two answers to one sequence could not be told apart, and running it twice is worse.
            log.warning("dispatch.duplicate_sequence", extra={"sequence": sequence})
            return
        handler = self._handlers.get(item.method)
        if handler is None:
            error = ServiceError(
                Kind.UNIMPLEMENTED, "UNKNOWN_METHOD", "the method is not served on this stream"
            )
            self._answer_error(sequence, error)
        elif len(self._running) >= self._in_flight_limit:
            self._answer_error(sequence, rpc_status.plain_error(Kind.RESOURCE_EXHAUSTED))
        else:
            self._start(sequence, handler, item)

    def _start(self, sequence: int, handler: Handler[Any], item: Item) -> None:
        timeout_s = min(item.timeout_ms / 1000, _TIMEOUT_LIMIT_S) or _DEFAULT_TIMEOUT_S
        context = call_context.received(item.request_id, item.traceparent, timeout_s, item.fence)
        task = self._loop.create_task(self._serve(handler, item, context))
        self._running[sequence] = _Running(item.method, task)
        self._deadlines.set(sequence, time.monotonic() + timeout_s)
        # A callback, not a `finally` in the coroutine: a task cancelled before its first step never runs one.
        task.add_done_callback(partial(self._finished, sequence))

    async def _serve(
        self, handler: Handler[Any], item: Item, context: call_context.CallContext
    ) -> bytes | ServiceError:
        call_context.enter_call(context, call_context.drain_signal())
        try:
            request = handler.request_type.FromString(item.request)
        except DecodeError:
            return ServiceError(Kind.INVALID_ARGUMENT, "MALFORMED_REQUEST", "the request cannot be read")
        try:
            answer = (await handler.behavior(request, self._context)).SerializeToString()
        except ServiceError as error:
            return error
        except Exception:
            log.exception("rpc.failed", extra={"method": item.method})
            return internal_error()
        if len(answer) > ITEM_LIMIT_BYTES:
            return ServiceError(Kind.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE", "the answer is too large")
        return answer

    def _finished(self, sequence: int, task: asyncio.Task[bytes | ServiceError]) -> None:
        running = self._running.pop(sequence)
        self._deadlines.drop(sequence)
        if task.cancelled():
            outcome: bytes | ServiceError = rpc_status.plain_error(
                Kind.DEADLINE_EXCEEDED if running.late else Kind.CANCELLED
            )
        else:
            outcome = task.result()
        code = "OK" if isinstance(outcome, bytes) else outcome.kind.value
        rpc_metrics.served(running.method, code, time.perf_counter() - running.started_s)
        if isinstance(outcome, bytes):
            self._answer(self._reply(sequence=sequence, response=outcome), len(outcome))
        else:
            self._answer_error(sequence, outcome)

    def _answer_error(self, sequence: int, error: ServiceError) -> None:
        code, message, details = rpc_status.to_reply(error)
        self._answer(
            self._reply(sequence=sequence, code=code, message=message, details=details), len(details)
        )

    def _answer(self, reply: R, size_bytes: int) -> None:
        self._replies.append((reply, size_bytes))
        self._unwritten_bytes += size_bytes
        self._wake.set()

    def _next_write(self) -> B:
        batch: list[R] = []
        size_bytes = 0
        while self._replies and len(batch) < _WRITE_LIMIT_REPLIES and size_bytes < _WRITE_LIMIT_BYTES:
            reply, reply_bytes = self._replies.popleft()
            batch.append(reply)
            size_bytes += reply_bytes
        self._unwritten_bytes -= size_bytes
        self._room.set()
        return self._response(replies=batch)
