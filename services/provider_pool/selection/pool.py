"""Which accounts can serve a request, and which of them does: capability, headroom, price and the four policies.

Everything here is arithmetic on records; time comes as an argument and nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from services.provider_pool.selection import health
from services.provider_pool.selection.health import Breaker, BreakerState
from services.provider_pool.selection.market import OPEN_MARKET, Market, Provider

TEST_PROVIDER: Final = "sandbox"
"""The only provider on which test jobs run, whatever an account says."""

WHOLE_ACCOUNT: Final = ""
"""The model name under which an account keeps the breaker that stands for all of it."""

_NEVER_MS: Final = 2**62


class Mode(StrEnum):
    """The wallet a job is paid from."""

    LIVE = "live"
    TEST = "test"


class AccountState(StrEnum):
    """What the operator wants of an account."""

    ACTIVE = "active"
    DRAINING = "draining"
    DISABLED = "disabled"


class Policy(StrEnum):
    """How one of several accounts is chosen."""

    SPREAD = "spread"
    SOONEST_EXPIRY = "soonest_expiry"
    DRAIN_FIRST = "drain_first"
    PRIORITY = "priority"


class Account(Struct, frozen=True):
    """An account as the rules see it. Amounts are thousandths of the provider's own unit.

    `concurrency_limit` is the operator's, `concurrency_told` the provider's, `concurrency_learnt` what refusals taught; 0:
    nothing is known. `booked_millis`: all that was ever taken off the balance.
    """

    account_id: str
    provider: str
    state: AccountState = AccountState.ACTIVE
    models: frozenset[str] = frozenset()
    serves_live: bool = True
    serves_test: bool = False
    concurrency_limit: int = 1
    balance_millis: int = 0
    leased_millis: int = 0
    leases: int = 0
    renews_at_ms: int = 0
    priority: int = 0
    weight: int = 1
    last_leased_at_ms: int = 0
    breakers: Mapping[str, Breaker] = {}
    balance_read_at_ms: int = 0
    booked_millis: int = 0
    concurrency_told: int = 0
    concurrency_learnt: int = 0
    successes: int = 0
    pace_at_ms: int = 0
    leases_by_model: Mapping[str, int] = {}

    @property
    def limit(self) -> int:
        """Tasks at once, as far as anybody has said: never more than the operator did."""
        return min(self.concurrency_limit, self.concurrency_told or self.concurrency_limit)

    @property
    def slots(self) -> int:
        """Tasks at once, as far as is known."""
        if not (self.concurrency_told or self.concurrency_learnt):
            return self.concurrency_limit
        return min(self.limit, self.concurrency_learnt or self.limit)

    @property
    def available_millis(self) -> int:
        """What no lease has a claim on."""
        return self.balance_millis - self.leased_millis


class Request(Struct, frozen=True, gc=False):
    """What an attempt needs. `ceilings`: by provider that can make it at all, what it may cost there at most.

    `prices`: what it is expected to cost there, which is what providers are compared by; none: the ceilings.
    """

    attempt_id: str
    mode: Mode
    model: str
    ceilings: Mapping[str, int]
    avoid: frozenset[str] = frozenset()
    behind_others: bool = False
    prices: Mapping[str, int] = {}


class Granted(Struct, frozen=True, gc=False):
    """An account to use; `trials` are its half-open breakers that this attempt puts to the test."""

    account_id: str
    ceiling_millis: int
    trials: tuple[str, ...] = ()


class Refusal(StrEnum):
    """Why no account was given."""

    BUSY = "busy"
    INCAPABLE = "incapable"


Choice: TypeAlias = Granted | Refusal


@dataclass(slots=True)
class _Crowd:
    """What a batch has put on all accounts of one provider so far."""

    terms: Provider
    is_strict: bool
    leases: int = 0

    def lets(self, load: _Load, now_ms: int) -> bool:
        """Whether the provider's own limits let one more go through this account."""
        at_once, pace = self.terms.tasks_at_once, self.terms.pace
        if at_once and self.leases >= at_once:
            return False
        return pace is None or pace.room(load.pace_at_ms, now_ms) > 0


