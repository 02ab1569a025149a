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
from typing import ClassVar, Final, Protocol

from services.chassis.clock import Clock
from services.chassis.settings import Secret
from services.provider_pool.adapters.provider_errors import (
    AccountRestricted,
    AuthFailed,
    Charged,
    ContentBlocked,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    ModelNotEnabled,
    Next,
    OutputUnavailable,
    ProviderError,
    RateLimited,
    Scope,
    SubmissionUnknown,
    TaskNotFound,
    TransientFailure,
)
from services.provider_pool.adapters.reference import (
    Medium,
    Range,
    Reference,
    ReferenceCapability,
    ReferenceFile,
    ReferenceLimits,
    ReferenceRole,
    Strength,
)

__all__ = [
    "AccountAccess",
    "AccountRestricted",
    "AccountStatus",
    "Adapter",
    "AuthFailed",
    "Capability",
    "Charged",
    "ContentBlocked",
    "Context",
    "CostEstimate",
    "CostRule",
    "Feature",
    "Generation",
    "GenerationFailed",
    "InsufficientBalance",
    "InvalidRequest",
    "Kind",
    "Medium",
    "ModelNotEnabled",
    "ModelSpec",
    "Next",
    "OutputRef",
    "OutputUnavailable",
    "Prepared",
    "ProviderError",
    "Range",
    "RateLimited",
    "Reference",
    "ReferenceCapability",
    "ReferenceFile",
    "ReferenceLimits",
    "ReferenceRole",
    "Role",
    "Scope",
    "Snapshot",
    "Strength",
    "Submission",
    "SubmissionUnknown",
    "TaskNotFound",
    "TaskRef",
    "TaskState",
    "Terms",
    "TransientFailure",
]


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
    CANCEL = "cancel"


# ---------------------------------------------------------------- values


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
    adaptive_ratio: bool = False
    watermark: bool = False
    last_frame: bool = False
    voice: str = ""
    format: str = ""
    style: str = ""
    max_words: int = 0


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
class Cancellation:
    """What the provider says of a task that was to stop: whether it charges for it, and how much, if it tells."""

    charged: Charged
    cost_millis: int | None = None


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


# ---------------------------------------------------------------- capability and cost, as data


_NO_REFERENCES: Final = ReferenceCapability()
_PROVIDERS_CHOICE: Final = frozenset({""})


@dataclass(frozen=True, slots=True)
class Capability:
    """What a model takes. `None` for a range: the kind has no such dimension, and only 0 is accepted.

    Of words to choose from, the empty one is the provider's own choice.
    """

    prompt_characters: Range
    widths: Range | None = None
    heights: Range | None = None
    durations_s: Range | None = None
    qualities: frozenset[str] = _PROVIDERS_CHOICE
    audio: bool = False
    references: ReferenceCapability = _NO_REFERENCES
    adaptive_ratio: bool = False
    watermark: bool = False
    last_frame: bool = False
    voices: frozenset[str] = _PROVIDERS_CHOICE
    formats: frozenset[str] = _PROVIDERS_CHOICE
    styles: frozenset[str] = _PROVIDERS_CHOICE
    max_words: Range | None = None

    def accepts(self, generation: Generation) -> bool:
        """Whether a model of this capability can make exactly this."""
        measured = (
            (generation.width, self.widths),
            (generation.height, self.heights),
            (generation.duration_s, self.durations_s),
            (generation.max_words, self.max_words),
        )
        switches = (
            (generation.audio, self.audio),
            (generation.adaptive_ratio, self.adaptive_ratio),
            (generation.watermark, self.watermark),
            (generation.last_frame, self.last_frame),
        )
        return (
            len(generation.prompt) in self.prompt_characters
            and all(value == 0 if limits is None else value in limits for value, limits in measured)
            and all(can or not wanted for wanted, can in switches)
            and generation.quality in self.qualities
            and generation.voice in self.voices
            and generation.format in self.formats
            and generation.style in self.styles
            and self.references.takes(generation.references)
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

    async def cancel(self, context: Context, account: AccountAccess, task: TaskRef) -> Cancellation:
        """Feature.CANCEL: stop a task that nobody wants any more. Harmless when it has ended or was stopped before."""
        raise NotImplementedError(Feature.CANCEL)

    async def forget(self, context: Context, account: AccountAccess, task: TaskRef) -> None:
        """The outputs are in the media store: the provider may let go of its copies. Most need not be told."""
        return

    async def tidy(self) -> None:
        """Called now and then: let go of what nobody asked for in a day. Most keep nothing."""
        return

    async def close(self) -> None:
        """Stop what the adapter started; most start nothing."""
        return
