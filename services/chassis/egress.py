"""The one door to addresses that customers name: every check, every bound, every redirect."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from prometheus_client import Counter, Histogram

from services.chassis.egress_answer import Answer, whole_answer
from services.chassis.egress_connector import Pinned, answer_to, answer_to_get, tls_context
from services.chassis.egress_failures import EgressFailed, failure_of
from services.chassis.egress_places import Places, at_address
from services.chassis.egress_policy import EgressPolicy, EgressRefused
from services.chassis.egress_resolver import Resolve, SystemResolver, addresses_of, system_resolver
from services.chassis.egress_url import Target, parse

__all__ = [
    "Answer",
    "Arriving",
    "Egress",
    "EgressFailed",
    "EgressRefused",
    "Posted",
    "Resolve",
    "system_resolver",
]

log = logging.getLogger(__name__)

_REDIRECTS_LIMIT: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# As many as a client tries in a connect limit of seconds; all of a name's addresses are judged nevertheless.
_ADDRESSES_LIMIT: Final = 8
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# Whoever answers a POST is read so far, out of courtesy to servers that mind an early goodbye. Nobody looks at it.
_COURTESY_BYTES: Final = 64 * 1024

_REFUSALS = Counter(
    "atelier_egress_refusals_total", "Addresses of customers that were refused, by rule.", ["rule"]
)
_FETCHES = Counter("atelier_egress_fetches_total", "Fetches, by how they ended.", ["outcome"])
_BYTES = Counter("atelier_egress_bytes_total", "Bytes of bodies received.")
# A small image from nearby, to the total of a video.
_SECONDS = Histogram(
    "atelier_egress_fetch_seconds",
    "Time from asking for a URL to its last byte, or to its failure.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0),
)


@dataclass(slots=True)
class _Trail:
    """What may be told of a fetch: its host, never its path, and how it ended."""

    host: str = ""
    # It waits, and not because its own host is slow.
    is_behind_others: bool = False
    outcome: str = "abandoned"


class Arriving:
    """An answer of status 200 whose body is on its way.

    `content_length` is what the far side promises, None when it does not say.
    """

    def __init__(self, host: str, response: aiohttp.ClientResponse, limit_bytes: int, trail: _Trail) -> None:
        self.host = host
        self.content_length = response.content_length
        self._content = response.content
        self._limit_bytes = limit_bytes
        self._trail = trail

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece as it comes, once. Raises EgressFailed: too large, cut short, badly framed."""
        received_bytes = 0
        while chunk := await self._next():
            received_bytes += len(chunk)
            if received_bytes > self._limit_bytes:
                raise EgressFailed("too_large")
            _BYTES.inc(len(chunk))
            yield chunk
        self._trail.outcome = "complete"

    async def _next(self) -> bytes:
        try:
            return await self._content.readany()
        except Exception as error:  # aiohttp's carry the request, and must not leave
            failure = failure_of(error)
        raise failure


@dataclass(frozen=True, slots=True)
class Posted:
    """How a POST was answered. `retry_after` is that header as it came, empty without one."""

    status: int
    retry_after: str


