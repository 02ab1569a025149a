"""Finds out about attempts in doubt: in the provider's own list, by what was sent and when, and never by sending again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.chassis import crash_points
from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.provider_pool import meters
from services.provider_pool.accounts.registry import Accounts
from services.provider_pool.accounts.vault import SealBroken
from services.provider_pool.adapters.interface import (
    Feature,
    InvalidRequest,
    Prepared,
    ProviderError,
    TaskRef,
    Terms,
)
from services.provider_pool.attempts import codec, outcomes
from services.provider_pool.attempts.log import SKEW_MS, AttemptLog
from services.provider_pool.attempts.states import Attempt, AttemptState
from services.provider_pool.attempts.submission import Files, Submissions
from services.provider_pool.catalog import Catalog

log = logging.getLogger(__name__)

DOUBT_LIMIT_S: Final = 3600.0
"""After its window. A provider that cannot be asked for so long tells nothing any more, and nothing may be in doubt for ever."""

_FIRST_PAUSE_MS: Final = 2_000
_LONGEST_PAUSE_MS: Final = 15_000
"""Between two looks: a quarter of the attempt's age. What shows at all shows soon, and every look may be some pages long."""

_LOOKS_AT_ONCE: Final = 2
"""On one account: many attempts that are in doubt together must not use up what its provider answers in a minute."""


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
        self._turns: dict[str, asyncio.Semaphore] = {}

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
            return Resolved(attempt, _FIRST_PAUSE_MS if attempt.state is AttemptState.SUBMITTING else 0)
        adapter = self._catalog.adapters.get(attempt.provider)
        if adapter is not None and Feature.LIST not in adapter.features:
            return await self._give_up(attempt, "the provider has no list to look in")
        # Asked before the list is: what appears in it later is not "not found within the window".
        over_for_ms = self._clock.now_ms() - self._window_ends_ms(attempt)
        try:
            found = await self._listed(attempt)
        except (ProviderError, SealBroken, ServiceError, TimeoutError) as error:
            return await self._not_listed(attempt, error, over_for_ms)
        except Exception as error:
            # A bug of the adapter's must not keep the attempt in doubt for ever either.
            log.exception("resolve.adapter_failed", extra={"attempt_id": attempt_id})
            return await self._not_listed(attempt, error, over_for_ms)
        expected_millis = self._expected_millis(attempt)
        adopted = await self._attempts.adopt(attempt, found, expected_millis) if found else None
        if adopted is None:
            self._attempts.note(attempt_id, "looked_for", _seen(found))
            if over_for_ms >= 0:
                return await self._give_up(attempt, "not found in the provider's list")
            return Resolved(attempt, self._pause_ms(attempt))
        if adopted.state is AttemptState.UNKNOWN:
            self._attempts.note(attempt_id, "looked_for", "a task may be that of another that is being sent")
            return Resolved(adopted, self._pause_ms(adopted))
        self._count(adopted, "found")
        return Resolved(adopted, 0)

    async def _not_listed(self, attempt: Attempt, error: Exception, over_for_ms: int) -> Resolved:
        log.warning("resolve.no_list", extra={"attempt_id": attempt.attempt_id, "cause": str(error)})
        cause = error.code if isinstance(error, ProviderError) else type(error).__name__
        self._attempts.note(attempt.attempt_id, "looked_for", f"the list could not be had: {cause}")
        if over_for_ms >= DOUBT_LIMIT_S * 1000:
            return await self._give_up(attempt, "the provider's list could not be had")
        return Resolved(attempt, self._pause_ms(attempt))

    async def _listed(self, attempt: Attempt) -> Sequence[TaskRef]:
        prepared = await self._question(attempt)
        if prepared is None:
            return []
        adapter, terms = self._catalog.adapter(attempt.provider), self._catalog.terms(attempt.provider)
        account = await self._accounts.access(attempt.account_id)
        prepared = await self._submissions.recalled(attempt.account_id, prepared)
        turns = self._turns.setdefault(attempt.account_id, asyncio.Semaphore(_LOOKS_AT_ONCE))
        async with turns, asyncio.timeout(terms.list_timeout_s):
            since_ms = attempt.created_at_ms - SKEW_MS
            crash_points.reached("provider", "list", "before", subject=attempt.attempt_id)
            listed = await adapter.list_tasks(
                self._catalog.context(account, self._clock), account, prepared, since_ms, attempt.attempt_id
            )
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

    async def _give_up(self, attempt: Attempt, why: str) -> Resolved:
        # Once for a job: a second attempt lost in doubt is not followed by a third.
        may_resubmit = self._terms(attempt).resubmit_once
        resubmit = may_resubmit and await self._attempts.abandoned_of(attempt.job_id) == 0
        expected_millis = self._expected_millis(attempt) or attempt.cost_millis
        change = outcomes.given_up(attempt, resubmit, expected_millis, self._clock.now_ms(), why)
        after = await self._attempts.change(change)
        if after.state is AttemptState.ABANDONED and after.failure == change.failure:
            meters.DOUBTFUL_COST.labels(attempt.provider).inc(after.cost_millis / 1000)
            if resubmit:
                meters.RESUBMITTED.labels(attempt.provider).inc()
        self._count(after, after.state.value)
        return Resolved(after, 0)

    def _expected_millis(self, attempt: Attempt) -> int:
        generation = codec.read_generation(attempt.generation)
        return self._catalog.estimate(attempt.provider, generation).expected_millis

    def _pause_ms(self, attempt: Attempt) -> int:
        now_ms = self._clock.now_ms()
        pause_ms = min(max((now_ms - attempt.created_at_ms) // 4, _FIRST_PAUSE_MS), _LONGEST_PAUSE_MS)
        # Not beyond the end of the window, where the next look decides.
        left_ms = self._window_ends_ms(attempt) - now_ms
        return min(pause_ms, max(left_ms, _FIRST_PAUSE_MS))

    def _window_ends_ms(self, attempt: Attempt) -> int:
        return attempt.created_at_ms + round(self._terms(attempt).unknown_window_s * 1000)

    def _terms(self, attempt: Attempt) -> Terms:
        # Of a provider that this release does not know any more the usual ones.
        known = attempt.provider in self._catalog.adapters
        return self._catalog.terms(attempt.provider) if known else Terms()

    def _count(self, attempt: Attempt, outcome: str) -> None:
        log.info("attempt.resolved", extra={"attempt_id": attempt.attempt_id, "outcome": outcome})
        meters.RESOLVED.labels(attempt.provider, outcome).inc()


def _seen(found: Sequence[TaskRef]) -> str:
    return f"{len(found)} tasks like it, all of other attempts" if found else "not in the provider's list"
