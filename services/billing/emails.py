"""Email addresses: which are taken, and when two of them are the same."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

import idna

# What SMTP can carry (RFC 5321, 4.5.3.1).
MAX_ADDRESS_OCTETS = 254
MAX_LOCAL_OCTETS = 64

# Letters of any script, and what RFC 5322 allows in an address without quotes. Nothing here can end a header.
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(\.{_ATOM})*")
# In a header this begins letters in code (RFC 2047): whoever reads it finds another address there.
_CODED = "=?"


class Email(NamedTuple):
    """An address: as mails are sent to it, and as it is compared, however its letters were typed."""

    written: str
    address: str


def read(text: str) -> Email | None:
    """The address, or None where it is none that mail can be sent to.

    Letters in the domain are the same in either case by rule, those before it by custom: no provider tells people
    apart by them, and whoever could have `Ann@` beside `ann@` could be taken for her.
    """
    if len(text) > MAX_ADDRESS_OCTETS:
        return None
    local, at, domain = unicodedata.normalize("NFC", text.strip()).rpartition("@")
    if not at or not _is_local(local):
        return None
    try:
        host = idna.encode(domain.rstrip("."), uts46=True, std3_rules=True).decode().lower()
    except idna.IDNAError:
        return None
    written = f"{local}@{host}"
    if "." not in host or len(written.encode()) > MAX_ADDRESS_OCTETS:
        return None
    return Email(written, f"{unicodedata.normalize('NFC', local.casefold())}@{host}")


def _is_local(local: str) -> bool:
    fits = len(local.encode()) <= MAX_LOCAL_OCTETS and _CODED not in local
    return fits and _LOCAL.fullmatch(local) is not None
