"""Accepting jobs: the intent first, then the money, then an account; refused, nothing remains.

The caller's departure never stops an admission midway: what was begun is finished or undone.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct

from services.chassis import call_context
from services.chassis.clock import Clock
from services.chassis.errors import Kind, ServiceError
from services.chassis.ids import new_id
from services.jobs import errors, measures, schedule
from services.jobs import job as rules
from services.jobs.answers import Granted
from services.jobs.commits import Commits
from services.jobs.dispatcher import Dispatcher
from services.jobs.errors import LeaseLostError
from services.jobs.job import Generation, Job, JobState, Mode
from services.jobs.ownership import Ownership
from services.jobs.reservations import Customer, Reservations
from services.jobs.runner import Runner
from services.jobs.schedule import Timing
from services.jobs.steps import TRANSIENT, Clients
from services.jobs.store import JobStore
from services.jobs.waiting_room import class_of

log = logging.getLogger(__name__)

# How often the row of another replica's admission is looked at.
_LOOK_FIRST_S = 0.05
_LOOK_LIMIT_S = 0.5
# Without a deadline of its own a duplicate request waits no longer than an admission can take.
_PATIENCE_S = 15.0
# Refusals of a call that left too late: this worker was taken for dead, and its heir has undone the admission.
_TAKEN_BACK = frozenset({"HOLD_RELEASED", "LEASE_ENDED"})


class Order(Struct, frozen=True, gc=False):
    """A create request that is well formed."""

    customer_id: str
    mode: Mode
    storefront: str
    idempotency_key: str
    fingerprint: str
    generation: Generation
    sku: str
    quantity: int
    running_limit: int
    queued_limit: int
    id_prefix: str
    public_model: str
    echo: str
    project_id: str
    callback_url: str
    webhook_form_id: str
    key_id: str
    numbered: bool

    def __repr__(self) -> str:
        # What a customer gave must not reach a log by way of a traceback.
        return f"Order({self.customer_id!r}, {self.mode!r})"


class _Rivals:
    """The questions for a lease that one customer has under way beside one's own, which this begins."""

    def __init__(self, reservations: Reservations, customer: Customer) -> None:
        self._reservations = reservations
        self._customer = customer
        self._at_first = reservations.reserve(customer)
        self._begun_by_then = reservations.begun(customer)

    @property
    def none_before(self) -> bool:
        """One's own admission has found room for one more, and whoever came later counts it."""
        return self._at_first == 1

    def ever(self) -> int:
        """All that were under way at any moment since, one's own among them: no more can have begun to run since."""
        return self._at_first + self._reservations.begun(self._customer) - self._begun_by_then

    def now(self) -> int:
        """Those under way in this moment, one's own among them."""
        return self._reservations.of(self._customer)


