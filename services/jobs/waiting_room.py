"""Where queued jobs wait: per class a ring over customers, first in first out within one.

A class is what shares provider accounts: (mode, model). The ring gives every customer one turn, so that somebody
with five thousand jobs delays somebody with one by a single job.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Container
from dataclasses import dataclass

from services.jobs.job import Job

JobClass = tuple[str, str]
Customer = tuple[str, str]


@dataclass(slots=True, eq=False)
class Waiting:
    """A queued job as it is kept in memory: small, because there may be very many."""

    job_id: str
    customer: Customer
    job_class: JobClass
    created_at_ms: int
    deadline_ms: int
    # Whether it is in the heap of deadlines already: being taken and put back must not add it twice.
    timed: bool = False


def waiting_of(job: Job) -> Waiting:
    return Waiting(
        job_id=job.job_id,
        customer=(job.customer_id, job.mode),
        job_class=class_of(job),
        created_at_ms=job.created_at_ms,
        deadline_ms=job.run_deadline_ms or job.queue_deadline_ms,
    )


def class_of(job: Job) -> JobClass:
    return job.mode, job.generation.model


class WaitingRoom:
    """The queued jobs of this process."""

    def __init__(self) -> None:
        self._rings: dict[JobClass, OrderedDict[Customer, deque[Waiting]]] = {}
        self._present: dict[str, Waiting] = {}
        self._deadlines: list[tuple[int, int, Waiting]] = []
        self._ties = itertools.count()

    def __len__(self) -> int:
        return len(self._present)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._present

    def job_ids(self) -> list[str]:
        return list(self._present)

    def classes(self) -> list[JobClass]:
        """The classes in which somebody waits."""
        return list(self._rings)

    def waits(self, job_class: JobClass) -> bool:
        """Whether anybody waits in this class."""
        return job_class in self._rings

    def oldest_ms(self) -> int | None:
        """When the oldest job that waits was created; heads of lines are the oldest of their customers."""
        heads = [line[0].created_at_ms for ring in self._rings.values() for line in ring.values()]
        return min(heads, default=None)

    def add(self, waiting: Waiting, *, front: bool = False) -> None:
        """Adds a job at the end of its customer's line; `front`: at its head, and its customer is next."""
        if waiting.job_id in self._present:
            return
        self._present[waiting.job_id] = waiting
        if not waiting.timed:
            waiting.timed = True
            heapq.heappush(self._deadlines, (waiting.deadline_ms, next(self._ties), waiting))
        ring = self._rings.setdefault(waiting.job_class, OrderedDict())
        line = ring.setdefault(waiting.customer, deque())
        if front:
            line.appendleft(waiting)
            ring.move_to_end(waiting.customer, last=False)
        else:
            line.append(waiting)

    def take(self, job_class: JobClass, skip: Container[Customer] = ()) -> Waiting | None:
        """The next job in turn of a customer that is not skipped; its customer goes to the end of the ring."""
        ring = self._rings.get(job_class, OrderedDict())
        customer = next((customer for customer in ring if customer not in skip), None)
        if customer is None:
            return None
        waiting = ring[customer].popleft()
        ring.move_to_end(customer)
        del self._present[waiting.job_id]
        self._close_empty(waiting)
        return waiting

    def discard(self, job_id: str) -> bool:
        """Takes one job out, wherever it stands; False if it does not wait."""
        waiting = self._present.get(job_id)
        if waiting is None:
            return False
        self._discard(waiting)
        return True

    def overdue(self, now_ms: int) -> list[str]:
        """Takes out the jobs whose deadline has passed."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            waiting = heapq.heappop(self._deadlines)[2]
            waiting.timed = False
            if self._present.get(waiting.job_id) is waiting:
                self._discard(waiting)
                late.append(waiting.job_id)
        return late

    def clear(self) -> None:
        """Forgets everything: somebody else owns these jobs now."""
        self._rings.clear()
        self._present.clear()
        self._deadlines.clear()

    def _discard(self, waiting: Waiting) -> None:
        del self._present[waiting.job_id]
        self._rings[waiting.job_class][waiting.customer].remove(waiting)
        self._close_empty(waiting)

    def _close_empty(self, waiting: Waiting) -> None:
        ring = self._rings[waiting.job_class]
        if not ring[waiting.customer]:
            del ring[waiting.customer]
        if not ring:
            del self._rings[waiting.job_class]