@dataclass(slots=True)
class _Load:
    """What a batch has put on one account so far."""

    account: Account
    crowd: _Crowd
    slots: int
    leases: int
    leased_millis: int
    last_used: tuple[int, int]
    pace_at_ms: int
    leases_by_model: Mapping[str, int]
    on_trial: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Offers:
    """Who can make one kind of request at all; by provider, at what price and with how many at once for its model.

    `ailing`: providers that fail at this model on most of their accounts.
    """

    able: Sequence[_Load]
    usd_micros: Mapping[str, int]
    model_limits: Mapping[str, int]
    ailing: frozenset[str]


_Key: TypeAlias = tuple[float, ...]


def booked(account: Account, millis: int) -> Account:
    """The account with a cost taken off its balance; a negative one is given back."""
    return replace(
        account,
        balance_millis=account.balance_millis - millis,
        booked_millis=account.booked_millis + millis,
    )


def serves(account: Account, mode: Mode) -> bool:
    """Whether the account takes jobs of this wallet."""
    if mode is Mode.TEST:
        return account.serves_test and account.provider == TEST_PROVIDER
    return account.serves_live


def serves_model(account: Account, model: str) -> bool:
    """Whether the operator lets the account serve this model; no list means every model."""
    return not account.models or model in account.models


def is_out(account: Account, model: str) -> bool:
    """Whether the account, or this model on it, waits for a check or an operator."""
    return any(account.breakers.get(name, health.CLOSED).is_out for name in (WHOLE_ACCOUNT, model))


def is_able(account: Account, request: Request) -> bool:
    """Whether the account could take the request if it were idle: now, or once it has cooled down."""
    ceiling_millis = request.ceilings.get(account.provider)
    return (
        ceiling_millis is not None
        and account.state is AccountState.ACTIVE
        and serves(account, request.mode)
        and serves_model(account, request.model)
        and not is_out(account, request.model)
        and account.concurrency_limit > 0
        and account.balance_millis >= ceiling_millis
    )


def free_slots(account: Account, model: str, now_ms: int, market: Market = OPEN_MARKET) -> int:
    """Slots that the account has for this model now; a half-open breaker leaves one, an open one none."""
    return _free_for(account, model, _free(account, now_ms, market), now_ms, market)


def _free(account: Account, now_ms: int, market: Market) -> int:
    """Slots that the account has now, for whatever model."""
    free = max(0, account.slots - account.leases) if account.available_millis > 0 else 0
    pace = market.provider(account.provider).pace
    if pace is not None:
        free = min(free, max(0, pace.room(account.pace_at_ms, now_ms)))
    return _through(account, WHOLE_ACCOUNT, free, now_ms)


def _free_for(account: Account, model: str, free: int, now_ms: int, market: Market) -> int:
    limit = market.model_limits.get((account.provider, model))
    if limit is not None:
        free = min(free, max(0, limit - account.leases_by_model.get(model, 0)))
    return _through(account, model, free, now_ms)


def _through(account: Account, model: str, free: int, now_ms: int) -> int:
    breaker = account.breakers.get(model)
    if breaker is None or free == 0:
        return free
    state = health.state_of(breaker, now_ms)
    if state is BreakerState.OPEN:
        return 0
    return min(free, 1) if state is BreakerState.HALF_OPEN else free


def rooms(
    accounts: Iterable[Account],
    models: Mapping[str, Iterable[str]],
    now_ms: int,
    market: Market = OPEN_MARKET,
) -> dict[tuple[Mode, str], int]:
    """Free slots by wallet and model. `models`: what each provider's adapter serves. A hint: costs are not looked at."""
    listed = list(accounts)
    found = {(mode, model): 0 for mode in Mode for served in models.values() for model in served}
    for provider, served in models.items():
        own = [account for account in listed if account.provider == provider]
        at_once = market.provider(provider).tasks_at_once
        left = max(0, at_once - sum(account.leases for account in own)) if at_once else None
        for room, free in _rooms_at(own, served, now_ms, market).items():
            found[room] += free if left is None else min(free, left)
    return found


