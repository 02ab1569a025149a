"""Outward: gRPC responses to wire. Pure."""

from __future__ import annotations

import json
from typing import Final, Literal

from msgspec import UNSET

from services.chassis.clock import rfc3339
from services.gateway import errors
from services.gateway.contracts.leonardo.wire import (
    AcceptedJob,
    JobFault,
    JobFaultCode,
    JobView,
    ResultView,
    Status,
    UsageView,
)
from services.gateway.credits import credits_of
from services.gateway.media import Link
from services.gen.billing.v1 import billing_pb2
from services.gen.jobs.v1 import jobs_pb2 as pb

# A stage that this edge does not know yet is one that a newer jobs service added in the middle of the road.
_STATUS: Final[dict[int, Status]] = {
    pb.STAGE_UNSPECIFIED: "queued",
    pb.STAGE_WAITING: "queued",
    pb.STAGE_ACCOUNT_CHOSEN: "processing",
    pb.STAGE_AT_PROVIDER: "processing",
    pb.STAGE_ENDED_WELL: "complete",
    pb.STAGE_ENDED_BADLY: "failed",
}
_TYPE: Final[dict[int, Literal["image", "video"]]] = {pb.KIND_IMAGE: "image", pb.KIND_VIDEO: "video"}

_FAILED: Final = "The generation failed. Your credits were returned; please try again."
_FAILURES: Final[dict[int, str]] = {
    pb.FAILURE_REASON_GENERATION_FAILED: _FAILED,
    pb.FAILURE_REASON_CONTENT_REFUSED: "The request was refused by the content policy. Your credits were returned; "
    "please change the prompt.",
    pb.FAILURE_REASON_REQUEST_REJECTED: "The request could not be generated as it is. Your credits were returned; "
    "please change the prompt or the settings.",
    pb.FAILURE_REASON_TIMED_OUT: "The generation took too long. Your credits were returned; please try again.",
    pb.FAILURE_REASON_SUBMISSION_UNKNOWN: "The generation could not be confirmed. Your credits were returned; "
    "please try again.",
    pb.FAILURE_REASON_PROVIDER_UNAVAILABLE: "Generation is temporarily unavailable. Your credits were returned; "
    "please try again later.",
    pb.FAILURE_REASON_OUTPUT_UNUSABLE: "The generated media could not be used. Your credits were returned; "
    "please try again.",
    pb.FAILURE_REASON_CANCELED: "The job was cancelled. Your credits were returned.",
    pb.FAILURE_REASON_INVALID_REFERENCE: "The reference image is not one that can be used: it must be a JPEG, PNG or WebP "
    "image, not animated, of 20 MB at most. Your credits were returned.",
    pb.FAILURE_REASON_REFERENCE_UNAVAILABLE: "The reference image could not be fetched from its URL. Your credits were "
    "returned; please check that anybody can open it over HTTPS.",
    pb.FAILURE_REASON_REFERENCE_UNSUITABLE: "The reference image is not of a size in pixels that the model takes. Your "
    "credits were returned; please use one of another size.",
}
_FAULT_CODES: Final[dict[int, JobFaultCode]] = {
    pb.FAILURE_REASON_INVALID_REFERENCE: "invalid_reference_image",
    pb.FAILURE_REASON_REFERENCE_UNAVAILABLE: "reference_unavailable",
    pb.FAILURE_REASON_REFERENCE_UNSUITABLE: "invalid_reference_image",
}


