"""Copies the outputs of a finished attempt to the media store, checks that they are what was asked for, and books the cost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from services.chassis import crash_points
from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.provider_pool import codec, errors, meters, outcomes
from services.provider_pool.accounts import Accounts
from services.provider_pool.adapters.interface import (
    Context,
    Generation,
    Kind,
    OutputRef,
    OutputUnavailable,
    ProviderError,
    Role,
)
from services.provider_pool.attempt_log import AttemptLog
from services.provider_pool.attempts import Attempt, AttemptState
from services.provider_pool.catalog import Catalog
from services.provider_pool.codec import Stored
from services.provider_pool.media_probe import Probe, UnknownMedia
from services.provider_pool.media_store import MediaStore, Staged, TooLarge
from services.provider_pool.records import Change
from services.provider_pool.vault import SealBroken

log = logging.getLogger(__name__)

DURATION_TOLERANCE_MS: Final = 1_000
"""Films end with their last frame or audio block, and providers round; a second more or less is what was asked for."""

_TYPES: Final = {Kind.IMAGE: "image/", Kind.INFOGRAPHIC: "image/", Kind.VIDEO: "video/"}


class Collection:
    """Collects attempts. Simultaneous calls for one attempt share the work, which goes on when its callers leave."""

    def __init__(
        self, attempts: AttemptLog, accounts: Accounts, catalog: Catalog, store: MediaStore, clock: Clock
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
            return codec.read_stored(attempt.collected)
        if attempt.state is not AttemptState.SUCCEEDED:
            raise errors.attempt_state(attempt_id, attempt.state.value)
        try:
            stored = await self._copy(attempt)
        except OutputUnavailable as error:
            now_ms = self._clock.now_ms()
            after = await self._attempts.change(outcomes.failed(attempt, error, attempt.cost_millis, now_ms))
            if after.collected:
                return codec.read_stored(after.collected)
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
        return codec.read_stored(recorded.collected)

    async def _copy(self, attempt: Attempt) -> list[Stored]:
        generation = codec.read_generation(attempt.generation)
        staged: list[tuple[OutputRef, Staged]] = []
        try:
            for output in codec.read_outputs(attempt.outputs):
                staged.append((output, await self._fetch(attempt, output)))
                _check(generation, output.role, staged[-1][1].probe)
            # Nothing is published before everything is right.
            return [await self._publish(attempt, output, arrived) for output, arrived in staged]
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
                adapter.open_output(Context(self._clock), account, task, output) as chunks,
            ):
                staged = await self._store.stage(chunks)
                crash_points.reached("provider", "fetch", "after", subject=attempt.attempt_id)
                return staged
        except TimeoutError:
            raise ProviderError("the output did not arrive within the deadline") from None
        except (UnknownMedia, TooLarge) as error:
            raise OutputUnavailable(f"{output.role}: {error}", charged="yes") from error

    async def _publish(self, attempt: Attempt, output: OutputRef, staged: Staged) -> Stored:
        found = staged.probe
        key = f"{attempt.job_id}/{output.role.value}.{found.extension}"
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
                await adapter.forget(Context(self._clock), account, codec.read_task(attempt.task))
                crash_points.reached("provider", "forget", "after", subject=attempt.attempt_id)
        except (ProviderError, ServiceError, SealBroken, TimeoutError, OSError) as error:
            # A courtesy: everything is stored and recorded.
            log.info("collect.not_forgotten", extra={"attempt_id": attempt.attempt_id, "cause": str(error)})


def _check(generation: Generation, role: Role, found: Probe) -> None:
    """Raises OutputUnavailable where bytes are not what was asked for. What a header does not tell is not held against it."""
    if role is not Role.PRIMARY:
        if not found.content_type.startswith("image/"):
            raise OutputUnavailable(f"{role} is {found.content_type}", charged="yes")
        return
    if not found.content_type.startswith(_TYPES.get(generation.kind, "")):
        raise OutputUnavailable(f"asked for {generation.kind}, got {found.content_type}", charged="yes")
    asked, got = (generation.width, generation.height), (found.width, found.height)
    if all(asked) and all(got) and asked != got:
        raise OutputUnavailable(f"asked for {asked} pixels, got {got}", charged="yes")
    off_ms = abs(found.duration_ms - generation.duration_s * 1000)
    if generation.duration_s and off_ms > DURATION_TOLERANCE_MS:
        raise OutputUnavailable(
            f"asked for {generation.duration_s} s, got {found.duration_ms} ms", charged="yes"
        )
