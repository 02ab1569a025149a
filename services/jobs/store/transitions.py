"""Every later write of a job's life: many jobs at once, each under its fence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select

from services.chassis.prepared_statements import prepared
from services.chassis.set_statements import locked, member_of_named
from services.chassis.write_together import Change, Insertion, write_together
from services.jobs.errors import LeaseLostError
from services.jobs.job import Job, JobState
from services.jobs.schema import JOB_EVENTS, JOBS
from services.jobs.store.load import LoadChanges
from services.jobs.store.rows import changing_rows
from services.jobs.store.usage import UsageChanges
from services.jobs.webhooks.outbox import Outbox

_FENCES = prepared(
    locked(
        select(JOBS.c.job_id, JOBS.c.owner, JOBS.c.epoch, JOBS.c.version).where(
            member_of_named(JOBS.c.job_id, "job_ids")
        ),
        JOBS.c.job_id,
    )
)
_REMOVE = prepared(delete(JOBS).where(member_of_named(JOBS.c.job_id, "job_ids")))


class Transition(NamedTuple):
    """A change that the owner of `before` wants: `after`, or the removal of the row."""

    before: Job
    after: Job | None


def kind_of(item: Transition) -> str:
    """What a transition leads to: a state, `removed`, or `touched` where the job stays where it is."""
    if item.after is None:
        return "removed"
    return "touched" if item.after.state is item.before.state else item.after.state.value


class _Fence(NamedTuple):
    owner: str | None
    epoch: int
    version: int


def _fence_of(job: Job) -> _Fence:
    return _Fence(job.owner, job.epoch, job.version)


def apply_transitions(
    connection: Connection, items: Sequence[Transition], outbox: Outbox | None = None
) -> list[Job | Exception | None]:
    """For each item what is now in the row, or LeaseLostError where somebody else owns the job.

    The fence is owner, epoch and version. A change that is there already (its COMMIT went through, its answer was
    lost) is answered like a new one and leaves nothing behind a second time.
    """
    fences = _lock_fences(connection, sorted({item.before.job_id for item in items}))
    batch = _Batch()
    results: list[Job | Exception | None] = []
    for item in items:
        job_id, after = item.before.job_id, item.after
        fence = fences.get(job_id)
        if _landed(after, fence):
            results.append(after)
        elif fence != _fence_of(item.before):
            results.append(LeaseLostError(job_id))
        else:
            batch.add(item)
            if after is None:
                del fences[job_id]
            else:
                fences[job_id] = _fence_of(after)
            results.append(after)
    batch.write(connection)
    if outbox is not None and batch.ended:
        outbox.write(connection, batch.ended)
    return results


def _lock_fences(connection: Connection, job_ids: list[str]) -> dict[str, _Fence]:
    return {row[0]: _Fence(*row[1:]) for row in _FENCES.rows(connection, job_ids=job_ids)}


def _landed(after: Job | None, fence: _Fence | None) -> bool:
    return fence == (None if after is None else _fence_of(after))


class _Batch:
    def __init__(self) -> None:
        # The jobs that end in this transaction, and the worker that ends each.
        self.ended: list[tuple[Job, str | None]] = []
        self._updates: dict[str, Job] = {}
        self._removed: list[str] = []
        self._events: list[tuple[Any, ...]] = []
        self._loads = LoadChanges()
        self._usage = UsageChanges()

    def add(self, item: Transition) -> None:
        before, after = item.before, item.after
        if after is None:
            self._removed.append(before.job_id)
            self._loads.removed(before)
            return
        self._updates[after.job_id] = after
        self._loads.moved(before, after)
        if after.ended and not before.ended:
            self.ended.append((after, before.owner))
        self._usage.moved(before, after)
        if before.state is JobState.ADMITTING:
            # What was never accepted leaves no trace, so the first event is written with the second.
            self._events.append(_event(before, before.owner, sequence=before.event_count))
        if after.event_count > before.event_count:
            self._events.append(_event(after, before.owner, sequence=after.event_count))

    def write(self, connection: Connection) -> None:
        """The end of a job is in here: whatever must be true together with it belongs in this transaction."""
        if self._removed:
            _REMOVE.run(connection, job_ids=self._removed)
        write_together(
            connection,
            (
                Change(JOBS, ("job_id",), *changing_rows(list(self._updates.values()))),
                Insertion(JOB_EVENTS, _EVENT_NAMES, self._events),
                self._loads.step(),
                self._usage.step(),
            ),
        )


_EVENT_NAMES = ("job_id", "sequence", "epoch", "state", "worker_id", "at_ms")


def _event(job: Job, worker_id: str | None, *, sequence: int) -> tuple[Any, ...]:
    return job.job_id, sequence, job.epoch, job.state.value, worker_id or "", job.updated_at_ms
