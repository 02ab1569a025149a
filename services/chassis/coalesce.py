"""Many calls on one stream: every write carries whatever is waiting, without a timer, and callers just await one call."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, Final, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from services.chassis import call_context, crash_points, rpc_metrics, rpc_status
from services.chassis.deadlines import Deadlines
from services.chassis.dispatch import ITEM_LIMIT_BYTES, Handler, Reply, dispatcher
from services.chassis.errors import Kind, ServiceError, internal_error
from services.chassis.lanes import Lanes

__all__ = ["Coalescer", "Handler", "dispatcher", "unary_of"]

log = logging.getLogger(__name__)

# Beyond so many calls nobody waits long enough for the last one: refuse at once instead.
CAPACITY: Final = 10_000
# Half of what a server serves of one stream at a time; the rest waits here, where it can still be cancelled.
WINDOW: Final = 1024
_WRITE_LIMIT_ITEMS: Final = 128
_WRITE_LIMIT_BYTES: Final = 256 * 1024
# Like the retry policy of unary calls: a call that saw so many streams break may be what breaks them.
_SENDS_LIMIT: Final = 4
_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_LIMIT_S: Final = 1.0
# A restart takes less; after so long without the server, waiting for it only makes customers wait for an error.
_PATIENCE_S: Final = 5.0
# How long unary calls are used before the server is asked again whether it has Dispatch now.
_FALLBACK_S: Final = 60.0

# The server will not have this stream, whatever is on it: reconnecting does not help those who wait.
_REFUSALS: Final = frozenset({Kind.UNAUTHENTICATED, Kind.PERMISSION_DENIED, Kind.UNIMPLEMENTED})


class _Sized(Protocol):
    def ByteSize(self) -> int: ...  # noqa: N802 - protobuf's own name


class _Response(_Sized, Protocol):
    @property
    def replies(self) -> Collection[Reply]: ...


BatchT = TypeVar("BatchT", bound=_Sized)
ResponseT = TypeVar("ResponseT", bound=_Response)
M = TypeVar("M", bound=Message)
Unary = Callable[[str, Message], Awaitable[Message]]


def unary_of(stub: object) -> Unary:
    """The plain unary methods of a generated stub, for `Coalescer(unary=...)`."""

    def call(method: str, request: Message) -> Awaitable[Message]:
        answer: Awaitable[Message] = getattr(stub, method)(request)
        return answer

    return call


class _Pending:
    """One call that somebody awaits."""

    __slots__ = (
        "deadline_s",
        "future",
        "item",
        "lane",
        "repeatable",
        "sends",
        "sequence",
        "size_bytes",
        "stream",
    )

    def __init__(self, sequence: int, lane: str, item: Any, size_bytes: int, repeatable: bool) -> None:
        self.sequence = sequence
        self.lane = lane
        self.item = item
        self.size_bytes = size_bytes
        self.repeatable = repeatable
        self.future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self.deadline_s = 0.0
        self.stream: _Stream | None = None
        self.sends = 0


class _Stream:
    """One life of the stream to the server."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.opened_s: float | None = None
        self.closed = False
        self.answered = False
        self.sent: dict[int, _Pending] = {}
        self.cancels: list[int] = []
        # Nothing more is sent: None where the server leaves, or has left, in order.
        self.over: asyncio.Future[ServiceError | None] = asyncio.get_running_loop().create_future()

    def open(self) -> None:
        self.opened_s = time.monotonic()
        self.wake.set()

    def end(self, error: ServiceError | None) -> None:
        self.closed = True
        self.wake.set()
        if not self.over.done():
            self.over.set_result(error)


