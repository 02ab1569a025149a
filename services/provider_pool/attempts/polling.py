"""Asking providers: one question for all who want the answer, many attempts to a question, within each account's budget."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.chassis import crash_points
from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.provider_pool import errors, meters
from services.provider_pool.accounts.registry import Accounts
from services.provider_pool.accounts.vault import SealBroken
from services.provider_pool.adapters.interface import (
    Feature,
    ProviderError,
    RateLimited,
    Snapshot,
    TaskNotFound,
    TaskRef,
    TaskState,
)
from services.provider_pool.attempts import codec, outcomes
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.overdue import Overdue, since_ms
from services.provider_pool.attempts.poll_budget import PollBudget
from services.provider_pool.attempts.records import Change
from services.provider_pool.attempts.states import Attempt, AttemptState
from services.provider_pool.catalog import Catalog

log = logging.getLogger(__name__)

ANSWERS_KEPT: Final = 50_000
"""Last answers, some hundred bytes each; of an attempt that has fallen out the provider is simply asked again."""

BATCH_LIMIT: Final = 100
"""Attempts in one question; providers' list calls give pages of about this size."""

SINGLE_CALLS: Final = 8
"""Questions at once on one account of a provider that takes one task a question."""


NEW_TASK_MS: Final = 10_000
"""A provider may list a task some seconds after it has taken it; until then "unknown" is no answer."""

_ENDS: Final = frozenset({TaskState.SUCCEEDED, TaskState.FAILED})


@dataclass(frozen=True, slots=True)
class Polled:
    """Where an attempt stands, and when the provider said so."""

    attempt: Attempt
    progress: int
    poll_after_ms: int
    answered_at_ms: int


