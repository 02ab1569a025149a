"""Tasks: what was accepted, where it stands at a time, and whether and what it charged. The truth of the audits."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from services.chassis.clock import rfc3339
from services.simulator.accounts import Account
from services.simulator.drawings import Drawing
from services.simulator.faults import Fault
from services.simulator.files import File


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Charge(StrEnum):
    """When a provider takes its money."""

    AT_SUBMIT = "at_submit"
    # As AT_SUBMIT, and given back when the task fails.
    AT_SUBMIT_REFUNDED = "at_submit_refunded"
    ON_SUCCESS = "on_success"


ENDED: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED, State.EXPIRED})


class OverConcurrency(Exception):
    """The account has as much under way as it may."""


@dataclass(slots=True)
class Task:
    """One piece of work. `cost` is in the provider's unit, `facts` what its provider alone understands."""

    id: str
    account: Account
    kind: str
    model: str
    prompt: str
    base_url: str
    created_ms: int
    length_ms: int
    cost: Decimal
    charge: Charge
    drawings: tuple[Drawing, ...]
    faults: frozenset[Fault]
    facts: dict[str, Any]
    seed: int
    output_lifetime_s: float | None = None
    expires_ms: int | None = None
    state: State = State.QUEUED
    started_ms: int | None = None
    ended_ms: int | None = None
    changed_ms: int = 0
    charged: Decimal = Decimal(0)
    # Where a slot is given back, though the task never says that it ended.
    is_off_slot: bool = False
    is_deleted: bool = False
    files: list[File] = field(default_factory=list)

    @property
    def provider(self) -> str:
        return self.account.provider

    @property
    def is_moderated(self) -> bool:
        """Whether it failed because of what its output shows."""
        return self.state is State.FAILED and Fault.MODERATED_AFTER in self.faults

    def shown(self, now_ms: int) -> State:
        """What a status read shows: the state, but for a provider whose status goes back for a while."""
        if Fault.BACKWARDS in self.faults and self.state is State.RUNNING and self.started_ms is not None:
            done = (now_ms - self.started_ms) / max(self.length_ms, 1)
            return State.QUEUED if 0.4 <= done < 0.7 else State.RUNNING
        return self.state

    def progress(self, now_ms: int) -> float:
        """From 0 to 1."""
        if self.state in ENDED:
            return 1.0
        if self.started_ms is None:
            return 0.0
        return min(0.99, max(0.0, (now_ms - self.started_ms) / max(self.length_ms, 1)))

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "provider": self.provider,
            "key": self.account.key,
            "kind": self.kind,
            "model": self.model,
            "prompt": self.prompt[:5000],
            "state": self.state.value,
            "created_at": rfc3339(self.created_ms),
            "created_ms": self.created_ms,
            "ended_ms": self.ended_ms,
            "cost": float(self.cost),
            "charged": float(self.charged),
            "is_charged": self.charged > 0,
            "faults": sorted(self.faults),
            "outputs": len(self.files),
            "facts": self.facts,
        }


Listener = Callable[[Task], None]


