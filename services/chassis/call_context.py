"""Who asked, by when, and under which trace: the facts that travel with one call through every process."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from services.chassis.errors import Kind, ServiceError
from services.chassis.ids import new_id

# Each hop keeps this much of the deadline for itself, so that its own answer still reaches the caller in time.
SHAVE_S: Final = 0.050

# Both come from strangers and end up in logs and in metadata, so only plain, short values are kept.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class CallContext(Struct, frozen=True, gc=False):
    """The facts of one call.

    request_id: names the call in every log line; empty outside of any call.
    deadline_s: the `time.monotonic()` instant after which nobody waits for the answer; None = no deadline.
    traceparent: the W3C trace context as received, or empty.
    fence: the epoch under which the caller owns what the call is about; 0 = none. For the record: an effect key
    never holds it, or a repeat by the next owner would be another effect.
    """

    request_id: str
    deadline_s: float | None
    traceparent: str
    fence: int = 0


_OUTSIDE: Final = CallContext(request_id="", deadline_s=None, traceparent="")
_CURRENT: Final[ContextVar[CallContext]] = ContextVar("call_context", default=_OUTSIDE)
_DRAINING: Final[ContextVar[asyncio.Event | None]] = ContextVar("draining", default=None)


def current() -> CallContext:
    """The context of the call being served; outside of any call one with an empty request id and no deadline."""
    return _CURRENT.get()


class _Entered:
    __slots__ = ("_context", "_token")

    def __init__(self, context: CallContext) -> None:
        self._context = context
        self._token: Token[CallContext] | None = None

    def __enter__(self) -> CallContext:
        self._token = _CURRENT.set(self._context)
        return self._context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _CURRENT.reset(self._token)


def entered(context: CallContext) -> AbstractContextManager[CallContext]:
    """Makes `current()` answer `context` inside of the `with`."""
    return _Entered(context)


def received(request_id: str, traceparent: str, timeout_s: float | None, fence: int = 0) -> CallContext:
    """The context of a call that just arrived.

    A missing or odd request id is replaced by a new one, an odd traceparent is dropped.
    """
    return CallContext(
        request_id=request_id if _REQUEST_ID.fullmatch(request_id) else new_id("req"),
        deadline_s=None if timeout_s is None else time.monotonic() + timeout_s,
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
        fence=fence,
    )


def fenced(fence: int, otherwise: str = "") -> AbstractContextManager[CallContext]:
    """Calls made inside of the `with` say under which epoch their maker owns what they are about.

    otherwise: what names them in every log where no request does.
    """
    context = _CURRENT.get()
    return _Entered(replace(context, fence=fence, request_id=context.request_id or otherwise))


def remaining_s(default: float) -> float:
    """Seconds until the deadline of the current call, never below zero; `default` when it has none."""
    deadline_s = _CURRENT.get().deadline_s
    return default if deadline_s is None else max(0.0, deadline_s - time.monotonic())


def outgoing_timeout_s(timeout_s: float) -> float:
    """The time-out of a call made on behalf of the current one: its own, or what is left less `SHAVE_S`.

    Raises ServiceError DEADLINE_EXCEEDED when nothing is left: such a call is not worth starting.
    """
    deadline_s = _CURRENT.get().deadline_s
    if deadline_s is None:
        return timeout_s
    left_s = deadline_s - time.monotonic() - SHAVE_S
    if left_s <= 0:
        raise ServiceError(Kind.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the request took too long")
    return min(timeout_s, left_s)


def drain_signal() -> asyncio.Event | None:
    """Set when the server of the current call wants its long-lived streams to end; None outside of a server."""
    return _DRAINING.get()


def enter_call(context: CallContext, draining: asyncio.Event | None) -> None:
    """Make `context` current for the rest of this task: for servers, whose tasks live for one call."""
    _CURRENT.set(context)
    _DRAINING.set(draining)
