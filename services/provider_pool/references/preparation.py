"""References of a job: made ready once its account is held, handed to the adapter, let go of when the job has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from services.provider_pool import errors
from services.provider_pool.adapters.interface import (
    Generation,
    Reference,
    ReferenceFile,
    ReferenceLimits,
)
from services.provider_pool.attempts import codec
from services.provider_pool.attempts.states import Failure, FailureReason, NextStep
from services.provider_pool.catalog import Catalog
from services.provider_pool.references.fetching import Fetching, Unavailable, name_of
from services.provider_pool.references.intake import Allowance, ContentRefused
from services.provider_pool.references.requests import REFERENCES_LIMIT
from services.provider_pool.references.store import Kept, ReferenceStore
from services.provider_pool.selection.leasing import Leasing

log = logging.getLogger(__name__)

REQUEST_LIMIT_BYTES: Final = 128 * 1024**2
"""All media of one request together."""

_FETCHES_OF_A_REQUEST: Final = 3
"""At once; the largest request has nine images, and others have requests too."""


@dataclass(frozen=True, slots=True)
class _Flight:
    job_id: str
    task: asyncio.Task[list[Kept]]


class Preparation:
    """Prepares references. Simultaneous calls for one job share the work, which goes on when its callers leave."""

    def __init__(self, store: ReferenceStore, fetching: Fetching, leasing: Leasing, catalog: Catalog) -> None:
        self._store = store
        self._fetching = fetching
        self._leasing = leasing
        self._catalog = catalog
        self._flights: dict[str, _Flight] = {}

    async def prepare(self, attempt_id: str, job_id: str, generation: Generation) -> Failure | None:
        """Make all references of the generation ready; why not, if one cannot be.

        Raises ATTEMPT_NOT_FOUND (it has no lease), LEASE_ENDED (also when the references are dropped meanwhile),
        RESOURCE_EXHAUSTED and UNAVAILABLE.
        """
        provider = await self._leasing.provider_of(attempt_id)
        if not generation.references:
            return None
        flight = self._flight(job_id, generation)
        try:
            kept = await asyncio.shield(flight)
        except ContentRefused as refused:
            return _failure(FailureReason.INVALID_REFERENCE, refused.rule)
        except Unavailable as failed:
            return _failure(FailureReason.REFERENCE_UNAVAILABLE, failed.rule)
        except asyncio.CancelledError:
            if flight.cancelled() and not _is_cancelled():
                raise errors.lease_ended(attempt_id) from None
            raise
        return self._unsuitable(provider, generation, kept)

    async def files(self, job_id: str, generation: Generation) -> Sequence[ReferenceFile | None]:
        """One for each of the generation's references, None for one that is gone. Raises UNAVAILABLE."""
        found: list[ReferenceFile | None] = []
        try:
            for place, reference in enumerate(generation.references):
                kept = await self._store.find(reference.reference_id or name_of(job_id, place))
                found.append(None if kept is None else kept.file(reference.strength, reference.role))
        except OSError as error:
            log.exception("references.unusable", extra={"job_id": job_id})
            raise errors.references_unusable() from error
        return found

    async def drop(self, job_id: str, reference_ids: Iterable[str]) -> None:
        """Let go of what was staged, and of all that was fetched for the job. Raises UNAVAILABLE."""
        flights = [flight.task for flight in self._flights.values() if job_id and flight.job_id == job_id]
        await _stop(flights)
        fetched = [name_of(job_id, place) for place in range(REFERENCES_LIMIT)] if job_id else []
        try:
            await self._store.drop([*reference_ids, *fetched])
        except OSError as error:
            log.exception("references.unusable", extra={"job_id": job_id})
            raise errors.references_unusable() from error

    async def close(self) -> None:
        """Stop; what is not ready yet is made ready when it is asked for again."""
        await _stop([flight.task for flight in self._flights.values()])

    def _flight(self, job_id: str, generation: Generation) -> asyncio.Task[list[Kept]]:
        key = f"{job_id} {codec.references_fingerprint(generation)}"
        flight = self._flights.get(key)
        if flight is None:
            task = asyncio.create_task(self._run(job_id, generation), name=f"references of {job_id}")
            flight = self._flights[key] = _Flight(job_id, task)
            task.add_done_callback(lambda done: self._landed(key, done))
        return flight.task

    def _landed(self, key: str, task: asyncio.Task[list[Kept]]) -> None:
        del self._flights[key]
        # All callers may be gone, and nobody else would look at the error.
        if not task.cancelled():
            task.exception()

    async def _run(self, job_id: str, generation: Generation) -> list[Kept]:
        limits = generation.reference_limits
        if limits is None:
            raise ValueError("references come with limits")
        allowance = Allowance(REQUEST_LIMIT_BYTES, "too_many_bytes_in_all")
        turns = asyncio.Semaphore(_FETCHES_OF_A_REQUEST)
        work = [
            asyncio.create_task(self._one(job_id, place, reference, limits, allowance, turns))
            for place, reference in enumerate(generation.references)
        ]
        try:
            for ended in asyncio.as_completed(work):
                await ended
            return [one.result() for one in work]
        except OSError as error:
            log.exception("references.unusable", extra={"job_id": job_id})
            raise errors.references_unusable() from error
        finally:
            # Of what remains when one has failed, nothing is of use.
            await _stop(work)

    async def _one(
        self,
        job_id: str,
        place: int,
        reference: Reference,
        limits: ReferenceLimits,
        allowance: Allowance,
        turns: asyncio.Semaphore,
    ) -> Kept:
        async with turns:
            if reference.url:
                return await self._fetching.get(job_id, place, reference, limits, allowance)
            kept = await self._store.find(reference.reference_id)
            if kept is None:
                raise Unavailable("gone")
            allowance.take(kept.record.received_bytes)
            return kept

    def _unsuitable(self, provider: str, generation: Generation, kept: Sequence[Kept]) -> Failure | None:
        spec = self._catalog.spec(provider, generation.model)
        if spec is None:
            # Submit says so.
            return None
        takes = spec.capability.references
        pairs = zip(kept, generation.references, strict=True)
        files = [one.file(reference.strength, reference.role) for one, reference in pairs]
        if takes.suit(files):
            return None
        elsewhere = self._catalog.suits_elsewhere(provider, generation, files)
        step = NextStep.ROTATE if elsewhere else NextStep.FAIL
        return _failure(FailureReason.REFERENCE_UNSUITABLE, "unsuitable_size", step)


def _failure(reason: FailureReason, rule: str, step: NextStep = NextStep.FAIL) -> Failure:
    return Failure(reason, step, detail=f"{reason}: {rule}")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _stop(tasks: Sequence[asyncio.Task[list[Kept]] | asyncio.Task[Kept]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
