"""This process as a worker: it lives by heartbeats, and acts only while it may believe that it lives.

A worker that missed its heartbeats begins nothing new (self-fence); one that was declared dead drops everything
and comes back under another id. Time to live and every comparison are the database's; the fence is monotonic.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import measures
from services.jobs.job import Job
from services.jobs.schedule import Timing
from services.jobs.store import JobStore

log = logging.getLogger(__name__)

# The rest of the time to live covers clocks that run at different rates.
_FENCE_SHARE = 0.7
_CLAIM_LIMIT = 1000
# A worker that leaves hands its jobs over; they lie about no longer than this.
_CLAIM_PAUSE_S = 1.0


class Ownership:
    """Registers, beats, reaps and claims."""

    def __init__(self, store: JobStore, clock: Clock, timing: Timing, address: str) -> None:
        self.worker_id = ""
        self._store = store
        self._clock = clock
        self._ttl_s = timing.worker_ttl_s
        self._address = address
        self._beaten_s = float("-inf")
        self._healthy = asyncio.Event()
        self._leaving = False
        self._adopt: Callable[[list[Job]], None] = lambda jobs: None
        self._drop_all: Callable[[], None] = lambda: None

    def tells(self, adopt: Callable[[list[Job]], None], drop_all: Callable[[], None]) -> None:
        """What is done with claimed jobs, and what when this worker was declared dead."""
        self._adopt = adopt
        self._drop_all = drop_all

    async def begin(self) -> None:
        """Joins, frees the jobs of the dead and claims what is free."""
        await self._join()
        dead = await self._bury()
        log.info("worker.joined", extra={"worker_id": self.worker_id, "dead": dead})
        await self._claim()

    async def beat_forever(self) -> None:
        """Keeps this worker alive and declares others dead."""
        while True:
            await self._clock.sleep(self._ttl_s / 4)
            try:
                async with asyncio.timeout(self._ttl_s / 2):
                    await self.beat()
                    if self.may_act():
                        await self._store.reap(int(self._ttl_s * 1000))
            except (ServiceError, TimeoutError) as error:
                log.warning("worker.beat_failed", extra={"error": type(error).__name__})

    async def claim_forever(self) -> None:
        """Takes what nobody owns."""
        while True:
            await self._clock.sleep(min(_CLAIM_PAUSE_S, self._ttl_s / 4))
            try:
                await self._claim()
            except ServiceError as error:
                log.warning("worker.claim_failed", extra={"reason": error.reason})

    async def beat(self) -> None:
        """One heartbeat. Being declared dead means: drop everything, and join anew."""
        sent_s = self._clock.monotonic_s()
        if await self._store.beat(self.worker_id):
            self._alive_since(sent_s)
            return
        log.error("worker.declared_dead", extra={"worker_id": self.worker_id})
        measures.DECLARED_DEAD.inc()
        self._beaten_s = float("-inf")
        self._healthy.clear()
        self._drop_all()
        await self._join()

    def may_act(self) -> bool:
        """Whether a new side effect may begin now."""
        return not self._leaving and self._clock.monotonic_s() - self._beaten_s < _FENCE_SHARE * self._ttl_s

    async def permission(self) -> None:
        """Returns when a new side effect may begin: at once, or after the next good heartbeat."""
        while not self.may_act():
            self._healthy.clear()
            await self._healthy.wait()

    async def check(self) -> None:
        """Raises while this worker fences itself."""
        if not self.may_act():
            raise RuntimeError("the last heartbeat is too old")

    def leave(self) -> None:
        """Begins nothing new from here on."""
        self._leaving = True

    async def hand_over(self) -> int:
        """Frees everything that this worker owns; its last word."""
        return await self._store.hand_over(self.worker_id)

    async def _join(self) -> None:
        # Never an id that was used before: a new life inherits nothing.
        worker_id = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
        sent_s = self._clock.monotonic_s()
        await self._store.register(worker_id, self._address)
        self.worker_id = worker_id
        self._alive_since(sent_s)

    def _alive_since(self, sent_s: float) -> None:
        self._beaten_s = sent_s
        if self.may_act():
            self._healthy.set()

    async def _bury(self) -> list[str]:
        if self._store.sole_owner:
            return await self._store.take_over(self.worker_id)
        return await self._store.reap(int(self._ttl_s * 1000))

    async def _claim(self) -> None:
        while self.may_act():
            claimant = self.worker_id
            jobs = await self._store.claim(claimant, _CLAIM_LIMIT, self._clock.now_ms())
            if claimant != self.worker_id:
                # Declared dead meanwhile: these were freed with everything else.
                continue
            if jobs:
                measures.CLAIMED.inc(len(jobs))
                self._adopt(jobs)
            if len(jobs) < _CLAIM_LIMIT:
                return
