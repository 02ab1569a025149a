"""Addresses of IPv4 that are written in IPv6 (::ffff:0:0/96, RFC 4291 section 2.5.5.2): what they reach, and are compared as."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that `address` maps; else `address`."""
    return address if isinstance(address, IPv4Address) else address.ipv4_mapped or address


def unmapped_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """The range of IPv4 that `network` maps, where all of it does; else `network`."""
    if isinstance(network, IPv4Network) or not network.subnet_of(_MAPPED):
        return network
    return IPv4Network((unmapped(network.network_address), network.prefixlen - _MAPPED.prefixlen))
