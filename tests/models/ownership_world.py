"""What the model of ownership knows: what must be in the tables, worked out from what happened and from nothing else."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from services.jobs.job import Job, JobState
from services.jobs.schema import METADATA
from tests.jobs_rows import NOW_MS
from tests.models.ground import Ground, HandClock
from tests.models.roads import Step
from tests.models.worker import TTL_MS, Parts, Worker


class World:
    """`rows` are the jobs, `alive` the workers that have a row, by when they were seen."""

    def __init__(self, ground: Ground, parts: Parts) -> None:
        self.ground, self.parts = ground, parts
        ground.clear(METADATA)
        ground.database_ms = NOW_MS
        # Commits that nobody waits for any more arrive through a process of their own.
        self.elsewhere = parts.store(ground.process(1))
        self.workers: list[Worker] = []
        self.strays: list[Step] = []
        self.numbers = 0
        self.true_ms = 0
        # A clock was set, or stood still: then workers may believe that they live, and only the fence is left.
        self.clocks_lied = False
        self.alive: dict[str, int] = {}
        self.rows: dict[str, Job] = {}

    @property
    def awake(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.frozen]

    def chosen(self, pick: int) -> Worker:
        return self.awake[pick % len(self.awake)]

    def run(self, work: Any) -> Any:
        return self.ground.run(work)

    def holds(self, step: Step) -> bool:
        """Whether the fence that a step began with is the job's."""
        now = self.rows.get(step.before.job_id)
        return now is not None and _fence(now) == _fence(step.before)

    def free(self, names: set[str], **changes: int) -> None:
        for name in names:
            self.alive.pop(name, None)
        for job_id, job in self.rows.items():
            if job.owner in names:
                self.rows[job_id] = replace(job, owner=None, **changes)

    def silent(self) -> set[str]:
        return {name for name, seen in self.alive.items() if seen < self.ground.database_ms - TTL_MS}

    def claimable(self, worker: Worker) -> set[str]:
        now_ms = worker.clock.wall_ms
        return {
            i
            for i, job in self.rows.items()
            if job.owner is None and not job.ended and job.run_at_ms <= now_ms
        }

    def claimed(self, worker: Worker, *, heard: bool = True) -> None:
        """The worker now owns everything that is free and due."""
        for job_id in self.claimable(worker):
            job = self.rows[job_id]
            idle = 0 if job.state is JobState.QUEUED else job.idle_claims + 1
            self.rows[job_id] = replace(job, owner=worker.name, epoch=job.epoch + 1, idle_claims=idle)
            if heard:
                assert worker.idle.get(job_id) == self.rows[job_id]

    def landed(self, step: Step) -> None:
        if step.after is None:
            del self.rows[step.before.job_id]
        else:
            self.rows[step.before.job_id] = step.after

    def stands(self, step: Step) -> bool:
        """Whether the row still is as this step left it: then repeating it is answered as if it were new."""
        return step.landed and self.rows.get(step.before.job_id) == step.after

    def worker(self) -> Worker:
        """A process that has not begun yet."""
        self.numbers += 1
        return Worker(self.parts, self.ground.process(self.numbers), HandClock(NOW_MS + self.true_ms))


def _fence(job: Job) -> tuple[tuple[str, int] | None, int]:
    return None if job.owner is None else (job.owner, job.epoch), job.version
