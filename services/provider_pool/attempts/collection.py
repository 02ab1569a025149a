"""Copies the outputs of a finished attempt to the media store, checks that they are what was asked for, and books the cost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from services.chassis import crash_points
from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.provider_pool import errors, meters
from services.provider_pool.accounts.registry import Accounts
from services.provider_pool.accounts.vault import SealBroken
from services.provider_pool.adapters.interface import (
    Kind,
    OutputRef,
    OutputUnavailable,
    ProviderError,
)
from services.provider_pool.attempts import codec, outcomes
from services.provider_pool.attempts.codec import Stored
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.records import Change
from services.provider_pool.attempts.states import Attempt, AttemptState
from services.provider_pool.catalog import Catalog
from services.provider_pool.media.object_keys import key_of
from services.provider_pool.media.output_check import check
from services.provider_pool.media.output_store import OutputStore
from services.provider_pool.media.probe import TEXT_LIMIT_BYTES, UnknownMedia
from services.provider_pool.media.store import Staged, TooLarge

log = logging.getLogger(__name__)


class Collection:
    """Collects attempts. Simultaneous calls for one attempt share the work, which goes on when its callers leave."""

    def __init__(
        self, attempts: AttemptLog, accounts: Accounts, catalog: Catalog, store: OutputStore, clock: Clock
    ) -> None:
        self._attempts = attempts
        self._accounts = accounts
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._flights: dict[str, asyncio.Task[Sequence[Stored]]] = {}

    async def collect(self, attempt_id: str) -> Sequence[Stored]:
        """What lies in the media store afterwards, the primary output first.

        Raises ATTEMPT_NOT_FOUND; ATTEMPT_STATE (it has not succeeded, or its outputs turned out unusable: then it is `failed`,
        and the failure is in its status); PROVIDER_UNREACHABLE.
        """
        flight = self._flights.get(attempt_id)
        if flight is None:
            flight = asyncio.create_task(self._run(attempt_id), name=f"collect {attempt_id}")
            self._flights[attempt_id] = flight
            flight.add_done_callback(lambda done: self._landed(attempt_id, done))
        return await asyncio.shield(flight)

    async def delete(self, object_keys: Sequence[str]) -> None:
        """Remove outputs from the media store. What is not there is no error. Raises UNAVAILABLE."""
        crash_points.reached("media", "delete", "before")
        try:
            meters.DELETED_MEDIA.inc(await self._store.delete(object_keys))
        except OSError as error:
            log.exception("media.not_deleted")
            raise errors.media_unusable() from error
        crash_points.reached("media", "delete", "after")

    async def close(self) -> None:
        """Stop; what is not collected yet is collected when it is asked for again."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _landed(self, attempt_id: str, flight: asyncio.Task[Sequence[Stored]]) -> None:
        del self._flights[attempt_id]
        if not flight.cancelled():
            flight.exception()

    async def _run(self, attempt_id: str) -> Sequence[Stored]:
        attempt = await self._attempts.get(attempt_id)
        if attempt.state is not AttemptState.SUCCEEDED:
            # Another replica may know more than the cache.
            attempt = await self._attempts.get(attempt_id, fresh=True)
        if attempt.collected:
            return await self._told(attempt.collected)
        if attempt.state is not AttemptState.SUCCEEDED:
            raise errors.attempt_state(attempt_id, attempt.state.value)
        try:
            stored = await self._copy(attempt)
        except OutputUnavailable as error:
            now_ms = self._clock.now_ms()
            after = await self._attempts.change(outcomes.failed(attempt, error, attempt.cost_millis, now_ms))
            if after.collected:
                return await self._told(after.collected)
            raise errors.attempt_state(attempt_id, AttemptState.FAILED.value) from error
        except ProviderError as error:
            log.warning("collect.failed", extra={"attempt_id": attempt_id, "cause": error.code})
            raise errors.provider_unreachable() from error
        except (SealBroken, OSError) as error:
            # Mended by an operator (a key ring, a full disk); the outputs wait at the provider meanwhile.
            log.exception("collect.failed", extra={"attempt_id": attempt_id})
            raise errors.provider_unreachable() from error
        change = Change(
            attempt_id,
            attempt.account_id,
            self._clock.now_ms(),
            collected=codec.stored_text(stored),
            cost_millis=attempt.cost_millis,
        )
        recorded = await self._attempts.change(change)
        if recorded.state is not AttemptState.SUCCEEDED:
            raise errors.attempt_state(attempt_id, recorded.state.value)
        await self._let_go(attempt)
        return await self._told(recorded.collected)

    async def _told(self, collected: str) -> Sequence[Stored]:
        """What was recorded, with the words of what is written; none once they are deleted."""
        try:
            return [await self._with_text(one) for one in codec.read_stored(collected)]
        except OSError as error:
            log.exception("collect.unreadable")
            raise errors.media_unusable() from error

    async def _with_text(self, stored: Stored) -> Stored:
        if stored.content_type != "text/plain":
            return stored
        content = await self._store.read(stored.object_key, TEXT_LIMIT_BYTES)
        return replace(stored, text=content.decode("utf-8", "replace"))

    async def _copy(self, attempt: Attempt) -> list[Stored]:
        generation = codec.read_generation(attempt.generation)
        staged: list[tuple[OutputRef, Staged]] = []
        try:
            for output in codec.read_outputs(attempt.outputs):
                staged.append((output, await self._fetch(attempt, output)))
                check(generation, output.role, staged[-1][1].probe)
            # Nothing is published before everything is right.
            return [
                await self._publish(attempt, generation.kind, output, arrived) for output, arrived in staged
            ]
        except BaseException:
            for _, arrived in staged:
                await self._store.discard(arrived)
            raise

    async def _fetch(self, attempt: Attempt, output: OutputRef) -> Staged:
        adapter, terms = self._catalog.adapter(attempt.provider), self._catalog.terms(attempt.provider)
        account = await self._accounts.access(attempt.account_id)
        task = codec.read_task(attempt.task)
        crash_points.reached("provider", "fetch", "before", subject=attempt.attempt_id)
        try:
            async with (
                asyncio.timeout(terms.fetch_timeout_s),
                adapter.open_output(
                    self._catalog.context(account, self._clock), account, task, output
                ) as chunks,
            ):
                staged = await self._store.stage(chunks)
                crash_points.reached("provider", "fetch", "after", subject=attempt.attempt_id)
                return staged
        except TimeoutError:
            raise ProviderError("the output did not arrive within the deadline") from None
        except (UnknownMedia, TooLarge) as error:
            raise OutputUnavailable(f"{output.role}: {error}", charged="yes") from error

    async def _publish(self, attempt: Attempt, kind: Kind, output: OutputRef, staged: Staged) -> Stored:
        found = staged.probe
        key = key_of(kind, output.role, attempt.job_id, attempt.created_at_ms, found.extension)
        crash_points.reached("media", "publish", "before", subject=key)
        await self._store.publish(staged, key)
        crash_points.reached("media", "publish", "after", subject=key)
        meters.COLLECTED_BYTES.labels(attempt.provider).inc(staged.size_bytes)
        return Stored(
            output.role,
            key,
            found.content_type,
            staged.size_bytes,
            staged.sha256,
            found.width or output.width,
            found.height or output.height,
            found.duration_ms or output.duration_ms,
        )

    async def _let_go(self, attempt: Attempt) -> None:
        adapter = self._catalog.adapter(attempt.provider)
        try:
            async with asyncio.timeout(self._catalog.terms(attempt.provider).poll_timeout_s):
                account = await self._accounts.access(attempt.account_id)
                crash_points.reached("provider", "forget", "before", subject=attempt.attempt_id)
                await adapter.forget(
                    self._catalog.context(account, self._clock), account, codec.read_task(attempt.task)
                )
                crash_points.reached("provider", "forget", "after", subject=attempt.attempt_id)
        except (ProviderError, ServiceError, SealBroken, TimeoutError, OSError) as error:
            # A courtesy: everything is stored and recorded.
            log.info("collect.not_forgotten", extra={"attempt_id": attempt.attempt_id, "cause": str(error)})
