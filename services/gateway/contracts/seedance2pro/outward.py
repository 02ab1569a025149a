"""Outward: gRPC responses to wire, and the form of the webhooks. Pure but for the signing of links."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from services.chassis.errors import ServiceError
from services.gateway.contracts.seedance2pro.wire import AcceptedTask, State, TaskOutput, TaskView
from services.gateway.credits import credits_of
from services.gateway.media import Link
from services.gen.jobs.v1 import jobs_pb2 as pb

# A stage that this edge does not know yet is one that a newer jobs service added in the middle of the road.
_STATE: Final[dict[int, State]] = {
    pb.STAGE_UNSPECIFIED: "waiting",
    pb.STAGE_WAITING: "waiting",
    pb.STAGE_ACCOUNT_CHOSEN: "waiting",
    pb.STAGE_AT_PROVIDER: "generating",
    pb.STAGE_ENDED_WELL: "success",
    pb.STAGE_ENDED_BADLY: "fail",
}
_FAILED: Final = "Task execution failed"
_INVALID_REFERENCE: Final = f"{_FAILED}: invalid_reference_image"
_FAILURES: Final[dict[int, str]] = {
    pb.FAILURE_REASON_INVALID_REFERENCE: _INVALID_REFERENCE,
    pb.FAILURE_REASON_REFERENCE_UNAVAILABLE: f"{_FAILED}: reference_unavailable",
    pb.FAILURE_REASON_REFERENCE_UNSUITABLE: f"{_INVALID_REFERENCE}: of a size or length that the model does not take",
}

_ENDED_FORM: Final = {
    "taskId": {"$": "job_id"},
    "model": {"$": "public_model"},
    "createTime": {"$": "created_at_ms"},
    "completeTime": {"$": "ended_at_ms"},
}
_SUCCESS_FORM: Final = {
    **_ENDED_FORM,
    "status": "success",
    "state": "success",
    "creditsUsed": {"$": "charged_credits"},
    "output": [{"url": {"$": "media:primary"}, "width": {"$": "width"}, "height": {"$": "height"}}],
    "error": None,
}
_FAIL_FORM: Final = {
    **_ENDED_FORM,
    "status": "fail",
    "state": "fail",
    "creditsUsed": 0,
    "output": None,
    "error": {"$": "failure_message"},
}
# The body is what `GET /api/v1/jobs/recordInfo` answers once the task has ended.
WEBHOOK_FORM: Final = pb.WebhookForm(
    storefront="seedance2pro",
    completed=json.dumps(_SUCCESS_FORM),
    failed=json.dumps(_FAIL_FORM),
    failure_messages={0: _FAILED} | _FAILURES,
)

Sign = Callable[[str, int], Link]


def accepted(answer: pb.CreateJobResponse) -> AcceptedTask:
    """The answer to a create request, first or repeated."""
    return AcceptedTask(answer.job.job_id)


def view(job: pb.Job, sign: Sign) -> TaskView:
    """The task as its customer sees it. sign: makes a link to an object that is kept until a millisecond."""
    state = _STATE.get(job.stage, "generating")
    failed, succeeded = state == "fail", state == "success"
    used_millis = 0 if failed else job.charged_millis if succeeded else job.quoted_millis
    return TaskView(
        task_id=job.job_id,
        model=job.public_model,
        status=state,
        state=state,
        credits_used=credits_of(used_millis),
        output=_outputs(job, sign) if succeeded else None,
        error=_FAILURES.get(job.failure, _FAILED) if failed else None,
        create_time=job.created_at_ms,
        complete_time=job.ended_at_ms if failed or succeeded else None,
    )


def _outputs(job: pb.Job, sign: Sign) -> list[TaskOutput]:
    found = [output for output in job.outputs if output.role == pb.Output.ROLE_PRIMARY]
    try:
        return [
            TaskOutput(sign(output.object_key, job.media_expires_at_ms).url, output.width, output.height)
            for output in found
        ]
    except ServiceError:
        # They have left the store; the rest of the task is still to be told.
        return []
