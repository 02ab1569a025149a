"""The pool's leases as a state machine: never below balance, never over concurrency, one lease for each attempt."""

from __future__ import annotations

from collections import Counter
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.provider_pool.attempts.states import Attempt, AttemptState
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection.pool import AccountState
from tests.models.ground import CUTS, Ground
from tests.models.pool_happenings import Chance, PoolHappenings
from tests.models.pool_world import CEILING_MILLIS, Tables, read

_LIKELY: Final = {
    PoolHappenings.lease: 6,
    PoolHappenings.submit: 4,
    PoolHappenings.burst: 4,
    PoolHappenings.outcome: 4,
    PoolHappenings.release: 3,
    PoolHappenings.time_passes: 3,
    PoolHappenings.sweep: 2,
    PoolHappenings.signal: 2,
    PoolHappenings.renew: 1,
    PoolHappenings.operate: 1,
    PoolHappenings.fund: 1,
    PoolHappenings.read_late: 1,
    PoolHappenings.reset: 1,
}
# Where these are not booked, nothing was charged; every other one may cost its ceiling yet.
_NEVER_CHARGED: Final = {AttemptState.FAILED, AttemptState.ABANDONED}
_WHAT: Final = [what.__name__ for what, weight in _LIKELY.items() for _ in range(weight)]
_CHANCES: Final = st.builds(Chance, st.integers(0, 7), st.integers(0, 7), st.booleans(), CUTS)


class PoolMachine(RuleBasedStateMachine):
    def __init__(self, ground: Ground, catalog: Catalog) -> None:
        super().__init__()
        self.world = PoolHappenings(ground, catalog)

    @initialize()
    def accounts(self) -> None:
        self.world.begin()
        for job in range(3):
            self.happens("lease", Chance(job))
            self.happens("submit", Chance(job))

    @rule(what=st.sampled_from(_WHAT), chance=_CHANCES)
    def happens(self, what: str, chance: Chance) -> None:
        world, before = self.world, self.world.tables
        world.ending, world.must_end = set(), set()
        getattr(world, what)(chance)
        for replica in world.replicas:
            replica.database.cuts = []
        world.tables = world.ground.read(read)
        self.leases_only_go_forward(before, world.tables)
        self.costs_leave_the_balance_once(before, world.tables)
        self.what_was_granted_was_free(before, world.tables)

    def leases_only_go_forward(self, before: Tables, now: Tables) -> None:
        for attempt_id, was in before.leases.items():
            row = now.leases[attempt_id]
            assert (row.account_id, row.created_at_ms) == (was.account_id, was.created_at_ms)
            assert row.expires_at_ms >= was.expires_at_ms
            if was.state != "open":
                assert row == was
            elif row.state != "open":
                assert row.state == "ended"
                assert attempt_id in self.world.ending
        for attempt_id in self.world.must_end:
            assert now.leases[attempt_id].state == "ended"

    def costs_leave_the_balance_once(self, before: Tables, now: Tables) -> None:
        for attempt_id, attempt in now.attempts.items():
            more_millis = _booked(attempt) - _booked(before.attempts.get(attempt_id))
            self.world.balances[attempt.account_id] -= more_millis
            was = before.attempts.get(attempt_id)
            assert was is None or not was.booked or attempt.booked
        assert {i: one.balance_millis for i, one in now.accounts.items()} == self.world.balances

    def what_was_granted_was_free(self, before: Tables, now: Tables) -> None:
        granted: dict[str, list[str]] = {}
        for attempt_id, row in now.leases.items():
            if row.state == "open" and attempt_id not in before.leases:
                granted.setdefault(row.account_id, []).append(attempt_id)
        for account_id, attempt_ids in granted.items():
            account = now.accounts[account_id]
            assert account.state is AccountState.ACTIVE
            assert len(now.open_on(account_id)) <= account.concurrency_limit
            assert account.balance_millis - _claimed_millis(now, account_id) >= 0
            self.a_cooling_account_is_tried_by_one(account_id, attempt_ids)

    def a_cooling_account_is_tried_by_one(self, account_id: str, attempt_ids: list[str]) -> None:
        world = self.world
        until_ms = world.cooling.get(account_id)
        if until_ms is not None:
            assert world.clock.now_ms() >= until_ms
            assert len(attempt_ids) == 1
            trial = world.tables.leases.get(world.trials.get(account_id, ""))
            assert trial is None or trial.state != "open"
            world.trials[account_id] = attempt_ids[0]

    @invariant()
    def counters_are_the_open_leases(self) -> None:
        tables = self.world.tables
        for account_id, account in tables.accounts.items():
            assert account.leases == len(tables.open_on(account_id))
            assert account.leased_millis == sum(one.ceiling_millis for one in tables.open_on(account_id))
            assert account.leases_by_model == Counter(one.model for one in tables.open_on(account_id))

    @invariant()
    def what_left_a_balance_is_counted(self) -> None:
        tables = self.world.tables
        for account_id, account in tables.accounts.items():
            paid = [_booked(one) for one in tables.attempts.values() if one.account_id == account_id]
            assert account.booked_millis == sum(paid)

    @invariant()
    def no_account_owes_more_than_it_has(self) -> None:
        """However each attempt still ends: unless its balance was set anew, below what was promised already."""
        tables = self.world.tables
        for account_id in tables.accounts.keys() - self.world.lowered:
            assert tables.accounts[account_id].balance_millis >= _claimed_millis(tables, account_id)

    @invariant()
    def what_may_still_cost_has_a_claim(self) -> None:
        tables = self.world.tables
        for attempt_id, attempt in tables.attempts.items():
            if not attempt.booked and attempt.state not in _NEVER_CHARGED:
                assert tables.leases[attempt_id].state == "open"

    @invariant()
    def room_that_came_free_is_announced(self) -> None:
        world = self.world
        for replica in world.replicas:
            world.run(replica.settled())
            missed = {
                room: free for room, free in world.free_now().items() if free > replica.heard.get(room, 0)
            }
            assert missed == {}

    def teardown(self) -> None:
        self.world.end()


def _booked(attempt: Attempt | None) -> int:
    return attempt.cost_millis if attempt is not None and attempt.booked else 0


def _claimed_millis(tables: Tables, account_id: str) -> int:
    """What may still have to be paid: for every lease that is open, and for every attempt whose end is not known."""
    claims: dict[str, int] = {row.attempt_id: row.ceiling_millis for row in tables.open_on(account_id)}
    for attempt_id, attempt in tables.attempts.items():
        if attempt.account_id == account_id:
            if attempt.booked:
                claims.pop(attempt_id, None)
            elif attempt.state not in _NEVER_CHARGED:
                claims[attempt_id] = CEILING_MILLIS
    return sum(claims.values())
