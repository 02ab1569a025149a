"""The states of an attempt, and what may follow what. An attempt is one try of one job on one account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from msgspec import Struct


class AttemptState(StrEnum):
    """Where an attempt stands; `submitting` is recorded before anything leaves."""

    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABANDONED = "abandoned"


class FailureReason(StrEnum):
    """Why a generation did not succeed, in words that name no provider."""

    GENERATION_FAILED = "generation_failed"
    CONTENT_REFUSED = "content_refused"
    REQUEST_REJECTED = "request_rejected"
    TIMED_OUT = "timed_out"
    SUBMISSION_UNKNOWN = "submission_unknown"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    OUTPUT_UNUSABLE = "output_unusable"
    INVALID_REFERENCE = "invalid_reference"
    REFERENCE_UNAVAILABLE = "reference_unavailable"
    REFERENCE_UNSUITABLE = "reference_unsuitable"


class NextStep(StrEnum):
    """What the owner of the job does about a failure."""

    FAIL = "fail"
    RETRY = "retry"
    ROTATE = "rotate"
    RECONCILE = "reconcile"


class Charged(StrEnum):
    """Whether the provider took money."""

    NO = "no"
    YES = "yes"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class Failure:
    """`detail` is for operators and logs, never for customers."""

    reason: FailureReason
    next_step: NextStep
    retry_after_ms: int = 0
    charged: Charged = Charged.NO
    detail: str = ""


class Attempt(Struct, frozen=True, gc=False):
    """The record of an attempt.

    `generation`, `task`, `outputs` and `collected` are JSON texts, empty where there is none yet; `task_id` is the provider's.
    `cost_millis` is in thousandths of the provider's own unit and is off the account's balance once `booked`: when the attempt
    is over, or when its lease ends before that, and then what is known later makes up the difference.
    """

    attempt_id: str
    job_id: str
    account_id: str
    provider: str
    model: str
    state: AttemptState
    generation: str
    fingerprint: str
    sender_id: str
    created_at_ms: int
    submitted_at_ms: int = 0
    ended_at_ms: int = 0
    task_id: str = ""
    task: str = ""
    outputs: str = ""
    failure: Failure | None = None
    collected: str = ""
    cost_millis: int = 0
    booked: bool = False

    def __repr__(self) -> str:
        # Prompts and addresses of outputs are in it, and a traceback's values end in a log.
        return f"Attempt({self.attempt_id!r}, {self.state!r}, {self.provider!r}, {self.model!r})"


STILL_RUNNING: Final = "still running"
"""How the detail of a failure begins whose task was given up while it ran."""

TERMINAL: Final = frozenset({AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.ABANDONED})

_FOLLOWS: Final[Mapping[AttemptState, frozenset[AttemptState]]] = {
    AttemptState.SUBMITTING: frozenset(
        {AttemptState.RUNNING, AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.UNKNOWN}
    ),
    AttemptState.UNKNOWN: frozenset({AttemptState.RUNNING, AttemptState.ABANDONED}),
    AttemptState.RUNNING: frozenset({AttemptState.SUCCEEDED, AttemptState.FAILED}),
    # Outputs that turn out unusable when they are collected; nothing else undoes a success.
    AttemptState.SUCCEEDED: frozenset({AttemptState.FAILED}),
    AttemptState.FAILED: frozenset(),
    AttemptState.ABANDONED: frozenset(),
}


def may_follow(state: AttemptState, then: AttemptState) -> bool:
    """Whether an attempt in `state` may go to `then`. An attempt that has ended stays as it ended."""
    return then in _FOLLOWS[state]


def may_become(attempt: Attempt, then: AttemptState, seen: AttemptState | None = None) -> bool:
    """`may_follow`, and: what is in the media store is not undone by whoever else looked for it at the provider.

    `seen`: the state that whoever asks for it knows of. A success is undone only by who knows of it, not by a poll that
    says something else later.
    """
    if attempt.state is AttemptState.SUCCEEDED and seen is not AttemptState.SUCCEEDED:
        return False
    return may_follow(attempt.state, then) and not attempt.collected


def booked_millis(
    state: AttemptState, failure: Failure | None, expected_millis: int, told_millis: int | None
) -> int:
    """What an ended attempt costs its account.

    What the provider told counts; else a success, and a failure that was or may have been charged, costs what was
    expected: money that may be gone is not promised to the next job.
    """
    if state is AttemptState.SUCCEEDED:
        return expected_millis if told_millis is None else told_millis
    if failure is None or failure.charged is Charged.NO:
        return 0
    return expected_millis if told_millis is None else told_millis


def may_still_cost(attempt: Attempt) -> bool:
    """Whether the provider may take money for the attempt that no balance shows yet."""
    return not attempt.booked and attempt.state not in (AttemptState.FAILED, AttemptState.ABANDONED)


def abandoned(resubmit: bool, detail: str) -> Failure:
    """The end of an attempt in doubt that was not found. `resubmit`: the operator allows one more, at the risk of paying twice."""
    step = NextStep.RETRY if resubmit else NextStep.FAIL
    return Failure(FailureReason.SUBMISSION_UNKNOWN, step, charged=Charged.MAYBE, detail=detail)


@dataclass(frozen=True, slots=True)
class Senders:
    """What one process, `me`, knows of those that send. alone: no other can have the database. dead: processes that are."""

    me: str
    alone: bool = False
    dead: frozenset[str] = frozenset()

    def are_gone_from(self, sender_id: str, sent_at_ms: int, answer_by_ms: int, now_ms: int) -> bool:
        """Whether no other process can be sending a `submitting` attempt any more; of its own `me` knows more than this.

        A former owner of a database that only one process can hold is dead. Beside other replicas one that is not heard of
        is; and `answer_by_ms` after it was sent, its sender has recorded an outcome or never will.
        """
        process_id = process_of(sender_id)
        if process_id == self.me:
            return False
        return self.alone or process_id in self.dead or now_ms >= sent_at_ms + answer_by_ms


def process_of(sender_id: str) -> str:
    """The process that a sender belongs to: senders are `<process>/<number>`, one for each call."""
    return sender_id.partition("/")[0]
