"""What a service does by itself, again and again: sweeps, checks, gauges."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError

log = logging.getLogger(__name__)

# One round; returns how long to wait before the next, in seconds.
Round = Callable[[], Awaitable[float]]

# After a failure, which is logged, the next round may as well succeed.
_PAUSE_AFTER_FAILURE_S: Final = 2.0


@asynccontextmanager
async def rounds(clock: Clock, work: Mapping[str, Round]) -> AsyncIterator[None]:
    """Runs every named round again and again, while entered."""
    tasks = [asyncio.create_task(again_and_again(name, clock, one), name=name) for name, one in work.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def again_and_again(name: str, clock: Clock, work: Round) -> None:
    """Runs `work` until cancelled, pausing as it says; a failure is logged and tried again."""
    while not _is_cancelled():
        try:
            pause_s = await work()
        except ServiceError as fault:
            log.warning("round.failed", extra={"round": name, "reason": fault.reason})
            pause_s = _PAUSE_AFTER_FAILURE_S
        except Exception:
            if not _is_cancelled():
                log.exception("round.failed", extra={"round": name})
            pause_s = _PAUSE_AFTER_FAILURE_S
        if not _is_cancelled():
            await clock.sleep(pause_s)


def _is_cancelled() -> bool:
    # A driver that is interrupted may raise an error of its own in place of the cancellation.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
