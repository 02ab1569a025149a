"""Outward: gRPC responses to wire. Pure."""

from __future__ import annotations

import json
from typing import Any, Final, cast

from services.chassis.clock import rfc3339_s
from services.gateway.contracts.loova.wire import (
    AcceptedTask,
    Credits,
    Model,
    Status,
    Task,
    TaskResult,
)
from services.gen.billing.v1 import billing_pb2
from services.gen.jobs.v1 import jobs_pb2 as pb

# Whatever is under way is `running`, and so is a stage that this edge does not know yet.
_STATUS: Final[dict[int, Status]] = {
    pb.STAGE_ENDED_WELL: "succeeded",
    pb.STAGE_ENDED_BADLY: "failed",
}

_FAILED: Final = "The video could not be generated. Your credits were returned; please try again."
FAILURES: Final[dict[int, str]] = {
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
    pb.FAILURE_REASON_OUTPUT_UNUSABLE: "The generated video could not be used. Your credits were returned; "
    "please try again.",
    pb.FAILURE_REASON_CANCELED: "The task was cancelled. Your credits were returned.",
    pb.FAILURE_REASON_INVALID_REFERENCE: "A reference file is not one that can be used: its type, its size or its "
    "contents. Your credits were returned.",
    pb.FAILURE_REASON_REFERENCE_UNAVAILABLE: "A reference file could not be fetched from its URL. Your credits were "
    "returned; please check that anybody can open it over HTTPS.",
    pb.FAILURE_REASON_REFERENCE_UNSUITABLE: "A reference file is not of a size or length that the model takes. Your "
    "credits were returned; please use another one.",
}


def status_of(job: pb.Job) -> Status:
    """The contract's word for where the job stands."""
    return _STATUS.get(job.stage, "running")


def accepted(answer: pb.CreateJobResponse) -> AcceptedTask:
    """The answer to a create request, first or repeated."""
    job = answer.job
    return AcceptedTask(
        task_id=job.job_id,
        status=status_of(job),
        created_at=rfc3339_s(job.created_at_ms),
        credits_cost=job.quoted_millis / 1000,
    )


def primary_of(job: pb.Job) -> pb.Output | None:
    """The video of a job that ended well."""
    return next((output for output in job.outputs if output.role == pb.Output.ROLE_PRIMARY), None)


def task(job: pb.Job, video_url: str | None) -> Task:
    """The task as its customer sees it. video_url: where the video of one that succeeded is, while it is kept."""
    status = status_of(job)
    cost_millis = {"succeeded": job.charged_millis, "failed": 0}.get(status, job.quoted_millis)
    return Task(
        task_id=job.job_id,
        status=status,
        model=cast("Model", job.public_model),
        created_at=rfc3339_s(job.created_at_ms),
        updated_at=rfc3339_s(job.updated_at_ms),
        credits_cost=cost_millis / 1000,
        result=None if status == "running" else _result(job, status, video_url),
    )


def _result(job: pb.Job, status: Status, video_url: str | None) -> TaskResult:
    failed = status == "failed"
    return TaskResult(
        status="failed" if failed else "succeeded",
        video_url=None if failed else video_url,
        error_message=FAILURES.get(job.failure, _FAILED) if failed else None,
        finished_at=rfc3339_s(job.ended_at_ms or job.updated_at_ms),
    )


def wallet(answer: billing_pb2.GetBalanceResponse) -> Credits:
    """The wallet, in credits: whole where they are."""
    return Credits(
        api_available_credits=_credits(answer.balance.balance_millis - answer.balance.reserved_millis),
        api_total_credits=_credits(answer.topped_up_millis),
    )


def _credits(millis: int) -> int | float:
    return millis // 1000 if millis % 1000 == 0 else millis / 1000


def _form(status: Status) -> str:
    failed = status == "failed"
    data: dict[str, Any] = {
        "task_id": {"$": "job_id"},
        "status": status,
        "model": {"$": "public_model"},
        "created_at": {"$": "created_at_s"},
        "updated_at": {"$": "updated_at_s"},
        "credits_cost": 0.0 if failed else {"$": "charged_credits_decimal"},
        "result": {
            "status": status,
            "video_url": None if failed else {"$": "media:primary"},
            "error_message": {"$": "failure_message"} if failed else None,
            "finished_at": {"$": "ended_at_s"},
        },
    }
    return json.dumps({"code": 200, "trace_id": {"$": "trace_id"}, "message": "success", "data": data})


WEBHOOK_FORM: Final = pb.WebhookForm(
    storefront="loova",
    completed=_form("succeeded"),
    failed=_form("failed"),
    failure_messages={0: _FAILED, **FAILURES},
)
