"""Keeps the holds and leases of living jobs alive, many with one call."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs.dispatcher import Dispatcher
from services.jobs.job import LEASED
from services.jobs.ownership import Ownership
from services.jobs.runner import Runner
from services.jobs.schedule import Timing
from services.jobs.steps import Clients

log = logging.getLogger(__name__)

# What billing and the pool take in one call.
_PAGE = 1000
_Renew = Callable[[Sequence[str], int], Awaitable[list[str]]]


class Renewal:
    """Extends everything that this worker owns, several times within its time to live."""

    def __init__(
        self,
        runner: Runner,
        dispatcher: Dispatcher,
        ownership: Ownership,
        clients: Clients,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._runner = runner
        self._dispatcher = dispatcher
        self._ownership = ownership
        self._clients = clients
        self._clock = clock
        self._timing = timing

    async def run(self) -> None:
        """Renews for ever."""
        while True:
            await self._clock.sleep(self._timing.renewal_s)
            # One that was frozen may have been declared dead: what it held is another's to renew, or to let go of.
            await self._ownership.permission()
            await self.renew()

    async def renew(self) -> None:
        """One round. What fails is tried again in the next one, long before anything expires."""
        active = self._runner.jobs()
        holds = [job.job_id for job in active] + self._dispatcher.job_ids()
        leases = [job.attempt_id for job in active if job.state in LEASED]
        await self._renew("holds", holds, self._clients.billing.extend_holds, self._timing.hold_ttl_s)
        await self._renew("leases", leases, self._clients.pool.renew_leases, self._timing.lease_ttl_s)

    async def _renew(self, what: str, ids: list[str], renew: _Renew, ttl_s: float) -> None:
        for start in range(0, len(ids), _PAGE):
            try:
                ended = await renew(ids[start : start + _PAGE], int(ttl_s * 1000))
            except ServiceError as error:
                log.warning("renewal.failed", extra={"what": what, "reason": error.reason})
                continue
            if ended:
                # A job may have ended meanwhile; one that has not meets its loss at its next step.
                log.info("renewal.not_open", extra={"what": what, "count": len(ended)})