class Polling:
    """Answers polls. Nothing is written until an attempt ends."""

    def __init__(
        self, attempts: AttemptLog, accounts: Accounts, catalog: Catalog, overdue: Overdue, clock: Clock
    ) -> None:
        self._attempts = attempts
        self._accounts = accounts
        self._catalog = catalog
        self._overdue = overdue
        self._clock = clock
        self._answers: OrderedDict[str, Polled] = OrderedDict()
        self._asked: dict[str, asyncio.Future[Polled]] = {}
        self._waiting: dict[str, list[Attempt]] = {}
        self._desks: dict[str, asyncio.Task[None]] = {}
        self._budgets: dict[str, PollBudget] = {}
        self._applying: set[asyncio.Task[None]] = set()

    async def poll(self, attempt_id: str, max_age_ms: int) -> Polled:
        """Where the attempt stands, as of at most `max_age_ms` ago.

        Raises ATTEMPT_NOT_FOUND, and PROVIDER_UNREACHABLE when the provider did not answer.
        """
        attempt = await self._attempts.get(attempt_id)
        if attempt.state is not AttemptState.RUNNING:
            return self._at_rest(attempt)
        known = self._fresh(attempt_id, max_age_ms)
        if known is not None:
            return known
        return await asyncio.shield(self._asked.get(attempt_id) or self._ask(attempt))

    async def poll_many(
        self, attempt_ids: Sequence[str], max_age_ms: int, max_wait_s: float
    ) -> list[Polled | ServiceError]:
        """The same of many attempts, for each what `poll` would return or raise.

        Nobody waits longer than `max_wait_s` for the slowest provider among them: what is not answered by then is told
        as it was known before, and as of 0 where nothing was.
        """
        found = await self._attempts.get_many(attempt_ids)
        questions: dict[str, asyncio.Future[Polled]] = {}
        for attempt_id, attempt in found.items():
            if attempt.state is AttemptState.RUNNING and self._fresh(attempt_id, max_age_ms) is None:
                questions[attempt_id] = self._asked.get(attempt_id) or self._ask(attempt)
        if questions:
            await asyncio.wait(questions.values(), timeout=max_wait_s)
        return [self._told(name, found.get(name), questions.get(name)) for name in attempt_ids]

    def _told(
        self, attempt_id: str, attempt: Attempt | None, question: asyncio.Future[Polled] | None
    ) -> Polled | ServiceError:
        if attempt is None:
            return errors.attempt_not_found(attempt_id)
        if question is not None and question.done():
            error = question.exception()
            if error is None:
                return question.result()
            return error if isinstance(error, ServiceError) else errors.provider_unreachable()
        if attempt.state is not AttemptState.RUNNING:
            return self._at_rest(attempt)
        return self._answers.get(attempt_id) or Polled(attempt, 0, 0, 0)

    def outdate(self, attempt_id: str) -> None:
        """Something has happened since: the last answer is not to be given again, only its progress kept."""
        known = self._answers.get(attempt_id)
        if known is not None:
            self._answers[attempt_id] = replace(known, answered_at_ms=0)

    async def close(self) -> None:
        """Stop asking; record what was answered."""
        for desk in self._desks.values():
            desk.cancel()
        await asyncio.gather(*self._desks.values(), *self._applying, return_exceptions=True)

    def _fresh(self, attempt_id: str, max_age_ms: int) -> Polled | None:
        known = self._answers.get(attempt_id)
        # Of an answer from a time that is still to come nobody can tell how old it is: the clock was set back.
        if known is None or not 0 <= self._clock.now_ms() - known.answered_at_ms <= max_age_ms:
            return None
        return known

    def _at_rest(self, attempt: Attempt) -> Polled:
        progress = 100 if attempt.state is AttemptState.SUCCEEDED else 0
        return Polled(attempt, progress, 0, attempt.ended_at_ms or self._clock.now_ms())

    def _ask(self, attempt: Attempt) -> asyncio.Future[Polled]:
        future: asyncio.Future[Polled] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_look_at)
        self._asked[attempt.attempt_id] = future
        self._waiting.setdefault(attempt.account_id, []).append(attempt)
        if attempt.account_id not in self._desks:
            desk = asyncio.create_task(self._serve(attempt.account_id, attempt.provider), name="poll desk")
            self._desks[attempt.account_id] = desk
        return future

    async def _serve(self, account_id: str, provider: str) -> None:
        try:
            # Whoever comes while the budget is short is asked about in the same question.
            while account_id in self._waiting:
                limit = await self._may_ask_about(account_id, provider)
                waiting = self._waiting.pop(account_id)
                batch, rest = waiting[:limit], waiting[limit:]
                if rest:
                    self._waiting[account_id] = rest
                await self._ask_about(account_id, provider, batch)
        except ServiceError as error:
            # A provider that an operator took away. Its attempts run to the end of their jobs' patience.
            log.warning("poll.no_provider", extra={"account_id": account_id, "cause": error.reason})
        finally:
            del self._desks[account_id]
            self._answer_all(self._waiting.pop(account_id, []))

    async def _may_ask_about(self, account_id: str, provider: str) -> int:
        budget = self._budget(account_id, provider)
        if Feature.POLL_MANY in self._catalog.adapter(provider).features:
            await budget.take()
            return BATCH_LIMIT
        return await budget.take(min(len(self._waiting[account_id]), SINGLE_CALLS))

    async def _ask_about(self, account_id: str, provider: str, batch: Sequence[Attempt]) -> None:
        sent_at_ms = self._clock.now_ms()
        crash_points.reached("provider", "poll", "before")
        answers: Mapping[str, Snapshot | ProviderError]
        try:
            answers = await self._snapshots(account_id, provider, batch)
        except ProviderError as error:
            answers = {attempt.attempt_id: error for attempt in batch}
        except (SealBroken, ServiceError) as error:
            # The account could not be read: nobody was asked, and the provider is not to blame.
            log.warning("poll.no_account", extra={"account_id": account_id, "cause": str(error)})
            self._answer_all(batch)
            return
        except asyncio.CancelledError:
            self._answer_all(batch)
            raise
        except Exception:
            log.exception("poll.adapter_failed", extra={"account_id": account_id})
            answers = {attempt.attempt_id: ProviderError("the adapter failed") for attempt in batch}
        crash_points.reached("provider", "poll", "after")
        for attempt in batch:
            answer = answers.get(attempt.attempt_id) or TaskNotFound("the provider does not list the task")
            if isinstance(answer, Snapshot) and self._goes_on(attempt, answer):
                # By far the most of them: nothing is written, so that nobody has to wait.
                self._answer(attempt, self._progressed(attempt, answer, sent_at_ms))
                continue
            task = asyncio.create_task(self._apply(attempt, answer, sent_at_ms))
            self._applying.add(task)
            task.add_done_callback(self._applying.discard)

    def _goes_on(self, attempt: Attempt, snapshot: Snapshot) -> bool:
        return snapshot.state not in _ENDS and self._overdue.late_ms(attempt) <= 0

    def _answer_all(self, batch: Sequence[Attempt]) -> None:
        for attempt in batch:
            self._answer(attempt, errors.provider_unreachable())

    async def _snapshots(
        self, account_id: str, provider: str, batch: Sequence[Attempt]
    ) -> Mapping[str, Snapshot | ProviderError]:
        adapter, terms = self._catalog.adapter(provider), self._catalog.terms(provider)
        account = await self._accounts.access(account_id)
        context = self._catalog.context(account, self._clock)
        tasks = [codec.read_task(attempt.task) for attempt in batch]
        meters.POLLED.labels(provider).inc(len(batch))

        async def one(task: TaskRef) -> Snapshot | ProviderError:
            try:
                async with asyncio.timeout(terms.poll_timeout_s):
                    return await adapter.poll(context, account, task)
            except TimeoutError:
                return ProviderError("no answer within the deadline")
            except ProviderError as error:
                return error
            except Exception:
                # A bug over one odd task; the account's others are not to blame.
                log.exception("poll.adapter_failed", extra={"account_id": account_id})
                return ProviderError("the adapter failed")

        started_s = time.perf_counter()
        try:
            if Feature.POLL_MANY in adapter.features:
                async with asyncio.timeout(terms.poll_timeout_s):
                    found = await adapter.poll_many(context, account, tasks)
                return {one.attempt_id: found[one.task_id] for one in batch if one.task_id in found}
            answers = await asyncio.gather(*map(one, tasks))
            return {attempt.attempt_id: answer for attempt, answer in zip(batch, answers, strict=True)}
        except TimeoutError:
            raise ProviderError("no answer within the deadline") from None
        finally:
            meters.POLL_SECONDS.labels(provider).observe(time.perf_counter() - started_s)

    async def _apply(self, attempt: Attempt, answer: Snapshot | ProviderError, sent_at_ms: int) -> None:
        try:
            if isinstance(answer, TaskNotFound) and not self._is_new(attempt):
                change = outcomes.failed(attempt, answer, attempt.cost_millis, self._clock.now_ms())
                self._answer(attempt, self._at_rest(await self._attempts.change(change)))
            elif isinstance(answer, ProviderError):
                await self._note(attempt, answer, sent_at_ms)
                self._answer(attempt, errors.provider_unreachable())
            else:
                self._answer(attempt, await self._applied(attempt, answer, sent_at_ms))
        except Exception as error:
            if not isinstance(error, ServiceError):
                log.exception("poll.not_applied", extra={"attempt_id": attempt.attempt_id})
            self._answer(attempt, error)

    async def _note(self, attempt: Attempt, error: ProviderError, sent_at_ms: int) -> None:
        meters.POLL_FAILURES.labels(attempt.provider, error.code).inc()
        if isinstance(error, RateLimited):
            # Too many questions say nothing against new jobs; only the asking pauses.
            self._budget(attempt.account_id, attempt.provider).pause(error.retry_after_s)
            return
        change = outcomes.not_answered(attempt, error, sent_at_ms, self._clock.now_ms())
        if change.signals:
            await self._attempts.change(change)

    async def _applied(self, attempt: Attempt, snapshot: Snapshot, sent_at_ms: int) -> Polled:
        change = outcomes.ended(attempt, snapshot, attempt.cost_millis, self._clock.now_ms())
        if change is None and self._overdue.late_ms(attempt) > 0:
            change = await self._given_up(attempt)
        if change is None:
            return self._progressed(attempt, snapshot, sent_at_ms)
        self._answers.pop(attempt.attempt_id, None)
        after = await self._attempts.change(change)
        if after.state is AttemptState.SUCCEEDED:
            self._overdue.saw(after)
        return self._at_rest(after)

    async def _given_up(self, attempt: Attempt) -> Change:
        cancellation = await self._overdue.cancel(attempt)
        if cancellation is not None and cancellation.charged != "no":
            # What is paid for may have ended well in the meantime, and then it is what the customer wants.
            last = await self._last_look(attempt)
            ending = None
            if last is not None and last.state is TaskState.SUCCEEDED:
                ending = outcomes.ended(attempt, last, attempt.cost_millis, self._clock.now_ms())
            if ending is not None:
                return ending
        return self._overdue.ending(attempt, cancellation)

    async def _last_look(self, attempt: Attempt) -> Snapshot | None:
        try:
            found = await self._snapshots(attempt.account_id, attempt.provider, [attempt])
        except (ProviderError, SealBroken, ServiceError):
            return None
        answer = found.get(attempt.attempt_id)
        return answer if isinstance(answer, Snapshot) else None

    def _is_new(self, attempt: Attempt) -> bool:
        return 0 <= self._clock.now_ms() - since_ms(attempt) < NEW_TASK_MS

    def _progressed(self, attempt: Attempt, snapshot: Snapshot, sent_at_ms: int) -> Polled:
        before = self._answers.get(attempt.attempt_id)
        progress = max(snapshot.progress, 0 if before is None else before.progress)
        polled = Polled(attempt, min(progress, 99), snapshot.poll_after_ms, sent_at_ms)
        self._answers[attempt.attempt_id] = polled
        self._answers.move_to_end(attempt.attempt_id)
        while len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)
        return polled

    def _answer(self, attempt: Attempt, answer: Polled | Exception) -> None:
        future = self._asked.pop(attempt.attempt_id, None)
        if future is None or future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _budget(self, account_id: str, provider: str) -> PollBudget:
        budget = self._budgets.get(account_id)
        if budget is None:
            terms = self._catalog.terms(provider)
            budget = PollBudget(terms.polls_per_second, terms.poll_burst, self._clock)
            self._budgets[account_id] = budget
        return budget


def _look_at(question: asyncio.Future[Polled]) -> None:
    """Everybody who asked may leave before the answer, and then nobody looks at an error."""
    if not question.cancelled():
        question.exception()
