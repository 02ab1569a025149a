"""What is asked of the attempts' records: the beginning of one, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from services.provider_pool.attempts.history import Event
from services.provider_pool.attempts.states import Attempt, AttemptState, Failure
from services.provider_pool.selection.health import Fault


@dataclass(frozen=True, slots=True)
class Begin:
    """Record that a request is about to leave. Answered with Begun."""

    attempt_id: str
    job_id: str
    model: str
    generation: str
    fingerprint: str
    sender_id: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class Begun:
    """`fresh`: this call recorded it, and its caller alone may send. Else the record that is there."""

    attempt: Attempt
    fresh: bool


@dataclass(frozen=True, slots=True)
class Signal:
    """What a call told about one breaker of an account: a fault, or without one that the call was answered well."""

    account_id: str
    model: str
    sent_at_ms: int
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an attempt. Answered with its record afterwards.

    A change that may not follow the record's state changes nothing and is answered with what is there. `None` leaves a field
    as it is. `cost_millis`, where given, is taken off the account's balance, once for the attempt.
    """

    attempt_id: str
    account_id: str
    now_ms: int
    to: AttemptState | None = None
    task_id: str | None = None
    task: str | None = None
    submitted_at_ms: int | None = None
    outputs: str | None = None
    generation: str | None = None
    failure: Failure | None = None
    collected: str | None = None
    expected_cost_millis: int | None = None
    cost_millis: int | None = None
    signals: tuple[Signal, ...] = ()
    # The state that the change was judged by, where that matters.
    seen: AttemptState | None = None
    # Remembered if the change is made, before what the change itself is remembered as.
    events: tuple[Event, ...] = ()


Item: TypeAlias = Begin | Change
Answer: TypeAlias = Begun | Attempt | Exception


def kind_of(item: Item) -> str:
    """What an item is called in the names of crash points: what becomes of its attempt."""
    if isinstance(item, Begin):
        return f"attempt_{AttemptState.SUBMITTING.value}"
    if item.to is not None:
        return f"attempt_{item.to.value}"
    return "attempt_noted" if item.collected is None else "attempt_collected"
