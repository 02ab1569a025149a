"""A job beyond the waiting room, as it is in memory: a copy of its row, and what is not in the row."""

from __future__ import annotations

import asyncio

from services.jobs.job import Job


class Active:
    """One job that this worker drives. At any time it has a task, a timer, a place among the polls, or a question."""

    __slots__ = (
        "answered_at_ms",
        "asking",
        "cut_short",
        "due_s",
        "failures",
        "hinted",
        "job",
        "polls",
        "progress",
        "question",
        "saved_s",
        "slot",
        "task",
        "timer",
    )

    def __init__(self, job: Job, started_s: float) -> None:
        self.job = job
        self.progress = job.progress
        self.answered_at_ms = 0
        self.saved_s = started_s
        self.failures = 0
        self.polls = 0
        self.due_s = 0.0
        # The provider has something to say that the question under way may be too early for.
        self.hinted = False
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        # 0 while it waits for no poll.
        self.slot = 0
        # What tells the question that it is in from earlier ones.
        self.question: object | None = None
        # Its task waits for somebody's answer, and nothing is lost if it stops waiting.
        self.asking = False
        # Its task was stopped only to hear of a wish.
        self.cut_short = False

    def rest(self) -> None:
        """Waits for nothing any more; an answer that is still on its way means nothing to it."""
        self.slot = 0
        self.question = None
        self.hinted = False
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