class Intake:
    """Admits jobs, at most one for each (customer, mode, idempotency key)."""

    def __init__(
        self,
        store: JobStore,
        commits: Commits,
        clients: Clients,
        dispatcher: Dispatcher,
        runner: Runner,
        ownership: Ownership,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._store = store
        self._commits = commits
        self._clients = clients
        self._dispatcher = dispatcher
        self._runner = runner
        self._ownership = ownership
        self._clock = clock
        self._timing = timing
        self._outcomes: dict[str, asyncio.Future[Job]] = {}
        self._doubt: Callable[[str], None] = lambda job_id: None
        self._undoing: set[tuple[str, int]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def create(self, order: Order) -> tuple[Job, bool]:
        """The accepted job, and whether an earlier request made it. Raises ServiceError; then nothing remains."""
        task = asyncio.create_task(self._create(order))
        self._keep(task)
        try:
            job, replayed = await asyncio.shield(task)
        except ServiceError as error:
            measures.admitted(error.reason.lower())
            raise
        measures.admitted("replayed" if replayed else job.state.value)
        return job, replayed

    def undo(self, job: Job) -> None:
        """Takes back an `admitting` job: releases what it may have, until that is acknowledged; then the row goes."""
        self._background(self._undo(job))

    def doubts(self, doubt: Callable[[str], None]) -> None:
        """What is told of a job whose row may be there, although its admission ended."""
        self._doubt = doubt

    def busy(self) -> set[str]:
        """Jobs whose admission, or its undoing, is under way here."""
        return self._outcomes.keys() | {job_id for job_id, _ in self._undoing}

    async def close(self, patience_s: float) -> None:
        """Lets admissions end for `patience_s`; whoever claims the rest undoes it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        # An empty context: the deadline of the request that failed is not that of its undoing.
        self._keep(asyncio.create_task(work, context=contextvars.Context()))

    async def _create(self, order: Order) -> tuple[Job, bool]:
        await self._permitted()
        until_s = self._clock.monotonic_s() + call_context.remaining_s(_PATIENCE_S)
        while True:
            mine = self._new_job(order)
            outcome = self._outcomes[mine.job_id] = asyncio.get_running_loop().create_future()
            # Nobody may be waiting when it is refused.
            outcome.add_done_callback(lambda done: done.exception())
            customer = (mine.customer_id, mine.mode)
            rivals = _Rivals(self._dispatcher.reservations, customer)
            try:
                found, running = await self._store.admit(mine, order.queued_limit, numbered=order.numbered)
                if found.job_id == mine.job_id:
                    return await self._admit(found, order.key_id, rivals, running), False
            except BaseException as error:
                if not outcome.done():
                    self._outcomes.pop(mine.job_id, None)
                    # A duplicate may wait for it already.
                    outcome.set_exception(errors.unavailable())
                    if _may_have_left_a_row(error):
                        self._doubt(mine.job_id)
                raise
            finally:
                self._dispatcher.reservations.release(customer)
                self._dispatcher.eased(customer)
            del self._outcomes[mine.job_id]
            if found.fingerprint != order.fingerprint:
                raise errors.idempotency_key_conflict()
            accepted = await self._accepted(found, until_s)
            if accepted is not None:
                return accepted, not _came_twice(found, order)

    async def _permitted(self) -> None:
        if self._ownership.may_act():
            return
        try:
            async with asyncio.timeout(call_context.remaining_s(_PATIENCE_S)):
                await self._ownership.permission()
        except TimeoutError:
            raise errors.unavailable() from None

    def _new_job(self, order: Order) -> Job:
        now_ms = self._clock.now_ms()
        return Job(
            job_id=new_id(order.id_prefix),
            customer_id=order.customer_id,
            mode=order.mode,
            storefront=order.storefront,
            admission_key=f"{order.customer_id} {order.mode} {order.idempotency_key}",
            fingerprint=order.fingerprint,
            generation=order.generation,
            sku=order.sku,
            quantity=order.quantity,
            running_limit=order.running_limit,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            run_at_ms=now_ms,
            queue_deadline_ms=now_ms + int(self._timing.queue_deadline_s * 1000),
            owner=self._ownership.worker_id,
            public_model=order.public_model,
            echo=order.echo,
            project_id=order.project_id,
            callback_url=order.callback_url,
            webhook_form_id=order.webhook_form_id,
        )

    async def _accepted(self, job: Job, until_s: float) -> Job | None:
        """The job of an earlier request once it is accepted, or None if that came to nothing."""
        pause_s = _LOOK_FIRST_S
        while job.state is JobState.ADMITTING:
            here = self._outcomes.get(job.job_id)
            if here is not None:
                return await asyncio.shield(here)
            if self._clock.monotonic_s() + pause_s > until_s:
                raise errors.unavailable()
            await self._clock.sleep(pause_s)
            pause_s = min(_LOOK_LIMIT_S, pause_s * 2)
            found = await self._store.job(job.job_id)
            if found is None:
                return None
            job = found
        return self._runner.shown(job.job_id) or job

    async def _admit(self, job: Job, key_id: str, rivals: _Rivals, running: int) -> Job:
        outcome = self._outcomes[job.job_id]
        try:
            with call_context.fenced(job.epoch):
                accepted = await self._pay_and_place(job, key_id, rivals, running)
        except ServiceError as error:
            outcome.set_exception(error)
            raise
        except LeaseLostError:
            # Whoever declared this worker dead undoes the admission.
            outcome.set_exception(errors.unavailable())
            self._outcomes.pop(job.job_id, None)
            raise errors.unavailable() from None
        except asyncio.CancelledError:
            outcome.set_exception(errors.unavailable())
            raise
        outcome.set_result(accepted)
        self._outcomes.pop(job.job_id, None)
        told = {"job_id": job.job_id, "customer_id": job.customer_id, "state": accepted.state}
        log.info("job.accepted", extra=told)
        return accepted

    async def _pay_and_place(self, job: Job, key_id: str, rivals: _Rivals, running: int) -> Job:
        try:
            quote = await self._clients.billing.hold(job, int(self._timing.hold_ttl_s * 1000), key_id)
        except ServiceError as error:
            if error.kind in TRANSIENT or error.reason in _TAKEN_BACK:
                self.undo(job)
                raise errors.unavailable() from error
            await self._remove(job)
            raise
        try:
            lease = await self._clients.pool.lease(
                job,
                int(self._timing.lease_ttl_s * 1000),
                wait_behind_others=await self._must_wait(job, rivals, running),
            )
        except ServiceError as error:
            incapable = error.reason == "NO_CAPABLE_ACCOUNT"
            if error.reason in _TAKEN_BACK or (error.kind in TRANSIENT and not incapable):
                self.undo(job)
                raise errors.unavailable() from error
            await self._give_back(job)
            if incapable:
                raise errors.provider_unavailable() from error
            raise
        paid = {"quoted_millis": quote.amount_millis, "price_version": quote.price_version}
        now_ms = self._clock.now_ms()
        if isinstance(lease, Granted):
            allowance_ms = self._timing.run_allowance_ms(job.generation.kind)
            leased = rules.leased(job, lease.account_id, allowance_ms, now_ms, **paid)
            accepted = await self._accept(job, leased)
            self._runner.start(accepted)
        else:
            accepted = await self._accept(job, rules.moved(job, JobState.QUEUED, now_ms, **paid))
            self._dispatcher.enqueue(accepted)
        return accepted

    async def _accept(self, job: Job, after: Job) -> Job:
        try:
            return await self._commits.commit(job, after)
        except ServiceError as error:
            # While this process lives nobody else comes for the row; when it leaves, its heir does.
            if error.reason != "SHUTTING_DOWN":
                self.undo(job)
            raise

    async def _must_wait(self, job: Job, rivals: _Rivals, running: int) -> bool:
        """Whether others wait for the same accounts, or the customer has as much running as it may.

        running: how many the customer had as this one was admitted.
        """
        if self._dispatcher.room.waits(class_of(job)):
            return True
        if rivals.none_before or running + rivals.ever() <= job.running_limit:
            return False
        # Before the counters are read: see Reservations.
        spoken_for = rivals.now()
        load = await self._store.load((job.customer_id, job.mode))
        return load.running + spoken_for > job.running_limit

    async def _give_back(self, job: Job) -> None:
        """Refused by the pool: the hold goes back before the answer, or in the background if billing is silent."""
        try:
            await self._clients.billing.release(job.job_id, job.customer_id, job.mode)
        except ServiceError:
            self.undo(job)
            return
        await self._remove(job)

    async def _remove(self, job: Job) -> None:
        if not await self._removed(job):
            self.undo(job)

    async def _removed(self, job: Job) -> bool:
        try:
            await self._commits.remove(job)
        except LeaseLostError:
            log.warning("admission.lease_lost", extra={"job_id": job.job_id})
        except ServiceError as error:
            log.warning("admission.remove_failed", extra={"job_id": job.job_id, "reason": error.reason})
            return False
        self._outcomes.pop(job.job_id, None)
        return True

    async def _undo(self, job: Job) -> None:
        life = (job.job_id, job.epoch)
        if life in self._undoing:
            return
        self._undoing.add(life)
        failures = 0
        try:
            while not (await self._released(job) and await self._removed(job)):
                await self._clock.sleep(schedule.backoff_s(failures, random.random(), 5.0))  # noqa: S311 - jitter
                failures += 1
        finally:
            self._undoing.discard(life)

    async def _released(self, job: Job) -> bool:
        try:
            await self._clients.pool.release_lease(job.next_attempt_id)
            await self._clients.billing.release(job.job_id, job.customer_id, job.mode)
        except ServiceError as error:
            if error.kind in TRANSIENT:
                return False
            log.exception("admission.undo_refused", extra={"job_id": job.job_id, "reason": error.reason})
        return True


def _may_have_left_a_row(error: BaseException) -> bool:
    """Whether the database may have done what it did not answer, or a bug came between."""
    if isinstance(error, ServiceError):
        return error.kind in TRANSIENT - {Kind.RESOURCE_EXHAUSTED} and error.reason != "SHUTTING_DOWN"
    return isinstance(error, Exception)


def _came_twice(found: Job, order: Order) -> bool:
    """Whether this is the very call that made the job, repeated on its way: what is staged has a new id every time.

    Its caller must not take it for a replay, and drop references that the job is to use.
    """
    mine = order.generation.reference_ids
    return bool(mine) and mine == found.generation.reference_ids
