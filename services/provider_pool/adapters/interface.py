"""What the pool and an adapter know of each other.

An adapter is one stateless module for one provider: it says what its models can do and cost, as data, translates
a generation into the provider's words (`prepare`, pure), and makes the provider's calls. It never retries, never
chooses an account, never writes to a database; all of that is the pool's. Errors come out of it classified.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from services.chassis.clock import Clock
from services.chassis.settings import Secret


class Kind(StrEnum):
    """What comes out of a generation."""

    IMAGE = "image"
    VIDEO = "video"
    VOICE = "voice"
    MUSIC = "music"
    INFOGRAPHIC = "infographic"
    TEXT = "text"


class Role(StrEnum):
    """What an output is for; also its name in the media store."""

    PRIMARY = "primary"
    PREVIEW = "preview"
    LAST_FRAME = "last_frame"


class TaskState(StrEnum):
    """Where a task stands, in words common to all providers."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Feature(StrEnum):
    """Calls that not every provider has; an adapter names those that it implements."""

    LIST = "list"
    POLL_MANY = "poll_many"


Charged = Literal["no", "maybe", "yes"]


# ---------------------------------------------------------------- values


class Strength(StrEnum):
    """How closely the output follows a reference."""

    LOW = "low"
    MID = "mid"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture that the output is to follow, as the caller named it: one of `url` and `reference_id` is set."""

    strength: Strength = Strength.MID
    url: str = field(default="", repr=False)
    reference_id: str = ""


@dataclass(frozen=True, slots=True)
class ReferenceLimits:
    """What the storefront takes as references; `image_bytes` bounds one image, `images` how many a request has."""

    image_formats: frozenset[str]
    image_bytes: int
    images: int
    first_frame_of_animations: bool = False


@dataclass(frozen=True, slots=True)
class ReferenceFile:
    """A reference as a provider gets it: checked, rewritten, with its true type and size. Gone once its job has ended."""

    path: Path
    content_type: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    strength: Strength


@dataclass(frozen=True, slots=True)
class Generation:
    """What is to be made, in Atelier's own words; no contract's and no provider's."""

    kind: Kind
    model: str
    prompt: str = field(repr=False)
    width: int = 0
    height: int = 0
    duration_s: int = 0
    audio: bool = False
    quality: str = ""
    seed: int | None = None
    references: tuple[Reference, ...] = ()
    reference_limits: ReferenceLimits | None = None


