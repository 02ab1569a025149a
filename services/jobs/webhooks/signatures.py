"""How a webhook is signed: after Standard Webhooks, and as a storefront did before there was a standard."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from services.chassis.settings import Secret

_PREFIX: Final = "whsec_"
# What Standard Webhooks recommends at most, and what SHA-256 makes full use of.
_SECRET_BYTES: Final = 32


class LegacySignature(Struct, frozen=True):
    """Headers of a storefront's own: the event, and `t=<seconds>,v1=<hex>` over "{t}.{body}"."""

    event_header: str
    signature_header: str
    completed_event: str
    failed_event: str


def new_secret() -> Secret:
    """`whsec_` and base64 of 32 random bytes."""
    return Secret(_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())


def key_of(secret: Secret) -> bytes:
    """The bytes that standard signatures are made with. Raises ValueError where it is no such secret."""
    text = secret.reveal()
    if not text.startswith(_PREFIX):
        raise ValueError(f"a secret begins with {_PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"what follows {_PREFIX} is not base64") from None
    if not key:
        # An empty key signs as well as any other, and everybody has it.
        raise ValueError(f"nothing follows {_PREFIX}")
    return key


def standard_signature(secret: Secret, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """`v1,<base64>` under one secret. Raises ValueError as `key_of` does."""
    digest = hmac.digest(key_of(secret), f"{webhook_id}.{timestamp_s}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def legacy_signature(secret: Secret, timestamp_s: int, body: bytes) -> str:
    """The hex of a storefront's own signature: its key is the whole secret, as it is written."""
    return hmac.digest(secret.reveal().encode(), f"{timestamp_s}.".encode() + body, hashlib.sha256).hex()


def headers(
    active: Sequence[Secret],
    webhook_id: str,
    timestamp_s: int,
    body: bytes,
    *,
    legacy: LegacySignature | None = None,
    completed: bool = True,
) -> dict[str, str]:
    """Every header that signs `body`; each of the active secrets signs, the newest first."""
    signed = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(
            standard_signature(secret, webhook_id, timestamp_s, body) for secret in active
        ),
    }
    if legacy is not None:
        each = [f"v1={legacy_signature(secret, timestamp_s, body)}" for secret in active]
        signed[legacy.event_header] = legacy.completed_event if completed else legacy.failed_event
        signed[legacy.signature_header] = ",".join([f"t={timestamp_s}", *each])
    return signed
