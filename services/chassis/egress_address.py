"""Which addresses are globally reachable: a table of our own.

`ipaddress.is_global` changes between versions of Python and passes a third of what must be refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from services.chassis.mapped_addresses import unmapped

# What each rule says of an address, for operators: "<address> <words>.". Every value of `address_rule` is here.
MEANINGS: Final = {
    "as112": "belongs to the sink for reverse lookups of private addresses",
    "benchmarking": "is for benchmarks inside a network",
    "broadcast": "is the broadcast address",
    "carrier_nat": "is shared address space behind a carrier",
    "cloud_metadata": "is a metadata or platform address of a cloud",
    "discard": "is discarded wherever it is routed",
    "documentation": "is for examples in documentation",
    "embedded_ipv4": "carries an IPv4 address inside an IPv6 one",
    "link_local": "is link-local",
    "loopback": "is a loopback address",
    "multicast": "is a multicast address",
    "multicast_tunnel": "is for tunnels of multicast",
    "private": "is private",
    "protocol_assignments": "is reserved for protocols",
    "relay_anycast": "is the retired anycast address of 6to4 relays",
    "reserved": "is not assigned to the public internet",
    "site_local": "is site-local",
    "this_network": "means this host or this network",
    "zone_id": "carries a zone id",
}

# No rule: globally reachable unless a narrower line says otherwise.
_REACHABLE: Final = ""

_IPV4: Final = (
    ("0.0.0.0/0", _REACHABLE),
    ("0.0.0.0/8", "this_network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier_nat"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link_local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol_assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", "as112"),
    ("192.52.193.0/24", "multicast_tunnel"),
    ("192.88.99.0/24", "relay_anycast"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "as112"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("255.255.255.255/32", "broadcast"),
    # Most lie in ranges that are refused anyway; a name of their own tells an operator what was tried.
    ("100.100.100.200/32", "cloud_metadata"),  # Alibaba
    ("168.63.129.16/32", "cloud_metadata"),  # Azure; a public number
    ("169.254.0.23/32", "cloud_metadata"),  # Tencent
    ("169.254.42.42/32", "cloud_metadata"),  # Scaleway
    ("169.254.169.254/32", "cloud_metadata"),  # AWS, Azure, Google, Oracle and others
    ("169.254.170.2/32", "cloud_metadata"),  # AWS, of a container
    ("169.254.170.23/32", "cloud_metadata"),  # AWS, of a pod
    ("192.0.0.192/32", "cloud_metadata"),  # Oracle
)

_IPV6: Final = (
    # Only 2000::/3 is handed out as global unicast; whatever is not named here is refused until it is.
    ("::/0", "reserved"),
    ("2000::/3", _REACHABLE),
    ("::/96", "embedded_ipv4"),  # "compatible", retired
    ("::/128", "this_network"),
    ("::1/128", "loopback"),
    ("::ffff:0:0:0/96", "embedded_ipv4"),  # translated (SIIT)
    ("64:ff9b::/96", "embedded_ipv4"),  # NAT64
    ("64:ff9b:1::/48", "embedded_ipv4"),  # NAT64 inside a network
    ("100::/64", "discard"),
    ("2001::/23", "protocol_assignments"),
    ("2001::/32", "embedded_ipv4"),  # Teredo
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "embedded_ipv4"),  # 6to4
    ("2620:4f:8000::/48", "as112"),
    ("3fff::/20", "documentation"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link_local"),
    ("fec0::/10", "site_local"),
    ("ff00::/8", "multicast"),
    ("fd00:42::42/128", "cloud_metadata"),  # Scaleway
    ("fd00:c1::a9fe:a9fe/128", "cloud_metadata"),  # Oracle
    ("fd00:ec2::23/128", "cloud_metadata"),  # AWS, of a pod
    ("fd00:ec2::254/128", "cloud_metadata"),  # AWS
    ("fd20:ce::254/128", "cloud_metadata"),  # Google
    ("fe80::a9fe:a9fe/128", "cloud_metadata"),  # OpenStack
)

# The upper half of an ISATAP interface id, without the two bits that say whether it is universal and a group.
_ISATAP: Final = 0x0000_5EFE
_ISATAP_MASK: Final = 0xFCFF_FFFF


def _segments(table: Iterable[tuple[str, str]]) -> tuple[list[int], list[str]]:
    """First numbers, ascending, of stretches that one rule holds for, and those rules: the narrowest line wins."""
    networks: list[tuple[IPv4Network | IPv6Network, str]] = [(ip_network(text), rule) for text, rule in table]
    networks.sort(key=lambda entry: entry[0].prefixlen)
    firsts = {int(network.network_address) for network, _ in networks}
    # One past the end of the last range is no address; nothing is ever looked up there.
    nexts = {int(network.broadcast_address) + 1 for network, _ in networks}
    starts = sorted(firsts | nexts)
    rules = [_REACHABLE] * len(starts)
    for network, rule in networks:
        first, last = int(network.network_address), int(network.broadcast_address)
        for place, start in enumerate(starts):
            if first <= start <= last:
                rules[place] = rule
    return starts, rules


_IPV4_STARTS, _IPV4_RULES = _segments(_IPV4)
_IPV6_STARTS, _IPV6_RULES = _segments(_IPV6)


def address_rule(address: IPv4Address | IPv6Address) -> str | None:
    """The rule that forbids `address`, a key of MEANINGS; None for globally reachable unicast."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "zone_id"
        address = unmapped(address)
    number = int(address)
    if isinstance(address, IPv4Address):
        return _IPV4_RULES[bisect_right(_IPV4_STARTS, number) - 1] or None
    rule = _IPV6_RULES[bisect_right(_IPV6_STARTS, number) - 1]
    if not rule and number >> 32 & _ISATAP_MASK == _ISATAP:
        return "embedded_ipv4"
    return rule or None