class Tasks:
    """Every task of every account, moved on by `advance`: nothing here waits by itself."""

    def __init__(self, publish: Callable[[Task], list[File]]) -> None:
        self._publish = publish
        self._tasks: dict[tuple[str, str], Task] = {}
        self._due: list[tuple[int, int, Task]] = []
        self._order = itertools.count()
        self._waiting: dict[tuple[str, str], deque[Task]] = {}
        # In the order in which they were made.
        self._of_account: dict[tuple[str, str], list[Task]] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """`listener` is called with a task whenever its state has changed."""
        self._listeners.append(listener)

    def accept(self, task: Task) -> None:
        """Takes a task on, charges what is charged now, and starts it if a slot is free. Raises OverConcurrency."""
        account = task.account
        is_full = account.running >= account.concurrency
        if is_full and account.overflow == "refuse":
            raise OverConcurrency
        self._keep(task)
        if task.charge is not Charge.ON_SUCCESS:
            self._take(task)
        if task.expires_ms is not None:
            self._at(task.expires_ms, task)
        if is_full:
            account.waiting += 1
            self._waiting.setdefault((task.provider, account.key), deque()).append(task)
            self._changed(task, task.created_ms)
        else:
            self._changed(task, task.created_ms)
            self._start(task, task.created_ms)
        account.took_one()

    def advance(self, now_ms: int) -> None:
        """Everything that happens until `now_ms`, in its order."""
        while self._due and self._due[0][0] <= now_ms:
            at_ms, _, task = heapq.heappop(self._due)
            if task.state in ENDED:
                continue
            if task.expires_ms is not None and at_ms >= task.expires_ms:
                self._end(task, State.EXPIRED, at_ms)
            elif Fault.STUCK in task.faults:
                self._leave_slot(task, at_ms)
            else:
                self._finish(task, at_ms)

    def cancel(self, task: Task, now_ms: int, *, refund: bool = True) -> None:
        """Ends a task that has not ended. What was charged at once is given back if `refund`."""
        if refund and task.charged:
            self._give_back(task)
        self._end(task, State.CANCELED, now_ms)

    def find(self, account: Account, task_id: str) -> Task | None:
        """A task of this account that was not deleted."""
        task = self._tasks.get((account.provider, task_id))
        return None if task is None or task.account is not account or task.is_deleted else task

    def place(self, task: Task) -> int:
        """How many of its account wait before a task that waits."""
        return self._queue_of(task).index(task)

    def of_account(self, account: Account) -> list[Task]:
        """Newest first, without those that were deleted."""
        mine = self._of_account.get((account.provider, account.key), ())
        return [task for task in reversed(mine) if not task.is_deleted]

    def all(self) -> list[Task]:
        return list(self._tasks.values())

    def restore(self, task: Task) -> None:
        """Takes on a task of an earlier run where it stood; nothing is charged again."""
        self._keep(task)
        if task.state in ENDED:
            return
        if task.expires_ms is not None:
            self._at(task.expires_ms, task)
        if task.started_ms is None:
            task.account.waiting += 1
            self._queue_of(task).append(task)
        elif not task.is_off_slot:
            task.account.running += 1
            self._at(task.started_ms + task.length_ms, task)

    def clear(self) -> None:
        self._tasks.clear()
        self._of_account.clear()
        self._due.clear()
        self._waiting.clear()

    def next_due_ms(self) -> int | None:
        return self._due[0][0] if self._due else None

    def _keep(self, task: Task) -> None:
        self._tasks[task.provider, task.id] = task
        self._of_account.setdefault((task.provider, task.account.key), []).append(task)

    def _start(self, task: Task, at_ms: int) -> None:
        task.account.running += 1
        task.started_ms = at_ms
        task.state = State.RUNNING
        self._at(at_ms + task.length_ms, task)
        self._changed(task, at_ms)

    def _finish(self, task: Task, at_ms: int) -> None:
        if task.faults & {Fault.MODERATED_AFTER, Fault.GENERATION_FAILED}:
            if task.charge is Charge.AT_SUBMIT_REFUNDED:
                self._give_back(task)
            self._end(task, State.FAILED, at_ms)
            return
        if task.charge is Charge.ON_SUCCESS:
            self._take(task)
        task.files = [] if Fault.NO_OUTPUT in task.faults else self._publish(task)
        self._end(task, State.SUCCEEDED, at_ms)

    def _end(self, task: Task, state: State, at_ms: int) -> None:
        was_running = task.started_ms is not None
        task.state = state
        task.ended_ms = at_ms
        self._changed(task, at_ms)
        if was_running:
            self._leave_slot(task, at_ms)
        else:
            task.account.waiting -= 1
            self._queue_of(task).remove(task)

    def _leave_slot(self, task: Task, at_ms: int) -> None:
        if task.is_off_slot:
            return
        task.is_off_slot = True
        task.account.running -= 1
        queue = self._queue_of(task)
        if queue and task.account.running < task.account.concurrency:
            task.account.waiting -= 1
            self._start(queue.popleft(), at_ms)

    def _queue_of(self, task: Task) -> deque[Task]:
        return self._waiting.setdefault((task.provider, task.account.key), deque())

    def _take(self, task: Task) -> None:
        task.charged = task.cost
        task.account.charge(task.cost)

    def _give_back(self, task: Task) -> None:
        task.account.charge(-task.charged)
        task.charged = Decimal(0)

    def _at(self, at_ms: int, task: Task) -> None:
        heapq.heappush(self._due, (at_ms, next(self._order), task))

    def _changed(self, task: Task, at_ms: int) -> None:
        task.changed_ms = at_ms
        for listener in self._listeners:
            listener(task)
