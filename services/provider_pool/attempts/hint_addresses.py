"""The addresses that providers are given for their webhooks: each leads to one attempt or one account, and tells a reader nothing.

A token is sealed under the key ring: it cannot be made without a key, and is verified without looking anything up.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final, Literal

from services.chassis.sealing import SealBroken, SealingKeys

PATH_PREFIX: Final = "/hints/"

_PURPOSE: Final = b"atelier hint\x00"
# What a sealed id comes to, with room for the longest ids and key names; anything else is not worth a look.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{100,600}")

Kind = Literal["attempt", "account"]
_KINDS: Final[dict[bytes, Kind]] = {b"t": "attempt", b"c": "account"}


@dataclass(frozen=True, slots=True)
class Addressee:
    """Whom a hint is for: an attempt, or, of a provider that is told one address for all, an account."""

    kind: Kind
    name: str


class HintAddresses:
    """Makes and reads them. `public_url`: where providers reach the gateway; empty where they cannot."""

    def __init__(self, keys: SealingKeys, public_url: str) -> None:
        self._keys = keys
        self._public_url = public_url.rstrip("/")

    def callback_url(self, attempt_id: str) -> str:
        """Where the provider may say that something has happened to the attempt's task; empty where nobody could hear it."""
        return self._url(b"t", attempt_id)

    def account_url(self, account_id: str) -> str:
        """The same for all tasks of an account, for the operator to enter at the provider."""
        return self._url(b"c", account_id)

    def addressee(self, token: str) -> Addressee | None:
        """Whom the last part of an address is about; None if it was not made here, or its key has left the ring."""
        if not _TOKEN.fullmatch(token):
            return None
        try:
            sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            plain = self._keys.open_value(_PURPOSE, sealed)
        except (SealBroken, binascii.Error, ValueError):
            return None
        kind = _KINDS.get(plain[:1])
        return None if kind is None else Addressee(kind, plain[1:].decode("utf-8", "replace"))

    def _url(self, kind: bytes, name: str) -> str:
        if not self._public_url:
            return ""
        sealed = self._keys.seal_value(_PURPOSE, kind + name.encode())
        token = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
        return f"{self._public_url}{PATH_PREFIX}{token}"
