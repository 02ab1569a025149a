"""The one call that no provider makes idempotent: recorded before it leaves, made at most once, never repeated."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

from services.chassis import crash_points
from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.provider_pool import errors, meters
from services.provider_pool.accounts.registry import Accounts
from services.provider_pool.accounts.vault import SealBroken
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AuthFailed,
    Feature,
    Generation,
    InvalidRequest,
    Prepared,
    ProviderError,
    ReferenceFile,
    ReferenceRejected,
    Submission,
    SubmissionUnknown,
    TransientFailure,
)
from services.provider_pool.attempts import codec, outcomes
from services.provider_pool.attempts import states as rules
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.records import Begin, Change
from services.provider_pool.attempts.states import Attempt, AttemptState
from services.provider_pool.attempts.uploads import NOTHING, Brought, UploadForgotten, Uploads
from services.provider_pool.catalog import Catalog
from services.provider_pool.failures import ReferenceMissing

log = logging.getLogger(__name__)

ANSWER_MARGIN_S = 15.0
"""After a submission's deadline its sender still has to record the outcome, perhaps through a failover of the database."""

SEND_BY_S = ANSWER_MARGIN_S / 2
"""A request that has not left by then stays here: its sender, held up so long, would still be sending when others take it for dead."""

Files: TypeAlias = Callable[[str, Generation], Awaitable[Sequence[ReferenceFile | None]]]
"""Given a job and what it asks for: a file for each of its references, None for one that is gone."""

CallbackUrls: TypeAlias = Callable[[str], str]
"""Given an attempt: where its provider may say that something has happened, empty where nobody could hear it."""