_ENDED_FORM: Final = {
    "ok": True,
    "jobId": {"$": "job_id"},
    "type": {"$": "kind"},
    "model": {"$": "model"},
    "createdAt": {"$": "created_at"},
    "updatedAt": {"$": "updated_at"},
    "completedAt": {"$": "ended_at"},
}
_COMPLETED_FORM: Final = {
    **_ENDED_FORM,
    "status": "complete",
    "progress": 100,
    "chargedCredits": {"$": "charged_credits"},
    "error": None,
}
_FAILED_FORM: Final = {
    **_ENDED_FORM,
    "status": "failed",
    "progress": {"$": "progress"},
    "chargedCredits": 0,
    "refundedCredits": {"$": "quoted_credits"},
    "error": {"code": {"$": "failure_code"}, "message": {"$": "failure_message"}},
}
# The body is what `GET /v1/jobs/{jobId}` answers once the job has ended.
WEBHOOK_FORM: Final = pb.WebhookForm(
    storefront="leonardo",
    completed=json.dumps(_COMPLETED_FORM),
    failed=json.dumps(_FAILED_FORM),
    failure_messages={0: _FAILED} | _FAILURES,
    failure_codes={0: "generation_failed"} | dict(_FAULT_CODES),
)


def status_of(job: pb.Job) -> Status:
    """The contract's word for the furthest that the customer has been told."""
    return _STATUS.get(job.stage, "processing")


def failure_of(job: pb.Job) -> str:
    """One fixed sentence for each reason; none names a provider."""
    return _FAILURES.get(job.failure, _FAILED)


def accepted(answer: pb.CreateJobResponse) -> AcceptedJob:
    """The answer to a create request, first or repeated."""
    job = answer.job
    return AcceptedJob(
        ok=True,
        job_id=job.job_id,
        status=status_of(job),
        type=_TYPE[job.kind],
        model=job.model,
        charged_credits=credits_of(job.quoted_millis),
        idempotent_replay=answer.replayed,
    )


def view(job: pb.Job) -> JobView:
    """The job as its customer sees it."""
    status = status_of(job)
    failed, complete = status == "failed", status == "complete"
    charged_millis = 0 if failed else job.charged_millis if complete else job.quoted_millis
    ended = failed or complete
    return JobView(
        ok=True,
        job_id=job.job_id,
        type=_TYPE[job.kind],
        model=job.model,
        status=status,
        progress=100 if complete else min(job.progress, 100),
        charged_credits=credits_of(charged_millis),
        refunded_credits=credits_of(job.quoted_millis) if failed else UNSET,
        created_at=rfc3339(job.created_at_ms),
        updated_at=rfc3339(job.updated_at_ms),
        completed_at=rfc3339(job.ended_at_ms) if ended and job.ended_at_ms else None,
        error=_fault(job) if failed else None,
    )


def _fault(job: pb.Job) -> JobFault:
    return JobFault(code=_FAULT_CODES.get(job.failure, "generation_failed"), message=failure_of(job))


def primary_of(job: pb.Job) -> pb.Output:
    """The output of a job that ended well. Raises JOB_NOT_COMPLETE, JOB_FAILED, MEDIA_GONE."""
    status = status_of(job)
    if status == "failed":
        raise errors.job_failed(failure_of(job))
    if status != "complete":
        raise errors.job_not_complete(status)
    output = output_of(job, pb.Output.ROLE_PRIMARY)
    if output is None:
        raise errors.media_gone()
    return output


def output_of(job: pb.Job, role: pb.Output.Role.ValueType) -> pb.Output | None:
    """The first output of that role."""
    return next((output for output in job.outputs if output.role == role), None)


def result(job: pb.Job, primary: pb.Output, link: Link, preview: Link | None) -> ResultView:
    """Where the media of a job that ended well are."""
    video = job.kind == pb.KIND_VIDEO
    return ResultView(
        ok=True,
        job_id=job.job_id,
        type=_TYPE[job.kind],
        status="complete",
        url=link.url,
        preview_url=preview.url if video and preview else UNSET,
        content_type=primary.content_type,
        width=primary.width,
        height=primary.height,
        duration=primary.duration_ms / 1000 if video else UNSET,
        expires_at=rfc3339(link.expires_at_ms),
    )


def usage(balance: billing_pb2.Balance) -> UsageView:
    """The wallet, in credits."""
    return UsageView(
        credits_balance=credits_of(balance.balance_millis),
        credits_reserved=credits_of(balance.reserved_millis),
        credits_available=credits_of(balance.balance_millis - balance.reserved_millis),
    )
