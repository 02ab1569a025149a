"""What the engine needs of others: billing, the provider pool, and its own store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.chassis.errors import ServiceError
from services.jobs.answers import AttemptStatus, Busy, Failure, Granted
from services.jobs.job import Job, Output


@dataclass(frozen=True, slots=True)
class Quote:
    """What billing holds for a job."""

    amount_millis: int
    price_version: str


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A hold that has not ended, as billing lists it."""

    job_id: str
    customer_id: str
    mode: str
    amount_millis: int


@dataclass(frozen=True, slots=True)
class OpenLease:
    """A lease that has not ended, as the pool lists it."""

    attempt_id: str
    job_id: str


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """An attempt that has not ended, as the pool lists it."""

    attempt_id: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Room:
    """Slots that may be free for one class of jobs."""

    mode: str
    model: str
    free_slots: int


PollAnswer = tuple[AttemptStatus, int]
"""Where an attempt stands, and when the provider said so (ms since the epoch; 0: it has said nothing yet)."""


class Billing(Protocol):
    """Every call is repeatable under the job's id, and raises ServiceError."""

    async def hold(self, job: Job, ttl_ms: int, key_id: str = "") -> Quote:
        """`key_id`: the key whose own spend limit counts it, or empty."""
        ...

    async def capture(self, job: Job, amount_millis: int) -> int:
        """Returns what was charged: less than asked for where the hold had expired and the wallet was empty."""
        ...

    async def release(self, job_id: str, customer_id: str, mode: str) -> None: ...

    async def extend_holds(self, job_ids: Sequence[str], ttl_ms: int) -> list[str]:
        """Returns the jobs whose hold is not open."""
        ...

    async def list_open_holds(self, created_before_ms: int, after_job_id: str) -> list[OpenHold]: ...

    async def holds_open_of(self, job_ids: Sequence[str]) -> set[str]:
        """Which of these jobs, 500 at most, have an open hold."""
        ...

    async def charged_totals(self, wallets: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """What these wallets, by customer and mode, were charged in all; one that is still added up is missing."""
        ...


class Pool(Protocol):
    """Every call is repeatable under the attempt's id, and raises ServiceError."""

    async def lease(self, job: Job, ttl_ms: int, *, wait_behind_others: bool) -> Granted | Busy:
        """Asks for the job's next attempt."""
        ...

    async def release_lease(self, attempt_id: str) -> None: ...

    async def renew_leases(self, attempt_ids: Sequence[str], ttl_ms: int) -> list[str]:
        """Returns the attempts whose lease is not open."""
        ...

    async def prepare_references(self, job: Job, timeout_s: float) -> Failure | None:
        """Makes the references ready for the attempt that is leased; None once all of them are."""
        ...

    async def drop_references(self, job_id: str, reference_ids: Sequence[str]) -> None:
        """Lets go of what was fetched for the job and of what was staged under these ids."""
        ...

    async def submit(self, job: Job) -> AttemptStatus: ...

    async def poll(self, attempt_id: str, max_age_ms: int) -> tuple[AttemptStatus, int]:
        """Where the attempt stands, and when the provider said so (ms since the epoch)."""
        ...

    async def poll_many(
        self, attempt_ids: Sequence[str], max_age_ms: int, max_wait_s: float
    ) -> list[PollAnswer | ServiceError]:
        """For each attempt what `poll` would return or raise, without waiting longer for providers that are slow."""
        ...

    async def resolve_unknown(self, attempt_id: str) -> AttemptStatus: ...

    async def collect(self, job: Job) -> tuple[tuple[Output, ...], int]:
        """The outputs, and for how many milliseconds from now they stay in the store."""
        ...

    async def list_leases(self, created_before_ms: int, after_attempt_id: str) -> list[OpenLease]: ...

    async def list_open_attempts(
        self, created_before_ms: int, after_attempt_id: str
    ) -> list[OpenAttempt]: ...

    async def close_attempts(self, attempt_ids: Sequence[str]) -> list[str]:
        """Ends attempts that nobody will ask about; returns those that are being sent at this moment."""
        ...

    async def delete_media(self, object_keys: Sequence[str]) -> None:
        """Deletes up to 1,000 outputs from the media store; what is not there is no error."""
        ...

    def watch_capacity(self) -> AsyncIterator[list[Room]]: ...

    def watch_hints(self) -> AsyncIterator[Sequence[str]]:
        """Attempts that are worth a poll now; some may be missing."""
        ...
