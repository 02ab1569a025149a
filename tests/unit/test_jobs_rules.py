from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.jobs import answers, schedule
from services.jobs import job as rules
from services.jobs.answers import AttemptState, AttemptStatus, Failure, NextStep
from services.jobs.job import FailureReason, IllegalTransitionError, Job, JobState, Kind, Settlement, Stage
from services.jobs.reference import Reference, Role, Strength
from services.jobs.schedule import Timing
from tests.jobs_rows import NOW_MS, a_job

LATER_MS = NOW_MS + 5_000


def running(attempt: int = 1) -> Job:
    return replace(
        a_job(),
        state=JobState.RUNNING,
        stage=Stage.AT_PROVIDER,
        attempt_number=attempt,
        account_id="acc_1",
        quoted_millis=900,
        run_deadline_ms=NOW_MS + 300_000,
    )


def failed(reason: FailureReason, step: NextStep, retry_after_ms: int = 0) -> AttemptStatus:
    return AttemptStatus(AttemptState.FAILED, failure=Failure(reason, step, retry_after_ms, "detail"))


def test_no_state_leads_where_no_job_may_go() -> None:
    for state in JobState:
        for to in JobState:
            job = replace(a_job(), state=state)
            if to in rules.ALLOWED[state]:
                assert rules.moved(job, to, NOW_MS).state is to
            else:
                with pytest.raises(IllegalTransitionError):
                    rules.moved(job, to, NOW_MS)


@given(st.data())
def test_the_stage_time_and_version_of_a_job_never_go_backwards(data: st.DataObject) -> None:
    job = a_job()
    while rules.ALLOWED[job.state] and job.version < 30:
        to = data.draw(st.sampled_from(sorted(rules.ALLOWED[job.state])))
        after = rules.moved(job, to, NOW_MS + data.draw(st.integers(-1000, 1000)))
        assert after.stage >= job.stage
        assert after.updated_at_ms >= job.updated_at_ms
        assert (after.version, after.event_count) == (job.version + 1, job.event_count + 1)
        job = after


def test_the_deadline_runs_from_the_first_lease() -> None:
    queued = rules.moved(a_job(), JobState.QUEUED, NOW_MS)
    first = rules.leased(queued, "acc_1", 300_000, NOW_MS)
    again = rules.requeued(first, LATER_MS, not_before_ms=LATER_MS, avoid="acc_1", reason=FailureReason.NONE)
    second = rules.leased(again, "acc_2", 300_000, LATER_MS)
    assert (first.attempt_number, second.attempt_number) == (1, 2)
    assert first.run_deadline_ms == second.run_deadline_ms == NOW_MS + 300_000
    assert (second.attempt_id, second.next_attempt_id) == ("job_1:2", "job_1:3")


def test_a_job_is_late_in_the_queue_by_its_creation_and_at_work_by_its_first_lease() -> None:
    queued = rules.moved(a_job(), JobState.QUEUED, NOW_MS)
    assert rules.overdue(queued, queued.queue_deadline_ms - 1) is None
    late = rules.overdue(queued, queued.queue_deadline_ms)
    assert late is not None
    assert (late.failure, late.settlement) == (FailureReason.TIMED_OUT, Settlement.RELEASE)
    at_work = running()
    assert rules.overdue(at_work, at_work.run_deadline_ms - 1) is None
    assert rules.overdue(at_work, at_work.run_deadline_ms) is not None


@pytest.mark.parametrize("state", [JobState.COLLECTING, JobState.SETTLING, JobState.COMPLETED])
def test_what_was_made_in_time_is_never_late(state: JobState) -> None:
    assert rules.overdue(replace(running(), state=state), NOW_MS * 2) is None


def test_a_job_that_was_moved_fails_of_its_deadline_with_the_reason_it_was_moved_for() -> None:
    back = rules.requeued(
        running(), NOW_MS, not_before_ms=NOW_MS, avoid="", reason=FailureReason.PROVIDER_UNAVAILABLE
    )
    late = rules.overdue(back, back.run_deadline_ms)
    assert late is not None
    assert late.failure is FailureReason.PROVIDER_UNAVAILABLE


