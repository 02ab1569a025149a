from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.gen.jobs.v1 import jobs_pb2 as jobs_pb
from services.provider_pool.attempts.states import Charged, Failure, FailureReason, NextStep
from tests.soak.accounts import Known
from tests.soak.truth import judged, overdrawn

_ACCOUNT = Known("acc_1", "fal", "key", concurrency=2, balance=10)


def job(number: int, state: str = "completed", failure: int = 0) -> dict[str, Any]:
    return {
        "job_id": f"job_{number}",
        "state": state,
        "failure": failure,
        "failure_detail": "",
        "generation": f'{{"prompt": "soak-{number:06}: a red boat"}}',
    }


def attempt(number: int, state: str = "succeeded", charged: Charged | None = None) -> dict[str, Any]:
    failure = (
        Failure(FailureReason.OUTPUT_UNUSABLE, NextStep.FAIL, charged=charged)
        if charged is not None
        else None
    )
    return {
        "job_id": f"job_{number}",
        "provider": "fal",
        "state": state,
        "failure": "" if failure is None else msgspec.json.encode(failure).decode(),
    }


def task(number: int, *, is_charged: bool = True) -> dict[str, Any]:
    return {"provider": "fal", "prompt": f"soak-{number:06}: a red boat", "is_charged": is_charged}


def upstream(**changes: Any) -> dict[str, Any]:
    return {"provider": "fal", "key": "key", "least_balance": 1.0, "most_unfinished": 2} | changes


def test_one_paid_task_for_every_finished_job_is_right() -> None:
    found = judged([job(1), job(2)], [attempt(1), attempt(2)], [task(1), task(2), task(2, is_charged=False)])
    assert (found.wrong, found.paid_per_finished_job, found.unexplained) == ([], 1.0, 0)


def test_a_second_payment_that_is_written_down_is_counted_and_explained() -> None:
    attempts = [attempt(1, "failed", Charged.MAYBE), attempt(1)]
    found = judged([job(1)], attempts, [task(1), task(1)])
    assert (found.wrong, found.paid_per_finished_job, found.explained.total()) == ([], 2.0, 1)
    assert found.paid_less_explained == 1.0


@pytest.mark.parametrize(
    ("attempts", "tasks"),
    [
        ([attempt(1)], [task(1), task(1)]),
        ([attempt(1, "failed", Charged.NO), attempt(1)], [task(1), task(1)]),
        ([attempt(1)], []),
        ([attempt(1)], [task(1, is_charged=False)]),
        ([attempt(1)], [task(1), task(2)]),
    ],
    ids=["paid twice", "paid for a failure that is said to be free", "never asked", "unpaid", "of no job"],
)
def test_a_payment_that_is_not_written_down_is_wrong(
    attempts: list[dict[str, Any]], tasks: list[dict[str, Any]]
) -> None:
    assert len(judged([job(1)], attempts, tasks).wrong) == 1


def test_a_job_that_no_provider_would_have_is_wrong_and_one_that_was_refused_is_not() -> None:
    unfair = job(1, "failed", jobs_pb.FAILURE_REASON_PROVIDER_UNAVAILABLE)
    fair = job(2, "failed", jobs_pb.FAILURE_REASON_CONTENT_REFUSED)
    found = judged([unfair, fair], [attempt(1, "failed"), attempt(2, "failed")], [])
    assert len(found.wrong) == 1
    assert found.failed == {"provider_unavailable": 1, "content_refused": 1}


def test_of_a_job_that_took_too_long_the_report_tells_what_was_tried() -> None:
    late = [
        job(1, "failed", jobs_pb.FAILURE_REASON_TIMED_OUT),
        job(2, "failed", jobs_pb.FAILURE_REASON_TIMED_OUT),
    ]
    found = judged(late, [attempt(1, "failed", Charged.NO), attempt(1, "running")], [])
    assert found.late == {"fal failed (), then fal running ()": 1, "nothing: no account had room": 1}


@pytest.mark.parametrize("changes", [{"least_balance": -0.001}, {"most_unfinished": 3}])
def test_an_account_below_nothing_or_over_its_limit_is_wrong(changes: dict[str, Any]) -> None:
    assert overdrawn([upstream()], [_ACCOUNT]) == []
    assert len(overdrawn([upstream(**changes)], [_ACCOUNT])) == 1
