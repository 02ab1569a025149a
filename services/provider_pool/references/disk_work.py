"""Work on files that nobody walks away from."""

from __future__ import annotations

import asyncio
from typing import TypeVar

__all__ = ["to_its_end"]

T = TypeVar("T")


async def to_its_end(running: asyncio.Future[T]) -> T:
    """What the work, which runs in a thread, returns or raises.

    A thread goes on whatever becomes of who waits. So who is cancelled, however often, still waits until it is done: whatever
    the work opens or makes is there by then, and can be let go of.
    """
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return running.result()
    if not running.cancelled():
        # Nobody else looks at what it raised.
        running.exception()
    raise cancelled