class Coalescer(Generic[BatchT, ResponseT]):
    """The client side of `rpc Dispatch`: one stream to one service, shared by all callers of this event loop.

    dispatch: the stub's stream method. batch, item: the service's DispatchRequest and DispatchItem.
    name: the service, for metrics and logs.
    repeatable: names of the unary methods that may be sent twice, because they read or carry an idempotency key.
        When a stream breaks these are sent again; the others fail as UNAVAILABLE, since they may have been served.
    unary: used while the server has no Dispatch.
    capacity: calls waiting or in flight; beyond it a call is refused at once as RESOURCE_EXHAUSTED.
    window: calls in flight.
    """

    def __init__(
        self,
        dispatch: grpc.aio.StreamStreamMultiCallable[BatchT, ResponseT],
        batch: Callable[..., BatchT],
        item: Callable[..., Any],
        *,
        name: str,
        repeatable: frozenset[str] = frozenset(),
        unary: Unary | None = None,
        capacity: int = CAPACITY,
        window: int = WINDOW,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._dispatch = dispatch
        self._batch = batch
        self._item = item
        self._name = name
        self._repeatable = repeatable
        self._unary = unary
        self._capacity = capacity
        self._window = window
        self._patience_s = patience_s
        self._sequence = 0
        self._outstanding: dict[int, _Pending] = {}
        self._deadlines = Deadlines[int](self._expire)
        self._waiting = Lanes[_Pending]()
        self._stream: _Stream | None = None
        self._keeper: asyncio.Task[None] | None = None
        # The stream's, and those of servers that are leaving and still end what they began.
        self._lives: set[asyncio.Task[None]] = set()
        self._closed = False
        self._patience: asyncio.TimerHandle | None = None
        self._given_up = False
        self._unary_until_s = 0.0
        self._unary_calls = 0
        self._batch_items = rpc_metrics.BATCH_ITEMS.labels(name)
        self._sent_bytes = rpc_metrics.BYTES.labels(name, "sent")
        self._received_bytes = rpc_metrics.BYTES.labels(name, "received")
        self._streams_lost = rpc_metrics.STREAMS_LOST.labels(name)

    @property
    def connected(self) -> bool:
        """Whether a stream to the server is open right now."""
        return self._stream is not None and self._stream.opened_s is not None and not self._stream.closed

    async def call(
        self,
        method: str,
        request: Message,
        response_type: type[M],
        *,
        timeout_s: float,
        repeatable: bool | None = None,
        lane: str = "",
    ) -> M:
        """Calls the unary `method` of the service and returns its answer.

        timeout_s: how long the caller waits at most; less when the current call has less left.
        repeatable: overrides what the constructor was told about this method.
        lane: calls of different lanes are sent in turn, so that one busy lane does not delay the others.

        Raises ServiceError: what the handler raised; DEADLINE_EXCEEDED; UNAVAILABLE when the stream broke or there
        is no server; RESOURCE_EXHAUSTED when `capacity` is reached. A cancelled caller cancels the handler.
        """
        timeout_s = call_context.outgoing_timeout_s(timeout_s)
        deadline_s = time.monotonic() + timeout_s
        reply: Reply | None = None
        if self._unary_until_s <= time.monotonic():
            may_repeat = method in self._repeatable if repeatable is None else repeatable
            crash_points.reached("call", self._name, method, "before")
            pending = self._admit(method, request, may_repeat, lane)
            self._enqueue(pending, deadline_s)
            try:
                reply = await pending.future
            except asyncio.CancelledError:
                self._withdraw(pending)
                raise
            crash_points.reached("call", self._name, method, "after")
        if reply is None:
            return await self._call_unary(method, request, response_type, deadline_s - time.monotonic())
        if reply.code:
            raise rpc_status.from_details(reply.code, reply.details)
        try:
            return response_type.FromString(reply.response)
        except DecodeError as error:
            raise internal_error() from error

    async def close(self) -> None:
        """Ends the stream; calls still waiting fail as UNAVAILABLE."""
        self._closed = True
        self._fail_all(rpc_status.plain_error(Kind.UNAVAILABLE))
        self._deadlines.close()
        if self._keeper is not None:
            self._be_patient()
            tasks = (self._keeper, *self._lives)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # Callers.

    def _admit(self, method: str, request: Message, repeatable: bool, lane: str) -> _Pending:
        payload = request.SerializeToString()
        if len(payload) > ITEM_LIMIT_BYTES:
            raise ServiceError(Kind.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", "the request is too large")
        if self._closed or self._given_up:
            raise rpc_status.plain_error(Kind.UNAVAILABLE)
        if len(self._outstanding) >= self._capacity:
            raise rpc_status.plain_error(Kind.RESOURCE_EXHAUSTED)
        sequence = self._sequence = self._sequence + 1
        context = call_context.current()
        item = self._item(
            sequence=sequence,
            method=method,
            request=payload,
            request_id=context.request_id,
            traceparent=context.traceparent,
            fence=context.fence,
        )
        return _Pending(sequence, lane, item, len(payload), repeatable)

    def _enqueue(self, pending: _Pending, deadline_s: float) -> None:
        if self._keeper is None or self._keeper.done():
            # Without the context of whoever happens to call first: its deadline is not the stream's.
            self._keeper = asyncio.create_task(self._keep(), context=contextvars.Context())
        pending.deadline_s = deadline_s
        self._deadlines.set(pending.sequence, deadline_s)
        self._outstanding[pending.sequence] = pending
        self._waiting.push(pending)
        if self._stream is not None:
            self._stream.wake.set()

    async def _call_unary(self, method: str, request: Message, response_type: type[M], timeout_s: float) -> M:
        if self._unary is None:
            raise rpc_status.plain_error(Kind.UNIMPLEMENTED)
        if self._unary_calls >= self._capacity:
            raise rpc_status.plain_error(Kind.RESOURCE_EXHAUSTED)
        self._unary_calls += 1
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._unary(method, request)
        except TimeoutError:
            raise rpc_status.plain_error(Kind.DEADLINE_EXCEEDED) from None
        finally:
            self._unary_calls -= 1
        if not isinstance(answer, response_type):
            raise internal_error()
        return answer

    def _forget(self, pending: _Pending) -> None:
        self._outstanding.pop(pending.sequence, None)
        self._deadlines.drop(pending.sequence)
        if pending.stream is None:
            self._waiting.remove(pending)
        else:
            pending.stream.sent.pop(pending.sequence, None)

    def _withdraw(self, pending: _Pending) -> None:
        stream = pending.stream
        if pending.sequence in self._outstanding and stream is not None:
            stream.cancels.append(pending.sequence)
            stream.wake.set()
        self._forget(pending)

    def _expire(self, sequence: int) -> None:
        pending = self._outstanding[sequence]
        never_sent = pending.sends == 0 and not self.connected
        self._fail(
            pending, rpc_status.plain_error(Kind.UNAVAILABLE if never_sent else Kind.DEADLINE_EXCEEDED)
        )

    def _fail(self, pending: _Pending, error: ServiceError) -> None:
        self._forget(pending)
        if not pending.future.done():
            pending.future.set_exception(error)

    def _fail_all(self, error: ServiceError) -> None:
        for pending in list(self._outstanding.values()):
            self._fail(pending, error)

    # The stream.

    async def _keep(self) -> None:
        """Keeps a stream open, for as long as this coalescer lives."""
        backoff_s = _BACKOFF_FIRST_S
        while True:
            stream = self._stream = _Stream()
            if self._patience is None:
                self._patience = asyncio.get_running_loop().call_later(self._patience_s, self._give_up)
            life = asyncio.create_task(self._live(stream))
            self._lives.add(life)
            life.add_done_callback(self._lives.discard)
            end = await stream.over
            lived = stream.opened_s is not None and time.monotonic() - stream.opened_s > _BACKOFF_LIMIT_S
            if stream.answered or lived:
                backoff_s = _BACKOFF_FIRST_S
            if end is not None and end.kind is Kind.UNIMPLEMENTED and self._unary is not None:
                await asyncio.sleep(_FALLBACK_S)
            elif end is not None or not (stream.answered or lived):
                await asyncio.sleep(backoff_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
                backoff_s = min(backoff_s * 2, _BACKOFF_LIMIT_S)

    async def _live(self, stream: _Stream) -> None:
        end: ServiceError | None = None
        try:
            end = await self._served(stream)
        finally:
            stream.end(end)
        self._after(stream, end)

    async def _served(self, stream: _Stream) -> ServiceError | None:
        """Runs one stream to its end; None when the server ended it in order."""
        call = self._dispatch(self._writes(stream), wait_for_ready=True)
        try:
            # Sent by the handler itself: a connection alone may belong to a server that is just stopping.
            await call.initial_metadata()
            if not call.done():
                stream.open()
                self._be_patient()
            async for response in call:
                self._received_bytes.inc(response.ByteSize())
                self._settle(stream, response)
            return None
        except grpc.aio.AioRpcError as error:
            return rpc_status.from_rpc_error(error)
        except ServiceError as error:
            return error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return rpc_status.plain_error(Kind.UNAVAILABLE)
        except Exception:
            log.exception("dispatch.stream_failed", extra={"peer": self._name})
            return internal_error()
        finally:
            call.cancel()

    def _give_up(self) -> None:
        self._given_up = True
        for pending in list(self._outstanding.values()):
            # A server that is leaving still answers what it began.
            if pending.stream in (None, self._stream):
                self._fail(pending, rpc_status.plain_error(Kind.UNAVAILABLE))

    def _be_patient(self) -> None:
        self._given_up = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    async def _writes(self, stream: _Stream) -> AsyncIterator[BatchT]:
        while not stream.closed:
            items = self._take(stream) if stream.opened_s is not None else []
            if items:
                batch = self._batch(items=items)
                self._batch_items.observe(len(items))
                self._sent_bytes.inc(batch.ByteSize())
                yield batch
            else:
                stream.wake.clear()
                await stream.wake.wait()

    def _take(self, stream: _Stream) -> list[Any]:
        items = [
            self._item(sequence=sequence, cancel=True) for sequence in stream.cancels[:_WRITE_LIMIT_ITEMS]
        ]
        del stream.cancels[:_WRITE_LIMIT_ITEMS]
        size_bytes = 0
        now_s = time.monotonic()
        while (
            self._waiting
            and len(items) < _WRITE_LIMIT_ITEMS
            and size_bytes < _WRITE_LIMIT_BYTES
            and len(stream.sent) < self._window
        ):
            pending = self._waiting.pop()
            pending.stream = stream
            pending.sends += 1
            pending.item.timeout_ms = max(1, int((pending.deadline_s - now_s) * 1000))
            stream.sent[pending.sequence] = pending
            items.append(pending.item)
            size_bytes += pending.size_bytes
        return items

    def _settle(self, stream: _Stream, response: ResponseT) -> None:
        for reply in response.replies:
            pending = stream.sent.get(reply.sequence)
            # Unknown sequences are answers to callers that have gone.
            if pending is not None:
                self._forget(pending)
                if not pending.future.done():
                    pending.future.set_result(reply)
        if not response.replies:
            # The server leaves: it ends what it began. What comes next need not wait for that, it goes to another.
            stream.end(None)
            return
        stream.answered = True
        if self._waiting:
            stream.wake.set()

    def _after(self, stream: _Stream, end: ServiceError | None) -> None:
        """Decides about every call that the ended `stream` left unanswered."""
        unanswered = list(stream.sent.values())
        stream.sent.clear()
        if end is not None:
            self._streams_lost.inc()
            log.info("dispatch.stream_lost", extra={"peer": self._name, "kind": end.kind.value})
        for pending in reversed(unanswered):
            # An orderly end means that what is unanswered was never begun.
            if end is None or (pending.repeatable and pending.sends < _SENDS_LIMIT):
                pending.stream = None
                self._waiting.push_front(pending)
            elif end.kind not in _REFUSALS:
                self._fail(pending, rpc_status.plain_error(Kind.UNAVAILABLE))
        if self._stream is not None:
            self._stream.wake.set()
        if end is None or end.kind not in _REFUSALS:
            return
        if end.kind is Kind.UNIMPLEMENTED and self._unary is not None:
            self._fall_back()
        else:
            self._fail_all(end)

    def _fall_back(self) -> None:
        log.warning("dispatch.fallback_to_unary", extra={"peer": self._name})
        self._unary_until_s = time.monotonic() + _FALLBACK_S
        self._be_patient()
        for pending in list(self._outstanding.values()):
            self._forget(pending)
            if not pending.future.done():
                pending.future.set_result(None)
