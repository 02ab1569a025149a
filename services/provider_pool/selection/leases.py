"""The rules of leases: what a batch of leases, renewals and returns does to accounts, all at once.

A lease keeps a slot and a cost ceiling on an account for one attempt. It is open until it is given back or expires. Giving
back what is not there leaves a tombstone, so that a lease that comes late is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from services.provider_pool import errors
from services.provider_pool.selection import health, pool
from services.provider_pool.selection.health import Breaker
from services.provider_pool.selection.market import OPEN_MARKET, Market
from services.provider_pool.selection.pool import Account, Granted, Policy, Refusal


class LeaseState(StrEnum):
    """Whether a lease holds anything."""

    OPEN = "open"
    ENDED = "ended"
    TOMBSTONE = "tombstone"


class Lease(Struct, frozen=True, gc=False):
    """The record of a lease; a tombstone has no account and no model."""

    attempt_id: str
    job_id: str
    account_id: str
    ceiling_millis: int
    state: LeaseState
    created_at_ms: int
    expires_at_ms: int
    ended_at_ms: int = 0
    model: str = ""


# ---------------------------------------------------------------- what may be asked


@dataclass(frozen=True, slots=True)
class Take:
    """Choose an account for an attempt. Answered with the Lease, or with Refusal.BUSY."""

    request: pool.Request
    job_id: str
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Move the expiry of open leases. Answered with the attempts whose lease is not open."""

    attempt_ids: tuple[str, ...]
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """End a lease. Answered with True if there was none and a tombstone stands there now."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class Expire:
    """End a lease if its time is over. Answered with whether it was ended."""

    attempt_id: str


Item: TypeAlias = Take | Renew | GiveBack | Expire
Answer: TypeAlias = Lease | Refusal | tuple[str, ...] | bool | Exception


def attempts_of(item: Item) -> tuple[str, ...]:
    """The attempts that an item is about."""
    if isinstance(item, Take):
        return (item.request.attempt_id,)
    return item.attempt_ids if isinstance(item, Renew) else (item.attempt_id,)


def kind_of(item: Item) -> str:
    """What an item is called in the names of crash points."""
    return _KINDS[type(item)]


_KINDS: Final = {Take: "lease", Renew: "renew_lease", GiveBack: "give_back_lease", Expire: "expire_lease"}


@dataclass(slots=True)
class Batch:
    """Records as a batch finds them, and as it leaves them. `changed_…` is what must be written.

    `owed_millis`: what attempts may still cost that no balance shows; taken off with the end of their lease (`booked`).
    """

    accounts: dict[str, Account]
    leases: dict[str, Lease]
    now_ms: int
    owed_millis: Mapping[str, int] = field(default_factory=dict)
    booked: set[str] = field(default_factory=set)
    changed_accounts: set[str] = field(default_factory=set)
    changed_leases: set[str] = field(default_factory=set)
    changed_breakers: dict[tuple[str, str], Breaker] = field(default_factory=dict)


def apply(items: Sequence[Item], batch: Batch, policy: Policy, market: Market = OPEN_MARKET) -> list[Answer]:
    """Answer every item. What is given back in a batch is there for those who take in it."""
    answers: dict[int, Answer] = {}
    for turn, item in enumerate(items):
        if isinstance(item, GiveBack):
            answers[turn] = _give_back(item, batch)
        elif isinstance(item, Expire):
            answers[turn] = _expire(item, batch)
    # After every return, so that no renewal outlives one, and before the leases, which need none.
    for turn, item in enumerate(items):
        if isinstance(item, Renew):
            answers[turn] = _renew(item, batch)
    takes = {turn: item for turn, item in enumerate(items) if isinstance(item, Take)}
    answers |= _take_all(takes, batch, policy, market)
    return [answers[turn] for turn in range(len(items))]


def _give_back(item: GiveBack, batch: Batch) -> bool:
    lease = batch.leases.get(item.attempt_id)
    if lease is None:
        tombstone = Lease(item.attempt_id, "", "", 0, LeaseState.TOMBSTONE, batch.now_ms, 0, batch.now_ms)
        _write(batch, tombstone)
        return True
    if lease.state is LeaseState.OPEN:
        _end(lease, batch)
    return lease.state is LeaseState.TOMBSTONE


def _expire(item: Expire, batch: Batch) -> bool:
    lease = batch.leases.get(item.attempt_id)
    if lease is None or lease.state is not LeaseState.OPEN or batch.now_ms < lease.expires_at_ms:
        return False
    _end(lease, batch)
    return True


def _end(lease: Lease, batch: Batch) -> None:
    _write(batch, replace(lease, state=LeaseState.ENDED, ended_at_ms=batch.now_ms))
    account = batch.accounts[lease.account_id]
    if lease.attempt_id in batch.owed_millis:
        # Before anybody takes in this batch: money that may be gone must not be promised again.
        owed_millis = batch.owed_millis[lease.attempt_id]
        account = pool.booked(account, owed_millis)
        batch.booked.add(lease.attempt_id)
    _load(batch, account, -1, lease)
    for model, breaker in account.breakers.items():
        if breaker.trial_attempt_id == lease.attempt_id:
            _set_breaker(batch, lease.account_id, model, health.after_trial_ended(breaker, lease.attempt_id))


def _renew(item: Renew, batch: Batch) -> tuple[str, ...]:
    ended = []
    for attempt_id in item.attempt_ids:
        lease = batch.leases.get(attempt_id)
        if lease is None or lease.state is not LeaseState.OPEN:
            ended.append(attempt_id)
        else:
            # Never shortened: two owners of one job may overlap for a moment.
            expires_at_ms = max(lease.expires_at_ms, batch.now_ms + item.ttl_ms)
            _write(batch, replace(lease, expires_at_ms=expires_at_ms))
    return tuple(ended)


def _take_all(takes: Mapping[int, Take], batch: Batch, policy: Policy, market: Market) -> dict[int, Answer]:
    answers: dict[int, Answer] = {}
    open_turns: dict[str, list[int]] = {}
    for turn, item in takes.items():
        known = batch.leases.get(item.request.attempt_id)
        if known is not None:
            answers[turn] = _repeated(known)
        else:
            open_turns.setdefault(item.request.attempt_id, []).append(turn)
    asked = [takes[turns[0]] for turns in open_turns.values()]
    wanted = [item.request for item in asked]
    choices = pool.choose(wanted, batch.accounts.values(), policy, batch.now_ms, market)
    for item, choice, turns in zip(asked, choices, open_turns.values(), strict=True):
        answer = _answer(item, choice, batch, market)
        answers |= dict.fromkeys(turns, answer)
    return answers


def _repeated(lease: Lease) -> Answer:
    return lease if lease.state is LeaseState.OPEN else errors.lease_ended(lease.attempt_id)


def _answer(item: Take, choice: pool.Choice, batch: Batch, market: Market) -> Answer:
    if choice is Refusal.INCAPABLE:
        return errors.no_capable_account()
    if not isinstance(choice, Granted):
        return choice
    attempt_id = item.request.attempt_id
    now_ms, ceiling_millis = batch.now_ms, choice.ceiling_millis
    lease = Lease(
        attempt_id,
        item.job_id,
        choice.account_id,
        ceiling_millis,
        LeaseState.OPEN,
        now_ms,
        now_ms + item.ttl_ms,
        model=item.request.model,
    )
    _write(batch, lease)
    account = replace(batch.accounts[choice.account_id], last_leased_at_ms=now_ms)
    pace = market.provider(account.provider).pace
    if pace is not None:
        account = replace(account, pace_at_ms=pace.after(account.pace_at_ms, now_ms))
    _load(batch, account, 1, lease)
    for model in choice.trials:
        _set_breaker(batch, choice.account_id, model, health.on_trial(account.breakers[model], attempt_id))
    return lease


def _load(batch: Batch, account: Account, sign: int, lease: Lease) -> None:
    """Count a lease on its account, with 1, or count it off, with -1."""
    batch.accounts[account.account_id] = replace(
        account,
        leases=account.leases + sign,
        leased_millis=account.leased_millis + sign * lease.ceiling_millis,
        leases_by_model=_counted(account.leases_by_model, lease.model, sign),
    )
    batch.changed_accounts.add(account.account_id)


def _counted(counts: Mapping[str, int], model: str, sign: int) -> Mapping[str, int]:
    # A lease from before models were counted has none.
    if not model:
        return counts
    counted = {**counts, model: counts.get(model, 0) + sign}
    return {name: count for name, count in counted.items() if count > 0}


def _set_breaker(batch: Batch, account_id: str, model: str, breaker: Breaker) -> None:
    account = batch.accounts[account_id]
    batch.accounts[account_id] = replace(account, breakers={**account.breakers, model: breaker})
    batch.changed_breakers[account_id, model] = breaker


def _write(batch: Batch, lease: Lease) -> None:
    batch.leases[lease.attempt_id] = lease
    batch.changed_leases.add(lease.attempt_id)
