"""Names to addresses: asked once, for the absolute name, within a limit, and never in a thread of ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import aiodns
import pycares

from services.chassis.egress_failures import EgressFailed

# Takes an absolute host name, with its final dot; gives the texts of its addresses. Raises EgressFailed.
Resolve = Callable[[str], Awaitable[Sequence[str]]]

RESOLVE_LIMIT_S: Final = 2.0
# One lost datagram costs 0.7 s and is asked again once; c-ares doubles its patience the second time.
_PATIENCE_S: Final = 0.7
_TRIES: Final = 2
# Search domains and aliases from the environment would let a name mean another one. /etc/hosts still counts.
_FLAGS: Final = pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_NOALIASES

_UNKNOWN: Final = frozenset(
    {
        aiodns.error.ARES_EBADNAME,
        aiodns.error.ARES_ENODATA,
        aiodns.error.ARES_ENONAME,
        aiodns.error.ARES_ENOTFOUND,
    }
)


class SystemResolver:
    """A `Resolve` that asks the system's name servers, and its hosts file, through c-ares."""

    def __init__(self) -> None:
        self._channel: aiodns.DNSResolver | None = None

    async def __call__(self, name: str) -> Sequence[str]:
        """The texts of the IPv4 and IPv6 addresses of `name`. Raises EgressFailed."""
        try:
            async with asyncio.timeout(RESOLVE_LIMIT_S):
                # Without its dot, because c-ares does not look for a name with one in the hosts file; the flags
                # keep it absolute.
                found = await self._open().getaddrinfo(
                    name.removesuffix("."), family=socket.AF_UNSPEC, type=socket.SOCK_STREAM
                )
        except TimeoutError:
            failure = EgressFailed("resolve_timeout")
        except aiodns.error.DNSError as error:
            failure = _failure_of(error)
        else:
            return [node.addr[0].decode("ascii", "replace") for node in found.nodes]
        raise failure

    async def close(self) -> None:
        """Lets go of the name servers. Unanswered questions fail. Repeats are harmless."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _open(self) -> aiodns.DNSResolver:
        # Made when first asked, because it belongs to the loop that asks.
        loop = asyncio.get_running_loop()
        if self._channel is None or self._channel.loop is not loop:
            self._channel = aiodns.DNSResolver(loop=loop, timeout=_PATIENCE_S, tries=_TRIES, flags=_FLAGS)
        return self._channel


def system_resolver() -> SystemResolver:
    """The default `Resolve`."""
    return SystemResolver()


async def addresses_of(resolve: Resolve, host: str) -> list[IPv4Address | IPv6Address]:
    """Every address of `host`, asked for once, as the absolute name. Raises EgressFailed."""
    texts: Sequence[str] = ()
    failure = EgressFailed("not_found")
    try:
        async with asyncio.timeout(RESOLVE_LIMIT_S):
            texts = await resolve(f"{host}.")
    except TimeoutError:
        failure = EgressFailed("resolve_timeout")
    if not texts:
        raise failure
    return [_address(text) for text in texts]


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        failure = EgressFailed("resolve")
    raise failure


def _failure_of(error: aiodns.error.DNSError) -> EgressFailed:
    code = error.args[0] if error.args else None
    if code in _UNKNOWN:
        return EgressFailed("not_found")
    return EgressFailed("resolve_timeout" if code == aiodns.error.ARES_ETIMEOUT else "resolve")
