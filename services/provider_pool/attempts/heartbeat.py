"""Which of the processes that send attempts have died: each is heard of again and again, or it is dead.

Only where several share a database; whoever owns a file alone knows that its predecessors are gone. Time to live and every
comparison are the database's. Nobody is declared dead by a process that was itself without the database lately: the others
may have been, too, and are given as long to be heard of again.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from services.chassis.clock import Clock
from services.chassis.database import Database, database_now_ms
from services.provider_pool.attempts.states import Senders
from services.provider_pool.store import senders as store

log = logging.getLogger(__name__)

TTL_S: Final = 20.0
"""Well above the seconds within which a recorded request leaves or stays (`submission.SEND_BY_S`): a process that was held up
for so long and comes back sends nothing that others have given up. Below it would also be a failover of the database."""

_BEAT_S: Final = TTL_S / 5
_ALONE_S: Final = 3600.0
_FORGOTTEN_AFTER_S: Final = 24 * 3600.0
"""No submission is waited for nearly as long, so that nobody asks any more whether its sender lives."""


class Heartbeat:
    """Says that `process_id` lives. `senders`: what it knows of the others since its last beat."""

    def __init__(self, database: Database, process_id: str, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._beaten_s = float("-inf")
        self._steady_since_s = float("inf")
        self.senders = Senders(process_id, database.sole_owner)

    async def beat(self) -> float:
        """Say that this process lives, and look who has not said so; returns how long to wait, in seconds."""
        if self.senders.alone:
            return _ALONE_S
        silent = await self._database.write(
            lambda connection: store.beat(
                connection,
                self.senders.me,
                database_now_ms(),
                ttl_ms=round(TTL_S * 1000),
                forgotten_after_ms=round(_FORGOTTEN_AFTER_S * 1000),
            )
        )
        now_s = self._clock.monotonic_s()
        if now_s - self._beaten_s > 2 * _BEAT_S:
            self._steady_since_s = now_s
        self._beaten_s = now_s
        dead = frozenset(silent) if now_s - self._steady_since_s >= TTL_S else frozenset()
        if fresh := dead - self.senders.dead:
            log.warning("senders.dead", extra={"senders": sorted(fresh)})
        self.senders = replace(self.senders, dead=dead)
        return _BEAT_S