class Egress:
    """Fetches what customers name, through every check of this package. One a process; enter it first."""

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        ca_file: Path | None = None,
        resolve: Resolve | None = None,
        connections: Places | None = None,
    ) -> None:
        """`connections`: how many fetches there are at a time, and to whom; without it, as many as are polite to strangers."""
        self._policy = policy
        self._ca_file = ca_file
        self._own_resolver: SystemResolver | None = None if resolve else system_resolver()
        self._resolve: Resolve = resolve or self._own_resolver or system_resolver()
        self._tls: ssl.SSLContext | None = None
        self._lookups = Places()
        self._connections = connections or Places()

    async def __aenter__(self) -> Self:
        """Raises SettingsError when the CA file is not usable."""
        self._tls = await asyncio.to_thread(tls_context, self._ca_file)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own_resolver is not None:
            await self._own_resolver.close()

    def fetch(self, url: str, *, total_s: float, limit_bytes: int) -> AbstractAsyncContextManager[Arriving]:
        """GETs `url` and follows at most 3 redirects, each checked in full.

        `total_s` is over everything: waiting for a place, names, connections, and the body until the context
        is left. `limit_bytes` is over the body. Raises EgressRefused and EgressFailed, on entering, from
        `chunks`, and, when the time is over, wherever the caller waits inside.
        """
        return self._fetch(url, total_s, limit_bytes)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, total_s: float) -> Posted:
        """POSTs `body` once. A redirect is an answer like any other: it is not followed.

        `total_s` is over everything. Of the answer's body at most 64 KiB are read, and thrown away; once the status
        is there it counts, however the body goes on. How many posts there are at a time, and to whom, is the
        caller's business: `fetch`'s places are not taken. Raises EgressRefused and EgressFailed, and ValueError
        for a header that is no plain line.
        """
        trail = _Trail()
        with _told(trail):
            answered: Posted | None = None
            try:
                async with asyncio.timeout(total_s):
                    target = parse(url, self._policy)
                    trail.host = target.host
                    pinned = await self._pinned_alone(target)
                    async with answer_to("POST", pinned, self._trust(), body, headers) as response:
                        retry_after = response.headers.get("Retry-After", "")[:100]
                        answered = Posted(response.status, retry_after)
                        await _drain(response)
            except TimeoutError:
                pass
            if answered is None:
                raise EgressFailed("timeout")
            return answered

    async def send(
        self,
        method: str,
        url: str,
        data: Any,
        headers: Mapping[str, str],
        *,
        total_s: float,
        limit_bytes: int,
    ) -> Answer:
        """One request with any body that aiohttp takes, and its whole answer; in all else like `post`."""
        trail = _Trail()
        with _told(trail):
            try:
                async with asyncio.timeout(total_s):
                    target = parse(url, self._policy)
                    trail.host = target.host
                    pinned = await self._pinned_alone(target)
                    async with answer_to(method, pinned, self._trust(), data, headers) as response:
                        return await whole_answer(response, limit_bytes)
            except TimeoutError:
                pass
            raise EgressFailed("timeout")

    async def check(self, url: str) -> None:
        """Every check that needs no connection. Raises EgressRefused, EgressFailed."""
        trail = _Trail()
        with _told(trail):
            target = parse(url, self._policy)
            trail.host = target.host
            await self._pinned(target, trail)

    @asynccontextmanager
    async def _fetch(self, url: str, total_s: float, limit_bytes: int) -> AsyncIterator[Arriving]:
        trail = _Trail()
        with _counted(trail), _told(trail):
            deadline = asyncio.timeout(total_s)
            try:
                async with deadline, AsyncExitStack() as open_now:
                    response = await self._follow(url, open_now, trail)
                    yield _judged(response, limit_bytes, trail)
            except TimeoutError:
                if not deadline.expired():
                    raise
            else:
                return
            raise EgressFailed("busy" if trail.is_behind_others else "timeout")

    async def _follow(self, url: str, open_now: AsyncExitStack, trail: _Trail) -> aiohttp.ClientResponse:
        """The first answer that is no redirect. It stays open until `open_now` is closed."""
        for _ in range(_REDIRECTS_LIMIT + 1):
            target = parse(url, self._policy)
            trail.host = target.host
            response = await open_now.enter_async_context(self._answer(target, trail))
            if response.status not in _REDIRECTS:
                return response
            url = _joined(target, response.headers.getall("Location", []))
            # Before the next: a request that holds one host's place while it waits for another's could wait
            # for itself.
            await open_now.aclose()
        raise EgressFailed("redirects")

    @asynccontextmanager
    async def _answer(self, target: Target, trail: _Trail) -> AsyncIterator[aiohttp.ClientResponse]:
        pinned = await self._pinned(target, trail)
        places = frozenset({target.host, *map(at_address, pinned.addresses)})
        async with (
            _place(self._connections, places, trail),
            answer_to_get(pinned, self._trust()) as response,
        ):
            yield response

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            raise RuntimeError("an Egress is entered before it fetches")
        return self._tls

    async def _pinned(self, target: Target, trail: _Trail) -> Pinned:
        """Resolves once and judges every answer: one that is refused refuses all."""
        return self._judged_all(target, await self._addresses(target, trail))

    async def _pinned_alone(self, target: Target) -> Pinned:
        """`_pinned`, without waiting behind others for a place."""
        if target.literal is not None:
            return self._judged_all(target, [target.literal])
        return self._judged_all(target, await addresses_of(self._resolve, target.host))

    def _judged_all(self, target: Target, addresses: list[IPv4Address | IPv6Address]) -> Pinned:
        for address in addresses:
            self._policy.check_address(address, target.port, target.scheme)
        return Pinned(target, tuple(addresses[:_ADDRESSES_LIMIT]), self._policy)

    async def _addresses(self, target: Target, trail: _Trail) -> list[IPv4Address | IPv6Address]:
        if target.literal is not None:
            return [target.literal]
        async with _place(self._lookups, frozenset({target.host}), trail):
            return await addresses_of(self._resolve, target.host)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Reads a little of a body that nobody wants; whatever is wrong with it changes nothing."""
    read_bytes = 0
    with suppress(Exception):  # aiohttp has many, and a parser may let more through
        while read_bytes < _COURTESY_BYTES and (chunk := await response.content.readany()):
            read_bytes += len(chunk)


@asynccontextmanager
async def _place(places: Places, keys: frozenset[str], trail: _Trail) -> AsyncIterator[None]:
    trail.is_behind_others = places.has_place_at(trail.host)
    async with places.taken(keys):
        trail.is_behind_others = False
        yield


def _judged(response: aiohttp.ClientResponse, limit_bytes: int, trail: _Trail) -> Arriving:
    """What the head of an answer says before a byte of its body is read."""
    if response.status != 200:
        raise EgressFailed("status", status=response.status)
    encodings = response.headers.getall("Content-Encoding", [])
    transfers = response.headers.getall("Transfer-Encoding", [])
    if _words(encodings) - {"identity"} or _words(transfers) - {"chunked", "identity"}:
        raise EgressFailed("encoding")
    if (response.content_length or 0) > limit_bytes:
        raise EgressFailed("too_large")
    return Arriving(trail.host, response, limit_bytes, trail)


def _words(values: list[str]) -> set[str]:
    return {word.strip().lower() for value in values for word in value.split(",")}


def _joined(target: Target, locations: list[str]) -> str:
    """Where a redirect leads (RFC 3986, 5.2), as a string that is parsed in full. Raises EgressFailed."""
    location = locations[0] if len(locations) == 1 else ""
    # A byte that is no UTF-8 arrives as half a surrogate.
    if not location or any("\ud800" <= character <= "\udfff" for character in location):
        raise EgressFailed("location")
    if _SCHEME.match(location):
        return location
    if location.startswith("//"):
        return f"{target.scheme}:{location}"
    if location.startswith("#"):
        return target.url()
    path, _, _ = target.path_and_query.partition("?")
    if location.startswith("?"):
        return replace(target, path_and_query=path + location).url()
    if not location.startswith("/"):
        location = path[: path.rindex("/") + 1] + location
    return replace(target, path_and_query=_without_dots(location)).url()


def _without_dots(reference: str) -> str:
    """`reference` with `.` and `..` taken out of its path, as a client does before it asks."""
    path, mark, rest = re.match(r"([^?#]*)([?#]?)(.*)", reference, re.DOTALL).groups()  # type: ignore[union-attr]  # matches any text
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept) + mark + rest


@contextmanager
def _told(trail: _Trail) -> Iterator[None]:
    """Counts and logs what was refused or failed, with the host and the rule and no more."""
    try:
        yield
    except EgressRefused as refused:
        trail.outcome = "refused"
        _REFUSALS.labels(refused.rule).inc()
        log.info("egress.refused", extra={"host": trail.host, "rule": refused.rule})
        raise
    except EgressFailed as failed:
        trail.outcome = failed.rule
        log.info("egress.failed", extra={"host": trail.host, "rule": failed.rule})
        raise


@contextmanager
def _counted(trail: _Trail) -> Iterator[None]:
    started_s = time.monotonic()
    try:
        yield
    finally:
        _FETCHES.labels(trail.outcome).inc()
        _SECONDS.observe(time.monotonic() - started_s)
