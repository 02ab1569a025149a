"""Identifiers that sort by time of birth and cannot be guessed."""

from __future__ import annotations

import os
import time

# Crockford's base 32, lower case: no i, l, o or u, so that an id survives being read aloud.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_RANDOM_BITS = 80
_LENGTH = 26


def new_ulid() -> str:
    """26 lower-case characters: 48 bits of milliseconds, then 80 random bits (the ULID layout)."""
    value = (time.time_ns() // 1_000_000) << _RANDOM_BITS | int.from_bytes(os.urandom(10))
    pairs = []
    for _ in range(_LENGTH // 2):
        value, pair = divmod(value, 1024)
        pairs.append(_PAIRS[pair])
    return "".join(reversed(pairs))


def new_id(prefix: str) -> str:
    """`<prefix>_<ulid>`: `job_01jz8b7q4x8k2p9w3m5c6n7r8s`."""
    return f"{prefix}_{new_ulid()}"
