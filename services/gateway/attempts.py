"""How often something may be tried under one name: a login for an address, say. Counted in this process, memory bounded."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict, deque
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

from msgspec import Struct

from services.chassis.clock import Clock
from services.gateway.rate_limits import Window

# About 30 MB where every name was tried ten times. Who could fill it has that many networks, and needs no guessing.
_NAMES: Final = 50_000
# What one customer of a provider commands.
_IPV6_NETWORK_BITS: Final = 64


class Allowance(Struct, frozen=True):
    """So many attempts in any span of seconds, counted apart from others by its name."""

    name: str
    attempts: int
    span_s: int


class Attempts:
    """Counts attempts in moving windows. What is counted under is kept as a digest: no address lies in memory."""

    def __init__(self, clock: Clock, names: int = _NAMES) -> None:
        self._clock = clock
        self._limit = names
        self._taken: OrderedDict[bytes, deque[float]] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many names are kept right now."""
        return len(self._taken)

    def take(self, allowance: Allowance, subject: str) -> Window:
        """Counts one attempt, where it is allowed."""
        now_s = self._clock.monotonic_s()
        taken = self._window(allowance, subject)
        while taken and taken[0] <= now_s - allowance.span_s:
            taken.popleft()
        allowed = len(taken) < allowance.attempts
        if allowed:
            taken.append(now_s)
        reset_s = max(1, math.ceil(taken[0] + allowance.span_s - now_s)) if taken else 1
        return Window(allowed, allowance.attempts, allowance.attempts - len(taken), reset_s)

    def give_back(self, allowance: Allowance, subject: str) -> None:
        """The last attempt turned out to be no guess: it does not count."""
        taken = self._window(allowance, subject)
        if taken:
            taken.pop()

    def _window(self, allowance: Allowance, subject: str) -> deque[float]:
        key = hashlib.blake2b(f"{allowance.name}\n{subject}".encode(), digest_size=16).digest()
        taken = self._taken.get(key)
        if taken is None:
            taken = self._taken[key] = deque()
            if len(self._taken) > self._limit:
                self._taken.popitem(last=False)
        self._taken.move_to_end(key)
        return taken


def network_of(address: IPv4Address | IPv6Address) -> str:
    """What counts as one client: an IPv4 address, or the network of an IPv6 address."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((address, _IPV6_NETWORK_BITS), strict=False))
