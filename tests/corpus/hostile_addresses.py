"""Addresses as hosts and as answers, in every spelling: each range's ends, and their public neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

from tests.corpus.url_case import PUBLIC, Case

# IPv4 that is not for customers, in order; the neighbours of each that lie in no other are public.
FORBIDDEN_4 = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
    *(
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
    ),
    *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4"),
)
# Inside those, by name: what an attacker asks for first.
FAVOURITES_4 = (
    *(
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
    ),
    *("168.63.129.16", "192.0.0.192", "255.255.255.255", "169.254.42.42"),
)
# Outside of 2000::/3 everything is refused; inside it, these.
FORBIDDEN_6 = (
    *("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001::/23"),
    *("2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48"),
    *("3fff::/20", "5f00::/16", "4000::/2", "8000::/1", "fc00::/7", "fd00:ec2::254/128", "fd20:ce::254/128"),
    *("fe80::/10", "fec0::/10", "ff00::/8", "ff02::1/128", "ff0e::/16", "::/3", "::1/128"),
)
PUBLIC_NEIGHBOURS_6 = (
    *(
        "2000::",
        "2001:200::",
        "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:db9::",
        "2003::",
        "2001:ffff::1",
    ),
    *(
        "2620:4f:7fff:ffff:ffff:ffff:ffff:ffff",
        "2620:4f:8001::",
        "3ffe:ffff::",
        "3fff:1000::",
        "2606:4700::1111",
    ),
    *("2a00:1450:4001:81b::200e", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
)


def _dotted_inside_hex(prefix: str) -> Callable[[IPv4Address], str]:
    return lambda address: f"[{prefix}{address}]"


def _hex_words(address: IPv4Address) -> str:
    return f"{int(address) >> 16:x}:{int(address) & 0xFFFF:x}"


def _octets(form: str) -> Callable[[IPv4Address], str]:
    return lambda address: ".".join(format(octet, form) for octet in address.packed)


def _teredo(address: IPv4Address) -> str:
    hidden = IPv4Address(int(address) ^ 0xFFFF_FFFF)
    return f"[2001:0:4136:e378:8000:63bf:{_hex_words(hidden)}]"


# Every way to spell an IPv4 address as a host. The first two and the mapped ones mean the address itself; whatever
# carries it in another way is refused even where the address is public.
SPELLINGS_4: dict[str, Callable[[IPv4Address], str]] = {
    "dotted": str,
    "dotted with a final dot": lambda address: f"{address}.",
    "mapped, dotted": _dotted_inside_hex("::ffff:"),
    "mapped, dotted, upper case": _dotted_inside_hex("::FFFF:"),
    "mapped, dotted, expanded": _dotted_inside_hex("0:0:0:0:0:ffff:"),
    "mapped, dotted, padded": _dotted_inside_hex("0000:0000:0000:0000:0000:ffff:"),
    "mapped, hexadecimal": lambda address: f"[::ffff:{_hex_words(address)}]",
    "mapped, hexadecimal, upper case": lambda address: f"[::FFFF:{_hex_words(address).upper()}]",
    "mapped, hexadecimal, expanded": lambda address: f"[{IPv6Address(f'::ffff:{address}').exploded}]",
}
CARRIERS_4: dict[str, Callable[[IPv4Address], str]] = {
    "one decimal number": lambda address: str(int(address)),
    "one hexadecimal number": lambda address: hex(int(address)),
    "one octal number": lambda address: f"0{int(address):o}",
    "octal": _octets("04o"),
    "octal as in C": lambda address: ".".join(f"0{octet:o}" for octet in address.packed),
    "hexadecimal": _octets("#x"),
    "padded": _octets("03d"),
    "two parts": lambda address: f"{address.packed[0]}.{int(address) & 0xFFFFFF}",
    "three parts": lambda address: f"{address.packed[0]}.{address.packed[1]}.{int(address) & 0xFFFF}",
    "last part hexadecimal": lambda address: f"{str(address).rpartition('.')[0]}.{address.packed[3]:#x}",
    "overflowing": lambda address: str(int(address) + 2**32),
    "five parts": lambda address: f"{address}.1",
    "two final dots": lambda address: f"{address}..",
    "compatible": _dotted_inside_hex("::"),
    "compatible, hexadecimal": lambda address: f"[::{_hex_words(address)}]",
    "translated": _dotted_inside_hex("::ffff:0:"),
    "NAT64": _dotted_inside_hex("64:ff9b::"),
    "NAT64, hexadecimal, expanded": lambda address: f"[{IPv6Address(f'64:ff9b::{address}').exploded}]",
    "NAT64 of a network": _dotted_inside_hex("64:ff9b:1::"),
    "6to4": lambda address: f"[2002:{_hex_words(address)}::1]",
    "6to4, upper case": lambda address: f"[2002:{_hex_words(address).upper()}:0:0:0:0:0:1]",
    "Teredo": _teredo,
    "ISATAP": _dotted_inside_hex("2001:470:1:2:0:5efe:"),
    "ISATAP, universal": _dotted_inside_hex("2606:4700:1:2:200:5efe:"),
    "ISATAP, link-local": _dotted_inside_hex("fe80::5efe:"),
    "circled digits": lambda address: _with_digits(address, 0x2460 - 1, zero="\u24ea"),
    "full-width digits": lambda address: _with_digits(address, 0xFF10),
    "mathematical digits": lambda address: _with_digits(address, 0x1D7CE),
    "Arabic digits": lambda address: _with_digits(address, 0x0660),
    "ideographic dots": lambda address: str(address).replace(".", "\u3002"),
    "full-width dots": lambda address: str(address).replace(".", "\uff0e"),
    "half-width dots": lambda address: str(address).replace(".", "\uff61"),
    "percent-encoded": lambda address: "".join(f"%{ord(character):02x}" for character in str(address)),
    "percent-encoded dots": lambda address: str(address).replace(".", "%2e"),
    "in brackets": lambda address: f"[{address}]",
}


def _with_digits(address: IPv4Address, first: int, zero: str | None = None) -> str:
    return "".join(
        "." if mark == "." else zero if mark == "0" and zero else chr(first + int(mark))
        for mark in str(address)
    )


def _ends(ranges: Sequence[str]) -> Iterator[tuple[str, str, IPv4Address | IPv6Address]]:
    for text in ranges:
        network = ip_network(text)
        yield text, "first", network[0]
        yield text, "last", network[-1]


def _ipv4_ranges() -> Iterator[Case]:
    for text, end, address in _ends(FORBIDDEN_4):
        assert isinstance(address, IPv4Address)
        for spelling, spell in SPELLINGS_4.items():
            yield Case(f"{end} of {text}, {spelling}", f"https://{spell(address)}/", "block")
        yield Case(f"{end} of {text}, as an answer", "https://images.example.com/", "block", (str(address),))
        mapped = f"::ffff:{address}"
        yield Case(f"{end} of {text}, as a mapped answer", "https://images.example.com/", "block", (mapped,))
    for text in FAVOURITES_4:
        for spelling, spell in CARRIERS_4.items():
            yield Case(f"{text}, {spelling}", f"https://{spell(IPv4Address(text))}/", "block")


def _public_ipv4_in_disguise() -> Iterator[Case]:
    for spelling, spell in CARRIERS_4.items():
        yield Case(f"a public address, {spelling}", f"https://{spell(IPv4Address(PUBLIC))}/", "block")


def _ipv6_ranges() -> Iterator[Case]:
    for text, end, address in _ends(FORBIDDEN_6):
        for spelling, host in _ipv6_spellings(address):
            yield Case(f"{end} of {text}, {spelling}", f"https://[{host}]/", "block")
        yield Case(f"{end} of {text}, as an answer", "https://images.example.com/", "block", (str(address),))


def _ipv6_spellings(address: IPv4Address | IPv6Address) -> tuple[tuple[str, str], ...]:
    words = address.exploded.split(":")
    tail = IPv4Address(int(address) & 0xFFFF_FFFF)
    return (
        ("compressed", address.compressed),
        ("expanded", address.exploded),
        ("upper case", address.exploded.upper()),
        ("without padding", ":".join(word.lstrip("0") or "0" for word in words)),
        ("with a dotted end", f"{':'.join(words[:6])}:{tail}"),
    )


def _honest_neighbours() -> Iterator[Case]:
    forbidden = [ip_network(text) for text in FORBIDDEN_4]
    for network in forbidden:
        for number in (int(network[0]) - 1, int(network[-1]) + 1):
            if not 0 <= number < 2**32 or any(IPv4Address(number) in other for other in forbidden):
                continue
            for spelling, spell in SPELLINGS_4.items():
                host = spell(IPv4Address(number))
                yield Case(f"next to {network}, {spelling}", f"https://{host}/", "allow")
            answers = (str(IPv4Address(number)),)
            yield Case(f"next to {network}, as an answer", "https://images.example.com/", "allow", answers)
    for text in PUBLIC_NEIGHBOURS_6:
        assert IPv6Address(text) in IPv6Network("2000::/3")
        for spelling, host in _ipv6_spellings(IPv6Address(text)):
            yield Case(f"public {text}, {spelling}", f"https://[{host}]/", "allow")
        yield Case(f"public {text}, as an answer", "https://images.example.com/", "allow", (text,))


def cases() -> Iterator[Case]:
    for part in (_ipv4_ranges, _public_ipv4_in_disguise, _ipv6_ranges, _honest_neighbours):
        yield from part()
