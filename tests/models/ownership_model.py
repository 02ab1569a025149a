"""Ownership in the small, searched to the end: two workers, one job, every order in which their steps can happen.

Time is counted in ticks, and only ages are kept, so that histories may be of any length. A worker that is stopped is
one that does nothing for a while, which any worker may do at any moment; it may also crash and come back, or leave in
order. A commit may arrive late, twice, after its sender's death, or with its answer lost. The search is exhaustive
within `Bounds`. `Rules` names what the protocol relies on: with all of them no promise may break.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Rules:
    """What the protocol relies on. Each can be taken away."""

    # A write lands only on a row that has its owner and epoch; and only on the version that it was made from.
    fence: bool = True
    version: bool = True
    # A claim raises the epoch.
    new_epoch: bool = True
    # Whoever was declared dead comes back under another id.
    new_id: bool = True
    # Nothing begins once the last good heartbeat is too old.
    self_fence: bool = True
    # A heartbeat never makes a row again that was taken away.
    no_return: bool = True
    # Whoever declares a worker dead frees its job in the same transaction.
    frees: bool = True
    # Nobody is declared dead before its time to live is over. Without it, any clock may say anything.
    honest_clocks: bool = True


@dataclass(frozen=True)
class Bounds:
    """Ticks to live, and until the self-fence; how often each may live; claims in all; late writes."""

    ttl: int = 1
    fence: int = 0
    lives: int = 2
    claims: int = 2
    late: int = 1
    # What a job goes through until it has ended.
    steps: int = 2


class Job(NamedTuple):
    """The row. `grant` is not in the row: it tells claims apart where owner and epoch would not."""

    owner: tuple[int, int] | None
    epoch: int
    version: int
    step: int
    grant: int


class Write(NamedTuple):
    """A commit under way: what it was made from, and what it makes of it."""

    before: Job
    after: Job


class Worker(NamedTuple):
    """`job` is what it believes, and may be wrong. `beaten`: the age of its last heartbeat, by its own clock."""

    name: tuple[int, int]
    lives: int = 1
    beaten: int = 0
    job: Job | None = None
    write: Write | None = None


class State(NamedTuple):
    job: Job
    workers: tuple[Worker, ...]
    # The table of workers: by id, how long ago it was last seen.
    seen: frozenset[tuple[tuple[int, int], int]]
    # Writes that nobody waits for any more, and copies of writes.
    late: frozenset[Write]


Moves = Iterator[tuple[str, State]]


class BrokenError(Exception):
    """A promise does not hold in a state that can be reached."""


class Search:
    """Breadth first, so that the history of a broken promise is the shortest there is."""

    def __init__(self, rules: Rules = Rules(), bounds: Bounds = Bounds()) -> None:
        self.rules, self.bounds = rules, bounds
        self.states = 0

    def run(self) -> list[str] | None:
        """A history that breaks a promise, with the promise; None if there is none within the bounds."""
        workers = tuple(Worker((number, 1)) for number in (0, 1))
        rows = frozenset((worker.name, 0) for worker in workers)
        first = State(Job(None, 0, 0, 0, 0), workers, rows, frozenset())
        came: dict[State, tuple[State, str] | None] = {first: None}
        queue = deque([first])
        while queue:
            state = queue.popleft()
            self.states += 1
            try:
                for what, after in self.moves(state):
                    self.promises(state, what, after)
                    if after not in came:
                        came[after] = (state, what)
                        queue.append(after)
            except BrokenError as broken:
                return [*_history(came, state), str(broken)]
        return None

    def moves(self, state: State) -> Moves:
        """Everything that may happen next."""
        yield "a tick", self.older(state)
        for write in state.late:
            landed, _ = self.written(state, write)
            yield "a late write arrives", landed._replace(late=state.late - {write})
        for number, worker in enumerate(state.workers):
            for what, after in self.of_worker(state, number, worker):
                yield f"worker {number}: {what}", after

    def promises(self, before: State, what: str, after: State) -> None:
        """What holds of every step. Raises BrokenError."""
        was, job = before.job, after.job
        if job.step < was.step or (was.step == self.bounds.steps and job != was):
            raise BrokenError(f"{what}: a job went back")
        if job.epoch < was.epoch:
            raise BrokenError(f"{what}: an epoch went down")
        if job.owner is not None and not _has_row(after, job.owner):
            raise BrokenError(f"{what}: a job is owned by nobody who lives")

    def older(self, state: State) -> State:
        """Beyond what is compared with, an age is only "too old"."""
        limit = self.bounds.fence + 1
        workers = (w._replace(beaten=min(w.beaten + 1, limit)) for w in state.workers)
        seen = frozenset((name, min(age + 1, self.bounds.ttl + 1)) for name, age in state.seen)
        return state._replace(workers=tuple(workers), seen=seen)

    def of_worker(self, state: State, number: int, worker: Worker) -> Moves:
        if worker.write is not None and len(state.late) < self.bounds.late:
            # The database runs it, and perhaps once more later; the answer is lost.
            after, _ = self.written(state, worker.write)
            yield "its write arrives unheard", after._replace(late=state.late | {worker.write})
        if worker.lives < self.bounds.lives:
            yield "crashes and starts anew", self.joined(state, number, worker, crashed=True)
        if _has_row(state, worker.name):
            left = worker._replace(job=None, write=None, beaten=self.bounds.fence + 1)
            yield "leaves", self.freed(_with(self.given_up(state, worker), number, left), worker.name)
        yield "beats", self.beaten(state, number, worker)
        yield from self.of_living(state, number, worker)

    def of_living(self, state: State, number: int, worker: Worker) -> Moves:
        if worker.write is not None:
            after, well = self.written(state, worker.write)
            kept = worker.write.after if well and worker.write.after.owner else None
            yield "its write is answered", _with(after, number, worker._replace(job=kept, write=None))
        if worker.job is None and state.job.owner == worker.name:
            yield "finds what it owns", _with(state, number, worker._replace(job=state.job))
        if not self.young(worker):
            return
        for name, age in state.seen:
            silent = age > self.bounds.ttl or not self.rules.honest_clocks
            if silent and name != worker.name:
                yield "declares another dead", self.freed(state, name, orphans=not self.rules.frees)
        if self.free(state.job) and _has_row(state, worker.name):
            # Heard or not: what it owns it finds out later.
            yield "claims", self.claimed(state, worker)
        if worker.job is not None and worker.write is None:
            yield "begins a step", self.begun(state, number, worker, worker.job)

    def free(self, job: Job) -> bool:
        return job.owner is None and job.step < self.bounds.steps and job.grant < self.bounds.claims

    def young(self, worker: Worker) -> bool:
        return not self.rules.self_fence or worker.beaten <= self.bounds.fence

    def begun(self, state: State, number: int, worker: Worker, job: Job) -> State:
        """An effect leaves the house, and its outcome is to be committed."""
        if self.rules.honest_clocks and (state.job.grant, state.job.owner) != (job.grant, worker.name):
            raise BrokenError("a worker began something for a job that was not its own")
        ends = job.step + 1 == self.bounds.steps
        after = job._replace(owner=None if ends else job.owner, version=job.version + 1, step=job.step + 1)
        return _with(state, number, worker._replace(write=Write(job, after)))

    def written(self, state: State, write: Write) -> tuple[State, bool]:
        """The row after a write has arrived, and what it is answered."""
        before, after = write
        if self.rules.fence:
            if self.rules.version and self.key(state.job) == self.key(after):
                return state, True
            if self.key(state.job) != self.key(before):
                return state, False
        if state.job.grant != before.grant or state.job.owner is None:
            raise BrokenError("a write landed under a claim that was over")
        return state._replace(job=after), True

    def key(self, job: Job) -> tuple[object, ...]:
        return (job.owner, job.epoch, job.version if self.rules.version else 0)

    def claimed(self, state: State, worker: Worker) -> State:
        job = state.job
        epoch = job.epoch + 1 if self.rules.new_epoch else job.epoch
        return state._replace(job=job._replace(owner=worker.name, epoch=epoch, grant=job.grant + 1))

    def beaten(self, state: State, number: int, worker: Worker) -> State:
        if not _has_row(state, worker.name) and self.rules.no_return:
            if worker.lives >= self.bounds.lives:
                return state
            return self.joined(state, number, worker, crashed=False)
        return _seen(_with(state, number, worker._replace(beaten=0)), worker.name)

    def joined(self, state: State, number: int, worker: Worker, *, crashed: bool) -> State:
        """A life without a memory. A process that crashed cannot know its old id."""
        name = (number, worker.lives + 1) if self.rules.new_id or crashed else worker.name
        state = self.given_up(state, worker)
        return _seen(_with(state, number, Worker(name, worker.lives + 1)), name)

    def given_up(self, state: State, worker: Worker) -> State:
        if worker.write is None or len(state.late) >= self.bounds.late:
            return state
        return state._replace(late=state.late | {worker.write})

    def freed(self, state: State, name: tuple[int, int], *, orphans: bool = False) -> State:
        """The worker's row goes, and with it its ownership."""
        seen = frozenset(one for one in state.seen if one[0] != name)
        mine = state.job.owner == name and not orphans
        return state._replace(seen=seen, job=state.job._replace(owner=None) if mine else state.job)


def _has_row(state: State, name: tuple[int, int]) -> bool:
    return any(one == name for one, _ in state.seen)


def _seen(state: State, name: tuple[int, int]) -> State:
    others = frozenset(one for one in state.seen if one[0] != name)
    return state._replace(seen=others | {(name, 0)})


def _with(state: State, number: int, worker: Worker) -> State:
    workers = tuple(worker if n == number else one for n, one in enumerate(state.workers))
    return state._replace(workers=workers)


def _history(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    told: list[str] = []
    origin = came[state]
    while origin is not None:
        state, what = origin
        told.append(what)
        origin = came[state]
    return told[::-1]
