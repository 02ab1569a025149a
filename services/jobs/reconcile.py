"""Compares jobs with holds, leases, attempts and charges, at start and every minute; repairs what a crash left behind.

Nothing young is touched, and nothing that an unfinished job still needs: only what no job will ever come back for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import measures
from services.jobs.charges import Charges
from services.jobs.dispatcher import Dispatcher
from services.jobs.job import ENDED, Job, JobState, Settlement
from services.jobs.ownership import Ownership
from services.jobs.ports import OpenAttempt, OpenHold, OpenLease
from services.jobs.runner import Runner
from services.jobs.schedule import Timing
from services.jobs.steps import TRANSIENT, Clients
from services.jobs.store import JobStore, Standing

log = logging.getLogger(__name__)

_PAGE = 500
_Look = Callable[[int], Awaitable[dict[str, int]]]
_Listing = Callable[[int, str], Awaitable[Sequence[OpenLease | OpenAttempt]]]


class Reconciler:
    """Looks for what does not fit together. Each look stands alone: one that fails keeps none of the others from it."""

    def __init__(
        self,
        store: JobStore,
        clients: Clients,
        runner: Runner,
        dispatcher: Dispatcher,
        ownership: Ownership,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._store = store
        self._clients = clients
        self._runner = runner
        self._dispatcher = dispatcher
        self._ownership = ownership
        self._clock = clock
        self._timing = timing
        self._complete = True
        self._charges = Charges(store, clients.billing)
        self._looks: tuple[_Look, ...] = (
            self._owners,
            self._loads,
            self._holds,
            self._leases,
            self._attempts,
            self._totals,
        )

    async def run(self) -> None:
        """Reconciles for ever."""
        while True:
            await self.reconcile()
            whole_s, retry_s = self._timing.reconcile_s, self._timing.retry_reconcile_s
            await self._clock.sleep(whole_s if self._complete else min(whole_s, retry_s))

    async def reconcile(self) -> Counter[str]:
        """One comparison; what was found amiss, by kind. A kind whose look failed is missing."""
        await self._ownership.permission()
        found: Counter[str] = Counter()
        before_ms = self._clock.now_ms() - int(self._timing.reconcile_age_s * 1000)
        self._complete = True
        for look in self._looks:
            try:
                seen = await look(before_ms)
            except ServiceError as error:
                self._complete = False
                log.warning(
                    "reconcile.interrupted", extra={"look": look.__name__.strip("_"), "reason": error.reason}
                )
                continue
            except Exception:
                # A bug in one must not keep the others from giving back what customers and accounts are owed.
                self._complete = False
                log.exception("reconcile.failed", extra={"look": look.__name__.strip("_")})
                continue
            measures.note_findings(seen)
            found.update(seen)
        measures.RECONCILE_ROUNDS.labels("complete" if self._complete else "interrupted").inc()
        if any(found.values()):
            log.warning("reconcile.found", extra={"findings": {name: n for name, n in found.items() if n}})
        return found

    async def _owners(self, before_ms: int) -> dict[str, int]:
        return {"job_of_unknown_owner": await self._store.free_orphans()}

    async def _loads(self, before_ms: int) -> dict[str, int]:
        drifted = await self._store.load_drift()
        for customer, (counted, stored) in drifted.items():
            log.error(
                "load.drift",
                extra={"customer_id": customer[0], "counted": str(counted), "stored": str(stored)},
            )
        if drifted:
            await self._store.mend_loads(drifted.keys())
        return {"load_drift": len(drifted)}

    async def _holds(self, before_ms: int) -> dict[str, int]:
        found = {"hold_without_job": 0, "hold_of_ended_job": 0}
        held: set[str] = set()
        after = ""
        while page := await self._clients.billing.list_open_holds(before_ms, after):
            jobs = await self._store.standings(hold.job_id for hold in page)
            left: list[OpenHold] = []
            for hold in page:
                job = jobs.get(hold.job_id)
                if job is not None and (job.state not in ENDED or job.updated_at_ms >= before_ms):
                    held.add(hold.job_id)
                    continue
                found["hold_without_job" if job is None else "hold_of_ended_job"] += 1
                left.append(hold)
            await self._close_holds(left)
            after = page[-1].job_id
        return found | {"job_without_hold": await self._unheld(held, before_ms)}

    async def _close_holds(self, left: list[OpenHold]) -> None:
        if left:
            jobs = await self._store.jobs(hold.job_id for hold in left)
            await _repaired({hold.job_id: self._close_hold(hold, jobs.get(hold.job_id)) for hold in left})

    async def _close_hold(self, hold: OpenHold, job: Job | None) -> None:
        if job is not None and job.settlement is Settlement.CAPTURE:
            # What its customer was told is what it pays.
            await self._clients.billing.capture(job, min(job.charged_millis, hold.amount_millis))
        else:
            # Without a job: the row comes before the hold, so this one was taken back and its release was lost.
            await self._clients.billing.release(hold.job_id, hold.customer_id, hold.mode)

    async def _unheld(self, held: set[str], before_ms: int) -> int:
        """Jobs of ours whose hold has expired or gone: they run on, and billing charges what it still can."""
        mine = {job.job_id for job in self._runner.jobs()} | set(self._dispatcher.job_ids())
        unheld: list[str] = []
        for ids in _pages(sorted(mine - held)):
            old = [
                job.job_id
                for job in (await self._store.standings(ids)).values()
                if job.created_at_ms < before_ms and job.state not in ENDED
            ]
            still_held = await self._clients.billing.holds_open_of(old) if old else set()
            # Read again: one that ended meanwhile has settled its hold itself.
            jobs = await self._store.standings(set(old) - still_held)
            unheld += [job.job_id for job in jobs.values() if _needs_hold(job)]
        for job_id in unheld:
            log.error("job.without_hold", extra={"job_id": job_id})
        return len(unheld)

    async def _leases(self, before_ms: int) -> dict[str, int]:
        pool, found = self._clients.pool, 0
        async for left in self._left(pool.list_leases, _holds_lease, before_ms):
            await _repaired({name: pool.release_lease(name) for name in left})
            found += len(left)
        return {"lease_without_job": found}

    async def _attempts(self, before_ms: int) -> dict[str, int]:
        pool, found = self._clients.pool, 0
        async for left in self._left(pool.list_open_attempts, _may_ask, before_ms):
            await _repaired({left[0]: pool.close_attempts(left)})
            found += len(left)
        return {"attempt_without_answer": found}

    async def _left(
        self, listed: _Listing, wanted: Callable[[Standing | None, str, int], bool], before_ms: int
    ) -> AsyncIterator[list[str]]:
        """The attempts that the pool lists and their jobs do not want any more, page by page where there are any."""
        after = ""
        while page := await listed(before_ms, after):
            jobs = await self._store.standings(one.job_id for one in page)
            left = [
                one.attempt_id for one in page if not wanted(jobs.get(one.job_id), one.attempt_id, before_ms)
            ]
            if left:
                yield left
            after = page[-1].attempt_id

    async def _totals(self, before_ms: int) -> dict[str, int]:
        differing = await self._charges.compare()
        for mode in ("live", "test"):
            amounts = [abs(millis) for (_, of), millis in differing.items() if of == mode]
            measures.CHARGED_DIFFERENCE_MILLIS.labels(mode).set(sum(amounts))
        return {"charge_difference": len(differing)}


async def _repaired(repairs: Mapping[str, Awaitable[object]]) -> None:
    """Makes a page's repairs at once. One that is refused for good keeps none of the others from being made."""
    answers = await asyncio.gather(*repairs.values(), return_exceptions=True)
    for subject, answer in zip(repairs, answers, strict=True):
        if not isinstance(answer, BaseException):
            continue
        if not isinstance(answer, ServiceError) or answer.kind in TRANSIENT:
            raise answer
        log.error("reconcile.refused", extra={"subject": subject, "reason": answer.reason}, exc_info=answer)


