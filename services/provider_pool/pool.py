"""Which accounts can serve a request, and which of them does: capability, headroom and the four policies.

Everything here is arithmetic on records; time comes as an argument and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from msgspec import Struct

from services.provider_pool import health
from services.provider_pool.health import Breaker, BreakerState

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
    """An account as the rules see it. Amounts are thousandths of the provider's own unit."""

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

    @property
    def available_millis(self) -> int:
        """What no lease has a claim on."""
        return self.balance_millis - self.leased_millis


class Request(Struct, frozen=True, gc=False):
    """What an attempt needs. `ceilings`: by provider that can make it at all, what it may cost there at most."""

    attempt_id: str
    mode: Mode
    model: str
    ceilings: Mapping[str, int]
    avoid: frozenset[str] = frozenset()
    behind_others: bool = False


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
class _Load:
    """What a batch has put on one account so far."""

    account: Account
    leases: int
    leased_millis: int
    last_used: tuple[int, int]
    on_trial: set[str] = field(default_factory=set)


_Key: TypeAlias = tuple[float, ...]


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


def free_slots(account: Account, model: str, now_ms: int) -> int:
    """Slots that the account has for this model now; a half-open breaker leaves one, an open one none."""
    states = {
        health.state_of(account.breakers.get(name, health.CLOSED), now_ms) for name in (WHOLE_ACCOUNT, model)
    }
    free = max(0, account.concurrency_limit - account.leases) if account.available_millis > 0 else 0
    if BreakerState.OPEN in states:
        return 0
    return min(free, 1) if BreakerState.HALF_OPEN in states else free


def rooms(
    accounts: Iterable[Account], models: Mapping[str, Iterable[str]], now_ms: int
) -> dict[tuple[Mode, str], int]:
    """Free slots by wallet and model. `models`: what each provider's adapter serves. A hint: costs are not looked at."""
    found = {(mode, model): 0 for mode in Mode for served in models.values() for model in served}
    for account in accounts:
        if account.state is not AccountState.ACTIVE:
            continue
        for model in models.get(account.provider, ()):
            if serves_model(account, model):
                free = free_slots(account, model, now_ms)
                for mode in Mode:
                    found[mode, model] += free if serves(account, mode) else 0
    return found


def choose(
    requests: Sequence[Request], accounts: Iterable[Account], policy: Policy, now_ms: int
) -> list[Choice]:
    """An account or a refusal for each request, in their order, each seeing what those before it were given.

    No account goes over its concurrency limit, nor are the ceilings on it ever more than its balance.
    """
    loads = [
        _Load(one, one.leases, one.leased_millis, (one.last_leased_at_ms, 0))
        for one in sorted(accounts, key=lambda one: one.account_id)
    ]
    rank = _RANKS[policy]
    able: dict[object, list[_Load]] = {}
    choices: list[Choice] = []
    for turn, request in enumerate(requests, start=1):
        kind = (request.mode, request.model, frozenset(request.ceilings.items()))
        if kind not in able:
            able[kind] = [load for load in loads if is_able(load.account, request)]
        choices.append(_choose_one(request, able[kind], rank, now_ms, turn))
    return choices


def _choose_one(
    request: Request, able: Sequence[_Load], rank: Callable[[_Load], _Key], now_ms: int, turn: int
) -> Choice:
    if not able:
        return Refusal.INCAPABLE
    if request.behind_others:
        return Refusal.BUSY
    candidates = [load for load in able if load.account.account_id not in request.avoid] or able
    ready = [load for load in candidates if _is_ready(load, request, now_ms)]
    if not ready:
        return Refusal.BUSY
    return _take(min(ready, key=rank), request, now_ms, turn)


def _is_ready(load: _Load, request: Request, now_ms: int) -> bool:
    account = load.account
    ceiling_millis = request.ceilings[account.provider]
    if (
        load.leases >= account.concurrency_limit
        or account.balance_millis - load.leased_millis < ceiling_millis
    ):
        return False
    if not account.breakers:
        return True
    names = (WHOLE_ACCOUNT, request.model)
    states = [health.state_of(account.breakers.get(name, health.CLOSED), now_ms) for name in names]
    return BreakerState.OPEN not in states and not load.on_trial.intersection(names)


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
    load.leased_millis += ceiling_millis
    load.last_used = (now_ms, turn)
    load.on_trial.update(trials)
    return Granted(account.account_id, ceiling_millis, trials)


def _by_load(load: _Load) -> _Key:
    capacity = load.account.concurrency_limit * max(1, load.account.weight)
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
