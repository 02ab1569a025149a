"""The one reader of URLs that customers give: strict, on the raw string, and requests are built from its parts."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NoReturn
from urllib.parse import quote

import idna

from services.chassis.egress_policy import HTTPS_PORT, EgressPolicy, EgressRefused

LENGTH_LIMIT: Final = 2_048
_NAME_LIMIT: Final = 253
_LABEL_LIMIT: Final = 63
_DEFAULT_PORTS: Final = {"https": HTTPS_PORT, "http": 80}

# The rules of `parse` itself, with what each says; those of addresses are in `egress_policy`.
_SENTENCES: Final = {
    "authority": "A host does not follow directly after the scheme and two slashes.",
    "characters": "The URL holds blanks, control characters or others that readers of URLs disagree about.",
    "host": "The host is neither a name nor an address in its plain form.",
    "idna": "The host is an international name that is not valid, or not in its plain form.",
    "number_host": "The host ends in a number and is not four plain decimal numbers.",
    "one_label": "The host has one label only: it is a name inside a network.",
    "percent_in_host": "There is a percent sign in front of the path.",
    "port": "The port is not one that is allowed.",
    "port_syntax": "The port is not a plain number from 1 to 65535.",
    "scheme": "The scheme is not https.",
    "special_use": "The host's last labels are reserved, or used for names inside networks.",
    "too_long": "The URL is longer than it may be.",
    "userinfo": "There is a user name, or an @, in front of the path.",
    "zone_id": "The host is an address with a zone id.",
}
URL_RULES: Final = frozenset(_SENTENCES)

# Blanks, controls, line ends, halves of surrogates, the byte order mark, and what WHATWG, RFC 3986 and the libraries
# in between repair, strip or refuse, each in a way of its own.
_FORBIDDEN: Final = re.compile(r'[\x00-\x20\x7f-\xa0\\<>"^`{|}\u2028\u2029\ufeff\ud800-\udfff]')
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_AUTHORITY_END: Final = re.compile(r"[/?#]")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]+", re.ASCII)
# WHATWG's "ends in a number": what some resolver of the old school may read as an address.
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_OCTET: Final = r"(?:0|[1-9][0-9]{0,2})"
_DOTTED_QUAD: Final = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?", re.ASCII)

# No name below these is public: IANA's special-use names (RFC 6761 and its registry), what RFC 6762 (appendix G)
# and ICANN know to be used inside networks, and the habits of routers, clusters and clouds.
_SPECIAL_SUFFIXES: Final = frozenset(
    {
        # the registry; every other entry of it lies under `arpa`, but for `example`, a name like any other that nobody has
        *("alt", "arpa", "invalid", "local", "localhost", "onion", "test"),
        # inside networks
        *("corp", "domain", "home", "intern", "internal", "internet", "intranet", "lan", "localdomain"),
        *("localdomain4", "localdomain6", "localhost4", "localhost6", "localnet", "mail", "private"),
        "workgroup",
        # routers, clusters, service discovery
        *(
            "belkin",
            "cluster",
            "consul",
            "default",
            "dlink",
            "docker",
            "gateway",
            "kube",
            "modem",
            "nomad",
            "router",
        ),
        "svc",
        # other roots
        *("bit", "exit", "gnu", "i2p", "zkey"),
    }
)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in parts that need no second reading.

    `host` is ASCII, lower case, without a final dot; a literal address is without brackets. `path_and_query`
    is printable ASCII and starts with a slash.
    """

    scheme: str
    host: str
    port: int
    path_and_query: str
    literal: IPv4Address | IPv6Address | None

    def url(self) -> str:
        """The URL again, in its one plain form."""
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        port = "" if self.port == _DEFAULT_PORTS.get(self.scheme) else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path_and_query}"


def parse(url: str, policy: EgressPolicy) -> Target:
    """Every check that needs no network, a literal address's included. Raises EgressRefused.

    Where only allowed pairs name the port, http, names of one label and reserved names pass here: the addresses
    decide, and each of them must be in a pair.
    """
    if len(url) > (policy.url_characters or LENGTH_LIMIT):
        _refuse("too_long")
    if _FORBIDDEN.search(url):
        _refuse("characters")
    scheme, authority, rest = _split(url)
    host, port_text = _host_and_port(authority)
    port = _port(scheme, port_text, policy)
    literal = _literal(host)
    if literal is None:
        host = _name(host, anything_inside=port not in policy.ports)
    else:
        policy.check_address(literal, port, scheme)
        host = str(literal)
    return Target(scheme, host, port, _path_and_query(rest), literal)


def _refuse(rule: str) -> NoReturn:
    raise EgressRefused(rule, _SENTENCES[rule])


def _split(url: str) -> tuple[str, str, str]:
    """Scheme, authority, and all that follows."""
    match = _SCHEME.match(url)
    if match is None or (scheme := match[1].lower()) not in _DEFAULT_PORTS:
        _refuse("scheme")
    if not url.startswith("//", match.end()):
        _refuse("authority")
    start = match.end() + 2
    end = _AUTHORITY_END.search(url, start)
    authority = url[start : end.start()] if end else url[start:]
    if not authority:
        _refuse("authority")
    return scheme, authority, url[start + len(authority) :]