def _rooms_at(
    accounts: Iterable[Account], models: Iterable[str], now_ms: int, market: Market
) -> dict[tuple[Mode, str], int]:
    found: dict[tuple[Mode, str], int] = {}
    for account in accounts:
        free = _free(account, now_ms, market) if account.state is AccountState.ACTIVE else 0
        modes = [mode for mode in Mode if serves(account, mode)] if free else []
        for model in models if modes else ():
            if serves_model(account, model):
                of_model = _free_for(account, model, free, now_ms, market)
                for mode in modes:
                    found[mode, model] = found.get((mode, model), 0) + of_model
    return found


def opens_at_ms(accounts: Iterable[Account], now_ms: int, market: Market = OPEN_MARKET) -> int:
    """When the next account that is closed for a time opens: a breaker, or the pace of its submissions. 0: none is."""
    opening: list[int] = []
    for account in accounts:
        opening += [breaker.reopens_at_ms for breaker in account.breakers.values()]
        pace = market.provider(account.provider).pace
        if pace is not None:
            opening.append(pace.opens_at_ms(account.pace_at_ms, now_ms))
    return min((at_ms for at_ms in opening if at_ms > now_ms), default=0)


def choose(
    requests: Sequence[Request],
    accounts: Iterable[Account],
    policy: Policy,
    now_ms: int,
    market: Market = OPEN_MARKET,
) -> list[Choice]:
    """An account or a refusal for each request, in their order, each seeing what those before it were given.

    No account goes over its concurrency limit, a model's or its pace, no provider over what all of its accounts may have,
    nor are the ceilings on an account ever more than its balance.
    """
    loads = _loads(accounts, market)
    offers: dict[object, _Offers] = {}
    choices: list[Choice] = []
    for turn, request in enumerate(requests, start=1):
        costs = frozenset(request.ceilings.items()), frozenset(request.prices.items())
        kind = (request.mode, request.model, costs)
        if kind not in offers:
            offers[kind] = _offers(request, loads, market)
        choices.append(_choose_one(request, offers[kind], policy, market, now_ms, turn))
    return choices


def _loads(accounts: Iterable[Account], market: Market) -> list[_Load]:
    crowds: dict[str, _Crowd] = {}
    loads = []
    for one in sorted(accounts, key=attrgetter("account_id")):
        crowd = crowds.get(one.provider)
        if crowd is None:
            terms = market.provider(one.provider)
            is_strict = terms.tasks_at_once > 0 or terms.pace is not None
            crowd = crowds[one.provider] = _Crowd(terms, is_strict)
        crowd.leases += one.leases
        last_used, counts = (one.last_leased_at_ms, 0), one.leases_by_model
        loads.append(
            _Load(one, crowd, one.slots, one.leases, one.leased_millis, last_used, one.pace_at_ms, counts)
        )
    return loads


def _offers(request: Request, loads: Iterable[_Load], market: Market) -> _Offers:
    able = [load for load in loads if is_able(load.account, request)]
    providers = {load.account.provider for load in able}
    limits, prices = market.model_limits, request.prices or request.ceilings
    return _Offers(
        able,
        {one: market.usd_micros(one, prices[one]) for one in providers},
        {one: limits[one, request.model] for one in providers if (one, request.model) in limits},
        _ailing(able, request.model) if len(providers) > 1 else frozenset(),
    )


def _ailing(able: Sequence[_Load], model: str) -> frozenset[str]:
    """Providers that fail at the model on most of their accounts, and on more than one.

    Then the others of their accounts need not find out one by one, as long as somebody else can do the work. They are not
    closed: where nobody else can, one that works is worth more than a rule.
    """
    all_of = Counter(load.account.provider for load in able)
    failing = Counter(load.account.provider for load in able if model in load.account.breakers)
    return frozenset(one for one, count in failing.items() if count > 1 and 2 * count > all_of[one])


