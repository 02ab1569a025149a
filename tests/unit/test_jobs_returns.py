"""What a job lets go of is given back, whatever becomes of the job and of whoever waits."""

from __future__ import annotations

import asyncio
from typing import Any

from services.chassis.clock import SystemClock
from services.jobs.returns import Returns


class SlowOncePool:
    """Never answers the first time it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def release_lease(self, attempt_id: str) -> None:
        self.asked += 1
        if self.asked == 1:
            await asyncio.Event().wait()


async def test_a_lease_is_given_back_although_whoever_waited_for_it_left() -> None:
    pool: Any = SlowOncePool()
    returns = Returns(pool, SystemClock())
    waiting = asyncio.create_task(returns.give_back_now("job_1:1"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(2):
        while returns or pool.asked < 2:
            await asyncio.sleep(0.01)
    assert waiting.cancelled()