def _host_and_port(authority: str) -> tuple[str, str | None]:
    """The host, an IPv6 address in its brackets, and the text of the port, None without a colon."""
    if "@" in authority:
        _refuse("userinfo")
    if "%" in authority:
        _refuse("zone_id" if authority.startswith("[") else "percent_in_host")
    if not authority.startswith("["):
        host, colon, port = authority.partition(":")
        # An address without its brackets: nobody can tell where the port begins.
        if ":" in port:
            _refuse("host")
        return host, port if colon else None
    inside, bracket, tail = authority.partition("]")
    if not bracket or (tail and not tail.startswith(":")):
        _refuse("host")
    return inside + bracket, tail[1:] if tail else None


def _port(scheme: str, text: str | None, policy: EgressPolicy) -> int:
    if text is None:
        port = _DEFAULT_PORTS[scheme]
    elif _PORT.fullmatch(text) and int(text) <= 65_535:
        port = int(text)
    else:
        _refuse("port_syntax")
    vouched = policy.allows_some(port)
    if scheme != "https" and not vouched:
        _refuse("scheme")
    if port not in policy.ports and not vouched:
        _refuse("port")
    return port


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` spells, None where it is a name."""
    try:
        if host.startswith("["):
            return IPv6Address(host[1:-1] if _IPV6.fullmatch(host, 1, len(host) - 1) else "")
        plain = host.removesuffix(".")
        if _NUMBER.fullmatch(plain.rpartition(".")[2]):
            return IPv4Address(plain if _DOTTED_QUAD.fullmatch(plain) else "")
    except ValueError:
        rule = "host" if host.startswith("[") else "number_host"
    else:
        return None
    _refuse(rule)


def _name(host: str, *, anything_inside: bool) -> str:
    """The ASCII form of a host name; `anything_inside` admits what only a network's own names look like."""
    name = host.removesuffix(".")
    # In ASCII it is never shorter, and what follows takes more than linear time.
    if len(name) > _NAME_LIMIT or max(map(len, name.split("."))) > _LABEL_LIMIT:
        _refuse("host")
    name = name.lower() if name.isascii() else _mapped(name)
    labels = [_ascii_label(label) for label in name.split(".")]
    if sum(map(len, labels)) + len(labels) - 1 > _NAME_LIMIT:
        _refuse("host")
    # Whatever the script: some resolver may read any digits as an address, and no top-level domain is a number.
    if _spelled(labels[-1]).isnumeric():
        _refuse("number_host")
    if not anything_inside and labels[-1] in _SPECIAL_SUFFIXES:
        _refuse("special_use")
    if not anything_inside and len(labels) < 2:
        _refuse("one_label")
    return ".".join(labels)


def _mapped(name: str) -> str:
    """`name`, which is not ASCII, in lower case, if that is also what UTS 46 makes of it.

    So a circled digit, a full-width letter, an ideographic full stop or a soft hyphen never becomes a host that
    was not written. Composed first: the Kelvin sign is lower-cased to an ASCII k. Letter by letter, because a
    sigma's lower case depends on its neighbours.
    """
    if not unicodedata.is_normalized("NFC", name):
        _refuse("idna")
    lowered = "".join(map(str.lower, name))
    mapped = _uts46(name)
    if mapped not in {name, lowered} or len(mapped) != len(name):
        _refuse("idna")
    return mapped


def _uts46(name: str) -> str:
    """What UTS 46 makes of `name`; nothing where it makes no sense of it."""
    try:
        return idna.uts46_remap(name, std3_rules=False, transitional=False)
    except UnicodeError:
        return ""


def _ascii_label(label: str) -> str:
    if not label.isascii():
        label = _a_label(label)
    elif label.startswith("xn--") and not _is_plain(label, _spelled(label)):
        _refuse("idna")
    if len(label) > _LABEL_LIMIT or not _LABEL.fullmatch(label):
        _refuse("host")
    return label


def _a_label(label: str) -> str:
    """What stands in the name system for an international label."""
    encoded = ""
    with suppress(UnicodeError):
        encoded = idna.alabel(label).decode("ascii")
    if not encoded:
        _refuse("idna")
    return encoded


def _spelled(label: str) -> str:
    """What an ASCII label stands for: itself, or the letters that an A-label encodes; nothing where it lies."""
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        return ""


def _is_plain(label: str, spelled: str) -> bool:
    """Whether an A-label is the one spelling of letters that UTS 46 leaves alone.

    IDNA 2008 allows less. Some registries do not, and with an A-label nothing has to be encoded any more.
    """
    return (
        not spelled.isascii()
        and _uts46(spelled) == spelled
        and f"xn--{spelled.encode('punycode').decode('ascii')}" == label
    )


def _path_and_query(rest: str) -> str:
    """Without the fragment, which is never sent. Percent signs stay as they are: they are the far side's business."""
    path, mark, query = rest.partition("#")[0].partition("?")
    # A question mark without a query is sent by some clients and dropped by others; here it is dropped.
    kept = path + mark + query if query else path
    return quote(kept if kept.startswith("/") else f"/{kept}", safe=_PRINTABLE)
