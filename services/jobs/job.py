"""What a job is, which states it may go through, and what follows from what happens to it.

Pure rules: a job is a value, every rule returns a new one, and time is an argument. Whatever is returned here is
only a proposal until the store has committed it under the job's epoch.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from services.jobs.reference import Reference, ReferenceLimits

# Leases one job may use up; the fourth failure is the customer's answer.
MAX_ATTEMPTS: Final = 4
# The same where each was refused by another account that it had not been given to before: a withdrawn card or a closed
# organization may take dozens of accounts out in one moment, and every refusal costs a tenth of a second and nothing else.
MAX_REFUSALS: Final = 50
# A job that was claimed so often without one step done is what kills its workers.
MAX_IDLE_CLAIMS: Final = 5

Mode = Literal["live", "test"]


class JobState(StrEnum):
    """Where a job stands. Names are only ever added."""

    ADMITTING = "admitting"
    QUEUED = "queued"
    LEASED = "leased"
    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    RUNNING = "running"
    COLLECTING = "collecting"
    SETTLING = "settling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


class Stage(IntEnum):
    """The furthest that a customer has been told."""

    UNSPECIFIED = 0
    WAITING = 1
    ACCOUNT_CHOSEN = 2
    AT_PROVIDER = 3
    ENDED_WELL = 4
    ENDED_BADLY = 5


class Kind(IntEnum):
    IMAGE = 1
    VIDEO = 2
    VOICE = 3
    MUSIC = 4
    INFOGRAPHIC = 5
    TEXT = 6


class FailureReason(IntEnum):
    """Why a generation did not succeed, in words that name no provider."""

    NONE = 0
    GENERATION_FAILED = 1
    CONTENT_REFUSED = 2
    REQUEST_REJECTED = 3
    TIMED_OUT = 4
    SUBMISSION_UNKNOWN = 5
    PROVIDER_UNAVAILABLE = 6
    OUTPUT_UNUSABLE = 7
    INVALID_REFERENCE = 8
    REFERENCE_UNAVAILABLE = 9
    REFERENCE_UNSUITABLE = 10
    # Its customer, or an operator, asked for its end; the pool never says this.
    CANCELED = 11


class Settlement(StrEnum):
    """What billing is asked for; recorded before it is asked."""

    UNDECIDED = ""
    CAPTURE = "capture"
    RELEASE = "release"


ENDED: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELED})
WAITING: Final = frozenset({JobState.ADMITTING, JobState.QUEUED})
# States in which an attempt holds a slot of an account.
LEASED: Final = frozenset(
    {JobState.LEASED, JobState.SUBMITTING, JobState.UNKNOWN, JobState.RUNNING, JobState.COLLECTING}
)

ALLOWED: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.ADMITTING: frozenset({JobState.QUEUED, JobState.LEASED}),
    JobState.QUEUED: frozenset({JobState.LEASED, JobState.SETTLING}),
    JobState.LEASED: frozenset({JobState.SUBMITTING, JobState.QUEUED, JobState.SETTLING}),
    JobState.SUBMITTING: frozenset(
        {JobState.UNKNOWN, JobState.RUNNING, JobState.COLLECTING, JobState.QUEUED, JobState.SETTLING}
    ),
    JobState.UNKNOWN: frozenset({JobState.RUNNING, JobState.COLLECTING, JobState.QUEUED, JobState.SETTLING}),
    JobState.RUNNING: frozenset({JobState.UNKNOWN, JobState.COLLECTING, JobState.QUEUED, JobState.SETTLING}),
    JobState.COLLECTING: frozenset({JobState.SETTLING}),
    JobState.SETTLING: ENDED,
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELED: frozenset(),
}

_STAGE_OF: Final[dict[JobState, Stage]] = {
    JobState.ADMITTING: Stage.WAITING,
    JobState.QUEUED: Stage.WAITING,
    JobState.LEASED: Stage.ACCOUNT_CHOSEN,
    JobState.SUBMITTING: Stage.ACCOUNT_CHOSEN,
    JobState.UNKNOWN: Stage.AT_PROVIDER,
    JobState.RUNNING: Stage.AT_PROVIDER,
    JobState.COLLECTING: Stage.AT_PROVIDER,
    JobState.SETTLING: Stage.AT_PROVIDER,
    JobState.COMPLETED: Stage.ENDED_WELL,
    JobState.FAILED: Stage.ENDED_BADLY,
    JobState.CANCELED: Stage.ENDED_BADLY,
}


class IllegalTransitionError(Exception):
    """A rule was asked for a change that no job may make: a bug, never a customer's doing."""


