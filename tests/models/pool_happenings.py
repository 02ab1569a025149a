"""Everything that can happen to the pool's accounts, leases and attempts, and what must come of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from services.chassis.errors import ServiceError
from services.provider_pool.accounts.registry import Terms
from services.provider_pool.adapters.interface import AccountStatus
from services.provider_pool.attempts.records import Change, Signal
from services.provider_pool.attempts.states import Attempt, AttemptState, Failure, FailureReason, NextStep
from services.provider_pool.selection.health import Fault, FaultKind
from services.provider_pool.selection.leases import Lease
from services.provider_pool.selection.pool import Account, AccountState
from tests.models.ground import Cut
from tests.models.pool_world import CEILING_MILLIS, NEVER, TTL_MS, PoolWorld, Replica

_COOL_DOWN_MS: Final = 5_000
# Of eight ways, those from here on are the unlikely ones.
_ELSE: Final = 6
_STATES: Final = (AccountState.ACTIVE, AccountState.DRAINING, AccountState.DISABLED, AccountState.ACTIVE)
_BALANCES_MILLIS: Final = (200_000, 45_000, 20_000, 0)
_SPANS_MS: Final = (100, _COOL_DOWN_MS, TTL_MS // 2, TTL_MS)
_LOST: Final = Failure(FailureReason.GENERATION_FAILED, NextStep.FAIL)
# What may follow, each along its own road; what may not follow is answered with what is there.
_OUTCOMES: Final = (
    AttemptState.RUNNING,
    AttemptState.SUCCEEDED,
    AttemptState.FAILED,
    AttemptState.UNKNOWN,
    AttemptState.ABANDONED,
)


@dataclass(frozen=True)
class Chance:
    """What is left to chance: which job, which replica and account, which way, and which transactions are cut."""

    job: int = 0
    way: int = 0
    flag: bool = False
    cuts: tuple[Cut, ...] = ()


class PoolHappenings(PoolWorld):
    def replica(self, chance: Chance) -> Replica:
        replica = self.replicas[chance.flag]
        replica.database.cuts = list(chance.cuts)
        return replica

    def attempt_id(self, chance: Chance) -> str:
        """Mostly one that holds a lease; else one that held one, or one that nobody has heard of."""
        held = sorted(name for name, row in self.tables.leases.items() if row.state == "open")
        if held and chance.way < _ELSE:
            return held[chance.job % len(held)]
        names = [*sorted(self.tables.leases), f"job_{len(self.tables.leases)}:1"]
        return names[chance.job % len(names)]

    def wanted_id(self, chance: Chance) -> str:
        """Mostly one that was never asked for."""
        return f"job_{len(self.tables.leases)}:1" if chance.way < _ELSE else self.attempt_id(chance)

    def account_id(self, chance: Chance) -> str:
        names = sorted(self.tables.accounts)
        return names[chance.job % len(names)]

    # ---- leases ----

    def able(self, account: Account) -> bool:
        out = self.cooling.get(account.account_id) == NEVER
        funded = account.balance_millis >= CEILING_MILLIS
        return account.state is AccountState.ACTIVE and account.concurrency_limit > 0 and funded and not out

    def ready(self, account: Account) -> bool:
        held = self.tables.open_on(account.account_id)
        left_millis = account.balance_millis - sum(lease.ceiling_millis for lease in held)
        free = len(held) < account.concurrency_limit and left_millis >= CEILING_MILLIS
        return self.able(account) and free and self.may_try(account.account_id)

    def may_try(self, account_id: str) -> bool:
        until_ms = self.cooling.get(account_id)
        if until_ms is None:
            return True
        trial = self.tables.leases.get(self.trials.get(account_id, ""))
        return self.clock.now_ms() >= until_ms and (trial is None or trial.state != "open")

    def lease(self, chance: Chance) -> None:
        attempt_id = self.wanted_id(chance)
        avoid = frozenset({self.account_id(chance)} if chance.way % 2 else ())
        behind = chance.way == 2
        known = self.tables.leases.get(attempt_id)
        answer = self.run(self.replica(chance).lease(attempt_id, avoid, behind_others=behind))
        if known is not None:
            self.repeated(known, answer)
            return
        able = {name for name, account in self.tables.accounts.items() if self.able(account)}
        ready = {name for name in (able - avoid or able) if self.ready(self.tables.accounts[name])}
        if not able:
            assert isinstance(answer, ServiceError)
            assert answer.reason == "NO_CAPABLE_ACCOUNT"
        elif behind or not ready:
            assert answer is None
        else:
            assert isinstance(answer, Lease)
            assert answer.account_id in ready

    def repeated(self, known: Any, answer: Any) -> None:
        if known.state == "open":
            assert (answer.account_id, answer.expires_at_ms) == (known.account_id, known.expires_at_ms)
        else:
            assert answer.reason == "LEASE_ENDED"

    def release(self, chance: Chance) -> None:
        attempt_id = self.attempt_id(chance)
        known = self.tables.leases.get(attempt_id)
        self.ending.add(attempt_id)
        tombstone = self.run(self.replica(chance).leasing.release(attempt_id))
        assert tombstone == (known is None or known.state == "tombstone")

    def renew(self, chance: Chance) -> None:
        """One that is there and one of chance, in one call."""
        names = sorted({self.attempt_id(chance), *list(self.tables.leases)[:1]})
        ttl_ms = TTL_MS if chance.way % 2 else 1
        ended = self.run(self.replica(chance).leasing.renew(names, ttl_ms))
        still = {
            name for name in names if name in self.tables.leases and self.tables.leases[name].state == "open"
        }
        assert set(ended) == set(names) - still

    def sweep(self, chance: Chance) -> None:
        replica = self.replica(chance)
        replica.database.cuts = []
        overdue = self.overdue()
        self.ending |= overdue
        self.run(replica.leasing.sweep())
        self.must_end = overdue

    def overdue(self) -> set[str]:
        now_ms = self.clock.now_ms()
        rows = self.tables.leases.values()
        return {row.attempt_id for row in rows if row.state == "open" and now_ms >= row.expires_at_ms}

    def burst(self, chance: Chance) -> None:
        """Both replicas at once, many calls in a batch: what is asked for, given back and expired in one moment."""
        given_back = self.attempt_id(chance)
        self.ending |= {given_back} | self.overdue()
        calls: list[Any] = []
        for replica in self.replicas:
            # The same attempts through both.
            new = [f"job_{len(self.tables.leases) + n}:1" for n in range(1 + chance.way)]
            calls += [replica.lease(attempt_id) for attempt_id in [*new, given_back]]
            calls += [replica.leasing.release(given_back), replica.leasing.sweep()]
        self.run(_together(calls))

    # ---- attempts ----

    def submit(self, chance: Chance) -> None:
        """The record before the request leaves: only under a lease that lives."""
        if not any(row.state == "open" for row in self.tables.leases.values()):
            self.lease(chance)
            return
        attempt_id = self.attempt_id(chance)
        replica, lease = self.replica(chance), self.tables.leases.get(attempt_id)
        known = self.tables.attempts.get(attempt_id)
        lives = lease is not None and lease.state == "open" and self.clock.now_ms() < lease.expires_at_ms
        begun = self.run(replica.begun(attempt_id))
        if begun is None:
            assert known is None
            assert not lives
            return
        if known is None:
            assert begun.fresh
            assert lease is not None
            assert lease.state == "open"
            assert begun.attempt.account_id == lease.account_id
        else:
            assert begun.fresh == (known.state is AttemptState.SUBMITTING)

    def attempt(self, chance: Chance) -> Attempt | None:
        names = sorted(self.tables.attempts)
        return self.tables.attempts[names[-1 - chance.job % len(names)]] if names else None

    def outcome(self, chance: Chance) -> None:
        """Something becomes known of an attempt, maybe twice, maybe late; the provider asks for its ceiling at most."""
        attempt = self.attempt(chance)
        if attempt is None:
            self.submit(chance)
            return
        cost_millis = _cost_millis(attempt)
        if chance.way == 7:
            change = self.change(attempt, collected="[]", cost_millis=cost_millis)
        else:
            to = _OUTCOMES[chance.way % len(_OUTCOMES)]
            change = self.change(attempt, to=to, **_told(to, attempt, cost_millis))
        self.run(self.replica(chance).attempts.change(change))

    def change(self, attempt: Attempt, **what: Any) -> Change:
        return Change(attempt.attempt_id, attempt.account_id, self.clock.now_ms(), **what)

    def signal(self, chance: Chance) -> None:
        """A call says something of its account: leave it alone for a while, or for good, or that it is well."""
        attempt = self.attempt(chance)
        if attempt is None:
            self.submit(chance)
            return
        account_id, now_ms = attempt.account_id, self.clock.now_ms()
        fault: Fault | None = None
        if chance.way == 1:
            fault = Fault(FaultKind.OUT, "credentials", now_ms)
        elif chance.way % 3 != 2:
            fault = Fault(FaultKind.COOL_DOWN, "429", now_ms, _COOL_DOWN_MS)
        # Not repeated: a fault that is told twice counts twice.
        replica = self.replicas[chance.flag]
        self.run(
            replica.attempts.change(self.change(attempt, signals=(Signal(account_id, "", now_ms, fault),)))
        )
        if self.cooling.get(account_id) == NEVER:
            return
        self.trials.pop(account_id, None)
        if fault is None:
            self.cooling.pop(account_id, None)
        else:
            self.cooling[account_id] = NEVER if fault.kind is FaultKind.OUT else now_ms + _COOL_DOWN_MS

    # ---- accounts ----

    def operate(self, chance: Chance) -> None:
        """An operator drains, disables, narrows or funds an account."""
        account_id, way = self.account_id(chance), chance.way
        changes: tuple[Callable[[], Terms], ...] = (
            lambda: Terms(state=_STATES[way // 2]),
            lambda: Terms(concurrency_limit=1 + way // 2),
        )
        self.run(self.replicas[chance.flag].accounts.update(account_id, changes[way % 2]()))

    def fund(self, chance: Chance) -> None:
        """A balance is set anew, and knows nothing of what is leased."""
        account_id, millis = self.account_id(chance), _BALANCES_MILLIS[chance.way % 4]
        replica = self.replicas[chance.flag]
        self.run(replica.accounts.update(account_id, Terms(balance_millis=millis)))
        self.noted(account_id, millis)

    def read_late(self, chance: Chance) -> None:
        """A check that began before all this passes only now, and brings the balance it saw."""
        account_id, millis = self.account_id(chance), _BALANCES_MILLIS[chance.way % 4]
        replica, seen = self.replicas[chance.flag], self.tables.accounts[account_id]
        status, now_ms = AccountStatus(ok=True, balance_millis=millis), self.clock.now_ms()
        self.run(replica.accounts.passed(seen, status, now_ms))
        self.noted(account_id, millis)
        if self.cooling.get(account_id) == NEVER:
            # The check proves less than a job does: from now on one may try.
            self.cooling[account_id] = now_ms
            self.trials.pop(account_id, None)

    def noted(self, account_id: str, millis: int) -> None:
        self.balances[account_id] = millis
        self.lowered.add(account_id)

    def reset(self, chance: Chance) -> None:
        account_id = self.account_id(chance)
        self.run(self.replicas[chance.flag].accounts.reset(account_id))
        self.cooling.pop(account_id, None)
        self.trials.pop(account_id, None)

    def time_passes(self, chance: Chance) -> None:
        self.clock.wall_ms += _SPANS_MS[chance.way % len(_SPANS_MS)]


def _cost_millis(attempt: Attempt) -> int:
    """What the provider takes for it in the end; of some, nothing is said before that."""
    return (sum(attempt.attempt_id.encode()) % 3) * CEILING_MILLIS // 2


def _told(to: AttemptState, attempt: Attempt, cost_millis: int) -> dict[str, Any]:
    if to is AttemptState.RUNNING:
        return {"task_id": f"task {attempt.attempt_id}"}
    if to is AttemptState.SUCCEEDED:
        return {"expected_cost_millis": cost_millis}
    if to is AttemptState.UNKNOWN:
        return {}
    return {"cost_millis": cost_millis, "failure": _LOST}


async def _together(calls: list[Any]) -> None:
    await asyncio.gather(*calls)
