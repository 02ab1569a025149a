"""Identifiers that sort by time of birth and cannot be guessed."""

from __future__ import annotations

import os
import time
from functools import lru_cache

# Crockford's base 32, lower case: no i, l, o or u, so that an id survives being read aloud.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
# A random byte to the character of its lower five bits: each of the 32 is hit by eight bytes.
_CHARACTER_OF = bytes(_ALPHABET[byte & 31].encode()[0] for byte in range(256))
_RANDOM_LENGTH = 16


def new_ulid() -> str:
    """26 lower-case characters: 48 bits of milliseconds, then 80 random bits (the ULID layout)."""
    random = os.urandom(_RANDOM_LENGTH).translate(_CHARACTER_OF).decode("ascii")
    return _moment(time.time_ns() // 1_000_000) + random


# A busy service makes several ids within a millisecond.
@lru_cache(maxsize=16)
def _moment(epoch_ms: int) -> str:
    return "".join(_ALPHABET[epoch_ms >> shift & 31] for shift in range(45, -1, -5))


def new_id(prefix: str) -> str:
    """`<prefix>_<ulid>`: `job_01jz8b7q4x8k2p9w3m5c6n7r8s`."""
    return f"{prefix}_{new_ulid()}"
