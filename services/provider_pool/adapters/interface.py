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
from typing import ClassVar, Protocol

from services.chassis.clock import Clock
from services.chassis.settings import Secret
from services.provider_pool.adapters.calls import Calls, NoCalls, NoResults, Results
from services.provider_pool.adapters.capability import Capability
from services.provider_pool.adapters.generation import Generation, Kind
from services.provider_pool.adapters.provider_errors import (
    AccountRestricted,
    AuthFailed,
    Charged,
    ConcurrencyLimited,
    ContentBlocked,
    GenerationDied,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    ModelNotEnabled,
    Next,
    OutputUnavailable,
    Overloaded,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    ReferenceRejected,
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
    "Calls",
    "Capability",
    "Charged",
    "ConcurrencyLimited",
    "ContentBlocked",
    "Context",
    "CostEstimate",
    "CostRule",
    "Feature",
    "Generation",
    "GenerationDied",
    "GenerationFailed",
    "Hint",
    "InsufficientBalance",
    "InvalidRequest",
    "Kind",
    "Medium",
    "ModelNotEnabled",
    "ModelSpec",
    "Next",
    "OutputRef",
    "OutputUnavailable",
    "Overloaded",
    "Prepared",
    "ProtocolViolation",
    "ProviderError",
    "Range",
    "RateLimited",
    "Reference",
    "ReferenceCapability",
    "ReferenceFile",
    "ReferenceLimits",
    "ReferenceRejected",
    "ReferenceRole",
    "RemoteFile",
    "Results",
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
    UPLOAD = "upload"
    HINTS = "hints"


# ---------------------------------------------------------------- values


@dataclass(frozen=True, slots=True)
class AccountAccess:
    """One set of credentials and what the operator set for it. Adapters keep nothing for an account."""

    account_id: str
    provider: str
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A reference that an account has taken in: `location` is what the provider calls it, an id or an address.

    `expires_at_ms`: until when the provider keeps it, 0 where it does not say. `state` is the adapter's own.
    """

    location: str = field(repr=False)
    expires_at_ms: int = 0
    state: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A generation in the provider's words: what goes over the wire, and what a list call is compared with.

    `body` says nothing of references yet. `uploads` has one entry for each of them once the account has them, and stays
    empty where the adapter does not upload (Feature.UPLOAD) and sends the files itself.
    """

    generation: Generation
    spec: ModelSpec
    body: Mapping[str, object] = field(repr=False)
    references: tuple[ReferenceFile, ...] = ()
    uploads: tuple[RemoteFile, ...] = ()


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
    """`task` where the provider runs the job on its own time; `done` where the answer is the result already.

    `cost_millis`: what the task costs, where the provider tells it with the answer; None where it does not.
    """

    task: TaskRef
    done: Snapshot | None = None
    cost_millis: int | None = None


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What the provider says of a task that was to stop: whether it charges for it, and how much, if it tells."""

    charged: Charged
    cost_millis: int | None = None


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """What the cheapest call that proves the credentials says.

    Balance (thousandths of the provider's unit), renewal and concurrency are None where the provider does not tell them.
    """

    ok: bool
    balance_millis: int | None = None
    detail: str = ""
    renews_at_ms: int | None = None
    concurrency_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """What a provider's webhook is worth: tasks to ask about now. It is never believed, only followed by a poll.

    `delivery_id` names the delivery where the provider does, so that a repeated one costs nothing.
    """

    task_ids: tuple[str, ...]
    delivery_id: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What the pool lends an adapter for one call; everything that reaches outside goes through here.

    `callback_url`: where the provider may say that something has happened; empty where nobody could hear it.
    """

    clock: Clock
    calls: Calls = field(default_factory=NoCalls)
    results: Results = field(default_factory=NoResults)
    callback_url: str = field(default="", repr=False)


# ---------------------------------------------------------------- models and cost, as data


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
    """One model of one provider: Atelier's name, the provider's name, and its data.

    `output_lifetime_s`: how long an output can be fetched after its task ended, 0 where that is not limited.
    `retires_at_ms`: when the provider stops serving it, 0 for never; from then on no job is given to it.
    `longest_s`: a task that runs longer than this is given up, until past tasks have shown what is usual.
    `concurrency_limit`: of one account for this model, beside the account's own limit; 0 for none.
    `extras`: what this provider's adapter alone understands.
    """

    model: str
    upstream: str
    kind: Kind
    capability: Capability
    cost: CostRule
    output_lifetime_s: int = 0
    retires_at_ms: int = 0
    longest_s: int = 0
    concurrency_limit: int = 0
    extras: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a provider is dealt with, as data an operator may change.

    `unknown_window_s`: how long after a submission in doubt its task may still appear in the provider's list.
    `resubmit_once`: whether a job whose submission was given up may be submitted once more, possibly paid twice.
    `polls_per_second`, `poll_burst`: the budget of one account.
    `submits_per_minute`: what one account may send, 0 for no limit. `tasks_at_once`: over all accounts, 0 for no limit.
    `usd_micros_per_unit`: what one unit of the provider's costs, so that prices of providers can be compared.
    `upload_lifetime_s`: how long an account keeps an uploaded reference whose provider does not say, 0 for a year.
    """

    submit_timeout_s: float = 30.0
    poll_timeout_s: float = 10.0
    list_timeout_s: float = 20.0
    fetch_timeout_s: float = 300.0
    unknown_window_s: float = 120.0
    resubmit_once: bool = False
    polls_per_second: float = 20.0
    poll_burst: int = 40
    upload_timeout_s: float = 60.0
    submits_per_minute: int = 0
    tasks_at_once: int = 0
    usd_micros_per_unit: int = 1_000_000
    upload_lifetime_s: int = 86_400


# ---------------------------------------------------------------- the plug-in


class Adapter(abc.ABC):
    """One provider. Calls raise `ProviderError` and nothing else; the pool puts a deadline on each of them."""

    name: ClassVar[str]
    features: ClassVar[frozenset[Feature]] = frozenset()
    terms: ClassVar[Terms] = Terms()
    # Where the provider is, by the account's option that says otherwise: the only places that credentials are sent to.
    addresses: ClassVar[Mapping[str, str]] = {}

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

    def identity(self, options: Mapping[str, str], secrets: Mapping[str, Secret]) -> Secret | None:
        """What is the same for two accounts here that are one at the provider; None where that cannot be said."""
        return None

    async def poll_many(
        self, context: Context, account: AccountAccess, tasks: Sequence[TaskRef]
    ) -> Mapping[str, Snapshot]:
        """Feature.POLL_MANY: snapshots by task id in one call; a task that is missing in it is not known."""
        raise NotImplementedError(Feature.POLL_MANY)

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        """Feature.LIST: tasks begun at or after `since_ms` whose content is what `prepared` asked for.

        `reference`: what `submit` was given. Where the provider gives it back, it decides instead of the content.
        """
        raise NotImplementedError(Feature.LIST)

    async def upload(
        self, context: Context, account: AccountAccess, spec: ModelSpec, file: ReferenceFile
    ) -> RemoteFile:
        """Feature.UPLOAD: bring a reference to this account. Unbilled, so that repeating it only costs time."""
        raise NotImplementedError(Feature.UPLOAD)

    async def hint(
        self, context: Context, account: AccountAccess, headers: Mapping[str, str], body: bytes
    ) -> Hint | None:
        """Feature.HINTS: what a webhook of the provider's is about; None where its signature is not right.

        Header names are lower-case. Where a provider signs nothing, the unguessable address it was sent to is all there is.
        """
        raise NotImplementedError(Feature.HINTS)

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
