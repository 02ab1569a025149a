"""Calls to addresses that an operator chose: over connections that are kept, and known to have left or not to have left.

Nothing here judges an address. What customers and strangers name goes through `egress.Egress`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from services.chassis.egress_answer import Answer, whole_answer
from services.chassis.egress_connector import check_headers, once, tls_context
from services.chassis.egress_failures import EgressFailed, failure_of
from services.chassis.egress_policy import EgressRefused

_AT_ONE_HOST: Final = 256
"""Connections of either kind; a service that is called more often than that at a time has other troubles."""

_CONNECT_LIMIT_S: Final = 10.0
"""From the first packet to the end of the TLS handshake, across an ocean and once more after a lost packet."""

_IDLE_LIMIT_S: Final = 15.0
"""Shorter than any load balancer keeps an idle connection, so that we are the one who closes it."""

_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "atelier"}


class CallFailed(Exception):
    """No whole answer came. `rule` is as in EgressFailed; `left`: whether a byte of the request may have left.

    Nothing of the request or the answer is in it.
    """

    def __init__(self, failure: EgressRefused | EgressFailed, *, left: bool) -> None:
        super().__init__(str(failure))
        self.rule = failure.rule
        self.left = left


@dataclass(slots=True)
class _Progress:
    left: bool = False
    is_kept: bool = False


class Streaming:
    """An answer whose body is on its way."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): text for name, text in response.headers.items()}
        self._content = response.content

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, once. Raises CallFailed."""
        while chunk := await self._next():
            yield chunk

    async def _next(self) -> bytes:
        try:
            return await self._content.readany()
        except Exception as error:  # aiohttp's carry the request, and must not leave
            failure = CallFailed(failure_of(error), left=True)
        raise failure


class DirectCalls:
    """Calls without redirects, cookies, proxies, or second tries. One a process; enter it first."""

    def __init__(self, *, ca_file: Path | None = None) -> None:
        self._ca_file = ca_file
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises SettingsError when the CA file is not usable."""
        tls = await asyncio.to_thread(tls_context, self._ca_file)
        for alone in (False, True):
            self._sessions[alone] = await self._stack.enter_async_context(_session(tls, alone=alone))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        data: Any = None,
        total_s: float,
        limit_bytes: int,
        alone: bool = False,
    ) -> Answer:
        """One request with any body that aiohttp takes, and its whole answer.

        `alone`: over a connection of its own. One that was kept may have been closed by the far side a moment ago, which
        looks like a request that was read and not answered; where that difference costs money it must not come up.
        Nothing is repeated but a GET that met such a connection, and that once (RFC 9110, 9.2.2).
        Raises CallFailed, and ValueError for a header that is no plain line.
        """
        ends_s = time.monotonic() + total_s
        progress = _Progress()
        try:
            return await self._call(method, url, headers, data, total_s, limit_bytes, alone, progress)
        except CallFailed as failed:
            if not (failed.rule == "closed" and progress.is_kept and method == "GET"):
                raise
        left_s = ends_s - time.monotonic()
        return await self._call(method, url, headers, data, left_s, limit_bytes, True, _Progress())

    async def _call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: Any,
        total_s: float,
        limit_bytes: int,
        alone: bool,
        progress: _Progress,
    ) -> Answer:
        async with self._asked(method, url, headers, data, total_s, alone, progress) as response:
            try:
                return await whole_answer(response, limit_bytes)
            except EgressFailed as error:
                failure = CallFailed(error, left=True)
            raise failure

    @asynccontextmanager
    async def stream(
        self, url: str, *, headers: Mapping[str, str], total_s: float, alone: bool = True
    ) -> AsyncIterator[Streaming]:
        """GETs `url`; `total_s` is over everything until the context is left.

        Without `alone`, over a connection that is kept, which may have been closed by the far side a moment ago.
        Raises CallFailed, also from `chunks`.
        """
        async with self._asked("GET", url, headers, None, total_s, alone, _Progress()) as response:
            yield Streaming(response)

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: Any,
        total_s: float,
        alone: bool,
        progress: _Progress,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        check_headers(headers)
        deadline = asyncio.timeout(total_s)
        try:
            async with deadline, AsyncExitStack() as open_now:
                asking = self._sessions[alone].request(
                    method,
                    URL(url, encoded=True),
                    headers=dict(headers),
                    data=data,
                    allow_redirects=False,
                    trace_request_ctx=progress,
                )
                yield await _answered(open_now, asking, progress)
        except TimeoutError:
            if not deadline.expired():
                raise
        else:
            return
        raise CallFailed(EgressFailed("timeout" if progress.left else "connect"), left=progress.left)


async def _answered(
    open_now: AsyncExitStack,
    asking: AbstractAsyncContextManager[aiohttp.ClientResponse],
    progress: _Progress,
) -> aiohttp.ClientResponse:
    try:
        return await open_now.enter_async_context(asking)
    except Exception as error:  # whatever it is, it carries the request, and must not leave
        failure = CallFailed(failure_of(error), left=progress.left)
    raise failure


def _session(tls: ssl.SSLContext, *, alone: bool) -> aiohttp.ClientSession:
    if alone:
        connector = aiohttp.TCPConnector(ssl=tls, limit=0, limit_per_host=_AT_ONE_HOST, force_close=True)
    else:
        connector = aiohttp.TCPConnector(
            ssl=tls, limit=0, limit_per_host=_AT_ONE_HOST, keepalive_timeout=_IDLE_LIMIT_S
        )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_LIMIT_S),
        trust_env=False,
        auto_decompress=False,
        middlewares=(once,),
        trace_configs=[_tracing()],
    )


def _tracing() -> aiohttp.TraceConfig:
    """Marks the moment from which bytes may leave: there is a connection, new or kept."""

    async def connected(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
        context.trace_request_ctx.left = True

    async def taken_again(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
        context.trace_request_ctx.left = context.trace_request_ctx.is_kept = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(connected)
    tracing.on_connection_reuseconn.append(taken_again)
    return tracing
