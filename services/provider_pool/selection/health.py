"""Breaker rules: when an account, or one model on it, is left alone, and how it is tried again.

One breaker stands for a whole account (model "") or for one model on it. It opens on a fault, half-opens after a
time (or never by itself, when only an operator or a check can help), and then lets one real job through on trial.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

COOL_DOWN_MS = 5_000
"""After a 429 without Retry-After; most providers count requests in windows of one to ten seconds."""

COOL_DOWN_LIMIT_MS = 3_600_000
"""A Retry-After beyond an hour is tried after an hour all the same; a half-open trial costs one request."""

FIRST_PAUSE_MS = 1_000
"""After a first 5xx or time-out: longer than a restart behind a load balancer, shorter than anybody notices."""

LONGEST_PAUSE_MS = 300_000
"""A provider that is down for hours is still tried every five minutes."""


CHECK_PAUSE_MS = 15_000
"""After a fault that only a check or an operator ends; what a person mends in a provider's console takes about as long."""

FIRST_CHECK_MS = 5_000
"""The first check of an account that went out: what has just failed is not mended in a moment."""

LONGEST_CHECK_PAUSE_MS = 3_600_000
"""Of an account whose checks pass and whose jobs are refused all the same, one job an hour is refused."""


class BreakerState(StrEnum):
    """What a breaker does with the next job."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class FaultKind(StrEnum):
    """How a fault is answered. What is crowded takes one task less at once, and cools down only where it has one left."""

    OUT = "out"
    COOL_DOWN = "cool_down"
    TRANSIENT = "transient"
    CROWDED = "crowded"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that a call said about an account. `sent_at_ms` is when the call began."""

    kind: FaultKind
    cause: str
    sent_at_ms: int
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Breaker:
    """The record of one breaker. Never opened: `opened_at_ms` 0. Open for good: `reopens_at_ms` 0."""

    failures: int = 0
    opened_at_ms: int = 0
    reopens_at_ms: int = 0
    trial_attempt_id: str = ""
    cause: str = ""

    @property
    def is_out(self) -> bool:
        """Open until an operator resets it or a check passes."""
        return self.opened_at_ms > 0 and self.reopens_at_ms == 0


CLOSED = Breaker()


def state_of(breaker: Breaker, now_ms: int) -> BreakerState:
    """What the breaker does at `now_ms`. A half-open one whose trial is under way is open for everybody else."""
    if breaker.opened_at_ms == 0:
        return BreakerState.CLOSED
    if breaker.is_out or now_ms < breaker.reopens_at_ms or breaker.trial_attempt_id:
        return BreakerState.OPEN
    return BreakerState.HALF_OPEN


def on_trial(breaker: Breaker, attempt_id: str) -> Breaker:
    """The one job that a half-open breaker lets through."""
    return replace(breaker, trial_attempt_id=attempt_id)


def after_trial_ended(breaker: Breaker, attempt_id: str) -> Breaker:
    """The trial went away without telling anything (its lease was given back): the next job may be one."""
    return replace(breaker, trial_attempt_id="") if breaker.trial_attempt_id == attempt_id else breaker


def after_success(breaker: Breaker, sent_at_ms: int) -> Breaker:
    """A call was accepted. One that was sent before the fault proves nothing, nor does any while it is out."""
    if breaker.is_out or sent_at_ms < breaker.opened_at_ms:
        return breaker
    return CLOSED


def after_check(breaker: Breaker, now_ms: int) -> Breaker:
    """A check passed. It proves less than a job would: of one that was out, one job is let through on trial."""
    return replace(breaker, reopens_at_ms=max(now_ms, 1), trial_attempt_id="") if breaker.is_out else breaker


def check_due_ms(breaker: Breaker) -> int:
    """When a breaker that is out may be checked: soon, and later each time that a trial after a check has failed."""
    if breaker.failures <= 1:
        return breaker.opened_at_ms + FIRST_CHECK_MS
    doublings = min(breaker.failures - 2, 30)
    return breaker.opened_at_ms + min(CHECK_PAUSE_MS << doublings, LONGEST_CHECK_PAUSE_MS)


def after_fault(breaker: Breaker, fault: Fault, now_ms: int) -> Breaker:
    """A call failed for a reason that lies with the account.

    Of a burst of calls that were under way when the breaker opened, the later failures add nothing but severity.
    """
    if breaker.is_out:
        return breaker
    if fault.kind is FaultKind.OUT:
        return Breaker(breaker.failures + 1, now_ms, 0, "", fault.cause)
    if fault.sent_at_ms < breaker.opened_at_ms:
        return _prolonged(breaker, fault, now_ms)
    failures = breaker.failures + 1
    return Breaker(failures, now_ms, now_ms + pause_ms(fault, failures), "", fault.cause)


def pause_ms(fault: Fault, failures: int) -> int:
    """How long to leave the account alone after the `failures`-th fault in a row."""
    if fault.kind in (FaultKind.COOL_DOWN, FaultKind.CROWDED):
        return min(max(fault.retry_after_ms, 0) or COOL_DOWN_MS, COOL_DOWN_LIMIT_MS)
    doublings = min(failures - 1, 30)
    return max(
        min(FIRST_PAUSE_MS << doublings, LONGEST_PAUSE_MS), min(fault.retry_after_ms, COOL_DOWN_LIMIT_MS)
    )


def _prolonged(breaker: Breaker, fault: Fault, now_ms: int) -> Breaker:
    asked_ms = now_ms + min(fault.retry_after_ms, COOL_DOWN_LIMIT_MS)
    return replace(breaker, reopens_at_ms=max(breaker.reopens_at_ms, asked_ms))
