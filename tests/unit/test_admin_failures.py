"""How the operator's commands show why an attempt failed: a line for people, data for scripts."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.admin import attempts, jobs, rendering
from services.admin.connection import House
from services.gen.jobs.v1 import jobs_pb2
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb

FAILED = pb.Attempt(
    attempt_id="job_1:1",
    state=pb.ATTEMPT_STATE_FAILED,
    failure=pb.Failure(
        reason=pb.FAILURE_REASON_PROVIDER_UNAVAILABLE,
        next_step=pb.NEXT_STEP_ROTATE,
        charged=pb.CHARGED_NO,
        detail="leonardo answered 429",
    ),
)
LINE = "provider_unavailable, rotate, charged no, leonardo answered 429"


def _answers(answer: object) -> Any:
    async def told(request: object) -> object:
        return answer

    return told


HOUSE = cast(
    "House",
    SimpleNamespace(
        jobs=SimpleNamespace(
            ListJobs=_answers(jobs_pb2.ListJobsResponse(jobs=[jobs_pb2.Job(job_id="job_1")])),
            ListJobEvents=_answers(jobs_pb2.ListJobEventsResponse()),
        ),
        pool=SimpleNamespace(
            ListAttempts=_answers(
                pb.ListAttemptsResponse(attempts=[FAILED, pb.Attempt(attempt_id="job_1:2")])
            ),
            GetAttemptHistory=_answers(pb.GetAttemptHistoryResponse(attempt=FAILED)),
        ),
    ),
)
SHOWS = {
    "jobs": (jobs.show, {"job_id": "job_1"}),
    "attempts": (attempts.show, {"attempt_id": "job_1:1"}),
}


async def _said(capsys: pytest.CaptureFixture[str], which: str, *, as_json: bool) -> str:
    show, chosen = SHOWS[which]
    answer = await show(HOUSE, SimpleNamespace(**chosen, json=as_json))
    rendering.show(answer, as_json=as_json)
    return capsys.readouterr().out


@pytest.mark.parametrize("which", SHOWS)
async def test_people_read_a_failure_on_one_line(capsys: pytest.CaptureFixture[str], which: str) -> None:
    said = await _said(capsys, which, as_json=False)
    assert LINE in said
    assert "{" not in said


@pytest.mark.parametrize("which", SHOWS)
async def test_scripts_get_a_failure_as_data(capsys: pytest.CaptureFixture[str], which: str) -> None:
    told = json.loads(await _said(capsys, which, as_json=True))
    attempt = told["tries"][0] if which == "jobs" else told
    assert attempt["failure"]["detail"] == "leonardo answered 429"
