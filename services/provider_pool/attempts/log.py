"""The record of every attempt, as the other parts write and read it: one group commit, and a cache of what cannot change unseen."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace as with_fields
from typing import cast

from msgspec.structs import replace
from sqlalchemy import Connection

from services.chassis import crash_points
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import Kind, ServiceError
from services.chassis.group_commit import GroupCommit
from services.chassis.ids import new_id
from services.provider_pool import errors, meters
from services.provider_pool.adapters.interface import TaskRef
from services.provider_pool.attempts import codec
from services.provider_pool.attempts.heartbeat import Heartbeat
from services.provider_pool.attempts.history import Event, Notes, events_of, whole
from services.provider_pool.attempts.records import Answer, Begin, Begun, Change, Item, kind_of
from services.provider_pool.attempts.states import TERMINAL, Attempt, AttemptState
from services.provider_pool.selection.capacity import Capacity
from services.provider_pool.store import attempts as store
from services.provider_pool.store import events
from services.provider_pool.store.accounts import lock_accounts

CACHED_ATTEMPTS = 50_000
"""Running ones, about a kilobyte each; more than that are not polled at once by one process."""

CACHED_ENDED = 2_000
"""Attempts that have ended are asked for once or twice more, within seconds."""

SKEW_MS = 5_000
"""A provider's clock may be behind ours by this much."""

_RETRY_PAUSE_S = 0.5


class AttemptLog:
    """Begins and changes attempts. `heartbeat`: this process as one that sends them, and what it knows of the others."""

    def __init__(self, database: Database, clock: Clock, capacity: Capacity) -> None:
        self._database = database
        self._clock = clock
        self._capacity = capacity
        self._running: OrderedDict[str, Attempt] = OrderedDict()
        self._ended: OrderedDict[str, Attempt] = OrderedDict()
        self._numbers = itertools.count(1)
        self._notes = Notes()
        self._commits: GroupCommit[Item, Answer] = GroupCommit(
            database, store.apply, name="attempts", kind=kind_of
        )
        self.heartbeat = Heartbeat(database, new_id("sender"), clock)

    @property
    def process_id(self) -> str:
        """What names this process in what it sends."""
        return self.heartbeat.senders.me

    def new_sender(self) -> str:
        """A name for one call of this process."""
        return f"{self.process_id}/{next(self._numbers)}"

    async def begin(self, begin: Begin) -> Begun:
        """Record that a request is about to leave. Raises ATTEMPT_NOT_FOUND (no lease) and LEASE_ENDED."""
        begun = cast("Begun", await self._commits.submit(begin))
        self._remember(begun.attempt)
        return begun

    async def change(self, change: Change) -> Attempt:
        """Record what became of an attempt; its record afterwards."""
        noted = self._notes.of(change.attempt_id) if change.to is not None else []
        if noted:
            change = with_fields(change, events=(*noted, *change.events))
        attempt = cast("Attempt", await self._commits.submit(change))
        self._remember(attempt)
        if noted:
            self._notes.forget(change.attempt_id)
        for signal in change.signals:
            if signal.fault is not None:
                meters.FAULTS.labels(attempt.provider, signal.fault.cause).inc()
        if change.signals or change.cost_millis is not None:
            # A cost that turns out lower than what was booked leaves the account with more, too.
            self._capacity.improved()
        if change.to is attempt.state:
            reason = "" if attempt.failure is None else attempt.failure.reason.value
            meters.OUTCOMES.labels(attempt.provider, attempt.state.value, reason).inc()
        return attempt

    async def record(self, change: Change) -> Attempt:
        """Like `change`, for what happened outside and must not be lost: it is tried until the database is back."""
        while True:
            try:
                return await self.change(change)
            except ServiceError as error:
                if error.kind not in (Kind.UNAVAILABLE, Kind.ABORTED, Kind.RESOURCE_EXHAUSTED):
                    raise
                if error.reason == "SHUTTING_DOWN":
                    raise
            await self._clock.sleep(_RETRY_PAUSE_S)

    async def get(self, attempt_id: str, *, fresh: bool = False) -> Attempt:
        """The record. A cached one may be `running` still where another replica knows more. Raises ATTEMPT_NOT_FOUND."""
        cached = None if fresh else self._cached(attempt_id)
        if cached is not None:
            return cached
        found = await self._database.read(lambda connection: store.load_attempt(connection, attempt_id))
        if found is None:
            raise errors.attempt_not_found(attempt_id)
        self._remember(found)
        return found

    async def get_many(self, attempt_ids: Iterable[str]) -> dict[str, Attempt]:
        """The records that there are of these, as `get` gives them."""
        found: dict[str, Attempt] = {}
        unknown: list[str] = []
        for attempt_id in attempt_ids:
            cached = self._cached(attempt_id)
            if cached is None:
                unknown.append(attempt_id)
            else:
                found[attempt_id] = cached
        if unknown:
            for attempt in await self._database.read(
                lambda connection: store.load_named(connection, unknown)
            ):
                self._remember(attempt)
                found[attempt.attempt_id] = attempt
        return found

    async def adopt(
        self, attempt: Attempt, candidates: Sequence[TaskRef], expected_millis: int = 0
    ) -> Attempt | None:
        """Make the oldest of these tasks that no attempt has this one's; None if there is none.

        It comes back `unknown` where that cannot be told yet: a task may be another's that is being sent.
        `expected_millis`: what it costs, as far as nobody has said; a sender that died has noted nothing.
        """
        noted, now_ms = self._notes.of(attempt.attempt_id), self._clock.now_ms()
        adopted = await crash_points.committed(
            self._database.write,
            "attempt_adopted",
            lambda connection: _adopt(connection, attempt, candidates, expected_millis, noted, now_ms),
        )
        if adopted is not None and adopted.state is not AttemptState.UNKNOWN:
            self._notes.forget(attempt.attempt_id)
            self._remember(adopted)
        return adopted

    def note(self, attempt_id: str, what: str, detail: str = "") -> None:
        """Remember something that changes nothing; it is written when the attempt changes next."""
        self._notes.add(attempt_id, Event(self._clock.now_ms(), what, detail))

    async def history(self, attempt_id: str) -> tuple[Attempt, list[Event]]:
        """An attempt and all that is known to have happened to it, oldest first. Raises ATTEMPT_NOT_FOUND."""
        attempt = await self.get(attempt_id, fresh=True)
        written = await self._database.read(lambda connection: events.load_events(connection, attempt_id))
        return attempt, whole(attempt, [*written, *self._notes.of(attempt_id)])

    async def mark_orphans(self, answer_by_ms: Callable[[str], int]) -> list[str]:
        """Put attempts whose sender is gone in doubt."""
        senders, now_ms = self.heartbeat.senders, self._clock.now_ms()
        return await crash_points.committed(
            self._database.write,
            "attempt_orphaned",
            lambda connection: store.mark_orphans(connection, senders, answer_by_ms, now_ms),
        )

    async def abandoned_of(self, job_id: str) -> int:
        """How many attempts of the job were given up in doubt."""
        return await self._database.read(lambda connection: store.count_abandoned(connection, job_id))

    async def list(
        self, job_id: str, state: AttemptState | None, after_attempt_id: str, limit: int
    ) -> list[Attempt]:
        """Attempts in the order of their ids."""
        return await self._database.read(
            lambda connection: store.load_attempts(connection, job_id, state, after_attempt_id, limit)
        )

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._commits.close()

    def _cached(self, attempt_id: str) -> Attempt | None:
        running = self._running.get(attempt_id)
        if running is None:
            return self._ended.get(attempt_id)
        self._running.move_to_end(attempt_id)
        return running

    def _remember(self, attempt: Attempt) -> None:
        if attempt.state is AttemptState.RUNNING:
            # Read before it ended, and remembered after: an end is not taken back.
            if attempt.attempt_id not in self._ended:
                _keep(self._running, attempt, CACHED_ATTEMPTS)
            return
        self._running.pop(attempt.attempt_id, None)
        if attempt.state in TERMINAL:
            _keep(self._ended, attempt, CACHED_ENDED)


