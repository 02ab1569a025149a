"""Who is calling: credentials out of headers, and a short memory of what billing said of them."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Protocol

from aiohttp import web
from prometheus_client import Counter

from services.chassis.clock import Clock
from services.chassis.errors import Kind, ServiceError
from services.gateway import errors

# A revoked key must be refused within 5 s everywhere, so nothing is remembered longer than that.
_LIFETIME_S: Final = 4.0
# Keys that came together must not all expire together.
_JITTER_S: Final = 1.0
# A key that was just made, or made valid again, works almost at once; a client that hammers costs one call a second.
_REFUSED_LIFETIME_S: Final = 1.0
# About 5 MB; refusals are kept apart so that a flood of made-up keys cannot push out good ones.
_CAPACITY: Final = 10_000

# A key has about 50 characters, an access token some 300.
_KEY: Final = re.compile(r"[\x21-\x7e]{1,1024}")

_LOOKUPS = Counter(
    "atelier_gateway_auth_lookups_total", "Keys looked at, by where the answer came from.", ["source"]
)
_CACHED, _SHARED, _ASKED = (_LOOKUPS.labels(source) for source in ("cache", "shared", "billing"))


@dataclass(frozen=True, slots=True)
class Caller:
    """A customer as an API key shows it. `test`: the key of the test wallet. 0 requests a minute: no limit.

    models, networks: what the key may be used for and from; empty: all. user_id: 0 where the customer has no user.
    spend_limited: the key has a spend limit of its own.
    """

    customer_id: str
    storefront: str
    test: bool
    key_id: str
    requests_per_minute: int
    running_jobs: int
    queued_jobs: int
    models: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    user_id: int = 0
    spend_limited: bool = False

    def may_come_from(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether the key may be used from there."""
        return not self.networks or any(address in network for network in self.networks)

    def may_use(self, public_model: str) -> bool:
        """Whether the key may ask for this model of its storefront."""
        return not self.models or public_model in self.models


class Identify(Protocol):
    """Asks billing who owns a key; raises ServiceError."""

    def __call__(self, api_key: str, /) -> Awaitable[Caller]: ...


def bearer_of(request: web.BaseRequest) -> str:
    """The token of the one Authorization header. Raises API_KEY_MISSING or INVALID_API_KEY."""
    values = request.headers.getall("Authorization", ())
    if not values:
        raise errors.api_key_missing()
    scheme, _, token = values[0].partition(" ")
    token = token.strip()
    if len(values) != 1 or scheme.lower() != "bearer" or not _KEY.fullmatch(token):
        raise errors.invalid_api_key()
    return token


def bearer_or(request: web.BaseRequest, header: str) -> str:
    """The token of the Authorization header; where there is none, the key in `header`. Raises as `bearer_of`."""
    values = request.headers.getall(header, ())
    if "Authorization" in request.headers or not values:
        return bearer_of(request)
    if len(values) != 1 or not _KEY.fullmatch(values[0]):
        raise errors.invalid_api_key()
    return values[0]


class _Memory:
    """A bounded map whose entries expire; the least recently used goes first."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, tuple[float, Caller | ServiceError]] = OrderedDict()

    def get(self, digest: bytes, now_s: float) -> Caller | ServiceError | None:
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if entry[0] <= now_s:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return entry[1]

    def put(self, digest: bytes, expires_s: float, value: Caller | ServiceError) -> None:
        self._entries[digest] = (expires_s, value)
        self._entries.move_to_end(digest)
        if len(self._entries) > _CAPACITY:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


class Authenticator:
    """Answers who owns a key, at most 5 s late. Simultaneous askers of one key share one question."""

    def __init__(self, identify: Identify, clock: Clock, jitter: Callable[[], float] = random.random) -> None:
        self._identify = identify
        self._clock = clock
        self._jitter = jitter
        self._known = _Memory()
        self._refused = _Memory()
        self._asking: dict[bytes, asyncio.Task[Caller]] = {}

    @property
    def remembered(self) -> int:
        """How many answers are kept right now."""
        return len(self._known) + len(self._refused)

    async def authenticate(self, api_key: str) -> Caller:
        """The owner of `api_key`. Raises INVALID_API_KEY or CUSTOMER_INACTIVE, or UNAVAILABLE when billing is."""
        # The key itself is never kept: a memory dump shows digests.
        digest = hashlib.sha256(api_key.encode()).digest()
        now_s = self._clock.monotonic_s()
        found = self._known.get(digest, now_s) or self._refused.get(digest, now_s)
        if found is not None:
            _CACHED.inc()
            if isinstance(found, ServiceError):
                raise found.with_traceback(None)
            return found
        task = self._asking.get(digest)
        if task is None:
            _ASKED.inc()
            task = self._asking[digest] = asyncio.create_task(self._ask(digest, api_key))
            task.add_done_callback(lambda done: self._asked(digest, done))
        else:
            _SHARED.inc()
        # Shielded: the one who asked first may go away, the others still wait.
        return await asyncio.shield(task)

    async def _ask(self, digest: bytes, api_key: str) -> Caller:
        try:
            caller = await self._identify(api_key)
        except ServiceError as refusal:
            if refusal.kind in {Kind.UNAUTHENTICATED, Kind.PERMISSION_DENIED, Kind.FAILED_PRECONDITION}:
                self._refused.put(digest, self._until(_REFUSED_LIFETIME_S), refusal)
            raise
        self._known.put(digest, self._until(_LIFETIME_S), caller)
        return caller

    def _asked(self, digest: bytes, done: asyncio.Task[Caller]) -> None:
        self._asking.pop(digest, None)
        if not done.cancelled():
            # Looked at here, so that a question whose askers all left is not reported as a lost exception.
            done.exception()

    def _until(self, lifetime_s: float) -> float:
        return self._clock.monotonic_s() + lifetime_s + self._jitter() * _JITTER_S
