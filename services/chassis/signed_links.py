"""Links to stored objects that are signed and expire. Whoever holds the key file makes the same links."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from services.chassis.settings import Secret, SettingsError

PATH_PREFIX: Final = "/media/"

# 256 bits of key; anything shorter than its digest weakens HMAC-SHA-256.
_MINIMUM_KEY_LENGTH: Final = 32
# 128 bits of signature cannot be guessed online, and keep links short.
_SIGNATURE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Link:
    """A signed link and the millisecond at which it stops working."""

    url: str
    expires_at_ms: int


class SigningKeys:
    """Signs with the first key and accepts all of them, so that a key can be replaced without breaking links."""

    def __init__(self, secret: Secret) -> None:
        """One key a line. Raises SettingsError if there is none or one is short."""
        self._keys = [line.strip().encode() for line in secret.reveal().splitlines() if line.strip()]
        if not self._keys or any(len(key) < _MINIMUM_KEY_LENGTH for key in self._keys):
            raise SettingsError(
                [f"the file of media signing keys needs keys of {_MINIMUM_KEY_LENGTH} characters or more"]
            )

    def sign(self, object_key: str, expires_s: int) -> str:
        """The signature of one object until one second."""
        return _signature(self._keys[0], object_key, expires_s)

    def verifies(self, object_key: str, expires_s: int, signature: str) -> bool:
        """Whether any of the keys signed this."""
        given = signature.encode("utf-8", "replace")
        return any(
            hmac.compare_digest(_signature(key, object_key, expires_s).encode(), given) for key in self._keys
        )


def _signature(key: bytes, object_key: str, expires_s: int) -> str:
    digest = hmac.digest(key, f"{object_key}\n{expires_s}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:_SIGNATURE_BYTES]).rstrip(b"=").decode()


class SignedLinks:
    """Makes links below `public_url`, which is how customers reach whoever serves the objects."""

    def __init__(self, keys: SigningKeys, public_url: str) -> None:
        self._keys = keys
        self._public_url = public_url.rstrip("/")

    def link(self, object_key: str, expires_at_ms: int, public_url: str = "") -> Link:
        """The one link to this object that works until `expires_at_ms`, cut to the second.

        public_url: what this link begins with instead.
        """
        expires_s = expires_at_ms // 1000
        signature = self._keys.sign(object_key, expires_s)
        url = f"{public_url.rstrip('/') or self._public_url}{PATH_PREFIX}{object_key}?expires={expires_s}&signature={signature}"
        return Link(url, expires_s * 1000)