def _keep(cache: OrderedDict[str, Attempt], attempt: Attempt, limit: int) -> None:
    cache[attempt.attempt_id] = attempt
    cache.move_to_end(attempt.attempt_id)
    while len(cache) > limit:
        cache.popitem(last=False)


def _adopt(
    connection: Connection,
    attempt: Attempt,
    candidates: Sequence[TaskRef],
    expected_millis: int,
    noted: Sequence[Event],
    now_ms: int,
) -> Attempt | None:
    # One adoption on an account at a time: of two twins in doubt, the second must see what the first took.
    lock_accounts(connection, [attempt.account_id])
    current = store.lock_attempts(connection, [attempt.attempt_id]).get(attempt.attempt_id)
    if current is None or current.state is not AttemptState.UNKNOWN:
        return current
    owned = store.owned_tasks(connection, current.account_id, [task.task_id for task in candidates])
    unowned = [task for task in candidates if task.task_id not in owned]
    sending_since_ms = store.sending_since_ms(connection, current) if unowned else None
    free = [task for task in unowned if _is_decided(task, current, sending_since_ms)]
    if not free:
        return current if unowned else None
    task = min(free, key=lambda found: (found.submitted_at_ms, found.task_id))
    adopted = replace(
        current,
        state=AttemptState.RUNNING,
        task_id=task.task_id,
        task=codec.task_text(task),
        submitted_at_ms=task.submitted_at_ms,
        generation=codec.without_prompt(current.generation),
        failure=None,
        # What is off the balance already is changed together with the balance only.
        cost_millis=current.cost_millis if current.booked else current.cost_millis or expected_millis,
    )
    store.save_attempts(connection, [adopted])
    events.add_events(connection, {adopted.attempt_id: [*noted, *events_of(current, adopted, now_ms)]})
    return adopted


def _is_decided(task: TaskRef, attempt: Attempt, sending_since_ms: int | None) -> bool:
    """Whether the task cannot be one that is being sent at this moment."""
    if sending_since_ms is None or task.task_id == attempt.attempt_id:
        return True
    return task.submitted_at_ms < sending_since_ms - SKEW_MS
