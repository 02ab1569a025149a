"""What an attempt puts into its request so that its own task, and no other, can be told from it in a provider's list."""

from __future__ import annotations

import hashlib


def seed_of(reference: str) -> int:
    """A seed of 32 bits that no other attempt is likely to have. Only where none was wished for."""
    return int.from_bytes(hashlib.sha256(f"seed {reference}".encode()).digest()[:4])
