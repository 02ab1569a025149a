"""The media store on a bucket: outputs are staged in the folder, and put under their keys once they are whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from services.chassis.egress_objects import ObjectStore
from services.provider_pool.media.object_keys import SHELVES, day_of, is_ours
from services.provider_pool.media.store import MediaStore, Staged

_KEY_PARTS: Final = 5
"""Shelf, year, month, day, name."""


class ObjectMedia:
    """Objects in a bucket, with the keys that `MediaStore` gives to files.

    Only what is being collected lies in the folder; what a crash leaves there is swept after a day.
    """

    def __init__(self, objects: ObjectStore, folder: Path, *, limit_bytes: int) -> None:
        self._objects = objects
        self._staging = MediaStore(folder, limit_bytes=limit_bytes)

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Take in a stream. Raises TooLarge and UnknownMedia, and whatever the stream raises; nothing is left then."""
        return await self._staging.stage(chunks)

    async def publish(self, staged: Staged, key: str) -> None:
        """Give staged bytes their key. Harmless when the same bytes are there already.

        Other bytes under the key can only be from a collection that was never answered; they are replaced.
        Raises ObjectsUnusable.
        """
        if not await self._put(staged, key, only_if_absent=True):
            there = await self._objects.head(key)
            if there is None or (there.sha256, there.size_bytes) != (staged.sha256, staged.size_bytes):
                await self._put(staged, key, only_if_absent=False)
        await self._staging.discard(staged)

    async def discard(self, staged: Staged) -> None:
        """Let go of staged bytes."""
        await self._staging.discard(staged)

    async def read(self, key: str, limit_bytes: int) -> bytes:
        """The first bytes of an object; none if it is not there (any more). Raises ObjectsUnusable."""
        return await self._objects.read(key, limit_bytes) or b""

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove objects for good; how many were there. Raises ValueError for a key that is none of this store's.

        Raises ObjectsUnusable; some may be gone then.
        """
        if not all(map(is_ours, keys)):
            raise ValueError("a key that this store has never given")
        # Only to count: what is to go is deleted whether it was seen or not.
        there = await asyncio.gather(*map(self._objects.head, keys))
        await self._objects.delete(keys)
        return sum(facts is not None for facts in there)

    async def sweep(self, retention_s: float) -> int:
        """Remove objects that are older than `retention_s`, and what was never finished; how many. Raises ObjectsUnusable."""
        await self._staging.sweep(retention_s)
        before = datetime.fromtimestamp(time.time() - retention_s, UTC)
        return sum([await self._sweep_shelf(shelf, before) for shelf in sorted(SHELVES)])

    async def check(self) -> None:
        """Raises OSError if the folder cannot be written, or the bucket not be reached."""
        await self._staging.check()
        await self._objects.check()

    def close(self) -> None:
        """Let go of the threads. The bucket is its owner's to let go of."""
        self._staging.close()

    async def _put(self, staged: Staged, key: str, *, only_if_absent: bool) -> bool:
        return await self._objects.put(
            key,
            staged.path if staged.content is None else staged.content,
            size_bytes=staged.size_bytes,
            sha256=staged.sha256,
            content_type=staged.probe.content_type,
            only_if_absent=only_if_absent,
        )

    async def _sweep_shelf(self, shelf: str, before: datetime) -> int:
        removed = 0
        async for page in self._objects.pages(f"{shelf}/"):
            # Days come in order, and an object is never older than the day it lies under.
            days = [_day(one.key) for one in page]
            old = [
                one.key
                for one, day in zip(page, days, strict=True)
                if day is not None and day <= before.date() and one.modified_at < before
            ]
            await self._objects.delete(old)
            removed += len(old)
            if any(day is not None and day > before.date() for day in days):
                break
        return removed


def _day(key: str) -> date | None:
    parts = key.split("/")
    # What somebody else put there is not ours to remove.
    return day_of(*parts[1:4]) if len(parts) == _KEY_PARTS and is_ours(key) else None