class Generation(Struct, frozen=True, gc=False):
    """What is to be made, in Atelier's own words."""

    kind: Kind
    model: str
    prompt: str
    width: int
    height: int
    duration_s: int
    audio: bool
    quality: str
    seed: int | None
    references: tuple[Reference, ...] = ()
    # Set where there are references.
    reference_limits: ReferenceLimits | None = None
    # A film takes the shape of its first reference.
    adaptive_ratio: bool = False
    watermark: bool = False
    last_frame: bool = False
    voice: str = ""
    format: str = ""
    style: str = ""
    max_words: int = 0

    def __repr__(self) -> str:
        # A prompt is the customer's own business: it must not reach a log by way of a traceback.
        return f"Generation(kind={self.kind!r}, model={self.model!r})"

    @property
    def reference_ids(self) -> tuple[str, ...]:
        """Those of its references that were staged for it."""
        return tuple(one.reference_id for one in self.references if one.reference_id)


class Output(Struct, frozen=True, gc=False):
    """One file in the media store."""

    role: int
    object_key: str
    content_type: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    duration_ms: int
    # What a text job wrote.
    text: str = ""

    def __repr__(self) -> str:
        return f"Output(role={self.role!r}, object_key={self.object_key!r})"


class Job(Struct, frozen=True, gc=False):
    """A job as it is committed; `version` counts its commits and `event_count` its recorded states.

    A struct of msgspec's, as all its parts are: every step of every job copies one, and copying a frozen dataclass of
    so many fields costs more than the rest of the step's bookkeeping.
    """

    job_id: str
    customer_id: str
    mode: Mode
    storefront: str
    # Customer, mode and idempotency key in one text: unique.
    admission_key: str
    fingerprint: str
    generation: Generation
    sku: str
    quantity: int
    # How many jobs the customer may have running, as told when this one was accepted.
    running_limit: int
    created_at_ms: int
    queue_deadline_ms: int
    state: JobState = JobState.ADMITTING
    stage: Stage = Stage.WAITING
    version: int = 1
    event_count: int = 1
    owner: str | None = None
    epoch: int = 1
    idle_claims: int = 0
    # When an unowned job may be claimed, and a queued one may be leased.
    run_at_ms: int = 0
    updated_at_ms: int = 0
    # 0 until the job has ended.
    ended_at_ms: int = 0
    # 0 until the first lease.
    run_deadline_ms: int = 0
    price_version: str = ""
    quoted_millis: int = 0
    # The number of the last lease that was granted; the next one is asked for under the number after it.
    attempt_number: int = 0
    account_id: str = ""
    avoid_account_ids: tuple[str, ...] = ()
    progress: int = 0
    failure: FailureReason = FailureReason.NONE
    failure_detail: str = ""
    settlement: Settlement = Settlement.UNDECIDED
    settle_millis: int = 0
    outputs: tuple[Output, ...] = ()
    charged_millis: int = 0
    refunded_millis: int = 0
    media_expires_at_ms: int = 0
    # Random, below 2^53; 0: none.
    public_number: int = 0
    # In the storefront's words.
    public_model: str = ""
    # JSON of the storefront's own.
    echo: str = ""
    project_id: str = ""
    callback_url: str = ""
    webhook_form_id: str = ""
    # These three are written beside the owner: no transition touches them, and a copy in memory may be behind.
    cancel_asked_at_ms: int = 0
    deleted_at_ms: int = 0
    # When what was deleted was also forgotten.
    scrubbed_at_ms: int = 0

    def __repr__(self) -> str:
        # What a customer gave or got back must not reach a log by way of a traceback.
        return f"Job({self.job_id!r}, {self.state!r}, version={self.version!r}, epoch={self.epoch!r})"

    @property
    def attempt_id(self) -> str:
        """The effect key of the attempt that holds, or last held, an account."""
        return attempt_id(self.job_id, self.attempt_number)

    @property
    def next_attempt_id(self) -> str:
        """The effect key of the lease that is asked for next."""
        return attempt_id(self.job_id, self.attempt_number + 1)

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def attempt_id(job_id: str, number: int) -> str:
    """`<job_id>:<n>`, the n-th try of the job."""
    return f"{job_id}:{number}"


def moved(job: Job, to: JobState, now_ms: int, **changes: Any) -> Job:
    """The job in its next state. Raises IllegalTransitionError for a change that no job may make."""
    if to not in ALLOWED[job.state]:
        raise IllegalTransitionError(f"{job.state} → {to}")
    return replace(
        job,
        state=to,
        stage=max(job.stage, _STAGE_OF[to]),
        version=job.version + 1,
        event_count=job.event_count + 1,
        updated_at_ms=max(now_ms, job.updated_at_ms),
        idle_claims=0,
        **changes,
    )


