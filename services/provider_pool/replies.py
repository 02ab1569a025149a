"""Answers as they go out: the service's own types in the proto's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from services.chassis.errors import ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.provider_pool import admission
from services.provider_pool.accounts.checking import Checked
from services.provider_pool.accounts.headroom import ModelHeadroom
from services.provider_pool.adapters.interface import Role
from services.provider_pool.attempts.codec import Stored
from services.provider_pool.attempts.history import Event
from services.provider_pool.attempts.polling import Polled
from services.provider_pool.attempts.states import TERMINAL, Attempt, AttemptState, Failure
from services.provider_pool.offers import Offer
from services.provider_pool.references.staging import Staged
from services.provider_pool.selection import health
from services.provider_pool.selection.capacity import Rooms
from services.provider_pool.selection.health import BreakerState
from services.provider_pool.selection.leases import Lease
from services.provider_pool.store.accounts import AccountRecord
from services.provider_pool.store.open_attempts import OpenAttempt

_KINDS: Final = {kind: value for value, kind in admission.KINDS.items()}
_MODES: Final = {mode: value for value, mode in admission.MODES.items()}
_ATTEMPT_STATES: Final = {state: value for value, state in admission.ATTEMPT_STATES.items()}
_ACCOUNT_STATES: Final = {state: value for value, state in admission.ACCOUNT_STATES.items()}
_BREAKER_STATES: Final[Mapping[BreakerState, pb.BreakerState.ValueType]] = {
    BreakerState.CLOSED: pb.BREAKER_STATE_CLOSED,
    BreakerState.HALF_OPEN: pb.BREAKER_STATE_HALF_OPEN,
    BreakerState.OPEN: pb.BREAKER_STATE_OPEN,
}
_ROLES: Final[Mapping[Role, pb.Output.Role.ValueType]] = {
    Role.PRIMARY: pb.Output.ROLE_PRIMARY,
    Role.PREVIEW: pb.Output.ROLE_PREVIEW,
    Role.LAST_FRAME: pb.Output.ROLE_LAST_FRAME,
}

SENDING_POLL_AFTER_MS: Final = 1_000
"""While another replica is sending, or nobody knows: ask again after about as long as a submission takes."""


def leased(lease: Lease | None) -> pb.LeaseResponse:
    """Granted, or busy."""
    if lease is None:
        return pb.LeaseResponse(outcome=pb.LeaseResponse.OUTCOME_BUSY)
    return pb.LeaseResponse(
        outcome=pb.LeaseResponse.OUTCOME_GRANTED,
        account_id=lease.account_id,
        expires_at_ms=lease.expires_at_ms,
    )


def status(attempt: Attempt, progress: int = 0, poll_after_ms: int = 0) -> pb.AttemptStatus:
    """Where an attempt stands."""
    in_doubt = attempt.state in (AttemptState.SUBMITTING, AttemptState.UNKNOWN)
    answer = pb.AttemptStatus(
        state=_ATTEMPT_STATES[attempt.state],
        progress=100 if attempt.state is AttemptState.SUCCEEDED else progress,
        poll_after_ms=(poll_after_ms or SENDING_POLL_AFTER_MS) if in_doubt else poll_after_ms,
    )
    if attempt.failure is not None and attempt.state in TERMINAL:
        answer.failure.CopyFrom(failure(attempt.failure))
    return answer


def failure(found: Failure) -> pb.Failure:
    """Words of the proto are words of the rules in capitals."""
    return pb.Failure(
        reason=pb.FailureReason.Value(f"FAILURE_REASON_{found.reason.name}"),
        next_step=pb.NextStep.Value(f"NEXT_STEP_{found.next_step.name}"),
        retry_after_ms=found.retry_after_ms,
        charged=pb.Charged.Value(f"CHARGED_{found.charged.name}"),
        detail=found.detail,
    )


def staged(found: Staged) -> pb.StageReferenceResponse:
    """A reference that was taken in."""
    record = found.kept.record
    return pb.StageReferenceResponse(
        reference_id=found.reference_id,
        sha256=found.received_sha256,
        content_type=record.content_type,
        size_bytes=record.size_bytes,
        width=record.width,
        height=record.height,
    )


def prepared(found: Failure | None) -> pb.PrepareReferencesResponse:
    """All ready, or why not."""
    return pb.PrepareReferencesResponse(failure=None if found is None else failure(found))


def polled(answer: Polled) -> pb.PollResponse:
    """A poll's answer."""
    shown = status(answer.attempt, answer.progress, answer.poll_after_ms)
    return pb.PollResponse(status=shown, answered_at_ms=answer.answered_at_ms)


def polled_many(answers: Iterable[Polled | ServiceError]) -> pb.PollManyResponse:
    """Polls' answers, in order."""
    return pb.PollManyResponse(answers=map(_polled_one, answers))


def _polled_one(answer: Polled | ServiceError) -> pb.PollManyResponse.Answer:
    if isinstance(answer, ServiceError):
        missing = answer.reason == "ATTEMPT_NOT_FOUND"
        # Whatever else it was, nothing is known that was not known before.
        refusal = pb.REASON_ATTEMPT_NOT_FOUND if missing else pb.REASON_PROVIDER_UNREACHABLE
        return pb.PollManyResponse.Answer(refusal=refusal)
    shown = status(answer.attempt, answer.progress, answer.poll_after_ms)
    return pb.PollManyResponse.Answer(status=shown, answered_at_ms=answer.answered_at_ms)


