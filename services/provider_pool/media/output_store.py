"""What a store of outputs does for the pool, wherever it keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from services.provider_pool.media.store import Staged


class OutputStore(Protocol):
    """A folder (`MediaStore`), or a bucket (`ObjectMedia`). A store that cannot be used raises OSError."""

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Take in a stream. Raises TooLarge and UnknownMedia, and whatever the stream raises; nothing is left then."""

    async def publish(self, staged: Staged, key: str) -> None:
        """Give staged bytes their key, whole and durable. Harmless when the same bytes are there already."""

    async def discard(self, staged: Staged) -> None:
        """Let go of staged bytes."""

    async def read(self, key: str, limit_bytes: int) -> bytes:
        """The first bytes of an object; none if it is not there (any more)."""

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove objects for good; how many were there. Raises ValueError for a key that is none of this store's."""

    async def sweep(self, retention_s: float) -> int:
        """Remove objects that are older than `retention_s`; how many."""

    async def check(self) -> None:
        """Raises OSError if the store cannot be used."""

    def close(self) -> None:
        """Let go of what is held."""
