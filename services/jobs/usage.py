"""How jobs count in a customer's usage: by the UTC day of their creation and their public model."""

from __future__ import annotations

from typing import Final, NamedTuple

from services.jobs.job import Job, JobState

DAY_MS: Final = 86_400_000


class UsageKey(NamedTuple):
    """`day` is days since the epoch."""

    day: int
    public_model: str


class Counts:
    """What one day and model have; every job is in exactly one of the four counts."""

    __slots__ = ("charged_millis", "completed", "failed", "pending", "processing", "refunded_millis")

    def __init__(self) -> None:
        self.pending = 0
        self.processing = 0
        self.completed = 0
        self.failed = 0
        self.charged_millis = 0
        self.refunded_millis = 0

    def add_ended(self, completed: int, failed: int, charged_millis: int, refunded_millis: int) -> None:
        """Counts jobs that ended."""
        self.completed += completed
        self.failed += failed
        self.charged_millis += charged_millis
        self.refunded_millis += refunded_millis


class Span(NamedTuple):
    """Moments from `from_ms` on, before `before_ms`."""

    from_ms: int
    before_ms: int


def key_of(job: Job) -> UsageKey:
    return UsageKey(job.created_at_ms // DAY_MS, job.public_model)


def amounts_of(job: Job) -> tuple[int, int]:
    """What an ended job adds to what was charged and to what was given back, in millis.

    A job that did not succeed was charged what was held for it and had it back; the difference is always what billing
    captured.
    """
    back = 0 if job.state is JobState.COMPLETED else job.refunded_millis
    return job.charged_millis + back, back


def parts_of(span: Span) -> tuple[Span | None, list[Span]]:
    """The whole days inside `span`, as one span if there are any, and the at most two pieces of days at its ends."""
    first = -(-span.from_ms // DAY_MS) * DAY_MS
    last = span.before_ms // DAY_MS * DAY_MS
    # The ends of one that lies within a day are no ends of days.
    ends = [span] if first > last else [Span(span.from_ms, first), Span(last, span.before_ms)]
    whole = Span(first, last) if first < last else None
    return whole, [end for end in ends if end.from_ms < end.before_ms]
