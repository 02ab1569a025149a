"""Everything that can happen to workers and to the jobs they own. What cannot happen now does not, and says nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from services.chassis.errors import ServiceError
from services.jobs.errors import LeaseLostError
from tests.jobs_rows import NOW_MS, a_job
from tests.models import tables
from tests.models.ground import Cut
from tests.models.ownership_world import World
from tests.models.roads import Step, step_from
from tests.models.worker import TTL_MS, Worker


@dataclass(frozen=True)
class Chance:
    """What is left to chance: whom it happens to, which way it goes, and which transactions are cut."""

    pick: int = 0
    way: int = 0
    flag: bool = False
    cuts: tuple[Cut, ...] = ()


# So many workers that two of them wake beside a third that works.
_CROWD = 4
# Less than a heartbeat, one, most of the self-fence, just over the time to live, and long.
_SPANS_MS = (400, 4_000, 10_000, TTL_MS + 1, 120_000)
_JUMPS_MS = (-60_000, -5_000, 5_000, 60_000)
_WELL: Cut = ""


class Happenings(World):
    # ---- workers come and go ----

    def start(self, chance: Chance) -> None:
        """Its first write makes its row, the second buries the dead, the third claims."""
        if len(self.workers) >= _CROWD:
            return
        worker, cuts = self.worker(), chance.cuts
        if not self.run(worker.started(list(cuts))):
            self.note_ghost(cuts[0])
            if cuts == ("", "after"):
                self.free(self.silent())
            return
        self.workers.append(worker)
        self.alive[worker.name] = self.ground.database_ms
        worker.beaten_ms = worker.clock.steady_ms
        self.free(self.silent())
        self.claimed(worker)

    def note_ghost(self, cut: Cut) -> None:
        """A row whose process was not told that it has it; it dies of silence."""
        if cut != "before":
            [ghost] = self.ground.read(tables.worker_ids) - set(self.alive)
            self.alive[ghost] = self.ground.database_ms

    def beat(self, chance: Chance) -> None:
        """A heartbeat; a worker that was declared dead drops everything and joins anew; one that lives buries the dead."""
        if self.awake:
            self.beaten(self.chosen(chance.pick), chance.cuts)

    def beaten(self, worker: Worker, cuts: tuple[Cut, ...] = ()) -> None:
        first, second, *_ = (*cuts, _WELL, _WELL)
        was, known = worker.name, worker.name in self.alive
        self.run(worker.beat_turn(list(cuts)))
        if known and first != "before":
            self.alive[was] = self.ground.database_ms
        if first:
            return
        if not known:
            worker.beaten_ms = float("-inf")
            assert not worker.idle
            assert not worker.steps
            if second:
                self.note_ghost(second)
                return
            assert worker.name != was
            self.alive[worker.name] = self.ground.database_ms
        worker.beaten_ms = worker.clock.steady_ms
        if not known or second != "before":
            self.free(self.silent())

    def claim(self, chance: Chance) -> None:
        if self.awake:
            self.claims(self.chosen(chance.pick), chance.cuts)

    def claims(self, worker: Worker, cuts: tuple[Cut, ...] = ()) -> None:
        before = dict(worker.idle)
        self.run(worker.claim_turn(list(cuts)))
        if worker.young() and worker.name in self.alive and cuts[:1] != ("before",):
            self.claimed(worker, heard=cuts[:1] != ("after",))
        else:
            assert worker.idle == before

    def recall(self, chance: Chance) -> None:
        """A claim whose answer was lost: what is this worker's by the rows, and nowhere in its memory."""
        if not self.awake:
            return
        worker = self.chosen(chance.pick)
        owned = self.run(worker.store.owned_ids(worker.name))
        missing = self.run(worker.store.jobs(i for i in owned if not worker.knows(i)))
        worker.idle.update({i: job for i, job in missing.items() if job.owner == worker.name})
        assert set(owned) == {i for i, job in self.rows.items() if job.owner == worker.name}

    def freeze(self, chance: Chance) -> None:
        """Stopped, it misses its heartbeats; suspended with its machine, it does not even know for how long."""
        if self.awake:
            self.stopped(self.chosen(chance.pick), suspended=chance.flag)

    def stopped(self, worker: Worker, *, suspended: bool) -> None:
        worker.frozen = True
        worker.suspended = suspended
        self.clocks_lied |= suspended

    def oversleep(self, chance: Chance) -> None:
        """What a freeze is dangerous for, all of it at once: it wakes when its jobs are somebody else's."""
        busy = [worker for worker in self.awake if worker.steps]
        if not busy:
            self.begin_step(chance)
            return
        sleeper = busy[chance.pick % len(busy)]
        self.stopped(sleeper, suspended=chance.flag)
        for passed_ms in (TTL_MS // 2, TTL_MS // 2 + 1):
            self.passed(passed_ms)
            for worker in self.awake:
                self.beaten(worker)
        for worker in self.awake:
            self.claims(worker)
        sleeper.frozen = sleeper.suspended = False
        if chance.way % 2:
            # Its heartbeat is the first to find out; else it goes on with what it was about to do.
            self.beaten(sleeper)

    def wake(self, chance: Chance) -> None:
        frozen = [worker for worker in self.workers if worker.frozen]
        if frozen:
            worker = frozen[chance.pick % len(frozen)]
            worker.frozen = worker.suspended = False

    def crash(self, chance: Chance) -> None:
        """Memory is gone; what it had sent may still arrive."""
        if self.workers:
            worker = self.workers.pop(chance.pick % len(self.workers))
            self.strays += worker.steps.values()

    def drain(self, chance: Chance) -> None:
        """Whoever leaves in order leaves its jobs to be claimed at once."""
        if not self.awake:
            return
        worker, cuts = self.chosen(chance.pick), chance.cuts
        worker.ownership.leave()
        assert not self.run(worker.permitted())
        self.workers.remove(worker)
        self.strays += worker.steps.values()
        self.run(worker.store.close())
        worker.database.cuts = list(cuts)
        try:
            self.run(worker.ownership.hand_over())
        except ServiceError:
            assert cuts[0]
        if cuts[:1] != ("before",):
            self.free({worker.name}, idle_claims=0)

    def restart(self, chance: Chance) -> None:
        """The file's lock proves that everybody else is dead: nobody waits for a time to live."""
        if not self.ground.databases[0].sole_owner:
            return
        for worker in self.workers:
            self.strays += worker.steps.values()
        worker = self.worker()
        worker.database.sole_owner = True
        assert self.run(worker.started([]))
        self.workers = [worker]
        self.free(set(self.alive))
        self.alive = {worker.name: self.ground.database_ms}
        worker.beaten_ms = worker.clock.steady_ms
        self.claimed(worker)

    # ---- jobs ----

    def accept(self, chance: Chance) -> None:
        """Permission may have been given before the worker was declared dead."""
        if not self.awake:
            return
        worker, late = self.chosen(chance.pick), chance.flag
        if not late and not worker.ownership.may_act():
            return
        self.numbers += 1
        now_ms = worker.clock.wall_ms
        job = a_job(
            f"job_{self.numbers:04}", owner=worker.name, running_limit=1000, run_at_ms=min(now_ms, NOW_MS)
        )
        accepted = self.run(worker.accepted(job, list(chance.cuts)))
        assert accepted == (worker.name in self.alive)
        if accepted:
            self.rows[job.job_id] = job

    def begin_step(self, chance: Chance) -> None:
        """A side effect leaves the house, if the worker may believe that it lives."""
        busy = [worker for worker in self.awake if worker.idle]
        if not busy:
            self.accept(chance)
            return
        worker = busy[chance.pick % len(busy)]
        job = worker.idle[sorted(worker.idle)[chance.pick % len(worker.idle)]]
        allowed = self.run(worker.permitted())
        assert allowed == worker.young()
        if not allowed:
            return
        step = step_from(job, chance.way, worker.clock.wall_ms, well=chance.flag)
        if step is None:
            return
        # The self-fence stands only on clocks that run; what it lets through without them is the fence's to stop.
        assert self.clocks_lied or self.holds(step)
        worker.steps[job.job_id] = step
        del worker.idle[job.job_id]

    def end_step(self, chance: Chance) -> None:
        busy = [worker for worker in self.awake if worker.steps]
        if not busy:
            self.begin_step(chance)
            return
        worker = busy[chance.pick % len(busy)]
        job_id = sorted(worker.steps)[chance.pick % len(worker.steps)]
        step = worker.steps[job_id]
        fresh = not step.landed and self.holds(step)
        assert self.run(worker.end_step(job_id, list(chance.cuts))) == (fresh or self.stands(step))
        if fresh:
            self.landed(step)

    def commit_unheard(self, chance: Chance) -> None:
        """The commit goes through, its answer is lost, and its worker will repeat it, whenever that is."""
        busy = [worker for worker in self.workers if worker.steps]
        if not busy:
            self.begin_step(chance)
            return
        worker = busy[chance.pick % len(busy)]
        step = worker.steps[sorted(worker.steps)[chance.pick % len(worker.steps)]]
        if self.arrive(step):
            step.landed = True

    def stray_arrives(self, chance: Chance) -> None:
        """What a worker had sent before its end arrives after it."""
        if self.strays:
            self.arrive(self.strays.pop(chance.pick % len(self.strays)))

    def arrive(self, step: Step) -> bool:
        fresh = not step.landed and self.holds(step)
        try:
            if step.after is None:
                self.run(self.elsewhere.remove(step.before))
            else:
                self.run(self.elsewhere.commit(step.before, step.after))
        except LeaseLostError:
            assert not fresh
            return False
        assert fresh or self.stands(step)
        if fresh:
            self.landed(step)
        return True

    # ---- clocks ----

    def time_passes(self, chance: Chance) -> None:
        self.passed(_SPANS_MS[chance.way % len(_SPANS_MS)])

    def passed(self, passed_ms: int) -> None:
        self.true_ms += passed_ms
        self.ground.database_ms += passed_ms
        for worker in self.workers:
            worker.clock.wall_ms += passed_ms
            if not worker.suspended:
                worker.clock.steady_ms += passed_ms

    def database_clock_jumps(self, chance: Chance) -> None:
        self.ground.database_ms += _JUMPS_MS[chance.way % len(_JUMPS_MS)]
        self.clocks_lied = True

    def wall_clock_jumps(self, chance: Chance) -> None:
        """Harmless: nothing about ownership is told by it."""
        if self.workers:
            clock = self.workers[chance.pick % len(self.workers)].clock
            clock.wall_ms += _JUMPS_MS[chance.way % len(_JUMPS_MS)]

    # ---- all at once ----

    def rush(self, chance: Chance) -> None:
        """Everybody beats, buries, claims and commits in the same moment; then the tables say what happened."""
        silent, steps = self.silent(), self.steps_under_way()
        results = self.run(self.rushed(steps))
        found = self.ground.read(tables.rows)
        gone = set(self.alive) - self.ground.read(tables.worker_ids)
        assert gone <= silent
        for (_, step), ended_well in zip(steps, results, strict=True):
            fresh = not step.landed and self.holds(step)
            if step.before.owner not in silent:
                assert ended_well == (fresh or self.stands(step))
            assert fresh or self.stands(step) or not ended_well
            if fresh and ended_well:
                self.landed(step)
        for job_id, job in self.rows.items():
            now = found[job_id]
            assert (now.version, now.state) == (job.version, job.state)
            assert job.epoch <= now.epoch <= job.epoch + len(self.awake)
        self.rows = found
        self.alive = self.ground.read(tables.worker_seen)
        for worker in self.awake:
            self.beaten(worker)

    def steps_under_way(self) -> list[tuple[Worker, Step]]:
        return [(worker, step) for worker in self.awake for step in worker.steps.values()]

    async def rushed(self, steps: list[tuple[Worker, Step]]) -> list[bool]:
        ends = [worker.end_step(step.before.job_id, []) for worker, step in steps]
        turns = [worker.clock.one_turn(turn) for worker in self.awake for turn in _turns(worker)]
        results = await asyncio.gather(*ends, *turns)
        return [result is True for result in results[: len(ends)]]


def _turns(worker: Worker) -> list[Any]:
    return [worker.ownership.beat_forever, worker.ownership.claim_forever]
