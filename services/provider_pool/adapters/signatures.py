"""Whether a provider's webhook is the provider's: the two forms in which providers sign theirs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.chassis.settings import Secret

TOLERANCE_S: Final = 300
"""What both forms' documents allow a clock to be off; an older webhook is a repeated one."""

SIGNATURES_LIMIT: Final = 8
"""A provider that changes its secret signs with two of them."""

KEYS_LIMIT: Final = 16
"""Of a provider's published keys; each costs a verification."""

_SECONDS: Final = re.compile(r"[0-9]{1,12}")
_HEX_SIGNATURE: Final = re.compile(r"[0-9a-fA-F]{128}")
_ID: Final = re.compile(r"[\x21-\x7e]{1,200}")
_KEY_BYTES: Final = 32
_PREFIX: Final = "whsec_"


def standard_id(secret: Secret, headers: Mapping[str, str], body: bytes, now_ms: int) -> str | None:
    """The delivery's id, where `body` is signed after Standard Webhooks with this secret; else None.

    `secret` as the provider writes it, `whsec_` and base64. Header names are lower-case.
    """
    delivery_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    key = _secret_key(secret)
    if key is None or not _ID.fullmatch(delivery_id) or not _is_young(timestamp, now_ms):
        return None
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    offered = headers.get("webhook-signature", "").split(" ")[:SIGNATURES_LIMIT]
    matches = [
        hmac.compare_digest(f"v1,{expected.decode()}".encode(), one.encode("utf-8", "replace"))
        for one in offered
    ]
    return delivery_id if any(matches) else None


def published_key_id(
    keys: Iterable[bytes], headers: Mapping[str, str], body: bytes, now_ms: int
) -> str | None:
    """The request's id, where `body` is signed as fal signs, with one of the keys that it publishes; else None.

    `keys`: raw Ed25519 public keys. Header names are lower-case.
    """
    names = ("request-id", "user-id", "timestamp", "signature")
    request_id, user_id, timestamp, signature = (headers.get(f"x-fal-webhook-{name}", "") for name in names)
    if not _ID.fullmatch(request_id) or not _ID.fullmatch(user_id) or not _is_young(timestamp, now_ms):
        return None
    if not _HEX_SIGNATURE.fullmatch(signature):
        return None
    signed = "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest())).encode()
    made = bytes.fromhex(signature)
    return request_id if any(_is_signed(key, made, signed) for key in keys) else None


def published_keys(jwks: object) -> tuple[bytes, ...]:
    """The Ed25519 keys of a JSON Web Key Set; what is no such key is passed over."""
    listed = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(listed, list):
        return ()
    found = (_published_key(one) for one in listed[:KEYS_LIMIT])
    return tuple(key for key in found if key is not None)


def _published_key(jwk: object) -> bytes | None:
    if not isinstance(jwk, dict) or (jwk.get("kty"), jwk.get("crv")) != ("OKP", "Ed25519"):
        return None
    text = jwk.get("x")
    if not isinstance(text, str):
        return None
    key = _decoded(text.replace("-", "+").replace("_", "/"))
    return key if key is not None and len(key) == _KEY_BYTES else None


def _is_signed(key: bytes, signature: bytes, signed: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _secret_key(secret: Secret) -> bytes | None:
    text = secret.reveal()
    return _decoded(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else None


def _decoded(text: str) -> bytes | None:
    """Of base64 with or without its padding; None where it is none, or nothing."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _is_young(timestamp: str, now_ms: int) -> bool:
    return bool(_SECONDS.fullmatch(timestamp)) and abs(int(timestamp) - now_ms / 1000) <= TOLERANCE_S
