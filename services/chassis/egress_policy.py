"""What the operator allows of addresses that customers name, and the settings that say so."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final

from services.chassis.egress_address import MEANINGS, address_rule
from services.chassis.mapped_addresses import unmapped, unmapped_network
from services.chassis.settings import setting

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HTTPS_PORT: Final = 443

# The rules of `EgressPolicy.check_address`; the parser of URLs has its own besides.
POLICY_RULES: Final = frozenset({*MEANINGS, "denied", "port", "scheme"})


class EgressRefused(Exception):
    """A URL or an address that is not gone to.

    `rule` is one of POLICY_RULES or of `egress_url.URL_RULES`; the text is a sentence for operators. Neither
    holds a path or a query.
    """

    def __init__(self, rule: str, sentence: str) -> None:
        super().__init__(sentence)
        self.rule = rule


@dataclass(frozen=True, slots=True)
class AllowedTarget:
    """Addresses that the operator vouches for, on one port."""

    network: Network
    port: int


@dataclass(frozen=True)
class EgressPolicy:
    """Pairs that are allowed whatever the other rules say, ranges that are not, and ports for everybody else.

    `url_characters`: how long an address may be; 0 for what customers may give.
    """

    allow: tuple[AllowedTarget, ...] = ()
    deny: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset({HTTPS_PORT})
    url_characters: int = 0

    def check_address(self, address: Address, port: int, scheme: str = "https") -> None:
        """Raises EgressRefused unless a connection to `address` at `port`, for a URL of `scheme`, may be opened.

        An allowed pair is the more specific rule: it wins over the table, the denied ranges and the scheme.
        """
        reached = unmapped(address)
        if any(pair.port == port and reached in pair.network for pair in self.allow) and not _zone(address):
            return
        if rule := address_rule(address):
            raise EgressRefused(rule, f"{_shown(address)} {MEANINGS[rule]}.")
        if any(reached in network for network in self.deny):
            raise EgressRefused("denied", f"{address} lies in a range that the operator has denied.")
        self._check_scheme_and_port(port, scheme)

    def allows_some(self, port: int) -> bool:
        """Whether a pair allows some addresses at `port`."""
        return any(pair.port == port for pair in self.allow)

    def _check_scheme_and_port(self, port: int, scheme: str) -> None:
        if scheme != "https":
            raise EgressRefused("scheme", "Only https is taken from an address that no allowed pair names.")
        if port not in self.ports:
            raise EgressRefused("port", f"Port {port} is allowed for the addresses of some pairs only.")


def _zone(address: Address) -> bool:
    return isinstance(address, IPv6Address) and address.scope_id is not None


def _shown(address: Address) -> str:
    # A zone id is free text, and somebody else's.
    return str(address).partition("%")[0]


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _network(text: str) -> Network:
    """A range, or a single address; one of mapped addresses is the IPv4 range that it maps."""
    try:
        if "%" in text:
            raise ValueError(text)
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"holds {text!r}, which is neither an address nor a range like 10.0.0.0/8") from None
    # A range that is not what was written would allow or deny more than was meant.
    if "/" in text and ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(
            f"holds {text!r}, which has bits set beyond its prefix; {network} is the whole range"
        )
    return unmapped_network(network)


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65_535:
        return int(text)
    raise ValueError(f"holds {text!r} where a port from 1 to 65535 belongs")


def _pair(text: str) -> AllowedTarget:
    host, colon, port = text.rpartition(":")
    # `::1:443` is an address; without its brackets or a prefix nobody can tell where the port begins.
    ambiguous = ":" in host and not host.startswith("[") and "/" not in host
    if not colon or not host or ambiguous:
        raise ValueError(f"holds {text!r}, which is no pair like 10.0.0.0/8:443 or [fd00::/8]:443")
    if host.startswith("["):
        inside, bracket, prefix = host[1:].partition("]")
        if not bracket or (prefix and not prefix.startswith("/")):
            raise ValueError(f"holds {text!r}, whose brackets do not enclose an address")
        host = inside + prefix
    return AllowedTarget(_network(host), _port(port))


def allowed_targets(text: str) -> tuple[AllowedTarget, ...]:
    """A parser for pairs like `127.0.0.1/32:8443,[fd00::/8]:443,192.0.2.7:80`, with commas."""
    return tuple(_pair(entry) for entry in _entries(text))


def networks(text: str) -> tuple[Network, ...]:
    """A parser for ranges and addresses like `198.18.5.0/24,2001:db8::7`, with commas."""
    return tuple(_network(entry) for entry in _entries(text))


def ports(text: str) -> frozenset[int]:
    """A parser for port numbers, with commas."""
    return frozenset(_port(entry) for entry in _entries(text))


def certificates_file(text: str) -> Path:
    """A parser for the path of a file that can be read. What is in it is judged by whoever uses it."""
    path = Path(text)
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as fault:
        raise ValueError(f"names a file that cannot be read: {text} ({fault.strerror})") from None
    return path


@dataclass(frozen=True, kw_only=True)
class EgressSettings:
    """For the settings of a process that takes addresses from customers."""

    egress_allow: tuple[AllowedTarget, ...] = setting(
        "ATELIER_EGRESS_ALLOW",
        default=(),
        parse=allowed_targets,
        help="pairs cidr:port, with commas: customers may name these targets, with plain http too, whatever other rules say",
    )
    egress_deny: tuple[Network, ...] = setting(
        "ATELIER_EGRESS_DENY",
        default=(),
        parse=networks,
        help="ranges, with commas, that customers may not name, besides those that are not public anyway",
    )
    egress_ports: frozenset[int] = setting(
        "ATELIER_EGRESS_PORTS",
        default=frozenset(),
        parse=ports,
        help="ports, with commas, that customers' URLs may name besides 443",
    )

    def policy(self) -> EgressPolicy:
        """What these settings allow."""
        return EgressPolicy(self.egress_allow, self.egress_deny, self.egress_ports | {HTTPS_PORT})


@dataclass(frozen=True, kw_only=True)
class EgressCaSettings:
    """For the settings of a process that connects to addresses of customers."""

    egress_ca_file: Path | None = setting(
        "ATELIER_EGRESS_CA_FILE",
        default=None,
        parse=certificates_file,
        help="a PEM file of certificates that are trusted besides the system's when a customer's URL is fetched",
    )