def test_success_charges_the_quote_and_failure_refunds_it() -> None:
    won = rules.succeeding(replace(running(), state=JobState.COLLECTING), (), 1000, NOW_MS)
    assert (won.settlement, won.settle_millis) == (Settlement.CAPTURE, 900)
    end = rules.finished(won, 900, LATER_MS)
    assert (end.state, end.charged_millis, end.refunded_millis) == (JobState.COMPLETED, 900, 0)
    assert (end.ended_at_ms, end.media_expires_at_ms) == (LATER_MS, NOW_MS + 1000)
    lost = rules.finished(rules.failing(running(), FailureReason.TIMED_OUT, "", NOW_MS), 0, LATER_MS)
    assert (lost.state, lost.charged_millis, lost.refunded_millis) == (JobState.FAILED, 0, 900)
    assert lost.media_expires_at_ms == 0


def test_a_job_that_kills_its_workers_fails_and_one_that_waits_or_settles_does_not() -> None:
    poisonous = replace(running(), idle_claims=rules.MAX_IDLE_CLAIMS)
    end = rules.poisoned(poisonous, NOW_MS)
    assert end is not None
    assert end.failure is FailureReason.PROVIDER_UNAVAILABLE
    assert rules.poisoned(replace(poisonous, idle_claims=rules.MAX_IDLE_CLAIMS - 1), NOW_MS) is None
    for state in (JobState.QUEUED, JobState.SETTLING):
        assert rules.poisoned(replace(poisonous, state=state), NOW_MS) is None


# ---- what follows from an answer ----


@pytest.mark.parametrize(
    "reason",
    [
        FailureReason.CONTENT_REFUSED,
        FailureReason.REQUEST_REJECTED,
        FailureReason.INVALID_REFERENCE,
        FailureReason.REFERENCE_UNAVAILABLE,
    ],
)
@pytest.mark.parametrize("step", list(NextStep))
def test_a_refusal_is_final_whatever_the_advice(reason: FailureReason, step: NextStep) -> None:
    after = answers.after_answer(running(), failed(reason, step), NOW_MS, 0.5)
    assert after is not None
    assert (after.state, after.failure) == (JobState.SETTLING, reason)


def test_rotation_avoids_the_account_at_once() -> None:
    after = answers.after_answer(
        running(), failed(FailureReason.PROVIDER_UNAVAILABLE, NextStep.ROTATE), NOW_MS, 0.5
    )
    assert after is not None
    assert (after.state, after.avoid_account_ids, after.run_at_ms) == (JobState.QUEUED, ("acc_1",), NOW_MS)
    assert after.stage is Stage.AT_PROVIDER


def test_a_retry_waits_as_asked_and_stays_with_the_account() -> None:
    status = failed(FailureReason.PROVIDER_UNAVAILABLE, NextStep.RETRY, 30_000)
    after = answers.after_answer(running(), status, NOW_MS, 0.5)
    assert after is not None
    assert (after.avoid_account_ids, after.run_at_ms) == ((), NOW_MS + 30_000)


@pytest.mark.parametrize(
    ("reason", "step", "avoided"),
    [
        (FailureReason.PROVIDER_UNAVAILABLE, NextStep.RETRY, ()),
        (FailureReason.PROVIDER_UNAVAILABLE, NextStep.ROTATE, ("acc_1",)),
        (FailureReason.GENERATION_FAILED, NextStep.ROTATE, ()),
        (FailureReason.TIMED_OUT, NextStep.ROTATE, ()),
    ],
)
def test_the_last_attempt_fails_with_the_last_reason(
    reason: FailureReason, step: NextStep, avoided: tuple[str, ...]
) -> None:
    job = replace(running(attempt=rules.MAX_ATTEMPTS), avoid_account_ids=avoided)
    after = answers.after_answer(job, failed(reason, step), NOW_MS, 0.5)
    assert after is not None
    assert (after.state, after.failure) == (JobState.SETTLING, reason)


@pytest.mark.parametrize("step", [NextStep.FAIL, NextStep.ROTATE])
def test_a_reference_that_no_account_takes_ends_the_job_with_that_reason(step: NextStep) -> None:
    job = replace(running(attempt=2), avoid_account_ids=("acc_1",))
    after = answers.after_answer(job, failed(FailureReason.REFERENCE_UNSUITABLE, step), NOW_MS, 0.5)
    assert after is not None
    assert (after.state, after.failure) == (JobState.SETTLING, FailureReason.REFERENCE_UNSUITABLE)


