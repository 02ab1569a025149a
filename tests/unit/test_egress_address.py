from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.egress_address import MEANINGS, address_rule
from tests.corpus.hostile_addresses import FORBIDDEN_4, FORBIDDEN_6, PUBLIC_NEIGHBOURS_6, SPELLINGS_4

# The same rules, written down again in another way: one network after the other.
REFUSED_4 = [IPv4Network(text) for text in FORBIDDEN_4]
REFUSED_INSIDE_GLOBAL_UNICAST = [
    IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
]


def forbidden(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address in IPv6Network("::ffff:0:0/96"):
        address = IPv4Address(address.packed[-4:])
    if isinstance(address, IPv4Address):
        return any(address in network for network in REFUSED_4)
    if address.packed[8:12] in {bytes.fromhex(isatap) for isatap in ("00005efe", "02005efe")}:
        return True
    return address not in IPv6Network("2000::/3") or any(
        address in network for network in REFUSED_INSIDE_GLOBAL_UNICAST
    )


def around(text: str) -> list[int]:
    network = ip_network(text)
    first, last, limit = int(network[0]), int(network[-1]), 2**network.max_prefixlen
    return [
        number for number in (first - 1, first, first + 1, last - 1, last, last + 1) if 0 <= number < limit
    ]


@pytest.mark.parametrize("text", FORBIDDEN_4)
def test_each_ipv4_range_is_refused_from_its_first_to_its_last_address_in_every_spelling(text: str) -> None:
    for number in around(text):
        address = IPv4Address(number)
        for spell in SPELLINGS_4.values():
            spelled = ip_address(spell(address).strip("[]").removesuffix("."))
            assert (address_rule(spelled) is not None) == forbidden(address), spelled


@pytest.mark.parametrize("text", FORBIDDEN_6)
def test_each_ipv6_range_is_refused_from_its_first_to_its_last_address(text: str) -> None:
    for number in around(text):
        address = IPv6Address(number)
        assert (address_rule(address) is not None) == forbidden(address), address


@pytest.mark.parametrize("text", PUBLIC_NEIGHBOURS_6)
def test_public_addresses_beside_the_ranges_pass(text: str) -> None:
    assert address_rule(IPv6Address(text)) is None


@given(st.ip_addresses())
def test_any_address_is_judged_as_by_a_list_of_networks(address: IPv4Address | IPv6Address) -> None:
    rule = address_rule(address)
    assert (rule is not None) == forbidden(address)
    assert rule is None or rule in MEANINGS


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_ipv4_address_in_ipv6_is_judged_as_itself_if_mapped_and_refused_otherwise(
    address: IPv4Address,
) -> None:
    number = int(address)
    assert address_rule(IPv6Address(f"::ffff:{address}")) == address_rule(address)
    for carrier in (
        *(f"::ffff:0:{address}", f"64:ff9b::{address}", f"64:ff9b:1::{address}", f"2001:470::5efe:{address}"),
        *(f"2606:4700::200:5efe:{address}", f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"),
        f"2001:0:4136:e378:8000:63bf:{number >> 16 ^ 0xFFFF:x}:{number & 0xFFFF ^ 0xFFFF:x}",
    ):
        assert address_rule(IPv6Address(carrier)) == "embedded_ipv4", carrier
    assert address_rule(IPv6Address(f"::{address}")) is not None


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("169.254.169.254", "cloud_metadata"),
        ("168.63.129.16", "cloud_metadata"),
        ("100.100.100.200", "cloud_metadata"),
        ("192.0.0.192", "cloud_metadata"),
        ("::ffff:169.254.169.254", "cloud_metadata"),
        ("fd00:ec2::254", "cloud_metadata"),
        ("169.254.169.253", "link_local"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("::", "this_network"),
        ("0.0.0.0", "this_network"),
        ("10.1.2.3", "private"),
        ("fd12::1", "private"),
        ("100.64.0.1", "carrier_nat"),
        ("255.255.255.255", "broadcast"),
        ("ff02::1", "multicast"),
        ("fec0::1", "site_local"),
        ("2001:0:1::1", "embedded_ipv4"),
        ("2001:10::1", "protocol_assignments"),
        ("5f00::1", "reserved"),
        ("2606:4700::1111%eth0", "zone_id"),
        ("::ffff:1.1.1.1%1", "zone_id"),
        ("1.1.1.1", None),
        ("2606:4700::1111", None),
    ],
)
def test_a_rule_has_a_name_that_an_operator_knows(address: str, rule: str | None) -> None:
    assert address_rule(ip_address(address)) == rule
