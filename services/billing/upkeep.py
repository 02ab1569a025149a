"""What billing does by itself: closing holds whose time is over, recording key use, showing its gauges."""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import Gauge

from services.billing.authentication import Authenticator
from services.billing.bookkeeper import Bookkeeper
from services.billing.store import holds
from services.chassis.clock import Clock
from services.chassis.database import Database

log = logging.getLogger(__name__)

# One batch of the ledger.
SWEEP_LIMIT_HOLDS = 512
# New holds can come with a nearer expiry than the one waited for, so the wait is never longer than this.
LONGEST_SWEEP_PAUSE_S = 2.0
# Two sweeps closer than this would be one busy loop.
SHORTEST_SWEEP_PAUSE_S = 0.02
# A hold still open so long after its expiry means that the sweep does not keep up.
OVERDUE_AFTER_MS = 30_000
GAUGES_PERIOD_S = 5.0
KEY_USES_PERIOD_S = 5.0

_OPEN_HOLDS = Gauge("atelier_billing_open_holds", "Holds that are open.")
_HELD_MILLIS = Gauge("atelier_billing_held_millis", "What open holds keep, in thousandths of a credit.")
_OVERDUE_HOLDS = Gauge(
    "atelier_billing_overdue_holds", "Holds still open well after their expiry; must be 0."
)
_UNBILLED_JOBS = Gauge("atelier_billing_unbilled_jobs", "Jobs captured after expiry that nobody paid for.")
_UNBILLED_MILLIS = Gauge(
    "atelier_billing_unbilled_millis", "What those jobs cost, in thousandths of a credit."
)


async def expire_holds(database: Database, bookkeeper: Bookkeeper, clock: Clock) -> float:
    """Close the holds whose time is over, oldest first; returns how long to wait for the next, in seconds."""
    now_ms = clock.now_ms()
    expired, next_ms = await database.read(
        lambda connection: holds.due(connection, now_ms, SWEEP_LIMIT_HOLDS)
    )
    if expired:
        # Every replica sweeps; the operation's key makes it safe that two of them find the same hold.
        await asyncio.gather(*(bookkeeper.submit(operation) for operation in expired))
        log.info("holds.expired", extra={"holds": len(expired)})
    if len(expired) == SWEEP_LIMIT_HOLDS or next_ms is None:
        return SHORTEST_SWEEP_PAUSE_S if expired else LONGEST_SWEEP_PAUSE_S
    return min(LONGEST_SWEEP_PAUSE_S, max(SHORTEST_SWEEP_PAUSE_S, (next_ms - now_ms) / 1000))


async def show_gauges(database: Database, clock: Clock) -> float:
    """Read what the gauges show; returns how long to wait, in seconds."""
    overdue_before_ms = clock.now_ms() - OVERDUE_AFTER_MS
    totals = await database.read(lambda connection: holds.totals(connection, overdue_before_ms))
    _OPEN_HOLDS.set(totals.open_holds)
    _HELD_MILLIS.set(totals.held_millis)
    _OVERDUE_HOLDS.set(totals.overdue_holds)
    _UNBILLED_JOBS.set(totals.unbilled_jobs)
    _UNBILLED_MILLIS.set(totals.unbilled_millis)
    return GAUGES_PERIOD_S


async def write_key_uses(authenticator: Authenticator) -> float:
    """Write when keys were last used; returns how long to wait, in seconds."""
    await authenticator.write_uses()
    return KEY_USES_PERIOD_S
