"""Billing and the provider pool as the engine calls them: messages there, values here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import IntEnum
from typing import Final, TypeVar

from services.chassis.errors import Kind, ServiceError, internal_error
from services.chassis.service_link import ServiceLink
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.billing.v1 import billing_pb2_grpc as billing_rpc
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as pool_rpc
from services.jobs.answers import AttemptState, AttemptStatus, Busy, Failure, Granted, NextStep
from services.jobs.job import FailureReason, Job, Output
from services.jobs.ports import OpenAttempt, OpenHold, OpenLease, PollAnswer, Quote, Room
from services.jobs.reference_messages import pool_limits, pool_reference

E = TypeVar("E", bound=IntEnum)

# Thousands of answers a second say where an attempt stands.
_STATES: Final = {int(state): state for state in AttemptState}

# A commit and a network in between; whoever waits longer is better served by an error.
_SHORT_S: Final = 5.0
# The pool waits for a provider here: an upload, an answer, a large file copied.
_SUBMIT_S: Final = 120.0
_POLL_S: Final = 20.0
_COLLECT_S: Final = 180.0
_TEXT_LIMIT_CHARS: Final = 65_536
# A page of what reconciliation reads.
PAGE: Final = 500

_BILLING_REPEATABLE: Final = frozenset({"Hold", "Capture", "Release", "ExtendHolds"})
_POOL_REPEATABLE: Final = frozenset(
    {
        "Lease",
        "ReleaseLease",
        "RenewLeases",
        "PrepareReferences",
        "DropReferences",
        "Submit",
        "Poll",
        "PollMany",
        "ResolveUnknown",
        "Collect",
        "CloseAttempts",
        "DeleteMedia",
    }
)


def _billing_mode(mode: str) -> billing.Mode.ValueType:
    return billing.MODE_LIVE if mode == "live" else billing.MODE_TEST


def _mode_name(number: int) -> str:
    return "live" if number == billing.MODE_LIVE else "test"


class BillingClient(ServiceLink):
    """The money of a job, under the job's id."""

    def __init__(self, address: str) -> None:
        super().__init__(
            address,
            name="billing",
            stub=billing_rpc.BillingServiceStub,
            messages=billing,
            repeatable=_BILLING_REPEATABLE,
        )
        self._stub = billing_rpc.BillingServiceStub(self.channel)

    async def hold(self, job: Job, ttl_ms: int, key_id: str = "") -> Quote:
        request = billing.HoldRequest(
            customer_id=job.customer_id,
            mode=_billing_mode(job.mode),
            job_id=job.job_id,
            storefront=job.storefront,
            sku=job.sku,
            quantity=job.quantity,
            ttl_ms=ttl_ms,
            key_id=key_id,
        )
        answer = await self.stream.call(
            "Hold", request, billing.HoldResponse, timeout_s=_SHORT_S, lane=job.customer_id
        )
        return Quote(answer.amount_millis, answer.price_version)

    async def capture(self, job: Job, amount_millis: int) -> int:
        request = billing.CaptureRequest(
            job_id=job.job_id,
            customer_id=job.customer_id,
            mode=_billing_mode(job.mode),
            amount_millis=amount_millis,
        )
        answer = await self.stream.call("Capture", request, billing.CaptureResponse, timeout_s=_SHORT_S)
        return 0 if answer.unbilled else answer.captured_millis

    async def release(self, job_id: str, customer_id: str, mode: str) -> None:
        request = billing.ReleaseRequest(job_id=job_id, customer_id=customer_id, mode=_billing_mode(mode))
        await self.stream.call("Release", request, billing.ReleaseResponse, timeout_s=_SHORT_S)

    async def extend_holds(self, job_ids: Sequence[str], ttl_ms: int) -> list[str]:
        request = billing.ExtendHoldsRequest(job_ids=job_ids, ttl_ms=ttl_ms)
        answer = await self.stream.call(
            "ExtendHolds", request, billing.ExtendHoldsResponse, timeout_s=_SHORT_S * 2
        )
        return list(answer.not_open_job_ids)

    async def list_open_holds(self, created_before_ms: int, after_job_id: str) -> list[OpenHold]:
        request = billing.ListHoldsRequest(
            state=billing.HOLD_STATE_OPEN,
            created_before_ms=created_before_ms,
            after_job_id=after_job_id,
            limit=PAGE,
        )
        answer = await self._stub.ListHolds(request, timeout=_SHORT_S * 2)
        return [
            OpenHold(hold.job_id, hold.customer_id, _mode_name(hold.mode), hold.amount_millis)
            for hold in answer.holds
        ]

    async def holds_open_of(self, job_ids: Sequence[str]) -> set[str]:
        request = billing.ListHoldsRequest(state=billing.HOLD_STATE_OPEN, job_ids=job_ids, limit=len(job_ids))
        answer = await self._stub.ListHolds(request, timeout=_SHORT_S * 2)
        return {hold.job_id for hold in answer.holds}

    async def charged_totals(self, wallets: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        names = [
            billing.WalletName(customer_id=customer_id, mode=_billing_mode(mode))
            for customer_id, mode in wallets
        ]
        request = billing.GetChargedTotalsRequest(wallets=names)
        answer = await self._stub.GetChargedTotals(request, timeout=_SHORT_S * 4)
        found = dict.fromkeys(wallets, 0)
        found |= {(one.customer_id, _mode_name(one.mode)): one.captured_millis for one in answer.totals}
        for one in answer.behind:
            found.pop((one.customer_id, _mode_name(one.mode)), None)
        return found


class PoolClient(ServiceLink):
    """Accounts and attempts, under the attempt's id."""

    def __init__(self, address: str) -> None:
        super().__init__(
            address,
            name="provider_pool",
            stub=pool_rpc.ProviderPoolServiceStub,
            messages=pool,
            repeatable=_POOL_REPEATABLE,
        )
        self._stub = pool_rpc.ProviderPoolServiceStub(self.channel)

    async def lease(self, job: Job, ttl_ms: int, *, wait_behind_others: bool) -> Granted | Busy:
        request = pool.LeaseRequest(
            attempt_id=job.next_attempt_id,
            job_id=job.job_id,
            mode=pool.MODE_LIVE if job.mode == "live" else pool.MODE_TEST,
            generation=_generation(job),
            ttl_ms=ttl_ms,
            wait_behind_others=wait_behind_others,
            avoid_account_ids=job.avoid_account_ids,
        )
        answer = await self.stream.call(
            "Lease", request, pool.LeaseResponse, timeout_s=_SHORT_S, lane=job.customer_id
        )
        if answer.outcome == pool.LeaseResponse.OUTCOME_GRANTED:
            return Granted(answer.account_id)
        return Busy()

    async def release_lease(self, attempt_id: str) -> None:
        request = pool.ReleaseLeaseRequest(attempt_id=attempt_id)
        await self.stream.call("ReleaseLease", request, pool.ReleaseLeaseResponse, timeout_s=_SHORT_S)

    async def renew_leases(self, attempt_ids: Sequence[str], ttl_ms: int) -> list[str]:
        request = pool.RenewLeasesRequest(attempt_ids=attempt_ids, ttl_ms=ttl_ms)
        answer = await self.stream.call(
            "RenewLeases", request, pool.RenewLeasesResponse, timeout_s=_SHORT_S * 2
        )
        return list(answer.ended_attempt_ids)

    async def prepare_references(self, job: Job, timeout_s: float) -> Failure | None:
        request = pool.PrepareReferencesRequest(
            attempt_id=job.attempt_id, job_id=job.job_id, generation=_generation(job)
        )
        answer = await self.stream.call(
            "PrepareReferences", request, pool.PrepareReferencesResponse, timeout_s=timeout_s
        )
        return _failure(answer.failure) if answer.HasField("failure") else None

    async def drop_references(self, job_id: str, reference_ids: Sequence[str]) -> None:
        request = pool.DropReferencesRequest(job_id=job_id, reference_ids=reference_ids)
        await self.stream.call("DropReferences", request, pool.DropReferencesResponse, timeout_s=_SHORT_S)

    async def submit(self, job: Job) -> AttemptStatus:
        request = pool.SubmitRequest(
            attempt_id=job.attempt_id, job_id=job.job_id, generation=_generation(job)
        )
        answer = await self.stream.call("Submit", request, pool.SubmitResponse, timeout_s=_SUBMIT_S)
        return _status(answer.status)

    async def poll(self, attempt_id: str, max_age_ms: int) -> tuple[AttemptStatus, int]:
        request = pool.PollRequest(attempt_id=attempt_id, max_age_ms=max_age_ms)
        answer = await self.stream.call("Poll", request, pool.PollResponse, timeout_s=_POLL_S)
        return _status(answer.status), answer.answered_at_ms

    async def poll_many(
        self, attempt_ids: Sequence[str], max_age_ms: int, max_wait_s: float
    ) -> list[PollAnswer | ServiceError]:
        request = pool.PollManyRequest(
            attempt_ids=attempt_ids, max_age_ms=max_age_ms, max_wait_ms=int(max_wait_s * 1000)
        )
        answer = await self.stream.call("PollMany", request, pool.PollManyResponse, timeout_s=_POLL_S)
        if len(answer.answers) != len(attempt_ids):
            raise internal_error()
        return [_polled(one) for one in answer.answers]

    async def resolve_unknown(self, attempt_id: str) -> AttemptStatus:
        request = pool.ResolveUnknownRequest(attempt_id=attempt_id)
        answer = await self.stream.call(
            "ResolveUnknown", request, pool.ResolveUnknownResponse, timeout_s=_POLL_S
        )
        return _status(answer.status)

    async def collect(self, job: Job) -> tuple[tuple[Output, ...], int]:
        request = pool.CollectRequest(attempt_id=job.attempt_id, job_id=job.job_id)
        answer = await self.stream.call("Collect", request, pool.CollectResponse, timeout_s=_COLLECT_S)
        return tuple(_output(output) for output in answer.outputs), answer.retention_ms

    async def list_leases(self, created_before_ms: int, after_attempt_id: str) -> list[OpenLease]:
        request = pool.ListLeasesRequest(
            created_before_ms=created_before_ms, after_attempt_id=after_attempt_id, limit=PAGE
        )
        answer = await self._stub.ListLeases(request, timeout=_SHORT_S * 2)
        return [OpenLease(lease.attempt_id, lease.job_id) for lease in answer.leases]

    async def list_open_attempts(self, created_before_ms: int, after_attempt_id: str) -> list[OpenAttempt]:
        request = pool.ListOpenAttemptsRequest(
            created_before_ms=created_before_ms, after_attempt_id=after_attempt_id, limit=PAGE
        )
        answer = await self._stub.ListOpenAttempts(request, timeout=_SHORT_S * 2)
        return [OpenAttempt(attempt.attempt_id, attempt.job_id) for attempt in answer.attempts]

    async def close_attempts(self, attempt_ids: Sequence[str]) -> list[str]:
        request = pool.CloseAttemptsRequest(attempt_ids=attempt_ids)
        answer = await self.stream.call(
            "CloseAttempts", request, pool.CloseAttemptsResponse, timeout_s=_SHORT_S * 2
        )
        return list(answer.still_open_attempt_ids)

    async def delete_media(self, object_keys: Sequence[str]) -> None:
        request = pool.DeleteMediaRequest(object_keys=object_keys)
        await self.stream.call("DeleteMedia", request, pool.DeleteMediaResponse, timeout_s=_SHORT_S * 2)

    async def watch_capacity(self) -> AsyncIterator[list[Room]]:
        async for news in self._stub.WatchCapacity(pool.WatchCapacityRequest()):
            yield [
                Room("live" if room.mode == pool.MODE_LIVE else "test", room.model, room.free_slots)
                for room in news.rooms
            ]

    async def watch_hints(self) -> AsyncIterator[Sequence[str]]:
        async for news in self._stub.WatchHints(pool.WatchHintsRequest()):
            yield news.attempt_ids


def _generation(job: Job) -> pool.Generation:
    made = job.generation
    return pool.Generation(
        kind=pool.Kind.ValueType(int(made.kind)),
        model=made.model,
        prompt=made.prompt,
        width=made.width,
        height=made.height,
        duration_s=made.duration_s,
        audio=made.audio,
        quality=made.quality,
        seed=made.seed,
        references=map(pool_reference, made.references),
        reference_limits=None if made.reference_limits is None else pool_limits(made.reference_limits),
        adaptive_ratio=made.adaptive_ratio,
        watermark=made.watermark,
        last_frame=made.last_frame,
        voice=made.voice,
        format=made.format,
        style=made.style,
        max_words=made.max_words,
    )


def _status(status: pool.AttemptStatus) -> AttemptStatus:
    failure = _failure(status.failure) if status.HasField("failure") else None
    state = _STATES.get(status.state, AttemptState.UNSPECIFIED)
    return AttemptStatus(state, status.progress, status.poll_after_ms, failure)


def _polled(answer: pool.PollManyResponse.Answer) -> PollAnswer | ServiceError:
    if not answer.refusal:
        return _status(answer.status), answer.answered_at_ms
    missing = answer.refusal == pool.REASON_ATTEMPT_NOT_FOUND
    return ServiceError(
        Kind.NOT_FOUND if missing else Kind.UNAVAILABLE,
        "ATTEMPT_NOT_FOUND" if missing else "PROVIDER_UNREACHABLE",
        "the attempt was not found" if missing else "the provider did not answer",
    )


def _failure(said: pool.Failure) -> Failure:
    reason = _known(FailureReason, said.reason, FailureReason.GENERATION_FAILED)
    # Only a wish cancels a job; that is no answer of a provider's.
    reason = FailureReason.GENERATION_FAILED if reason is FailureReason.CANCELED else reason
    return Failure(
        reason,
        _known(NextStep, said.next_step, NextStep.FAIL),
        said.retry_after_ms,
        said.detail,
    )


def _known(kind: type[E], number: int, otherwise: E) -> E:
    # A newer pool may say more than this release understands.
    try:
        return kind(number)
    except ValueError:
        return otherwise


def _output(output: pool.Output) -> Output:
    return Output(
        role=output.role,
        object_key=output.object_key,
        content_type=output.content_type,
        size_bytes=output.size_bytes,
        sha256=output.sha256,
        width=output.width,
        height=output.height,
        duration_ms=output.duration_ms,
        # Bound by the pool; a row must not grow beyond it whatever a provider wrote.
        text=output.text[:_TEXT_LIMIT_CHARS],
    )