def _choose_one(
    request: Request, offers: _Offers, policy: Policy, market: Market, now_ms: int, turn: int
) -> Choice:
    able = offers.able
    if not able:
        return Refusal.INCAPABLE
    if request.behind_others:
        return Refusal.BUSY
    candidates = [load for load in able if load.account.account_id not in request.avoid] or able
    ready = [load for load in candidates if _is_ready(load, request, offers.model_limits, now_ms)]
    if not ready:
        return Refusal.BUSY
    if len(offers.usd_micros) > 1:
        if offers.ailing:
            ready = [load for load in ready if not _is_spared(load, request, offers.ailing)] or ready
        ready = _affordable(ready, offers.usd_micros, policy, market)
    return _take(min(ready, key=_RANKS[policy]), request, now_ms, turn)


def _is_spared(load: _Load, request: Request, ailing: frozenset[str]) -> bool:
    # One that is on trial is how its provider comes back.
    return load.account.provider in ailing and request.model not in load.account.breakers


def _affordable(
    ready: Sequence[_Load], usd_micros: Mapping[str, int], policy: Policy, market: Market
) -> list[_Load]:
    """Those that policy chooses from: of the highest priority, where that is the policy, and near the cheapest of them."""
    if policy is Policy.PRIORITY:
        highest = max(load.account.priority for load in ready)
        ready = [load for load in ready if load.account.priority == highest]
    cheapest = min(usd_micros[load.account.provider] for load in ready)
    return [load for load in ready if market.competes(usd_micros[load.account.provider], cheapest)]


def _is_ready(load: _Load, request: Request, model_limits: Mapping[str, int], now_ms: int) -> bool:
    account = load.account
    if (
        load.leases >= load.slots
        or account.balance_millis - load.leased_millis < request.ceilings[account.provider]
    ):
        return False
    # Asked of every account for every request: what is rare comes behind what tells that it is not there.
    if load.crowd.is_strict and not load.crowd.lets(load, now_ms):
        return False
    if model_limits and not _has_room_for(load, request.model, model_limits):
        return False
    if not account.breakers:
        return True
    names = (WHOLE_ACCOUNT, request.model)
    states = [health.state_of(account.breakers.get(name, health.CLOSED), now_ms) for name in names]
    return BreakerState.OPEN not in states and not load.on_trial.intersection(names)


def _has_room_for(load: _Load, model: str, model_limits: Mapping[str, int]) -> bool:
    limit = model_limits.get(load.account.provider)
    return limit is None or load.leases_by_model.get(model, 0) < limit


def _take(load: _Load, request: Request, now_ms: int, turn: int) -> Granted:
    account = load.account
    ceiling_millis = request.ceilings[account.provider]
    trials = tuple(
        name
        for name in (WHOLE_ACCOUNT, request.model)
        if name in account.breakers
        and health.state_of(account.breakers[name], now_ms) is BreakerState.HALF_OPEN
    )
    load.leases += 1
    load.crowd.leases += 1
    count = load.leases_by_model.get(request.model, 0) + 1
    load.leases_by_model = {**load.leases_by_model, request.model: count}
    load.leased_millis += ceiling_millis
    load.last_used = (now_ms, turn)
    load.on_trial.update(trials)
    if load.crowd.terms.pace is not None:
        load.pace_at_ms = load.crowd.terms.pace.after(load.pace_at_ms, now_ms)
    return Granted(account.account_id, ceiling_millis, trials)


def _by_load(load: _Load) -> _Key:
    capacity = load.slots * max(1, load.account.weight)
    return (load.leases / capacity, *load.last_used)


def _by_expiry(load: _Load) -> _Key:
    return (load.account.renews_at_ms or _NEVER_MS, *_by_load(load))


def _by_remainder(load: _Load) -> _Key:
    return (load.account.balance_millis - load.leased_millis, *_by_load(load))


def _by_priority(load: _Load) -> _Key:
    return (-load.account.priority, *_by_load(load))


# Equal ranks go to the smaller account id: `loads` is sorted by it and `min` keeps the first.
_RANKS: Final[Mapping[Policy, Callable[[_Load], _Key]]] = {
    Policy.SPREAD: _by_load,
    Policy.SOONEST_EXPIRY: _by_expiry,
    Policy.DRAIN_FIRST: _by_remainder,
    Policy.PRIORITY: _by_priority,
}