def collected(stored: Sequence[Stored], retention_s: int) -> pb.CollectResponse:
    """What lies in the media store."""
    outputs = [
        pb.Output(
            role=_ROLES[one.role],
            object_key=one.object_key,
            content_type=one.content_type,
            size_bytes=one.size_bytes,
            sha256=one.sha256,
            width=one.width,
            height=one.height,
            duration_ms=one.duration_ms,
            text=one.text,
        )
        for one in stored
    ]
    return pb.CollectResponse(outputs=outputs, retention_ms=retention_s * 1000)


def rooms(found: Rooms) -> pb.WatchCapacityResponse:
    """Free slots by wallet and model."""
    return pb.WatchCapacityResponse(
        rooms=[
            pb.WatchCapacityResponse.Room(mode=_MODES[mode], model=model, free_slots=free)
            for (mode, model), free in sorted(found.items())
        ]
    )


def account(record: AccountRecord, now_ms: int) -> pb.Account:
    """An account, with nothing of its credentials."""
    found = record.account
    return pb.Account(
        account_id=found.account_id,
        provider=found.provider,
        label=record.label,
        state=_ACCOUNT_STATES[found.state],
        models=sorted(found.models),
        serves_live=found.serves_live,
        serves_test=found.serves_test,
        concurrency_limit=found.concurrency_limit,
        balance_millis=found.balance_millis,
        leased_millis=found.leased_millis,
        leases=found.leases,
        renews_at_ms=found.renews_at_ms,
        priority=found.priority,
        weight=found.weight,
        options=dict(record.options),
        breakers=[_breaker(model, breaker, now_ms) for model, breaker in sorted(found.breakers.items())],
        created_at_ms=record.created_at_ms,
        last_leased_at_ms=found.last_leased_at_ms,
        balance_read_at_ms=found.balance_read_at_ms,
        slots=found.slots,
    )


def checked(found: Checked, now_ms: int) -> pb.CheckAccountResponse:
    """What a check said, and the account after it."""
    shown = account(found.record, now_ms)
    return pb.CheckAccountResponse(passed=found.passed, detail=found.detail, account=shown)


def headroom(models: Iterable[ModelHeadroom]) -> pb.GetHeadroomResponse:
    """How long the accounts last, by model."""
    return pb.GetHeadroomResponse(
        models=[
            pb.GetHeadroomResponse.Model(
                model=one.model,
                accounts=one.accounts,
                available_usd_micros=one.available_usd_micros,
                spent_usd_micros_per_hour=one.spent_usd_micros,
                headroom_minutes=one.minutes or 0,
                unlimited=one.minutes is None,
            )
            for one in models
        ]
    )


def attempts(found: Iterable[Attempt]) -> pb.ListAttemptsResponse:
    """Attempts for operators."""
    return pb.ListAttemptsResponse(attempts=[_attempt(one) for one in found])


def history(attempt: Attempt, events: Iterable[Event]) -> pb.GetAttemptHistoryResponse:
    """An attempt with what happened to it."""
    return pb.GetAttemptHistoryResponse(
        attempt=_attempt(attempt),
        events=[
            pb.GetAttemptHistoryResponse.Event(at_ms=event.at_ms, what=event.what, detail=event.detail)
            for event in events
        ],
    )


def offers(found: Iterable[Offer]) -> pb.ListModelsResponse:
    """What is served where."""
    return pb.ListModelsResponse(
        offers=[
            pb.ListModelsResponse.Offer(
                model=offer.spec.model,
                kind=_KINDS[offer.spec.kind],
                provider=offer.provider,
                upstream=offer.spec.upstream,
                retires_at_ms=offer.spec.retires_at_ms,
                accounts=offer.accounts,
                patience_ms=offer.patience_ms,
                seen=offer.seen,
            )
            for offer in found
        ]
    )


def leases(found: Iterable[Lease]) -> pb.ListLeasesResponse:
    """Open leases for reconciliation."""
    return pb.ListLeasesResponse(
        leases=[
            pb.LeaseRecord(
                attempt_id=one.attempt_id,
                job_id=one.job_id,
                account_id=one.account_id,
                cost_ceiling_millis=one.ceiling_millis,
                created_at_ms=one.created_at_ms,
                expires_at_ms=one.expires_at_ms,
            )
            for one in found
        ]
    )


def open_attempts(found: Iterable[OpenAttempt]) -> pb.ListOpenAttemptsResponse:
    """Open attempts for reconciliation."""
    return pb.ListOpenAttemptsResponse(
        attempts=[pb.OpenAttempt(attempt_id=one.attempt_id, job_id=one.job_id) for one in found]
    )


def _breaker(model: str, breaker: health.Breaker, now_ms: int) -> pb.Breaker:
    return pb.Breaker(
        model=model,
        state=_BREAKER_STATES[health.state_of(breaker, now_ms)],
        reopens_at_ms=breaker.reopens_at_ms,
        cause=breaker.cause,
    )


def _attempt(one: Attempt) -> pb.Attempt:
    return pb.Attempt(
        attempt_id=one.attempt_id,
        job_id=one.job_id,
        account_id=one.account_id,
        state=_ATTEMPT_STATES[one.state],
        failure=None if one.failure is None else failure(one.failure),
        cost_millis=one.cost_millis,
        created_at_ms=one.created_at_ms,
        submitted_at_ms=one.submitted_at_ms,
        ended_at_ms=one.ended_at_ms,
    )
