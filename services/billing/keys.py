"""API keys: how they look, how they are proved, and who they belong to.

A key is its storefront's prefix, 32 random base62 characters and a checksum of six more. The checksum tells a
typing error or a made-up key from a real one without asking the database; what is stored is an HMAC under a
pepper that lives outside the database, so that whoever reads or writes the database can make no key.
"""

from __future__ import annotations

import hmac
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from services.billing.prices import Limits
from services.billing.spending import UNLIMITED, SpendLimits
from services.chassis.settings import Secret

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# 190 bits: no slow hash is needed to keep it from being guessed.
RANDOM_CHARACTERS = 32
# 62^6 is the first power above 2^32.
CHECKSUM_CHARACTERS = 6
# Of the random part; enough to tell keys apart in a list, 24 bits of 190.
HINT_CHARACTERS = 4
# Longer texts are no keys of ours, whatever they hold.
MAX_KEY_CHARACTERS = 128
# The last use is accurate to this, so that a busy key costs one write a minute.
LAST_USE_ACCURACY_MS = 60_000

_BODY_CHARACTERS = RANDOM_CHARACTERS + CHECKSUM_CHARACTERS


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What a key may do within what its customer may; empty means everything."""

    models: tuple[str, ...] = ()
    # As "203.0.113.0/24".
    networks: tuple[str, ...] = ()
    spend_limits: SpendLimits = UNLIMITED
    line_key_id: str = ""


NO_RULES = KeyRules()


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as it may be shown: everything but the key. Times of 0 mean never."""

    key_id: str
    customer_id: str
    mode: str
    label: str
    hint: str
    created_at_ms: int
    expires_at_ms: int
    revoked_at_ms: int
    last_used_at_ms: int
    rules: KeyRules = NO_RULES

    @property
    def line(self) -> str:
        """The first key of the line that this one belongs to: rotated keys spend against one limit."""
        return self.rules.line_key_id or self.key_id


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """A stored key together with its customer; `user_id` is the customer's user, 0 where there is none."""

    key: Key
    digest: str
    storefront: str
    customer_active: bool
    limits: Limits
    user_id: int = 0


def make(prefix: str) -> str:
    """A new key that begins with `prefix`."""
    start = prefix + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return start + checksum(start)


def checksum(start: str) -> str:
    """CRC-32 of the key up to here, in six base62 characters."""
    number = zlib.crc32(start.encode())
    characters = []
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[digit])
    return "".join(reversed(characters))


def hint(api_key: str) -> str:
    """The part of a key that may be shown."""
    return api_key[: len(api_key) - _BODY_CHARACTERS + HINT_CHARACTERS]


def is_well_formed(api_key: str, prefixes: frozenset[str]) -> bool:
    """Whether a key could be one of this house's: known prefix, right length, right checksum."""
    if len(api_key) > MAX_KEY_CHARACTERS or not api_key.isascii():
        return False
    if api_key[:-_BODY_CHARACTERS] not in prefixes:
        return False
    start, given = api_key[:-CHECKSUM_CHARACTERS], api_key[-CHECKSUM_CHARACTERS:]
    return hmac.compare_digest(checksum(start), given)


def digest(api_key: str, pepper: Secret) -> str:
    """What is stored of a key: HMAC-SHA-256 under the pepper, in hex."""
    return hmac.digest(pepper.reveal().encode(), api_key.encode(), "sha256").hex()


def may_be_used(owner: KeyOwner, digests: Sequence[str], now_ms: int) -> bool:
    """Whether the key that was looked up is the one given, and is neither expired nor revoked.

    `digests` are those of the given key, one for each pepper.
    """
    same = any(hmac.compare_digest(owner.digest, digest) for digest in digests)
    return same and is_valid(owner.key, now_ms)


def is_valid(key: Key, now_ms: int) -> bool:
    """Whether a key is neither expired nor revoked."""
    expired = key.expires_at_ms != 0 and key.expires_at_ms <= now_ms
    return not expired and key.revoked_at_ms == 0


def use_is_worth_recording(key: Key, now_ms: int) -> bool:
    """Whether the recorded last use is older than the accuracy promised."""
    return now_ms - key.last_used_at_ms >= LAST_USE_ACCURACY_MS
