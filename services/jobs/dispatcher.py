"""Gives free accounts to queued jobs: when the pool says that there is room, and fairly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from services.chassis import call_context
from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import job as rules
from services.jobs import measures
from services.jobs.answers import Granted
from services.jobs.commits import Commits
from services.jobs.errors import LeaseLostError
from services.jobs.job import Job, JobState
from services.jobs.ownership import Ownership
from services.jobs.ports import Pool, Room
from services.jobs.reservations import Reservations
from services.jobs.returns import Returns
from services.jobs.schedule import Timing
from services.jobs.steps import TRANSIENT
from services.jobs.store import JobStore
from services.jobs.waiting_room import Customer, JobClass, Waiting, WaitingRoom, waiting_of
from services.jobs.wishes import Wishes

log = logging.getLogger(__name__)

# Offers under way at once, and rows read with one statement.
_AT_ONCE = 256
_WATCH_PAUSE_S = 0.5


@dataclass(slots=True)
class _Capacity:
    """What is believed about one class: slots that may be free, and how fresh that belief is."""

    slots: int = 0
    news: int = 0


class Dispatcher:
    """Offers queued jobs to the pool and starts those that got an account."""

    def __init__(
        self,
        store: JobStore,
        commits: Commits,
        pool: Pool,
        returns: Returns,
        ownership: Ownership,
        wishes: Wishes,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self.room = WaitingRoom()
        self._store = store
        self._commits = commits
        self._pool = pool
        self._returns = returns
        self._ownership = ownership
        self._wishes = wishes
        self._clock = clock
        self._timing = timing
        self._start: Callable[[Job], None] = lambda job: None
        self._capacity: dict[JobClass, _Capacity] = {}
        self._capped: set[Customer] = set()
        self.reservations = Reservations()
        self._offers: set[asyncio.Task[None]] = set()
        self._offered_ids: set[str] = set()
        # Refused for reasons of their own; they are asked for again a little later.
        self._aside: dict[str, Waiting] = {}
        # Past their deadline or asked to end, and not committed as such yet.
        self._late: dict[str, None] = {}
        self._wake = asyncio.Event()

    def starts(self, start: Callable[[Job], None]) -> None:
        """What is done with a job that got an account, or that ended while it waited."""
        self._start = start

    def enqueue(self, job: Job, *, front: bool = False) -> None:
        """Lets a committed queued job wait."""
        self.room.add(waiting_of(job), front=front)
        self._wake.set()

    def offer_at_once(self, job: Job) -> None:
        """Asks for another account without waiting for an announcement: the job was on one already."""
        waiting = waiting_of(job)
        news = self._of(waiting.job_class).news
        self._spawn(waiting, self._offer_within_limit(job, waiting, news))

    def end(self, job_id: str) -> None:
        """Ends a job that was asked to end, if it waits here; one that is being offered is asked for again later."""
        if self.room.discard(job_id) or self._aside.pop(job_id, None) is not None:
            self.end_unplaced(job_id)

    def end_unplaced(self, job_id: str) -> None:
        """The same for one that waits nowhere else."""
        self._late[job_id] = None
        self._wake.set()

    def announce(self, rooms: Iterable[Room]) -> None:
        """The pool says where there is room."""
        for room in rooms:
            capacity = self._of((room.mode, room.model))
            capacity.slots = room.free_slots
            capacity.news += 1
        self._wake.set()

    def eased(self, customer: Customer) -> None:
        """Less of this customer runs, or is about to, so that another job of its own may."""
        if customer in self._capped:
            self._capped.discard(customer)
            self._wake.set()

    def knows(self, job_id: str) -> bool:
        """Whether the job waits here, is being offered, or is about to fail of its deadline."""
        unsettled = job_id in self._offered_ids or job_id in self._aside or job_id in self._late
        return unsettled or job_id in self.room

    def job_ids(self) -> list[str]:
        """The jobs that wait here, or are being offered."""
        return list({*self.room.job_ids(), *self._offered_ids, *self._aside})

    def drop_all(self) -> None:
        """Forgets every job: somebody else owns them."""
        self.room.clear()
        self._aside.clear()
        self._late.clear()
        for offer in self._offers:
            offer.cancel()

    async def close(self) -> None:
        """Ends the offers under way; unanswered ones are asked again by the next owner, under the same key."""
        for offer in self._offers:
            offer.cancel()
        await asyncio.gather(*self._offers, return_exceptions=True)

    async def watch(self) -> None:
        """Listens for announcements for ever."""
        while True:
            try:
                async for rooms in self._pool.watch_capacity():
                    self.announce(rooms)
            except ServiceError as error:
                log.info("capacity.stream_lost", extra={"reason": error.reason})
            await self._clock.sleep(_WATCH_PAUSE_S)

    async def run(self) -> None:
        """Dispatches for ever: at every announcement, and every few seconds in case one was missed."""
        expect_s = self._clock.monotonic_s() + self._timing.dispatch_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, expect_s - self._clock.monotonic_s())):
                    await self._wake.wait()
            # By the clock, not for want of news: jobs that keep arriving wake this without saying where room is.
            if self._clock.monotonic_s() >= expect_s:
                self._expect_room_everywhere()
                expect_s = self._clock.monotonic_s() + self._timing.dispatch_s
            self._wake.clear()
            try:
                await self._ownership.permission()
                await self._end_late()
                while await self._round():
                    pass
            except ServiceError as error:
                log.warning("dispatch.failed", extra={"reason": error.reason})

    def _of(self, job_class: JobClass) -> _Capacity:
        return self._capacity.setdefault(job_class, _Capacity())

    def _expect_room_everywhere(self) -> None:
        self._capped.clear()
        for waiting in self._aside.values():
            self.room.add(waiting, front=True)
        self._aside.clear()
        for job_class in self.room.classes():
            capacity = self._of(job_class)
            capacity.slots = max(1, capacity.slots)
            capacity.news += 1
        oldest_ms = self.room.oldest_ms()
        age_ms = 0 if oldest_ms is None else self._clock.now_ms() - oldest_ms
        measures.OLDEST_QUEUED_SECONDS.set(max(0, age_ms) / 1000)

    async def _round(self) -> bool:
        """Offers as much as there may be room for; False when there was nothing to offer."""
        taken = self._take()
        if not taken:
            return False
        # Before the counters are read: see Reservations.
        for waiting in taken:
            self.reservations.reserve(waiting.customer)
        try:
            await self._offer_what_fits(taken)
        finally:
            for waiting in taken:
                self.reservations.release(waiting.customer)
        return True

    async def _offer_what_fits(self, taken: list[Waiting]) -> None:
        """Offers what its customers may run beside what they run already; the rest waits on."""
        spoken_for = Counter({waiting.customer: self.reservations.of(waiting.customer) for waiting in taken})
        spoken_for.subtract(waiting.customer for waiting in taken)
        try:
            jobs = await self._store.jobs([waiting.job_id for waiting in taken])
            loads = await self._store.loads({waiting.customer for waiting in taken})
        except BaseException:
            for waiting in reversed(taken):
                self.room.add(waiting, front=True)
            raise
        for waiting in taken:
            job = jobs.get(waiting.job_id)
            if job is None or job.state is not JobState.QUEUED or job.owner != self._ownership.worker_id:
                continue
            if loads[waiting.customer].running + spoken_for[waiting.customer] >= job.running_limit:
                self._capped.add(waiting.customer)
                self._of(waiting.job_class).slots += 1
                self.room.add(waiting, front=True)
                continue
            spoken_for[waiting.customer] += 1
            self._spawn(waiting, self._offer(job, waiting, self._of(waiting.job_class).news))

    def _take(self) -> list[Waiting]:
        taken: list[Waiting] = []
        for job_class in self.room.classes():
            capacity = self._of(job_class)
            while capacity.slots > 0 and len(taken) + len(self._offers) < _AT_ONCE:
                waiting = self.room.take(job_class, skip=self._capped)
                if waiting is None:
                    break
                capacity.slots -= 1
                taken.append(waiting)
        return taken

    def _spawn(self, waiting: Waiting, work: Coroutine[Any, Any, None]) -> None:
        self.reservations.reserve(waiting.customer)
        self._offered_ids.add(waiting.job_id)
        offer = asyncio.create_task(work)
        self._offers.add(offer)
        offer.add_done_callback(lambda done: self._offered(done, waiting))

    def _offered(self, offer: asyncio.Task[None], waiting: Waiting) -> None:
        self._offers.discard(offer)
        self._offered_ids.discard(waiting.job_id)
        self.reservations.release(waiting.customer)
        if len(self._offers) < _AT_ONCE and self.room.waits(waiting.job_class):
            self._wake.set()
        if not offer.cancelled() and offer.exception() is not None:
            log.error("dispatch.offer_failed", exc_info=offer.exception(), extra={"job_id": waiting.job_id})
            self.room.add(waiting, front=True)

    async def _offer_within_limit(self, job: Job, waiting: Waiting, news: int) -> None:
        # Others of this customer may have begun to run since this one stopped. Itself is among those reserved.
        spoken_for = self.reservations.of(waiting.customer)
        load = await self._store.load(waiting.customer)
        if load.running + spoken_for > job.running_limit:
            self._capped.add(waiting.customer)
            self.room.add(waiting, front=True)
            return
        await self._offer(job, waiting, news)

    async def _offer(self, job: Job, waiting: Waiting, news: int) -> None:
        await self._ownership.permission()
        if self._wishes.asked_at_ms(job):
            self._of(waiting.job_class).slots += 1
            self.end_unplaced(job.job_id)
            return
        try:
            with call_context.fenced(job.epoch):
                answer = await self._pool.lease(
                    job, int(self._timing.lease_ttl_s * 1000), wait_behind_others=False
                )
        except ServiceError as error:
            if error.reason == "LEASE_ENDED":
                await self._skip_number(job)
            elif error.reason == "NO_CAPABLE_ACCOUNT" or error.kind not in TRANSIENT:
                self._set_aside(waiting)
            else:
                self._put_back(waiting, news)
            return
        if not isinstance(answer, Granted):
            if job.avoid_account_ids:
                self._set_aside(waiting)
            else:
                self._put_back(waiting, news)
            return
        now_ms = self._clock.now_ms()
        allowance_ms = self._timing.run_allowance_ms(job.generation.kind)
        try:
            self._start(
                await self._commits.commit(job, rules.leased(job, answer.account_id, allowance_ms, now_ms))
            )
        except LeaseLostError:
            measures.LEASES_LOST.inc()

    def _put_back(self, waiting: Waiting, news: int) -> None:
        capacity = self._of(waiting.job_class)
        if capacity.news == news:
            # An announcement that came after the question is fresher than this answer.
            capacity.slots = 0
        self.room.add(waiting, front=True)

    def _set_aside(self, waiting: Waiting) -> None:
        """What this job cannot use, the others of its class may: it must not stand before them."""
        self._aside[waiting.job_id] = waiting
        self._of(waiting.job_class).slots += 1
        self._wake.set()

    async def _skip_number(self, job: Job) -> None:
        """The lease of this number ended before anybody used it; the next one has a number of its own."""
        number = job.attempt_number + 1
        now_ms = self._clock.now_ms()
        try:
            self.enqueue(
                await self._commits.commit(job, rules.touched(job, now_ms, attempt_number=number)), front=True
            )
        except LeaseLostError:
            measures.LEASES_LOST.inc()

    async def _end_late(self) -> None:
        now_ms = self._clock.now_ms()
        self._late.update(dict.fromkeys(self.room.overdue(now_ms)))
        if not self._late:
            return
        jobs = await self._store.jobs(self._late)
        for job_id in list(self._late):
            job = jobs.get(job_id)
            after = None if job is None else _given_up(job, now_ms)
            if job is None or after is None or job.owner != self._ownership.worker_id:
                self._late.pop(job_id, None)
                continue
            try:
                settling = await self._commits.commit(job, after)
            except LeaseLostError:
                measures.LEASES_LOST.inc()
                self._late.pop(job_id, None)
            except ServiceError as error:
                # It stays late; the next round tries again.
                log.warning("dispatch.fail_failed", extra={"job_id": job_id, "reason": error.reason})
            else:
                self._late.pop(job_id, None)
                # An unanswered question may have got it a lease.
                self._returns.give_back(job.next_attempt_id)
                self._start(settling)


def _given_up(job: Job, now_ms: int) -> Job | None:
    # Beyond the waiting room a wish is its driver's to hear.
    asked = rules.canceling(job, now_ms) if job.state is JobState.QUEUED else None
    return asked or rules.overdue(job, now_ms)
