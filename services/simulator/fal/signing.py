"""The signature of fal's webhooks: Ed25519, with the public keys published as a JWKS."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# The key in force, and one that has been published beside it: whoever verifies must try every key.
_KEY_NAMES = ("retiring", "current")


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The key that signs, and all public keys, the signing one last."""

    signing: Ed25519PrivateKey
    published: tuple[bytes, ...]

    @classmethod
    def from_seed(cls, seed: int) -> Self:
        """The same keys for the same seed: a restarted simulator is still the same fal."""
        keys = [
            Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"fal:{name}:{seed}".encode()).digest())
            for name in _KEY_NAMES
        ]
        public = tuple(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) for key in keys)
        return cls(keys[-1], public)

    def jwks(self) -> dict[str, object]:
        """What stands under `/.well-known/jwks.json`."""
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": _base64url(key)} for key in self.published]}

    def headers(self, request_id: str, user_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
        """The four headers of one delivery."""
        text = "\n".join((request_id, user_id, str(timestamp_s), hashlib.sha256(body).hexdigest()))
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": user_id,
            "X-Fal-Webhook-Timestamp": str(timestamp_s),
            "X-Fal-Webhook-Signature": self.signing.sign(text.encode()).hex(),
        }


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
