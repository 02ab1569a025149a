"""A model of ownership: workers that live, freeze, die and wake, over the statements that the service uses.

However they interleave, only the live owner's epoch writes, and no unfinished job is out of everybody's reach.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from msgspec.structs import replace
from sqlalchemy import create_engine, event, select
from sqlalchemy.pool import StaticPool

from services.jobs import job as rules
from services.jobs.errors import LeaseLostError
from services.jobs.job import FailureReason, Job, JobState
from services.jobs.schema import JOB_EVENTS, JOBS, METADATA, WORKERS
from services.jobs.store import owners, reads
from services.jobs.store.admissions import Admission, apply_admissions
from services.jobs.store.transitions import Transition, apply_transitions
from tests.jobs_rows import NOW_MS, a_job

TTL_MS = 15_000
FOR_EVER_MS = NOW_MS * 2


@dataclass
class Worker:
    """What a worker believes: the jobs in its memory, whoever owns them by now."""

    worker_id: str
    jobs: dict[str, Job] = field(default_factory=dict)


class Ownership(RuleBasedStateMachine):
    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        event.listen(
            self.engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None)
        )
        METADATA.create_all(self.engine)
        self.now_ms = NOW_MS
        self.names = 0
        self.alive: dict[str, int] = {}
        # Who may write to a job, and under which epoch: the oracle.
        self.owner: dict[str, tuple[str, int] | None] = {}
        self.last_epoch: dict[str, int] = {}

    def teardown(self) -> None:
        self.engine.dispose()

    def name(self, kind: str) -> str:
        self.names += 1
        return f"{kind}_{self.names:04}"

    def write(self, work: Any, *given: Any) -> Any:
        with self.engine.begin() as connection:
            return work(connection, *given)

    @rule(target=workers)
    def join(self) -> Worker:
        worker = Worker(self.name("w"))
        self.write(owners.register, worker.worker_id, "here", self.now_ms)
        self.alive[worker.worker_id] = self.now_ms
        return worker

    @rule(worker=workers)
    def accept(self, worker: Worker) -> None:
        job = a_job(self.name("job"), owner=worker.worker_id, running_limit=1000)
        [result] = self.write(apply_admissions, [Admission(job, 1000)])
        if worker.worker_id in self.alive:
            assert result == (job, 0)
            self.owner[job.job_id] = (worker.worker_id, 1)
            self.last_epoch[job.job_id] = 1
            worker.jobs[job.job_id] = job
        else:
            assert isinstance(result, Exception)

    @rule(worker=workers, chance=st.randoms(use_true_random=False), twice=st.booleans(), parks=st.booleans())
    def commit(self, worker: Worker, chance: Any, twice: bool, parks: bool) -> None:
        if not worker.jobs:
            return
        before = worker.jobs[chance.choice(sorted(worker.jobs))]
        after = self.step(before, chance, parks)
        mine = self.owner[before.job_id] == (worker.worker_id, before.epoch)
        for _ in range(2 if twice else 1):
            [result] = self.write(apply_transitions, [Transition(before, after)])
            assert isinstance(result, LeaseLostError) != mine
        if not mine or after is None or after.owner is None:
            del worker.jobs[before.job_id]
        else:
            worker.jobs[before.job_id] = after
        if mine and (after is None or after.owner is None):
            self.owner[before.job_id] = None

    def step(self, job: Job, chance: Any, parks: bool) -> Job | None:
        to = chance.choice(sorted(rules.ALLOWED[job.state]))
        if to is JobState.SETTLING:
            return rules.failing(job, FailureReason.TIMED_OUT, "", self.now_ms)
        if to in rules.ENDED:
            return rules.released(rules.finished(job, 0, self.now_ms))
        if job.state is JobState.ADMITTING and chance.random() < 0.2:
            return None
        after = rules.moved(job, to, self.now_ms)
        if to is JobState.QUEUED and parks and job.state is not JobState.ADMITTING:
            return replace(after, owner=None, run_at_ms=self.now_ms + 60_000)
        return after

    @rule(worker=workers)
    def beat(self, worker: Worker) -> None:
        heard = self.write(owners.beat, worker.worker_id, self.now_ms)
        assert heard == (worker.worker_id in self.alive)
        if heard:
            self.alive[worker.worker_id] = self.now_ms
        else:
            worker.jobs.clear()

    @rule(worker=workers)
    def reap(self, worker: Worker) -> None:
        dead = set(self.write(owners.reap, TTL_MS, self.now_ms))
        assert dead == {name for name, seen_ms in self.alive.items() if seen_ms < self.now_ms - TTL_MS}
        self.bury(dead)

    @rule(worker=workers)
    def take_over(self, worker: Worker) -> None:
        if worker.worker_id in self.alive:
            self.bury(set(self.write(owners.take_over, worker.worker_id)))
            assert set(self.alive) == {worker.worker_id}

    @rule(worker=workers, limit=st.integers(1, 5))
    def claim(self, worker: Worker, limit: int) -> None:
        for job in self.write(owners.claim, worker.worker_id, limit, self.now_ms):
            assert worker.worker_id in self.alive
            assert self.owner[job.job_id] is None
            assert job.epoch > self.last_epoch[job.job_id]
            self.owner[job.job_id] = (worker.worker_id, job.epoch)
            self.last_epoch[job.job_id] = job.epoch
            worker.jobs[job.job_id] = job

    @rule(gone=consumes(workers))
    def drain(self, gone: Worker) -> None:
        self.write(owners.hand_over, gone.worker_id)
        self.bury({gone.worker_id})

    @rule(passed_ms=st.sampled_from([100, 4_000, 16_000, 60_000]))
    def time_passes(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    def bury(self, dead: set[str]) -> None:
        for worker_id in dead:
            self.alive.pop(worker_id, None)
        for job_id, owner in self.owner.items():
            if owner is not None and owner[0] in dead:
                self.owner[job_id] = None

    @invariant()
    def every_row_is_the_live_owners_or_free(self) -> None:
        with self.engine.begin() as connection:
            living = set(connection.scalars(select(WORKERS.c.worker_id)))
            rows = connection.execute(
                select(JOBS.c.job_id, JOBS.c.owner, JOBS.c.epoch, JOBS.c.run_at_ms)
            ).all()
        assert living == set(self.alive)
        for job_id, owner, epoch, run_at_ms in rows:
            assert self.owner[job_id] == (None if owner is None else (owner, epoch))
            assert owner in living if owner is not None else run_at_ms < FOR_EVER_MS

    @invariant()
    def counters_and_events_agree_with_the_jobs(self) -> None:
        with self.engine.begin() as connection:
            assert reads.load_drift(connection) == {}
            counted: dict[str, list[int]] = {}
            query = select(JOB_EVENTS.c.job_id, JOB_EVENTS.c.sequence).order_by(JOB_EVENTS.c.sequence)
            for job_id, sequence in connection.execute(query):
                counted.setdefault(job_id, []).append(sequence)
        for sequences in counted.values():
            assert sequences == list(range(1, len(sequences) + 1))


Ownership.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOwnership = Ownership.TestCase