@dataclass(frozen=True, slots=True)
class AccountAccess:
    """One set of credentials and what the operator set for it. Adapters keep nothing for an account."""

    account_id: str
    provider: str
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A generation in the provider's words: what goes over the wire, and what a list call is compared with."""

    generation: Generation
    spec: ModelSpec
    body: Mapping[str, object] = field(repr=False)
    references: tuple[ReferenceFile, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskRef:
    """Enough to poll a task after a restart, from any replica."""

    task_id: str
    submitted_at_ms: int
    state: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutputRef:
    """One output at the provider. `location` means something to the adapter alone and is never shown."""

    role: Role
    location: str = field(repr=False)
    content_type: str = ""
    width: int = 0
    height: int = 0
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One answer of the provider about a task. `error` is set when FAILED; cost is None where it is not told."""

    state: TaskState
    progress: int = 0
    poll_after_ms: int = 0
    outputs: Sequence[OutputRef] = ()
    cost_millis: int | None = None
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """`task` where the provider runs the job on its own time; `done` where the answer is the result already."""

    task: TaskRef
    done: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """What the cheapest call that proves the credentials says. Balance is None where the provider has none."""

    ok: bool
    balance_millis: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What the pool lends an adapter for one call; everything that reaches outside goes through here."""

    clock: Clock


# ---------------------------------------------------------------- errors


class Scope(StrEnum):
    """What an error says something about."""

    REQUEST = "request"
    JOB = "job"
    MODEL = "account_model"
    ACCOUNT = "account"
    PROVIDER = "provider"


class Next(StrEnum):
    """What may be done after an error."""

    FAIL = "fail"
    RETRY = "retry"
    ROTATE = "rotate"
    RECONCILE = "reconcile"


class ProviderError(Exception):
    """A classified failure. The message is for operators and logs, and never reaches a customer.

    `retry_after_s` is what the provider asked for; `charged` whether it took money for this attempt.
    """

    scope: ClassVar[Scope] = Scope.PROVIDER
    next: ClassVar[Next] = Next.FAIL
    code: ClassVar[str] = "provider_error"

    def __init__(self, message: str, *, retry_after_s: float | None = None, charged: Charged = "no") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.charged: Charged = charged


class InvalidRequest(ProviderError):
    """The same request would be refused on every account."""

    scope, next, code = Scope.REQUEST, Next.FAIL, "invalid_request"


class ContentBlocked(ProviderError):
    """The provider refused the content; the customer's answer, never tried elsewhere."""

    scope, next, code = Scope.REQUEST, Next.FAIL, "content_blocked"


class AuthFailed(ProviderError):
    """401: the credentials are wrong or withdrawn."""

    scope, next, code = Scope.ACCOUNT, Next.ROTATE, "auth_failed"


class InsufficientBalance(ProviderError):
    """402: the account cannot pay."""

    scope, next, code = Scope.ACCOUNT, Next.ROTATE, "insufficient_balance"


class AccountRestricted(ProviderError):
    """403: the provider closed or limited the account."""

    scope, next, code = Scope.ACCOUNT, Next.ROTATE, "account_restricted"


class ModelNotEnabled(ProviderError):
    """This account may not use this model; it may use others."""

    scope, next, code = Scope.MODEL, Next.ROTATE, "model_not_enabled"


class RateLimited(ProviderError):
    """429: too many requests or running tasks on the account."""

    scope, next, code = Scope.ACCOUNT, Next.ROTATE, "rate_limited"


class TransientFailure(ProviderError):
    """5xx, or a connection that failed before the request was sent: certainly not accepted."""

    scope, next, code = Scope.PROVIDER, Next.ROTATE, "transient"


class GenerationFailed(ProviderError):
    """Accepted, ran, and died."""

    scope, next, code = Scope.JOB, Next.FAIL, "generation_failed"


class SubmissionUnknown(ProviderError):
    """The connection broke after the body may have been sent: nobody knows whether it was accepted."""

    scope, next, code = Scope.JOB, Next.RECONCILE, "submission_unknown"


class TaskNotFound(ProviderError):
    """The provider does not know the task (any more)."""

    scope, next, code = Scope.JOB, Next.FAIL, "task_not_found"


class OutputUnavailable(ProviderError):
    """The output is gone, or what came is not the output."""

    scope, next, code = Scope.JOB, Next.FAIL, "output_unavailable"


# ---------------------------------------------------------------- capability and cost, as data


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `low` to `high`, both included, in steps from `low`."""

    low: int
    high: int
    step: int = 1

    def __contains__(self, value: int) -> bool:
        return self.low <= value <= self.high and (value - self.low) % self.step == 0


@dataclass(frozen=True, slots=True)
class ReferenceCapability:
    """How many reference images a model takes, and of which sides in pixels."""

    images: int = 0
    sides_px: Range = Range(1, 16_384)

    def suits(self, file: ReferenceFile) -> bool:
        """Whether the model takes an image of this size."""
        return file.width in self.sides_px and file.height in self.sides_px


@dataclass(frozen=True, slots=True)
class Capability:
    """What a model takes. `None` for a range: the kind has no such dimension, and only 0 is accepted."""

    prompt_characters: Range
    widths: Range | None = None
    heights: Range | None = None
    durations_s: Range | None = None
    qualities: frozenset[str] = frozenset({""})
    audio: bool = False
    references: ReferenceCapability = ReferenceCapability()

    def accepts(self, generation: Generation) -> bool:
        """Whether a model of this capability can make exactly this."""
        within = ((generation.width, self.widths), (generation.height, self.heights))
        measured = (*within, (generation.duration_s, self.durations_s))
        return (
            len(generation.prompt) in self.prompt_characters
            and all(value == 0 if limits is None else value in limits for value, limits in measured)
            and generation.quality in self.qualities
            and (self.audio or not generation.audio)
            and len(generation.references) <= self.references.images
        )


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """Thousandths of the provider's own unit. The ceiling is kept on the account while the attempt lives."""

    expected_millis: int
    ceiling_millis: int


class CostRule(Protocol):
    """What a generation costs on the provider's side."""

    def estimate(self, generation: Generation) -> CostEstimate:
        """Before it is submitted; the ceiling is never exceeded."""
        ...


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of one provider: Atelier's name, the provider's name, and its data."""

    model: str
    upstream: str
    kind: Kind
    capability: Capability
    cost: CostRule


@dataclass(frozen=True, slots=True)
class Terms:
    """How a provider is dealt with, as data an operator may change.

    `unknown_window_s`: how long after a submission in doubt its task may still appear in the provider's list.
    `resubmit_once`: whether a job whose submission was given up may be submitted once more, possibly paid twice.
    `polls_per_second`, `poll_burst`: the budget of one account.
    """

    submit_timeout_s: float = 30.0
    poll_timeout_s: float = 10.0
    list_timeout_s: float = 20.0
    fetch_timeout_s: float = 300.0
    unknown_window_s: float = 120.0
    resubmit_once: bool = False
    polls_per_second: float = 20.0
    poll_burst: int = 40


# ---------------------------------------------------------------- the plug-in


class Adapter(abc.ABC):
    """One provider. Calls raise `ProviderError` and nothing else; the pool puts a deadline on each of them."""

    name: ClassVar[str]
    features: ClassVar[frozenset[Feature]] = frozenset()
    terms: ClassVar[Terms] = Terms()

    @abc.abstractmethod
    def models(self) -> Sequence[ModelSpec]:
        """Everything that this provider serves."""

    @abc.abstractmethod
    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        """Translate, without any input or output; one file for each of the generation's references. Raises InvalidRequest."""

    @abc.abstractmethod
    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        """Make the one call that is never repeated. `reference` is the attempt's id, for providers that take one.

        Raises SubmissionUnknown whenever the body may have been sent and no answer was understood.
        """

    @abc.abstractmethod
    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        """Where the task stands. A task that failed is a Snapshot with its error; raised errors are about asking."""

    @abc.abstractmethod
    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        """The cheapest unbilled call that proves the credentials, with the balance if there is one."""

    @abc.abstractmethod
    def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream the bytes of one output. Raises OutputUnavailable, also while streaming."""

    def complaint(self, options: Mapping[str, str], secrets: Mapping[str, object]) -> str | None:
        """What is wrong with an account that is about to be added or changed, in one sentence; None if nothing is.

        `secrets` has the names of the credentials that were given; their values are not shown.
        """
        return None

    async def poll_many(
        self, context: Context, account: AccountAccess, tasks: Sequence[TaskRef]
    ) -> Mapping[str, Snapshot]:
        """Feature.POLL_MANY: snapshots by task id in one call; a task that is missing in it is not known."""
        raise NotImplementedError(Feature.POLL_MANY)

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int
    ) -> Sequence[TaskRef]:
        """Feature.LIST: tasks begun at or after `since_ms` whose content is what `prepared` asked for."""
        raise NotImplementedError(Feature.LIST)

    async def forget(self, context: Context, account: AccountAccess, task: TaskRef) -> None:
        """The outputs are in the media store: the provider may let go of its copies. Most need not be told."""
        return

    async def tidy(self) -> None:
        """Called now and then: let go of what nobody asked for in a day. Most keep nothing."""
        return

    async def close(self) -> None:
        """Stop what the adapter started; most start nothing."""
        return