class Submissions:
    """Sends attempts. Simultaneous calls for one attempt share one sending, which goes on when its callers leave."""

    def __init__(
        self,
        log_of_attempts: AttemptLog,
        accounts: Accounts,
        catalog: Catalog,
        files: Files,
        clock: Clock,
        *,
        uploads: Uploads | None = None,
        callback_urls: CallbackUrls = lambda attempt_id: "",
    ) -> None:
        """Without `uploads` no adapter that uploads gets references."""
        self._attempts = log_of_attempts
        self._accounts = accounts
        self._catalog = catalog
        self._files = files
        self._clock = clock
        self._uploads = uploads
        self._callback_urls = callback_urls
        self._flights: dict[str, asyncio.Task[Attempt]] = {}
        # Of those, what nothing is recorded of yet, so that nothing of it has left.
        self._preparing: set[str] = set()
        self._draining = False

    def answer_by_ms(self, provider: str) -> int:
        """How long after its beginning a submission to this provider has an outcome, if its process lives."""
        known = provider in self._catalog.adapters
        # One that an operator took away is nobody's to judge: as long as the slowest of the others.
        limit_s = self._catalog.terms(provider).submit_timeout_s if known else self._catalog.longest_submit_s
        return round((limit_s + ANSWER_MARGIN_S) * 1000)

    async def submit(self, attempt_id: str, job_id: str, generation: Generation) -> Attempt:
        """Send the attempt, or tell what became of it. `submitting`: another replica is sending it at this moment.

        Raises ATTEMPT_NOT_FOUND (it has no lease), LEASE_ENDED, UNAVAILABLE (references cannot be read), and SHUTTING_DOWN.
        """
        flight = self._flights.get(attempt_id)
        if flight is None and self._draining:
            return await self._told(attempt_id)
        if flight is None:
            flight = asyncio.create_task(
                self._run(attempt_id, job_id, generation), name=f"submit {attempt_id}"
            )
            self._flights[attempt_id] = flight
            self._preparing.add(attempt_id)
            flight.add_done_callback(lambda done: self._landed(attempt_id, done))
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not flight.cancelled() or (caller is not None and caller.cancelling()):
                raise
            raise errors.shutting_down() from None

    async def settle(self, attempt: Attempt) -> Attempt:
        """A `submitting` attempt that nobody can be sending any more becomes `unknown`; any other stays as it is."""
        if attempt.state is not AttemptState.SUBMITTING or attempt.attempt_id in self._flights:
            return attempt
        return await self._settle_unsent(attempt)

    async def recalled(self, account_id: str, prepared: Prepared) -> Prepared:
        """What was sent, as far as that is known: with the account's uploads of its references. Raises UNAVAILABLE."""
        return prepared if self._uploads is None else await self._uploads.recalled(account_id, prepared)

    def take_no_more(self) -> None:
        """Send nothing that is not recorded yet: whoever asks for it is told to ask elsewhere, or later."""
        self._draining = True
        # Uploads among it: what they are for has not been sent, and another sender repeats them.
        for attempt_id in self._preparing:
            self._flights[attempt_id].cancel()

    async def drained(self) -> None:
        """Return when everything that was being sent is recorded. Each has its deadline, and so has this."""
        if flights := list(self._flights.values()):
            log.info("submit.draining", extra={"submissions": len(flights)})
            await asyncio.wait(flights)

    async def close(self) -> None:
        """Cut what is still being sent: what is not recorded will be found in the provider's list, if it has one."""
        self.take_no_more()
        flights = dict(self._flights)
        for attempt_id, flight in flights.items():
            if attempt_id not in self._preparing:
                log.warning("submit.cut", extra={"attempt_id": attempt_id})
            flight.cancel()
        await asyncio.gather(*flights.values(), return_exceptions=True)

    def _landed(self, attempt_id: str, flight: asyncio.Task[Attempt]) -> None:
        del self._flights[attempt_id]
        self._preparing.discard(attempt_id)
        # All callers may be gone, and nobody else would look at the error.
        if not flight.cancelled() and (error := flight.exception()) is not None:
            log.info("submit.refused", extra={"attempt_id": attempt_id, "reason": str(error)})

    async def _told(self, attempt_id: str) -> Attempt:
        """What became of it already; a draining process sends nothing."""
        try:
            attempt = await self._attempts.get(attempt_id, fresh=True)
        except ServiceError as error:
            if error.reason == "ATTEMPT_NOT_FOUND":
                raise errors.shutting_down() from error
            raise
        return await self.settle(attempt)

    async def _run(self, attempt_id: str, job_id: str, generation: Generation) -> Attempt:
        files = await self._files(job_id, generation)
        # Before the record, and so before the clock of whoever might take this sender for dead.
        brought = NOTHING
        if self._uploads is not None and files:
            brought = await self._uploads.bring(attempt_id, generation, files)
        self._preparing.discard(attempt_id)
        begun = await self._attempts.begin(
            Begin(
                attempt_id,
                job_id,
                generation.model,
                codec.generation_text(generation),
                codec.fingerprint(generation, files),
                self._attempts.new_sender(),
                self._clock.now_ms(),
            )
        )
        if begun.fresh:
            return await self._send(begun.attempt, generation, files, brought)
        if begun.attempt.state is AttemptState.SUBMITTING:
            return await self._settle_unsent(begun.attempt)
        return begun.attempt

    async def _settle_unsent(self, attempt: Attempt) -> Attempt:
        now_ms = self._clock.now_ms()
        senders, answer_by_ms = self._attempts.heartbeat.senders, self.answer_by_ms(attempt.provider)
        mine = rules.process_of(attempt.sender_id) == senders.me
        if not mine and not senders.are_gone_from(
            attempt.sender_id, attempt.created_at_ms, answer_by_ms, now_ms
        ):
            return attempt
        change = Change(attempt.attempt_id, attempt.account_id, now_ms, to=AttemptState.UNKNOWN)
        return await self._attempts.change(change)

    async def _send(
        self,
        attempt: Attempt,
        generation: Generation,
        files: Sequence[ReferenceFile | None],
        brought: Brought,
    ) -> Attempt:
        expected_millis = self._catalog.estimate(attempt.provider, generation).expected_millis
        sent_at_ms = self._clock.now_ms()
        left = False
        try:
            prepared, account = await self._prepared(attempt, generation, files, brought)
            left = True
            submission = await self._call(attempt, prepared, account, brought)
            change = outcomes.accepted(attempt, submission, expected_millis, sent_at_ms, self._clock.now_ms())
        except ProviderError as error:
            now_ms = self._clock.now_ms()
            change = outcomes.refused(
                attempt, error, expected_millis, sent_at_ms, now_ms, left=left, uploading=brought.asked
            )
        except Exception:
            # A bug of the adapter, perhaps after the request had left: as uncertain as a broken connection.
            log.exception("submit.adapter_failed", extra={"attempt_id": attempt.attempt_id})
            doubt = SubmissionUnknown("the adapter failed", charged="maybe")
            change = outcomes.refused(attempt, doubt, expected_millis, sent_at_ms, self._clock.now_ms())
        return await self._attempts.record(change)

    def _refuse_late(self, attempt: Attempt) -> None:
        if self._clock.now_ms() > attempt.created_at_ms + round(SEND_BY_S * 1000):
            raise TransientFailure("the process was held up before the request left")

    async def _prepared(
        self,
        attempt: Attempt,
        generation: Generation,
        files: Sequence[ReferenceFile | None],
        brought: Brought,
    ) -> tuple[Prepared, AccountAccess]:
        adapter = self._catalog.adapter(attempt.provider)
        spec = self._catalog.spec(attempt.provider, generation.model)
        if spec is None:
            raise InvalidRequest("the provider does not serve this model")
        there = [file for file in files if file is not None]
        if len(there) < len(files):
            raise ReferenceMissing("a reference is gone")
        if brought.error is not None:
            raise brought.error
        # No adapter sees a URL: where the bytes came from is nothing to a provider.
        prepared = adapter.prepare(codec.named_by_content(generation, there), spec, there)
        if Feature.UPLOAD in adapter.features and len(brought.files) < len(there):
            raise TransientFailure("the references were not brought to the account")
        prepared = replace(prepared, uploads=brought.files)
        try:
            account = await self._accounts.access(attempt.account_id)
        except SealBroken as error:
            raise AuthFailed(str(error)) from error
        except ServiceError as error:
            # Nothing has left: the job may go to another account, and nobody has to look for it.
            raise TransientFailure("the account could not be read") from error
        self._refuse_late(attempt)
        return prepared, account

    async def _call(
        self, attempt: Attempt, prepared: Prepared, account: AccountAccess, brought: Brought
    ) -> Submission:
        try:
            return await self._called(attempt, prepared, account)
        except ReferenceRejected as error:
            if self._uploads is None or not brought.were_there or error.charged != "no":
                raise
        # Perhaps only because it has forgotten them. Not in this attempt, which is sent once: its job's next one
        # brings them anew, and if they are refused then, it is for good.
        with suppress(ServiceError):
            await self._uploads.forget(account.account_id, prepared.references)
        raise UploadForgotten("a reference that was uploaded before is not known any more")

    async def _called(self, attempt: Attempt, prepared: Prepared, account: AccountAccess) -> Submission:
        adapter, terms = self._catalog.adapter(attempt.provider), self._catalog.terms(attempt.provider)
        context = replace(
            self._catalog.context(account, self._clock), callback_url=self._callback_urls(attempt.attempt_id)
        )
        started_s = time.perf_counter()
        try:
            async with asyncio.timeout(terms.submit_timeout_s):
                crash_points.reached("provider", "submit", "before", subject=attempt.attempt_id)
                submission = await adapter.submit(context, account, prepared, attempt.attempt_id)
                crash_points.reached("provider", "submit", "after", subject=attempt.attempt_id)
                return submission
        except TimeoutError:
            raise SubmissionUnknown("no answer within the deadline", charged="maybe") from None
        finally:
            meters.SUBMIT_SECONDS.labels(attempt.provider).observe(time.perf_counter() - started_s)
