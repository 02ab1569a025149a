"""Where a request comes from, also behind proxies that the operator trusts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from aiohttp import web

from services.chassis.mapped_addresses import unmapped, unmapped_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What a request over a Unix socket has: nobody's address, in no network that a key could name.
_NOWHERE: Final = IPv4Address("0.0.0.0")  # noqa: S104 - compared with, never listened on

_WITH_PORT: Final = re.compile(r"(?P<four>[0-9.]+):[0-9]{1,5}|\[(?P<six>[0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")


class ClientAddresses:
    """Believes `X-Forwarded-For` as far as trusted proxies wrote it: from its end, up to the first stranger."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)

    def of(self, request: web.Request) -> Address:
        """The address nearest to the client that can be believed."""
        address = parsed(request.remote or "")
        if not self._trusted or not self._is_trusted(address):
            return address
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))
        for text in reversed([each for each in forwarded.split(",") if each.strip()]):
            # Of whom a proxy says nothing that is understood is a stranger, not the proxy.
            address = _written(text.strip())
            if not self._is_trusted(address):
                break
        return address

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def parsed(text: str) -> Address:
    """The address of a peer as the socket names it; 0.0.0.0 for one that has none."""
    try:
        return unmapped(ip_address(text.partition("%")[0]))
    except ValueError:
        return _NOWHERE


def networks(text: str) -> tuple[Network, ...]:
    """A parser for networks separated by commas."""
    return tuple(unmapped_network(ip_network(each.strip())) for each in text.split(",") if each.strip())


def _written(text: str) -> Address:
    """An address as proxies write it, some with a port behind it; 0.0.0.0 for anything else."""
    bare = _WITH_PORT.fullmatch(text)
    return parsed((bare["six"] or bare["four"]) if bare else text)
