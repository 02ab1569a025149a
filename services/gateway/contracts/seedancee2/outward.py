"""Outward: gRPC responses to wire, and the form of the webhooks. Pure but for the signing of links."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from services.chassis.clock import rfc3339
from services.chassis.errors import ServiceError
from services.gateway.contracts.seedancee2.inward import EDITIONS, SECONDS
from services.gateway.contracts.seedancee2.inward_queries import UsageAsked, cursor
from services.gateway.contracts.seedancee2.wire import (
    Accepted,
    AcceptedBody,
    Credits,
    DayFigures,
    DurationRange,
    FaultCode,
    Figures,
    ModelFigures,
    ModelPage,
    ModelView,
    Status,
    Usage,
    UsageBody,
    UsageRange,
    Video,
    VideoFault,
    VideoOutput,
    VideoPage,
)
from services.gateway.credits import credits_of
from services.gateway.media import Link
from services.gen.jobs.v1 import jobs_pb2 as pb

# A stage that this edge does not know yet is one that a newer jobs service added in the middle of the road.
_STATUS: Final[dict[int, Status]] = {
    pb.STAGE_UNSPECIFIED: "pending",
    pb.STAGE_WAITING: "pending",
    pb.STAGE_ACCOUNT_CHOSEN: "pending",
    pb.STAGE_AT_PROVIDER: "processing",
    pb.STAGE_ENDED_WELL: "completed",
    pb.STAGE_ENDED_BADLY: "failed",
}
_FAILED: Final = "The video could not be generated. Please try again with a different prompt."
_FAULT_MESSAGES: Final[dict[FaultCode, str]] = {
    "generation_failed": _FAILED,
    "invalid_reference_image": "A reference is not one that can be used. Please check its type, size and length.",
    "reference_unavailable": "A reference could not be fetched. Please check that anybody can open it over HTTPS.",
}
_FAULT_CODES: Final[dict[int, FaultCode]] = {
    pb.FAILURE_REASON_INVALID_REFERENCE: "invalid_reference_image",
    pb.FAILURE_REASON_REFERENCE_UNAVAILABLE: "reference_unavailable",
    pb.FAILURE_REASON_REFERENCE_UNSUITABLE: "invalid_reference_image",
}

_ENDED_FORM: Final = {
    "id": {"$": "job_id"},
    "model": {"$": "public_model"},
    "created_at": {"$": "created_at"},
    "metadata": {"$?": "echo"},
}
_COMPLETED_FORM: Final = {
    **_ENDED_FORM,
    "status": "completed",
    "completed_at": {"$": "ended_at"},
    "credits_charged": {"$": "charged_credits"},
    "output": {
        "video_url": {"$": "media:primary"},
        "thumbnail_url": {"$": "media:preview"},
        "last_frame_url": {"$?": "media:last_frame"},
    },
}
_FAILED_FORM: Final = {
    **_ENDED_FORM,
    "status": "failed",
    "credits_charged": 0,
    "credits_refunded": {"$": "quoted_credits"},
    "error": {
        "code": {"$": "failure_code"},
        "message": {"$": "failure_message"},
        "type": "generation_error",
    },
}
# The body is what `GET /v1/videos/generations/{id}` answers once the video has ended.
WEBHOOK_FORM: Final = pb.WebhookForm(
    storefront="seedancee2",
    completed=json.dumps({"data": _COMPLETED_FORM}),
    failed=json.dumps({"data": _FAILED_FORM}),
    failure_messages={0: _FAILED} | {reason: _FAULT_MESSAGES[code] for reason, code in _FAULT_CODES.items()},
    failure_codes={0: "generation_failed"} | dict(_FAULT_CODES),
    legacy_signature=pb.LegacySignature(
        event_header="X-Seedancee2-Event",
        signature_header="X-Seedancee2-Signature",
        completed_event="video.generation.completed",
        failed_event="video.generation.failed",
    ),
)

Sign = Callable[[str, int], Link]


def status_of(job: pb.Job) -> Status:
    """The contract's word for the furthest that the customer has been told."""
    return _STATUS.get(job.stage, "processing")


def accepted(answer: pb.CreateJobResponse) -> AcceptedBody:
    """The answer to a create request, first or repeated."""
    job = answer.job
    return AcceptedBody(
        Accepted(
            id=job.job_id,
            status=status_of(job),
            model=job.public_model,
            credits_reserved=credits_of(job.quoted_millis),
            created_at=rfc3339(job.created_at_ms),
        )
    )


