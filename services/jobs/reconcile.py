"""Compares jobs, holds and leases, at start and every minute; repairs what a crash left behind, and counts it.

Nothing young is touched, and nothing that an unfinished job still needs: only what no job will ever come back for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import measures
from services.jobs.dispatcher import Dispatcher
from services.jobs.intake import Intake
from services.jobs.job import ENDED, LEASED, Job, JobState, Settlement
from services.jobs.ownership import Ownership
from services.jobs.ports import OpenHold, OpenLease
from services.jobs.runner import Runner
from services.jobs.schedule import Timing
from services.jobs.steps import TRANSIENT, Clients
from services.jobs.store import JobStore

log = logging.getLogger(__name__)

FINDINGS = (
    "hold_without_job",
    "hold_of_ended_job",
    "job_without_hold",
    "lease_without_job",
    "job_of_unknown_owner",
    "job_out_of_mind",
    "load_drift",
)
_PAGE = 500


class Reconciler:
    """Looks for what does not fit together."""

    def __init__(
        self,
        store: JobStore,
        clients: Clients,
        runner: Runner,
        dispatcher: Dispatcher,
        intake: Intake,
        ownership: Ownership,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._store = store
        self._clients = clients
        self._runner = runner
        self._dispatcher = dispatcher
        self._intake = intake
        self._ownership = ownership
        self._clock = clock
        self._timing = timing
        self._missing: set[str] = set()

    async def run(self) -> None:
        """Reconciles for ever."""
        while True:
            try:
                await self.reconcile()
            except ServiceError as error:
                log.warning("reconcile.interrupted", extra={"reason": error.reason})
            await self._clock.sleep(self._timing.reconcile_s)

    async def reconcile(self) -> Counter[str]:
        """One comparison; what was found amiss, by kind."""
        await self._ownership.permission()
        found: Counter[str] = Counter()
        before_ms = self._clock.now_ms() - int(self._timing.reconcile_age_s * 1000)
        found["job_of_unknown_owner"] = await self._store.free_orphans()
        found["job_out_of_mind"] = await self._recall()
        found["load_drift"] = await self._mend_loads()
        await self._compare_holds(before_ms, found)
        await self._compare_leases(before_ms, found)
        found["job_without_hold"] = await self._unheld(before_ms)
        for finding in FINDINGS:
            measures.RECONCILE_FINDINGS.labels(finding).set(found[finding])
        if any(found.values()):
            log.warning("reconcile.found", extra={"findings": {name: n for name, n in found.items() if n}})
        return found

    async def _recall(self) -> int:
        """Jobs that are ours in the database and nowhere in memory: a claim whose answer was lost."""
        owned = await self._store.owned_ids(self._ownership.worker_id)
        missing = {job_id for job_id in owned if not self._in_mind(job_id)}
        # Between a commit and its place in memory lies a moment, so that only the second look counts.
        lost = missing & self._missing
        self._missing = missing - lost
        if lost:
            jobs = (await self._store.jobs(lost)).values()
            mine = [
                job
                for job in jobs
                if job.owner == self._ownership.worker_id and not self._in_mind(job.job_id)
            ]
            self._runner.adopt(mine)
        return len(lost)

    def _in_mind(self, job_id: str) -> bool:
        return self._runner.knows(job_id) or self._dispatcher.knows(job_id) or job_id in self._intake.busy()

    async def _mend_loads(self) -> int:
        drifted = await self._store.load_drift()
        for customer, (counted, stored) in drifted.items():
            log.error(
                "load.drift",
                extra={"customer_id": customer[0], "counted": str(counted), "stored": str(stored)},
            )
        if drifted:
            await self._store.mend_loads(drifted.keys())
        return len(drifted)

    async def _compare_holds(self, before_ms: int, found: Counter[str]) -> None:
        after = ""
        while page := await self._clients.billing.list_open_holds(before_ms, after):
            jobs = await self._store.jobs(hold.job_id for hold in page)
            for hold in page:
                await self._repaired(hold.job_id, self._compare_hold(hold, jobs.get(hold.job_id), found))
            after = page[-1].job_id

    async def _compare_hold(self, hold: OpenHold, job: Job | None, found: Counter[str]) -> None:
        if job is None:
            # The row comes before the hold, so this one was taken back and its release was lost.
            found["hold_without_job"] += 1
            await self._clients.billing.release(hold.job_id, hold.customer_id, hold.mode)
        elif job.state in ENDED:
            found["hold_of_ended_job"] += 1
            if job.settlement is Settlement.CAPTURE:
                await self._clients.billing.capture(job, job.settle_millis)
            else:
                await self._clients.billing.release(job.job_id, job.customer_id, job.mode)

    async def _repaired(self, job_id: str, repair: Awaitable[None]) -> None:
        """One repair that is refused for good must not keep all later ones from being made."""
        try:
            await repair
        except ServiceError as error:
            if error.kind in TRANSIENT:
                raise
            log.exception("reconcile.refused", extra={"job_id": job_id, "reason": error.reason})

    async def _compare_leases(self, before_ms: int, found: Counter[str]) -> None:
        after = ""
        while page := await self._clients.pool.list_leases(before_ms, after):
            jobs = await self._store.jobs(lease.job_id for lease in page)
            for lease in page:
                if not _needed(lease, jobs.get(lease.job_id)):
                    found["lease_without_job"] += 1
                    await self._repaired(lease.job_id, self._clients.pool.release_lease(lease.attempt_id))
            after = page[-1].attempt_id

    async def _unheld(self, before_ms: int) -> int:
        """Jobs of ours whose hold has expired or gone: they run on, and billing charges what it still can."""
        old = [
            job
            for job in self._runner.jobs()
            if job.created_at_ms < before_ms and job.state is not JobState.SETTLING
        ]
        unheld: list[str] = []
        ttl_ms = int(self._timing.hold_ttl_s * 1000)
        for start in range(0, len(old), _PAGE):
            ids = [job.job_id for job in old[start : start + _PAGE]]
            not_open = await self._clients.billing.extend_holds(ids, ttl_ms)
            jobs = await self._store.jobs(not_open)
            unheld += [job.job_id for job in jobs.values() if job.state in LEASED]
        for job_id in unheld:
            log.error("job.without_hold", extra={"job_id": job_id})
        return len(unheld)


def _needed(lease: OpenLease, job: Job | None) -> bool:
    if job is None or job.state in ENDED:
        return False
    if job.state in (JobState.ADMITTING, JobState.QUEUED):
        # Its question may have been answered without the answer arriving; it asks again under the same key.
        return lease.attempt_id == job.next_attempt_id
    return lease.attempt_id == job.attempt_id
