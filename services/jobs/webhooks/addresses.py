"""Addresses that webhooks are sent to: what may be named, what tells receivers apart, and what may be shown."""

from __future__ import annotations

from urllib.parse import urlsplit

from services.chassis.egress_policy import EgressPolicy, EgressRefused
from services.chassis.egress_url import parse
from services.jobs import errors

_PORTS = {"https": 443, "http": 80}


def check_address(url: str, policy: EgressPolicy, field: str) -> None:
    """Everything that can be told without asking for a name. Raises WEBHOOK_ADDRESS_REFUSED that names `field`."""
    sentence = ""
    try:
        parse(url, policy)
    except EgressRefused as refused:
        sentence = str(refused)
    if sentence:
        raise errors.webhook_address_refused(field, sentence)


def receiver_of(url: str) -> str:
    """Host and port: what is slow or dead as a whole. `url` has been checked."""
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    return f"{(parts.hostname or '').removesuffix('.')}:{port}"


def shown(url: str) -> str:
    """Host and path: what follows, and what stands before an @, may be a credential."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
