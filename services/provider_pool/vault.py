"""Provider accounts' credentials at rest: each is sealed for its own row, see chassis/sealing.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from services.chassis.sealing import SealBroken, SealingKeys, sealing_key_id
from services.chassis.settings import Secret

__all__ = ["KeyRing", "SealBroken", "sealing_key_id"]

_PURPOSE: Final = b"atelier provider account\x00"


class KeyRing(SealingKeys):
    """The keys under which credentials are sealed. Printing one shows nothing of it."""

    def seal(self, row_id: str, credentials: Mapping[str, Secret]) -> bytes:
        """Credentials as one opaque value that opens for this row only."""
        plain = json.dumps({name: secret.reveal() for name, secret in credentials.items()}).encode()
        return self.seal_value(_bound_to(row_id), plain)

    def open(self, row_id: str, sealed: bytes) -> dict[str, Secret]:
        """The credentials of this row. Raises SealBroken."""
        plain = self.open_value(_bound_to(row_id), sealed)
        return {name: Secret(value) for name, value in json.loads(plain).items()}

    def rewrap(self, row_id: str, sealed: bytes) -> bytes:
        """The same credentials under the sealing key of this ring. Raises SealBroken."""
        return self.rewrap_value(_bound_to(row_id), sealed)


def _bound_to(row_id: str) -> bytes:
    return _PURPOSE + row_id.encode()
