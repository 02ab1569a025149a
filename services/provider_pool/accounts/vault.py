"""Provider accounts' credentials at rest: each is sealed for its own row, see chassis/sealing.py.

Beside the seal, which never repeats, lies a fingerprint that does: the same for the same account at a provider.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Final

from services.chassis.sealing import SealBroken, SealingKeys, sealing_key_id
from services.chassis.settings import Secret

__all__ = ["KeyRing", "SealBroken", "sealing_key_id"]

_PURPOSE: Final = b"atelier provider account\x00"
_FINGERPRINT_PURPOSE: Final = b"atelier provider account fingerprint\x00"


class KeyRing(SealingKeys):
    """The keys under which credentials are sealed. Printing one shows nothing of it."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        super().__init__(keys)
        # A key of its own, and not the one that seals: each is used for one thing.
        sealing_key = keys[self.sealing_key_id]
        self._fingerprint_key = hmac.digest(sealing_key, _FINGERPRINT_PURPOSE, hashlib.sha256)

    def seal(self, row_id: str, credentials: Mapping[str, Secret]) -> bytes:
        """Credentials as one opaque value that opens for this row only."""
        plain = json.dumps({name: secret.reveal() for name, secret in credentials.items()}).encode()
        return self.seal_value(_bound_to(row_id), plain)

    def open(self, row_id: str, sealed: bytes) -> dict[str, Secret]:
        """The credentials of this row. Raises SealBroken."""
        plain = self.open_value(_bound_to(row_id), sealed)
        return {name: Secret(value) for name, value in json.loads(plain).items()}

    def fingerprint(self, provider: str, identity: Secret) -> str:
        """The same for the same identity at a provider, while one key seals; it names that key.

        Without the ring nobody can say whose it is, nor try keys against it.
        """
        plain = json.dumps([provider, identity.reveal()]).encode()
        digest = hmac.new(self._fingerprint_key, plain, hashlib.sha256).hexdigest()
        return f"{self.sealing_key_id}:{digest}"

    def is_current(self, fingerprint: str | None) -> bool:
        """Whether it was made under the key that seals now, so that it can be compared."""
        return fingerprint is not None and fingerprint.startswith(f"{self.sealing_key_id}:")

    def rewrap(self, row_id: str, sealed: bytes) -> bytes:
        """The same credentials under the sealing key of this ring. Raises SealBroken."""
        return self.rewrap_value(_bound_to(row_id), sealed)


def _bound_to(row_id: str) -> bytes:
    return _PURPOSE + row_id.encode()
