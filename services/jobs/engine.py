"""The engine, assembled: what owns jobs, what runs them, and how all of it begins and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.jobs.changes import Changes
from services.jobs.commits import Commits
from services.jobs.deletions import Deletions
from services.jobs.dispatcher import Dispatcher
from services.jobs.hints import Hints
from services.jobs.intake import Intake
from services.jobs.ownership import Ownership
from services.jobs.recall import Recall
from services.jobs.reconcile import Reconciler
from services.jobs.renewal import Renewal
from services.jobs.returns import Returns
from services.jobs.rpc import JobsServicer
from services.jobs.runner import Runner
from services.jobs.schedule import Timing
from services.jobs.status import Status
from services.jobs.steps import Clients
from services.jobs.store import JobStore
from services.jobs.webhooks.telling import Telling, Terms
from services.jobs.wishes import Wishes

log = logging.getLogger(__name__)

# Of the three seconds that a hand-over may take, steps under way get this to end by themselves.
_DRAIN_STEPS_S = 1.5
_DRAIN_ADMISSIONS_S = 0.5
_DRAIN_RETURNS_S = 0.3
_MEASURE_S = 5.0
_STUMBLE_PAUSE_S = 1.0
_CANCEL_TRIES = 4
_CANCEL_PATIENCE_S = 0.25


class Engine:
    """Enter it to own and run jobs; leaving hands them over."""

    def __init__(
        self,
        database: Database,
        clients: Clients,
        clock: Clock,
        timing: Timing,
        address: str,
        terms: Terms | None = None,
    ) -> None:
        """terms: of webhooks; None: public addresses may be named, and nothing is sent."""
        self.store = JobStore(database)
        self._clock = clock
        changes = Changes()
        commits = Commits(self.store, changes, clock)
        self.ownership = Ownership(self.store, clock, timing, address)
        self._returns = Returns(clients.pool, clock)
        self.wishes = Wishes(self.store, self.ownership, clock, timing)
        self._dispatcher = Dispatcher(
            self.store, commits, clients.pool, self._returns, self.ownership, self.wishes, clock, timing
        )
        self.runner = Runner(
            clients,
            commits,
            self._dispatcher,
            self._returns,
            self.ownership,
            self.wishes,
            changes,
            clock,
            timing,
        )
        self._intake = Intake(
            self.store, commits, clients, self._dispatcher, self.runner, self.ownership, clock, timing
        )
        status = Status(self.store, self.runner, clients.pool, self.wishes, changes, clock, timing)
        self.deletions = Deletions(self.store, clients.pool, self.ownership, clock, timing)
        self.servicer = JobsServicer(self._intake, status, self.wishes, self.store, clock)
        self.telling = Telling(database, self.store.outbox, terms or Terms(), self.ownership, clock)
        self.servicer.tells_through(self.telling, clock)
        self._hints = Hints(clients.pool, self.runner, clock)
        self._renewal = Renewal(self.runner, self._dispatcher, self.ownership, clients, clock, timing)
        self.reconciler = Reconciler(
            self.store, clients, self.runner, self._dispatcher, self.ownership, clock, timing
        )
        self.recall = Recall(
            self.store, self.runner, self._dispatcher, self._intake, self.ownership, clock, timing
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._dispatcher.starts(self.runner.start)
        self.runner.undoes(self._intake.undo)
        self._intake.doubts(self.recall.doubt)
        self.wishes.tells(self.runner.end, self.deletions.wake)
        self.ownership.tells(self.runner.adopt, self._drop_all)
        await self.ownership.begin()
        forever = (
            self.ownership.beat_forever,
            self.ownership.claim_forever,
            self._dispatcher.watch,
            self._dispatcher.run,
            self._hints.watch,
            self._renewal.run,
            self.reconciler.run,
            self.recall.run,
            self.wishes.run,
            self.deletions.run,
            self._measure,
            *self.telling.forever(),
        )
        self._tasks = [asyncio.create_task(self._keep(work)) for work in forever]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hands every job over: whoever claims next need not wait for this worker's time to live."""
        await self._intake.close(_DRAIN_ADMISSIONS_S)
        self.ownership.leave()
        await self._stop_working()
        await self._dispatcher.close()
        await asyncio.gather(self.runner.stop(_DRAIN_STEPS_S), self.telling.close(_DRAIN_STEPS_S))
        await self._returns.close(_DRAIN_RETURNS_S)
        await self.store.close()
        try:
            freed = await self.ownership.hand_over()
            log.info("worker.left", extra={"worker_id": self.ownership.worker_id, "jobs": freed})
        except ServiceError as fault:
            log.warning("worker.left_in_silence", extra={"reason": fault.reason})

    async def _stop_working(self) -> None:
        pending = set(self._tasks)
        for _ in range(_CANCEL_TRIES):
            # A driver may answer a cancellation with an error of its own, and then it is not one any more.
            for task in pending:
                task.cancel()
            if pending:
                _, pending = await asyncio.wait(pending, timeout=_CANCEL_PATIENCE_S)

    async def check(self) -> None:
        """Raises while this process could not take a job."""
        await self.ownership.check()
        await self.store.check()

    def _drop_all(self) -> None:
        self._dispatcher.drop_all()
        self.runner.drop_all()

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A bug in one of these must not leave a process that looks alive and does nothing."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("engine.stumbled", extra={"work": work.__qualname__})
            await self._clock.sleep(_STUMBLE_PAUSE_S)

    async def _measure(self) -> None:
        while True:
            self.runner.measure()
            await self._clock.sleep(_MEASURE_S)
