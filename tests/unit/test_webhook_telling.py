from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from services.chassis.clock import SystemClock
from services.chassis.database import Database
from services.jobs.ownership import Ownership
from services.jobs.schedule import Timing
from services.jobs.store import JobStore
from services.jobs.webhooks.deliveries import Attempt, Attempted, Delivery
from services.jobs.webhooks.schedule import State
from services.jobs.webhooks.telling import Telling, Terms


class SilentDatabase:
    """One that is away: nothing that it is asked is ever answered."""

    async def write(self, work: Any) -> None:
        await asyncio.get_running_loop().create_future()


def attempted() -> Attempted:
    texts = dict.fromkeys(("job_id", "customer_id", "form_id", "ending", "url", "receiver", "last_error"), "")
    numbers = dict.fromkeys(
        (
            "media_expires_at_ms",
            "links_until_ms",
            "epoch",
            "attempts",
            "tries",
            "created_at_ms",
            "next_attempt_at_ms",
            "ended_at_ms",
            "last_status",
        ),
        0,
    )
    fields: dict[str, Any] = texts | numbers
    delivery = Delivery(delivery_id="whd_1", body=[""], state=State.WAITING, owner="w1", **fields)
    return Attempted(delivery, Attempt(1, 0, 0, 204, ""), State.DELIVERED, 0, 1)


async def test_a_database_that_is_away_holds_up_no_farewell(caplog: pytest.LogCaptureFixture) -> None:
    database, clock = cast("Database", SilentDatabase()), SystemClock()
    store = JobStore(database)
    ownership = Ownership(store, clock, Timing(), "here")
    telling = Telling(database, store.outbox, Terms(), ownership, clock)
    writing = asyncio.create_task(telling.store.commit(attempted()))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        # What follows it, the hand-over of jobs among it, is not reached where this raises.
        await telling.close(0.05)
    assert "webhook.left_unwritten" in caplog.text
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await asyncio.gather(
        *(task for task in asyncio.all_tasks() if task is not asyncio.current_task() and task.cancel()),
        return_exceptions=True,
    )
