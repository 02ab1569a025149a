"""What is remembered of an attempt beside the ordinary road: rare events, written with the change that they belong to.

The times of the ordinary road are on the attempt's own row. What only happened, and changed nothing (the provider's list was
searched, a hint came), is kept in memory until the attempt changes: its first and its last time, and how often.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from services.provider_pool.attempts.states import Attempt, AttemptState, Charged, Failure, NextStep

EVENTS_KEPT: Final = 100
"""Of one attempt; what is written of one is a handful, so that more of them are a fault that must not fill a disk."""

DETAIL_LIMIT_CHARACTERS: Final = 300

NOTED_ATTEMPTS: Final = 10_000
"""Attempts with notes in memory, some hundred bytes each; the oldest notes go first."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an attempt. `detail` is for operators and names no credential and no prompt."""

    at_ms: int
    what: str
    detail: str = ""


@dataclass(slots=True)
class _Noted:
    first: Event
    last: Event
    times: int = 1


@dataclass(slots=True)
class Notes:
    """What happened to attempts without changing them, until they change. Lost with the process."""

    _by_attempt: OrderedDict[str, dict[str, _Noted]] = field(default_factory=OrderedDict)

    def add(self, attempt_id: str, event: Event) -> None:
        """Note an event; of several of a kind the first and the last are kept."""
        noted = self._by_attempt.setdefault(attempt_id, {})
        known = noted.get(event.what)
        if known is None:
            noted[event.what] = _Noted(event, event)
        else:
            known.last, known.times = event, known.times + 1
        self._by_attempt.move_to_end(attempt_id)
        while len(self._by_attempt) > NOTED_ATTEMPTS:
            self._by_attempt.popitem(last=False)

    def of(self, attempt_id: str) -> list[Event]:
        """What is noted, oldest first."""
        noted = self._by_attempt.get(attempt_id, {})
        return in_order(event for one in noted.values() for event in _told(one))

    def forget(self, attempt_id: str) -> None:
        """It was written, or nobody will ask."""
        self._by_attempt.pop(attempt_id, None)


def _told(noted: _Noted) -> Sequence[Event]:
    if noted.times == 1:
        return (noted.first,)
    last = f"{noted.last.detail} (the last of {noted.times})".strip()
    return (noted.first, replace(noted.last, detail=last))


def in_order(events: Iterable[Event]) -> list[Event]:
    """Oldest first; what happened in the same millisecond stays as it came."""
    return sorted(events, key=lambda event: event.at_ms)


def events_of(before: Attempt, after: Attempt, now_ms: int) -> tuple[Event, ...]:
    """What a change of state is to be remembered as; nothing for the ordinary road."""
    if after.state is before.state:
        return ()
    return tuple(Event(now_ms, what, _cut(detail)) for what, detail in _said(before, after))


def _said(before: Attempt, after: Attempt) -> Sequence[tuple[str, str]]:
    failure = after.failure
    if after.state is AttemptState.UNKNOWN:
        return [("in_doubt", "nobody is sending it any more" if failure is None else failure.detail)]
    if before.state is AttemptState.UNKNOWN and after.state is AttemptState.RUNNING:
        return [("found", f"task {after.task_id}")]
    if after.state is AttemptState.ABANDONED and failure is not None:
        return [("abandoned", _price(failure, after.cost_millis))]
    if after.state is AttemptState.FAILED and failure is not None and failure.next_step is NextStep.ROTATE:
        return [("moved", failure.detail)]
    return []


def _price(failure: Failure, cost_millis: int) -> str:
    again = "; it is sent once more" if failure.next_step is NextStep.RETRY else ""
    paid = "" if failure.charged is Charged.NO else f"; up to {cost_millis} thousandths may be paid in vain"
    return failure.detail + again + paid


def whole(attempt: Attempt, beside: Iterable[Event]) -> list[Event]:
    """The ordinary road, as the attempt's own row tells it, with what happened beside it; oldest first."""
    began_ms = attempt.created_at_ms
    told = [Event(began_ms, "begun", f"on account {attempt.account_id}")]
    if attempt.submitted_at_ms:
        # Never before it was begun here: a provider's clock may be wrong by hours.
        told.append(Event(max(attempt.submitted_at_ms, began_ms), "submitted", f"task {attempt.task_id}"))
    told += beside
    if attempt.ended_at_ms:
        detail = attempt.state.value if attempt.failure is None else _ending(attempt.state, attempt.failure)
        told.append(Event(attempt.ended_at_ms, "ended", _cut(detail)))
    return in_order(told)


def _ending(state: AttemptState, failure: Failure) -> str:
    return f"{state.value}, {failure.reason.value}, charged: {failure.charged.value}; {failure.detail}"


def _cut(detail: str) -> str:
    # What a provider answered may hold anything, and a text of PostgreSQL's holds no NUL.
    return detail.replace("\x00", "")[:DETAIL_LIMIT_CHARACTERS]