@pytest.mark.parametrize("reason", [FailureReason.PROVIDER_UNAVAILABLE, FailureReason.REFERENCE_UNSUITABLE])
def test_a_job_goes_past_every_account_that_would_not_have_it_once(reason: FailureReason) -> None:
    job = running()
    refusal = failed(reason, NextStep.ROTATE)
    for number in range(1, rules.MAX_REFUSALS):
        back = answers.after_answer(replace(job, account_id=f"acc_{number}"), refusal, NOW_MS, 0.5)
        assert back is not None
        assert (back.state, len(back.avoid_account_ids)) == (JobState.QUEUED, number)
        job = replace(rules.leased(back, f"acc_{number + 1}", 300_000, NOW_MS), state=JobState.SUBMITTING)
    end = answers.after_answer(job, refusal, NOW_MS, 0.5)
    assert end is not None
    assert (end.state, end.failure) == (JobState.SETTLING, reason)


def test_doubt_is_looked_into_and_never_sent_again() -> None:
    submitting = replace(running(), state=JobState.SUBMITTING)
    doubt = answers.after_answer(submitting, AttemptStatus(AttemptState.UNKNOWN), NOW_MS, 0.5)
    assert doubt is not None
    assert doubt.state is JobState.UNKNOWN
    assert answers.after_answer(doubt, AttemptStatus(AttemptState.UNKNOWN), NOW_MS, 0.5) is None
    found = answers.after_answer(doubt, AttemptStatus(AttemptState.RUNNING, 30), NOW_MS, 0.5)
    assert found is not None
    assert (found.state, found.progress) == (JobState.RUNNING, 30)
    given_up = answers.after_answer(doubt, AttemptStatus(AttemptState.ABANDONED), NOW_MS, 0.5)
    assert given_up is not None
    assert (given_up.state, given_up.failure) == (JobState.SETTLING, FailureReason.SUBMISSION_UNKNOWN)


def test_before_the_submission_there_is_no_doubt_to_look_into() -> None:
    leased = replace(running(), state=JobState.LEASED)
    advice = Failure(FailureReason.PROVIDER_UNAVAILABLE, NextStep.RECONCILE, 30_000)
    after = answers.after_failure(leased, advice, NOW_MS, 0.5)
    assert after is not None
    assert (after.state, after.run_at_ms) == (JobState.QUEUED, NOW_MS + 30_000)


def test_the_address_of_a_reference_and_the_prompt_are_not_in_what_a_job_prints() -> None:
    reference = Reference(Role.IMAGE, Strength.MID, url="https://example.com/?token=hidden")
    job = a_job(generation=replace(a_job().generation, prompt="hidden too", references=(reference,)))
    assert "hidden" not in f"{job!r} {job} {reference}"


def test_an_attempt_given_up_is_sent_once_more_where_the_operator_allows_it() -> None:
    leave = Failure(FailureReason.SUBMISSION_UNKNOWN, NextStep.RETRY)
    doubt = replace(running(), state=JobState.UNKNOWN)
    after = answers.after_answer(doubt, AttemptStatus(AttemptState.ABANDONED, failure=leave), NOW_MS, 0.5)
    assert after is not None
    assert (after.state, after.next_attempt_id) == (JobState.QUEUED, "job_1:2")


# ---- when things happen ----


def test_polls_follow_the_hint_or_slow_down_by_themselves() -> None:
    assert schedule.poll_delay_s(700, 9, 1.0, 0.5) == 0.7
    assert schedule.poll_delay_s(10**9, 0, 1.0, 0.5) == 60.0
    assert [schedule.poll_delay_s(0, polls, 1.0, 0.5) for polls in range(5)] == [1.0, 2.0, 5.0, 5.0, 5.0]


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_grows_within_bounds_and_is_never_zero(failures: int, jitter: float) -> None:
    assert 0.1 < schedule.backoff_s(failures, jitter) <= 36.0


@given(st.integers(0, 10**12), st.integers(1, 4), st.floats(0, 1, exclude_max=True))
def test_a_retry_is_never_later_than_a_hold_can_bear(asked_ms: int, attempts: int, jitter: float) -> None:
    assert 1_000 < schedule.retry_after_ms(asked_ms, attempts, jitter) <= schedule.LONGEST_RETRY_MS


def test_each_kind_has_its_own_deadline() -> None:
    timing = Timing()
    allowances = [timing.run_allowance_ms(kind) // 60_000 for kind in (Kind.IMAGE, Kind.VIDEO, Kind.MUSIC)]
    assert allowances == [5, 30, 10]


def test_a_job_put_off_by_its_provider_is_taken_up_at_its_deadline_at_the_latest() -> None:
    before = running()
    later_ms = before.run_deadline_ms + 60_000
    back = rules.requeued(before, NOW_MS, not_before_ms=later_ms, avoid="", reason=FailureReason.NONE)
    assert back.run_at_ms == before.run_deadline_ms