def _pages(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE))


def _needs_hold(job: Standing) -> bool:
    # While a job is admitted its hold may be on its way; while it settles, the hold ends.
    return job.state not in ENDED | {JobState.ADMITTING, JobState.SETTLING}


def _holds_lease(job: Standing | None, attempt_id: str, before_ms: int) -> bool:
    if job is None:
        return False
    if job.updated_at_ms >= before_ms and (job.state in ENDED or job.state is JobState.QUEUED):
        # It was listed before the job let go of it, and is on its way back.
        return attempt_id in (job.attempt_id, job.next_attempt_id)
    if job.state in ENDED:
        return False
    if job.state in (JobState.ADMITTING, JobState.QUEUED):
        # Its question may have been answered without the answer arriving; it asks again under the same key.
        return attempt_id == job.next_attempt_id
    return attempt_id == job.attempt_id


def _may_ask(job: Standing | None, attempt_id: str, before_ms: int) -> bool:
    """Whether the job will ask about this attempt. A number beyond the job's own is one that it has yet to come to."""
    if job is None:
        return False
    if job.updated_at_ms >= before_ms and attempt_id == job.attempt_id:
        # It was listed before it ended, or is being closed.
        return True
    if job.state in ENDED:
        return False
    number = int(attempt_id.rpartition(":")[2])
    return number > job.attempt_number or (number == job.attempt_number and job.state is not JobState.QUEUED)