def touched(job: Job, now_ms: int, **changes: Any) -> Job:
    """The job with another field, in the same state: no event is recorded."""
    return replace(
        job,
        version=job.version + 1,
        updated_at_ms=max(now_ms, job.updated_at_ms),
        idle_claims=0,
        **changes,
    )


def leased(job: Job, account_id: str, run_allowance_ms: int, now_ms: int, **changes: Any) -> Job:
    """The next attempt holds an account. The kind's deadline runs from the first lease."""
    return moved(
        job,
        JobState.LEASED,
        now_ms,
        attempt_number=job.attempt_number + 1,
        account_id=account_id,
        run_deadline_ms=job.run_deadline_ms or now_ms + run_allowance_ms,
        **changes,
    )


def requeued(job: Job, now_ms: int, *, not_before_ms: int, avoid: str, reason: FailureReason) -> Job:
    """Back in line for another attempt; `avoid` is an account not to be used again, or empty."""
    avoided = job.avoid_account_ids
    if avoid and avoid not in avoided:
        avoided = (*avoided, avoid)
    return moved(
        job,
        JobState.QUEUED,
        now_ms,
        account_id="",
        avoid_account_ids=avoided,
        # Its deadline is noticed in time, however long the provider wants to be left alone.
        run_at_ms=min(not_before_ms, job.run_deadline_ms) if job.run_deadline_ms else not_before_ms,
        failure=reason,
    )


def succeeding(job: Job, outputs: tuple[Output, ...], retention_ms: int, now_ms: int) -> Job:
    """The outputs are in the media store, for so long: what was quoted will be charged."""
    return moved(
        job,
        JobState.SETTLING,
        now_ms,
        outputs=outputs,
        media_expires_at_ms=now_ms + retention_ms,
        progress=100,
        failure=FailureReason.NONE,
        failure_detail="",
        settlement=Settlement.CAPTURE,
        settle_millis=job.quoted_millis,
    )


def failing(job: Job, reason: FailureReason, detail: str, now_ms: int) -> Job:
    """The job will not succeed: what was held will be given back."""
    return moved(
        job,
        JobState.SETTLING,
        now_ms,
        failure=reason,
        failure_detail=detail[:500],
        settlement=Settlement.RELEASE,
        settle_millis=0,
    )


def canceling(job: Job, now_ms: int) -> Job | None:
    """The job as it ends because that was asked for; None where it was not, or where its end is decided already."""
    if not job.cancel_asked_at_ms or job.state not in LEASED | {JobState.QUEUED}:
        return None
    return failing(job, FailureReason.CANCELED, f"canceled while {job.state}", now_ms)


def finished(job: Job, charged_millis: int, now_ms: int) -> Job:
    """The end, after billing has answered."""
    return moved(
        job,
        _end_of(job),
        now_ms,
        ended_at_ms=now_ms,
        charged_millis=charged_millis,
        refunded_millis=max(0, job.quoted_millis - charged_millis),
    )


def _end_of(job: Job) -> JobState:
    if job.settlement is Settlement.CAPTURE:
        return JobState.COMPLETED
    return JobState.CANCELED if job.failure is FailureReason.CANCELED else JobState.FAILED


def overdue(job: Job, now_ms: int) -> Job | None:
    """The job as it fails of its deadline, or None while it has time."""
    if job.state is JobState.QUEUED:
        if now_ms < (job.run_deadline_ms or job.queue_deadline_ms):
            return None
        reason = job.failure or FailureReason.TIMED_OUT
        return failing(job, reason, "waited too long for an account", now_ms)
    # What is being collected was made in time; collecting has patience of its own.
    if job.state in LEASED - {JobState.COLLECTING} and now_ms >= job.run_deadline_ms:
        return failing(job, FailureReason.TIMED_OUT, f"deadline while {job.state}", now_ms)
    return None


def poisoned(job: Job, now_ms: int) -> Job | None:
    """The job as it fails for having been claimed too often without a step done, or None."""
    if job.idle_claims < MAX_IDLE_CLAIMS or job.state not in LEASED:
        return None
    return failing(job, FailureReason.PROVIDER_UNAVAILABLE, "claimed too often without progress", now_ms)


def load(state: JobState) -> Literal["waiting", "running", ""]:
    """Which of its customer's two counters a job in this state counts in."""
    if state in WAITING:
        return "waiting"
    return "" if state in ENDED else "running"


def released(job: Job) -> Job:
    """The job without an owner; part of a transition, not one of its own."""
    return replace(job, owner=None)
