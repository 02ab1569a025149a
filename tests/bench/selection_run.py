"""One month under one way to choose: what was asked, given, refused, spent and lost."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from services.provider_pool.selection import concurrency, health, pool
from services.provider_pool.selection.health import CLOSED, Breaker, Fault, FaultKind
from services.provider_pool.selection.pool import WHOLE_ACCOUNT, Account, Granted, Mode, Refusal, Request
from tests.bench.selection_ways import Kind
from tests.bench.selection_world import CEILINGS, MONTH_MS, SECONDS, Job, Plot, World, cheapest_usd

# How long a customer's job waits for a free slot before it is refused.
_PATIENCE_MS: Final = 600_000
_LOOK_MS: Final = 5_000
# A refused submission is known, and the job goes elsewhere.
_ANSWER_MS: Final = 1_000
# As often as the pool looks after accounts that are out.
_CHECK_MS: Final = 15_000
# Of those that wait, so many are tried when a slot gets free.
_TRIED_AT_ONCE: Final = 16
# A job that was refused so often by accounts has had its turn.
_ROTATIONS: Final = 8


@dataclass(slots=True)
class Result:
    """What became of the month. Amounts in dollars, times in seconds."""

    jobs: int = 0
    refused: int = 0
    films: int = 0
    films_refused: int = 0
    submissions: int = 0
    crowded: int = 0
    to_the_dead: int = 0
    deaths: int = 0
    spent_usd: float = 0.0
    cheapest_usd: float = 0.0
    expired_usd: float = 0.0
    ending_usd: float = 0.0
    left_small_usd: float = 0.0
    left_usd: float = 0.0
    # From the first refusal of a dead account to the last job that was given to it before it healed.
    leaving_s: list[float] = field(default_factory=list)
    # From its healing to the moment from which it may be chosen again.
    returning_s: list[float] = field(default_factory=list)

    @property
    def expired_share(self) -> float:
        """Of the credit that ended in the month."""
        return self.expired_usd / self.ending_usd if self.ending_usd else 0.0

    @property
    def small_share(self) -> float:
        """Of what was left in the end, the part on accounts that cannot pay for their dearest model any more."""
        return self.left_small_usd / self.left_usd if self.left_usd else 0.0

    @property
    def refused_share(self) -> float:
        return self.refused / self.jobs

    @property
    def films_refused_share(self) -> float:
        return self.films_refused / self.films if self.films else 0.0

    @property
    def crowded_share(self) -> float:
        return self.crowded / self.submissions if self.submissions else 0.0

    @property
    def wasted_per_death(self) -> float:
        return self.to_the_dead / self.deaths if self.deaths else 0.0

    @property
    def price(self) -> float:
        """What was paid, of what the same jobs cost where they are cheapest."""
        return self.spent_usd / self.cheapest_usd if self.cheapest_usd else 0.0

    @property
    def leaving_longest_s(self) -> float:
        return max(self.leaving_s, default=0.0)

    @property
    def returning_longest_s(self) -> float:
        return max(self.returning_s, default=0.0)


@dataclass(slots=True)
class _Waiting:
    job: Job
    tries: int = 0
    avoid: frozenset[str] = frozenset()

    @property
    def request(self) -> Request:
        name = f"{self.job.name}-{self.tries}"
        return Request(name, Mode.LIVE, self.job.model, CEILINGS[self.job.model], self.avoid)


def played(world: World, kind: Kind, seed: int) -> Result:
    """The month of this world under this way to choose."""
    return _Month(world, kind, seed).played()


class _Month:
    def __init__(self, world: World, kind: Kind, seed: int) -> None:
        self._world = world
        self._kind = kind
        self._choose = kind.made(world.market, seed)
        self._accounts = {plot.account_id: _account(plot, world) for plot in world.plots.values()}
        self._opened_millis = {plot.account_id: plot.opening_millis for plot in world.plots.values()}
        self._running = dict.fromkeys(world.plots, 0)
        self._queue: deque[_Waiting] = deque()
        self._events: list[tuple[int, int, Any, tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._looking = False
        self._first_refusal_ms: dict[tuple[str, int], int] = {}
        self._last_sent_ms: dict[tuple[str, int], int] = {}
        self._healed_ms: dict[str, int] = {}
        self._result = Result(jobs=world.jobs)

    def played(self) -> Result:
        for batch in self._world.batches:
            self._at(batch[0].at_ms, self._arrive, [_Waiting(job) for job in batch])
        for plot in self._world.plots.values():
            for at_ms in plot.renewals_ms:
                self._at(at_ms, self._renew, plot)
            for _, end_ms in plot.out_ms:
                self._at(end_ms, self._heal, plot)
        self._result.deaths = sum(
            start_ms < MONTH_MS for plot in self._world.plots.values() for start_ms, _ in plot.out_ms
        )
        self._result.films = sum(job.model == "film" for batch in self._world.batches for job in batch)
        while self._events and self._events[0][0] < MONTH_MS:
            now_ms, _, deed, given = heapq.heappop(self._events)
            deed(now_ms, *given)
        self._close()
        return self._result

    def _at(self, at_ms: int, deed: Any, *given: Any) -> None:
        heapq.heappush(self._events, (at_ms, next(self._order), deed, given))

    # ---------------------------------------------------------------- jobs

    def _arrive(self, now_ms: int, jobs: list[_Waiting]) -> None:
        self._serve(now_ms, jobs)

    def _look(self, now_ms: int) -> None:
        self._looking = False
        self._serve_waiting(now_ms)

    def _serve_waiting(self, now_ms: int) -> None:
        while self._queue and now_ms - self._queue[0].job.at_ms > _PATIENCE_MS:
            self._refuse(self._queue.popleft())
        first = [self._queue.popleft() for _ in range(min(_TRIED_AT_ONCE, len(self._queue)))]
        self._serve(now_ms, first, back=True)

    def _serve(self, now_ms: int, jobs: Sequence[_Waiting], *, back: bool = False) -> None:
        if not jobs:
            return
        accounts = [self._seen(account) for account in self._accounts.values()]
        choices = self._choose([waiting.request for waiting in jobs], accounts, now_ms)
        still: list[_Waiting] = []
        for waiting, choice in zip(jobs, choices, strict=True):
            if isinstance(choice, Granted):
                self._lease(now_ms, waiting, choice)
            elif choice is Refusal.BUSY:
                still.append(waiting)
            else:
                self._refuse(waiting)
        if back:
            self._queue.extendleft(reversed(still))
        else:
            self._queue.extend(still)
        if self._queue and not self._looking:
            self._looking = True
            self._at(now_ms + _LOOK_MS, self._look)

    def _seen(self, account: Account) -> Account:
        """The account as this way to choose knows it."""
        return account if self._kind.remembers else replace(account, breakers={}, concurrency_learnt=0)

    def _lease(self, now_ms: int, waiting: _Waiting, granted: Granted) -> None:
        account = self._accounts[granted.account_id]
        breakers = dict(account.breakers)
        for name in granted.trials:
            breakers[name] = health.on_trial(breakers[name], waiting.request.attempt_id)
        self._accounts[account.account_id] = replace(
            account,
            leases=account.leases + 1,
            leased_millis=account.leased_millis + granted.ceiling_millis,
            last_leased_at_ms=now_ms,
            breakers=breakers,
        )
        self._result.submissions += 1
        plot = self._world.plots[account.account_id]
        if plot.is_dead(now_ms):
            self._note_death(now_ms, plot)
            self._at(now_ms + _ANSWER_MS, self._refused, waiting, granted, now_ms, FaultKind.OUT)
        elif self._running[account.account_id] >= plot.limit:
            self._result.crowded += 1
            self._at(now_ms + _ANSWER_MS, self._refused, waiting, granted, now_ms, FaultKind.CROWDED)
        else:
            self._running[account.account_id] += 1
            self._at(now_ms + _ANSWER_MS, self._taken, granted, now_ms)
            self._at(now_ms + 1_000 * SECONDS[waiting.job.model], self._end, waiting.job, granted)

    def _taken(self, now_ms: int, granted: Granted, sent_at_ms: int) -> None:
        account = concurrency.after_success(self._accounts[granted.account_id])
        breaker = account.breakers.get(WHOLE_ACCOUNT, CLOSED)
        self._put(account, health.after_success(breaker, sent_at_ms))

    def _refused(
        self, now_ms: int, waiting: _Waiting, granted: Granted, sent_at_ms: int, kind: FaultKind
    ) -> None:
        account = self._freed(self._accounts[granted.account_id], granted.ceiling_millis)
        if kind is FaultKind.CROWDED:
            account = concurrency.after_refusal(replace(account, leases=account.leases + 1))
            self._accounts[account.account_id] = replace(account, leases=account.leases - 1)
        else:
            breaker = account.breakers.get(WHOLE_ACCOUNT, CLOSED)
            self._put(account, health.after_fault(breaker, Fault(kind, "dead", sent_at_ms), now_ms))
            if self._kind.remembers:
                self._at(now_ms + _CHECK_MS, self._check, self._world.plots[granted.account_id])
        waiting.tries += 1
        waiting.avoid |= {granted.account_id}
        if waiting.tries >= _ROTATIONS:
            self._refuse(waiting)
        else:
            self._serve(now_ms, [waiting])

    def _end(self, now_ms: int, job: Job, granted: Granted) -> None:
        self._running[granted.account_id] -= 1
        cost_millis = round(granted.ceiling_millis * job.charged)
        account = self._freed(self._accounts[granted.account_id], granted.ceiling_millis)
        self._accounts[granted.account_id] = pool.booked(account, cost_millis)
        self._result.spent_usd += self._world.usd(account.provider, cost_millis)
        self._result.cheapest_usd += job.charged * cheapest_usd(job.model)
        self._serve_waiting(now_ms)

    def _refuse(self, waiting: _Waiting) -> None:
        self._result.refused += 1
        self._result.films_refused += waiting.job.model == "film"

    # ---------------------------------------------------------------- accounts

    def _freed(self, account: Account, ceiling_millis: int) -> Account:
        return replace(
            account, leases=account.leases - 1, leased_millis=account.leased_millis - ceiling_millis
        )

    def _put(self, account: Account, breaker: Breaker) -> None:
        breakers = {} if breaker == CLOSED else {WHOLE_ACCOUNT: breaker}
        self._accounts[account.account_id] = replace(account, breakers=breakers)

    def _renew(self, now_ms: int, plot: Plot) -> None:
        """What is left ends, whatever leases have a claim on; what runs is charged to the new month."""
        account = self._accounts[plot.account_id]
        self._result.expired_usd += self._world.usd(plot.provider, max(0, account.balance_millis))
        self._result.ending_usd += self._world.usd(plot.provider, self._opened_millis[plot.account_id])
        self._opened_millis[plot.account_id] = plot.grant_millis
        self._accounts[plot.account_id] = replace(
            account, balance_millis=plot.grant_millis, renews_at_ms=now_ms + MONTH_MS
        )
        self._serve_waiting(now_ms)

    def _check(self, now_ms: int, plot: Plot) -> None:
        account = self._accounts[plot.account_id]
        breaker = account.breakers.get(WHOLE_ACCOUNT, CLOSED)
        if not breaker.is_out:
            return
        if plot.is_dead(now_ms) or now_ms < health.check_due_ms(breaker):
            self._at(now_ms + _CHECK_MS, self._check, plot)
            return
        self._put(account, health.after_check(breaker, now_ms))
        self._result.returning_s.append((now_ms - self._healed_ms[plot.account_id]) / 1_000)
        self._serve_waiting(now_ms)

    def _heal(self, now_ms: int, plot: Plot) -> None:
        self._healed_ms[plot.account_id] = now_ms

    def _note_death(self, now_ms: int, plot: Plot) -> None:
        self._result.to_the_dead += 1
        death_ms = next(start_ms for start_ms, end_ms in plot.out_ms if start_ms <= now_ms < end_ms)
        key = (plot.account_id, death_ms)
        self._first_refusal_ms.setdefault(key, now_ms)
        self._last_sent_ms[key] = now_ms

    def _close(self) -> None:
        """What is left when the month is over, and how long the dead were still used."""
        self._result.refused += len(self._queue)
        self._result.leaving_s = [
            (last_ms - self._first_refusal_ms[key]) / 1_000 for key, last_ms in self._last_sent_ms.items()
        ]
        for account in self._accounts.values():
            left_usd = self._world.usd(account.provider, max(0, account.balance_millis))
            dearest = max(_served(account.provider))
            self._result.left_usd += left_usd
            self._result.left_small_usd += left_usd if account.balance_millis < dearest else 0.0


def _served(provider: str) -> Iterable[int]:
    return (ceilings[provider] for ceilings in CEILINGS.values() if provider in ceilings)


def _account(plot: Plot, world: World) -> Account:
    return Account(
        plot.account_id,
        plot.provider,
        concurrency_limit=plot.limit * world.scenario.believed,
        balance_millis=plot.opening_millis,
        renews_at_ms=plot.renewals_ms[0] if plot.renewals_ms else 0,
        # As an operator would: what ends first of all, then the plan, and what was bought for good as the last resort.
        priority={"monthly": 2, "plan": 1, "prepaid": 0}[plot.provider],
    )
