"""What follows of a wish that a job should end, as rules."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from services.jobs import job as rules
from services.jobs.job import FailureReason, JobState, Output, Settlement, Stage
from services.jobs.usage import amounts_of
from services.jobs.waiting_room import WaitingRoom, waiting_of
from tests.jobs_rows import NOW_MS, a_job

_UNDECIDED = [
    JobState.QUEUED,
    JobState.LEASED,
    JobState.SUBMITTING,
    JobState.UNKNOWN,
    JobState.RUNNING,
    JobState.COLLECTING,
]


@pytest.mark.parametrize("state", _UNDECIDED)
def test_a_job_whose_end_is_open_is_released_and_ends_canceled(state: JobState) -> None:
    job = a_job(state=state, quoted_millis=900, cancel_asked_at_ms=NOW_MS)
    settling = rules.canceling(job, NOW_MS)
    assert settling is not None
    assert (settling.settlement, settling.settle_millis) == (Settlement.RELEASE, 0)
    end = rules.finished(settling, 0, NOW_MS)
    assert (end.state, end.stage, end.failure) == (
        JobState.CANCELED,
        Stage.ENDED_BADLY,
        FailureReason.CANCELED,
    )
    assert (end.charged_millis, end.refunded_millis) == (0, 900)


@pytest.mark.parametrize("state", sorted(set(JobState) - set(_UNDECIDED)))
def test_a_job_whose_end_is_decided_is_left_to_it(state: JobState) -> None:
    assert rules.canceling(a_job(state=state, cancel_asked_at_ms=NOW_MS), NOW_MS) is None


@pytest.mark.parametrize("state", list(JobState))
def test_nothing_follows_where_nothing_was_wished(state: JobState) -> None:
    assert rules.canceling(a_job(state=state), NOW_MS) is None


def test_a_job_that_was_settling_when_it_was_wished_away_completes() -> None:
    collecting = a_job(state=JobState.COLLECTING, quoted_millis=900)
    settling = rules.succeeding(collecting, (), 1000, NOW_MS)
    end = rules.finished(replace(settling, cancel_asked_at_ms=NOW_MS), 900, NOW_MS)
    assert (end.state, end.charged_millis) == (JobState.COMPLETED, 900)


@dataclass(frozen=True)
class _End:
    state: JobState
    charged_millis: int
    refunded_millis: int


@pytest.mark.parametrize(
    "end, amounts",
    [
        (_End(JobState.COMPLETED, 900, 0), (900, 0)),
        # Billing charged less than was held: nothing was charged that had to go back.
        (_End(JobState.COMPLETED, 300, 600), (300, 0)),
        (_End(JobState.FAILED, 0, 900), (900, 900)),
        (_End(JobState.CANCELED, 0, 900), (900, 900)),
        # Billing had captured what was to be released.
        (_End(JobState.FAILED, 900, 0), (900, 0)),
    ],
)
def test_what_an_end_adds_to_usage_differs_by_what_was_charged(end: _End, amounts: tuple[int, int]) -> None:
    job = a_job(state=end.state, charged_millis=end.charged_millis, refunded_millis=end.refunded_millis)
    assert amounts_of(job) == amounts


def test_a_job_that_is_taken_out_of_the_waiting_room_leaves_the_others_in_order() -> None:
    room = WaitingRoom()
    jobs = [a_job(f"job_{n}") for n in range(4)]
    for job in jobs:
        room.add(waiting_of(job))
    assert room.discard("job_1")
    assert not room.discard("job_1")
    left = [room.take(("test", "gpt-image-2")) for _ in range(4)]
    assert [one.job_id if one else None for one in left] == ["job_0", "job_2", "job_3", None]
    assert room.overdue(NOW_MS + 10**9) == []


def test_no_text_of_a_customer_s_is_in_what_a_traceback_shows() -> None:
    secret = "a secret"
    output = Output(1, "job_1/0.txt", "text/plain", 1, "00", 0, 0, 0, text=secret)
    job = a_job(echo=secret, callback_url=secret, outputs=(output,), failure_detail=secret)
    assert secret not in repr(job)
    assert secret not in repr(output)
