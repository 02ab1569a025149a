"""Where an account's provider is: the official address, or what the operator set in its place."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from services.provider_pool.adapters.interface import AccountAccess, ProtocolViolation

_SECURE: Final = "https"
_PORTS: Final[Mapping[str, int]] = {"https": 443, "http": 80}


def base_url(account: AccountAccess, official: str, option: str = "base_url") -> str:
    """The account's address for calls, without a slash at its end."""
    return (account.options.get(option) or official).rstrip("/")


def address_complaint(options: Mapping[str, str], *names: str) -> str | None:
    """What is wrong with the addresses among an account's options, in one sentence; None if nothing is."""
    for name in names:
        value = options.get(name, "")
        if value and not is_usable(value):
            return f"option {name} must be an https address without credentials, query or fragment"
    return None


def is_usable(url: str) -> bool:
    """Whether calls with credentials may go there: https, or http on this machine."""
    parts = _parts(url)
    return parts is not None and not parts.query and not parts.fragment and is_address(url)


def is_address(url: str) -> bool:
    """Whether a provider may name this as a place for files: as `is_usable`, and it may have a query, which signs it."""
    parts = _parts(url)
    if parts is None:
        return False
    return parts.scheme == _SECURE or (parts.scheme == "http" and _is_this_machine(parts.hostname or ""))


def canonical(url: str) -> str:
    """One spelling for all of an address."""
    parts = _parts(url)
    if parts is None:
        return url
    scheme, host, port = _origin(parts)
    return f"{scheme}://{host}:{port}{parts.path.rstrip('/')}"


def own(url: object, base: str) -> str:
    """An address that a provider told, if it lies under the account's own. Raises ProtocolViolation."""
    told = _parts(url) if isinstance(url, str) else None
    ours = _parts(base)
    if told is None or ours is None or _origin(told) != _origin(ours):
        raise ProtocolViolation("an address that is not the provider's own")
    segments = told.path.split("/")
    if not told.path.startswith(f"{ours.path.rstrip('/')}/") or "." in segments or ".." in segments:
        raise ProtocolViolation("an address that is not the provider's own")
    return told.geturl()


def _parts(url: str) -> SplitResult | None:
    """None where it is no plain address: signs that parsers read differently, or credentials."""
    if not url.isascii() or not url.isprintable() or any(sign in url for sign in ' \\"<>^`{|}'):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
