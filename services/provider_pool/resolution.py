"""Finds out about attempts in doubt: in the provider's own list, by what was sent and when, and never by sending again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.chassis import crash_points
from services.chassis.clock import Clock
from services.provider_pool import codec, meters, outcomes
from services.provider_pool.accounts import Accounts
from services.provider_pool.adapters.interface import (
    Context,
    Feature,
    InvalidRequest,
    Prepared,
    ProviderError,
    TaskRef,
)
from services.provider_pool.attempt_log import AttemptLog
from services.provider_pool.attempts import Attempt, AttemptState
from services.provider_pool.catalog import Catalog
from services.provider_pool.submission import Files, Submissions
from services.provider_pool.vault import SealBroken

log = logging.getLogger(__name__)

SKEW_MS: Final = 5_000
"""A provider's clock may be behind ours by this much; older tasks with the same content are other attempts'."""

_ASK_AGAIN_MS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Resolved:
    """The record afterwards; while it is `unknown`, when to ask again."""

    attempt: Attempt
    poll_after_ms: int


class Resolution:
    """Resolves attempts in doubt. Simultaneous calls for one attempt share the search."""

    def __init__(
        self,
        attempts: AttemptLog,
        submissions: Submissions,
        accounts: Accounts,
        catalog: Catalog,
        files: Files,
        clock: Clock,
    ) -> None:
        self._attempts = attempts
        self._submissions = submissions
        self._accounts = accounts
        self._catalog = catalog
        self._files = files
        self._clock = clock
        self._searches: dict[str, asyncio.Task[Resolved]] = {}

    async def resolve(self, attempt_id: str) -> Resolved:
        """Look for the attempt once. Raises ATTEMPT_NOT_FOUND. An attempt that is not in doubt stays as it is."""
        search = self._searches.get(attempt_id)
        if search is None:
            search = asyncio.create_task(self._run(attempt_id), name=f"resolve {attempt_id}")
            self._searches[attempt_id] = search
            search.add_done_callback(lambda done: self._ended(attempt_id, done))
        return await asyncio.shield(search)

    async def close(self) -> None:
        """Stop searching."""
        searches = list(self._searches.values())
        for search in searches:
            search.cancel()
        await asyncio.gather(*searches, return_exceptions=True)

    def _ended(self, attempt_id: str, search: asyncio.Task[Resolved]) -> None:
        del self._searches[attempt_id]
        if not search.cancelled():
            search.exception()

    async def _run(self, attempt_id: str) -> Resolved:
        attempt = await self._submissions.settle(await self._attempts.get(attempt_id, fresh=True))
        if attempt.state is not AttemptState.UNKNOWN:
            return Resolved(attempt, _ASK_AGAIN_MS if attempt.state is AttemptState.SUBMITTING else 0)
        adapter = self._catalog.adapter(attempt.provider)
        if Feature.LIST not in adapter.features:
            return await self._give_up(attempt)
        # Asked before the list is: what appears in it later is not "not found within the window".
        is_over = self._clock.now_ms() >= self._window_ends_ms(attempt)
        try:
            found = await self._listed(attempt)
        except (ProviderError, SealBroken, TimeoutError) as error:
            log.warning("resolve.no_list", extra={"attempt_id": attempt_id, "cause": str(error)})
            return Resolved(attempt, _ASK_AGAIN_MS)
        adopted = await self._attempts.adopt(attempt, found) if found else None
        if adopted is not None:
            self._count(adopted, "found")
            return Resolved(adopted, 0)
        return await self._give_up(attempt) if is_over else Resolved(attempt, _ASK_AGAIN_MS)

    async def _listed(self, attempt: Attempt) -> Sequence[TaskRef]:
        prepared = await self._question(attempt)
        if prepared is None:
            return []
        adapter, terms = self._catalog.adapter(attempt.provider), self._catalog.terms(attempt.provider)
        account = await self._accounts.access(attempt.account_id)
        async with asyncio.timeout(terms.list_timeout_s):
            since_ms = attempt.created_at_ms - SKEW_MS
            crash_points.reached("provider", "list", "before", subject=attempt.attempt_id)
            listed = await adapter.list_tasks(Context(self._clock), account, prepared, since_ms)
            crash_points.reached("provider", "list", "after", subject=attempt.attempt_id)
            return listed

    async def _question(self, attempt: Attempt) -> Prepared | None:
        """What the attempt asked for; None where that cannot be put together any more, so that nothing is found."""
        generation = codec.read_generation(attempt.generation)
        spec = self._catalog.spec(attempt.provider, generation.model)
        files = await self._files(attempt.job_id, generation)
        there = [file for file in files if file is not None]
        # Less than all references is another question, and its answer another attempt's task.
        if spec is None or len(there) < len(files):
            return None
        try:
            adapter = self._catalog.adapter(attempt.provider)
            return adapter.prepare(codec.named_by_content(generation, there), spec, there)
        except InvalidRequest as error:
            # It was taken once, by another release. Asking again would change nothing, and never end.
            log.warning("resolve.no_question", extra={"attempt_id": attempt.attempt_id, "cause": error.code})
            return None

    async def _give_up(self, attempt: Attempt) -> Resolved:
        terms = self._catalog.terms(attempt.provider)
        # Once for a job: a second attempt lost in doubt is not followed by a third.
        resubmit = terms.resubmit_once and await self._attempts.abandoned_of(attempt.job_id) == 0
        generation = codec.read_generation(attempt.generation)
        expected_millis = self._catalog.estimate(attempt.provider, generation).expected_millis
        change = outcomes.given_up(attempt, resubmit, expected_millis, self._clock.now_ms())
        after = await self._attempts.change(change)
        self._count(after, after.state.value)
        return Resolved(after, 0)

    def _window_ends_ms(self, attempt: Attempt) -> int:
        return attempt.created_at_ms + round(self._catalog.terms(attempt.provider).unknown_window_s * 1000)

    def _count(self, attempt: Attempt, outcome: str) -> None:
        log.info("attempt.resolved", extra={"attempt_id": attempt.attempt_id, "outcome": outcome})
        meters.RESOLVED.labels(attempt.provider, outcome).inc()
