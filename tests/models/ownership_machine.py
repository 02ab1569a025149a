"""Ownership as a state machine: whatever happens to its workers, one epoch writes to a job."""

from __future__ import annotations

import itertools
import sys
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.jobs.job import Job, JobState
from services.jobs.store import reads
from tests.jobs_rows import NOW_MS
from tests.models import tables
from tests.models.ground import CUTS, Ground
from tests.models.ownership_happenings import Chance, Happenings
from tests.models.roads import ENDS, ROADS
from tests.models.worker import TTL_MS, Parts

# How often each happens. One rule with a list, not a rule for each: a dangerous history needs many of them at once,
# and whole kinds of rules are left out of most examples.
_LIKELY: Final = {
    Happenings.begin_step: 6,
    Happenings.end_step: 4,
    Happenings.accept: 3,
    Happenings.oversleep: 3,
    Happenings.beat: 2,
    Happenings.claim: 2,
    Happenings.rush: 2,
    Happenings.commit_unheard: 2,
    Happenings.stray_arrives: 2,
    Happenings.start: 2,
    Happenings.time_passes: 2,
    Happenings.recall: 1,
    Happenings.freeze: 1,
    Happenings.wake: 1,
    Happenings.crash: 1,
    Happenings.drain: 1,
    Happenings.restart: 1,
    Happenings.database_clock_jumps: 1,
    Happenings.wall_clock_jumps: 1,
}
_WHAT: Final = [what.__name__ for what, weight in _LIKELY.items() for _ in range(weight)]
_CHANCES: Final = st.builds(Chance, st.integers(0, 7), st.integers(0, 7), st.booleans(), CUTS)


class OwnershipMachine(RuleBasedStateMachine):
    def __init__(self, ground: Ground, parts: Parts) -> None:
        super().__init__()
        self.world = Happenings(ground, parts)
        self.seen: dict[str, Job] = {}

    @initialize()
    def two_workers(self) -> None:
        for pick in range(2):
            self.world.start(Chance())
            self.world.accept(Chance(pick))
            self.world.accept(Chance(pick))

    @rule(what=st.sampled_from(_WHAT), chance=_CHANCES)
    def happens(self, what: str, chance: Chance) -> None:
        getattr(self.world, what)(chance)

    @invariant()
    def the_tables_are_as_what_happened_says(self) -> None:
        rows, workers = self.world.ground.read(tables.everything)
        assert set(workers) == set(self.world.alive)
        assert rows == self.world.rows
        for job in rows.values():
            # Never owned by somebody who is gone; and who is free can be claimed, now or when its time has come.
            assert job.owner is None or job.owner in self.world.alive
            assert job.run_at_ms < NOW_MS * 2

    @invariant()
    def no_epoch_goes_down_and_what_has_ended_stays(self) -> None:
        for job_id, before in self.seen.items():
            now = self.world.rows.get(job_id)
            if now is None:
                assert before.state is JobState.ADMITTING
                continue
            assert now.epoch >= before.epoch
            assert now.version >= before.version
            assert before.state.value not in ENDS or now == before
            assert now.owner == before.owner or now.owner is None or now.epoch > before.epoch
        self.seen = dict(self.world.rows)

    @invariant()
    def what_nobody_waits_for_may_arrive_all_the_same(self) -> None:
        for worker in self.world.workers:
            self.world.strays += worker.left
            worker.left.clear()

    @invariant()
    def a_worker_acts_only_while_its_heartbeat_is_young(self) -> None:
        for worker in self.world.workers:
            assert worker.ownership.may_act() == worker.young()

    def teardown(self) -> None:
        # After a failure its own message is what matters.
        if sys.exc_info()[0] is None:
            self.the_events_tell_one_story()
            self.everything_can_be_reached()

    def the_events_tell_one_story(self) -> None:
        roads: dict[str, list[tuple[int, int, str]]] = {}
        for job_id, *told in self.world.ground.read(tables.events):
            roads.setdefault(job_id, []).append((told[0], told[1], told[2]))
        for job_id, road in roads.items():
            assert [sequence for sequence, _, _ in road] == list(range(1, len(road) + 1))
            epochs = [epoch for _, epoch, _ in road]
            assert epochs == sorted(epochs)
            states = [state for _, _, state in road]
            assert states[0] == "admitting"
            assert all(then in ROADS[state] for state, then in itertools.pairwise(states))
            assert states[-1] == self.world.rows[job_id].state.value
        assert self.world.ground.read(reads.load_drift) == {}
        assert self.world.run(self.world.elsewhere.free_orphans()) == 0

    def everything_can_be_reached(self) -> None:
        """Everybody dies; whoever comes after the time to live owns every job that has not ended."""
        self.world.ground.database_ms = (
            max([self.world.ground.database_ms, *self.world.alive.values()]) + TTL_MS + 1
        )
        heir = self.world.worker()
        heir.clock.wall_ms = NOW_MS * 2
        assert self.world.run(heir.started([]))
        assert set(heir.idle) == {job_id for job_id, job in self.world.rows.items() if not job.ended}