def video(job: pb.Job, sign: Sign) -> Video:
    """The video as its customer sees it. sign: makes a link to an object that is kept until a millisecond."""
    status = status_of(job)
    failed, completed = status == "failed", status == "completed"
    charged: Credits | UnsetType = UNSET
    if failed or completed:
        charged = credits_of(job.charged_millis) if completed else 0
    return Video(
        id=job.job_id,
        status=status,
        model=job.public_model,
        created_at=rfc3339(job.created_at_ms),
        metadata=_metadata(job),
        completed_at=rfc3339(job.ended_at_ms) if completed else UNSET,
        credits_charged=charged,
        credits_refunded=credits_of(job.quoted_millis) if failed else UNSET,
        output=_output(job, sign) if completed else UNSET,
        error=_fault(job) if failed else UNSET,
    )


def _metadata(job: pb.Job) -> dict[str, Any] | UnsetType:
    return msgspec.json.decode(job.echo, type=dict[str, Any]) if job.echo else UNSET


def _output(job: pb.Job, sign: Sign) -> VideoOutput:
    has_last_frame = any(output.role == pb.Output.ROLE_LAST_FRAME for output in job.outputs)
    return VideoOutput(
        video_url=_url(job, pb.Output.ROLE_PRIMARY, sign),
        thumbnail_url=_url(job, pb.Output.ROLE_PREVIEW, sign),
        last_frame_url=_url(job, pb.Output.ROLE_LAST_FRAME, sign) if has_last_frame else UNSET,
    )


def _url(job: pb.Job, role: pb.Output.Role.ValueType, sign: Sign) -> str | None:
    output = next((each for each in job.outputs if each.role == role), None)
    if output is None:
        return None
    try:
        return sign(output.object_key, job.media_expires_at_ms).url
    except ServiceError:
        # It has left the store; the rest of the video, and of the page it is on, is still to be told.
        return None


def _fault(job: pb.Job) -> VideoFault:
    code = _FAULT_CODES.get(job.failure, "generation_failed")
    return VideoFault(code=code, message=_FAULT_MESSAGES[code])


def page(jobs: Sequence[pb.Job], limit: int, sign: Sign) -> VideoPage:
    """jobs: one more than `limit` where there are older ones."""
    shown = jobs[:limit]
    has_more = len(jobs) > limit
    return VideoPage(
        data=[video(job, sign) for job in shown],
        has_more=has_more,
        next_cursor=cursor(shown[-1].job_id) if has_more else None,
    )


def all_models() -> ModelPage:
    """All models."""
    low, high = SECONDS
    return ModelPage(
        [
            ModelView(
                id=name,
                status="active",
                resolutions=list(edition.resolutions),
                duration=DurationRange(low, high),
            )
            for name, edition in EDITIONS.items()
        ]
    )


def usage(rows: Sequence[pb.UsageRow], asked: UsageAsked) -> UsageBody:
    """rows: one for each day and model, newest day first."""
    by_model, by_day = defaultdict[str, list[pb.UsageRow]](list), defaultdict[str, list[pb.UsageRow]](list)
    for row in rows:
        by_model[row.public_model].append(row)
        by_day[row.day].append(row)
    models = [ModelFigures(model=name, **_figures(group)) for name, group in by_model.items()]
    days = islice(by_day.items(), asked.days)
    return UsageBody(
        Usage(
            range=UsageRange(start=rfc3339(asked.start_ms), end=rfc3339(asked.end_ms)),
            summary=Figures(**_figures(rows)),
            by_model=sorted(models, key=lambda each: (-each.total_jobs, each.model)),
            timeline=[DayFigures(date=day, **_figures(group)) for day, group in days],
        )
    )


def _figures(rows: Iterable[pb.UsageRow]) -> dict[str, Any]:
    pending = processing = completed = failed = charged_millis = refunded_millis = 0
    for row in rows:
        pending += row.pending_jobs
        processing += row.processing_jobs
        completed += row.completed_jobs
        failed += row.failed_jobs
        charged_millis += row.charged_millis
        refunded_millis += row.refunded_millis
    return {
        "total_jobs": pending + processing + completed + failed,
        "pending_jobs": pending,
        "processing_jobs": processing,
        "completed_jobs": completed,
        "failed_jobs": failed,
        "credits_charged": credits_of(charged_millis),
        "credits_refunded": credits_of(refunded_millis),
        "net_credits": credits_of(charged_millis - refunded_millis),
    }
