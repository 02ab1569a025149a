from __future__ import annotations

from itertools import product

import pytest
from msgspec.structs import replace

from services.provider_pool import failures
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import (
    Generation,
    Kind,
    OutputRef,
    ProviderError,
    Role,
    Snapshot,
    Submission,
    TaskRef,
    TaskState,
)
from services.provider_pool.attempts import codec, outcomes
from services.provider_pool.attempts import states as rules
from services.provider_pool.attempts.states import (
    TERMINAL,
    Attempt,
    AttemptState,
    Charged,
    Failure,
    FailureReason,
    NextStep,
)
from services.provider_pool.selection.health import FaultKind

NOW_MS = 1_000_000
PICTURE = Generation(Kind.IMAGE, "gpt-image-2", "a secret wish", 1024, 1024)
ATTEMPT = Attempt(
    attempt_id="job_1:1",
    job_id="job_1",
    account_id="acc_1",
    provider="sandbox",
    model=PICTURE.model,
    state=AttemptState.SUBMITTING,
    generation=codec.generation_text(PICTURE),
    fingerprint=codec.fingerprint(PICTURE),
    sender_id="sender_1/1",
    created_at_ms=NOW_MS,
)
TASK = TaskRef("task_1", NOW_MS)
OUTPUT = OutputRef(Role.PRIMARY, "somewhere")


def test_only_these_changes_of_state_are_possible() -> None:
    possible = {
        (one.value, two.value) for one, two in product(AttemptState, repeat=2) if rules.may_follow(one, two)
    }
    assert possible == {
        ("submitting", "running"),
        ("submitting", "succeeded"),
        ("submitting", "failed"),
        ("submitting", "unknown"),
        ("unknown", "running"),
        ("unknown", "abandoned"),
        ("running", "succeeded"),
        ("running", "failed"),
        ("succeeded", "failed"),
    }


def test_no_attempt_is_ever_sent_again() -> None:
    assert not any(rules.may_follow(state, AttemptState.SUBMITTING) for state in AttemptState)


def test_collected_outputs_are_not_undone() -> None:
    done = replace(ATTEMPT, state=AttemptState.SUCCEEDED)
    seen = AttemptState.SUCCEEDED
    assert rules.may_become(done, AttemptState.FAILED, seen)
    assert not rules.may_become(replace(done, collected="[]"), AttemptState.FAILED, seen)


@pytest.mark.parametrize("seen", [None, AttemptState.RUNNING])
def test_a_success_is_undone_only_by_who_knows_of_it(seen: AttemptState | None) -> None:
    done = replace(ATTEMPT, state=AttemptState.SUCCEEDED)
    assert not rules.may_become(done, AttemptState.FAILED, seen)


@pytest.mark.parametrize(
    ("state", "charged", "told", "booked"),
    [
        (AttemptState.SUCCEEDED, None, None, 100),
        (AttemptState.SUCCEEDED, None, 70, 70),
        (AttemptState.FAILED, Charged.NO, 70, 0),
        (AttemptState.FAILED, Charged.YES, None, 100),
        (AttemptState.FAILED, Charged.YES, 70, 70),
        (AttemptState.ABANDONED, Charged.MAYBE, None, 100),
    ],
)
def test_what_may_be_spent_is_booked(
    state: AttemptState, charged: Charged | None, told: int | None, booked: int
) -> None:
    failure = None if charged is None else Failure(FailureReason.TIMED_OUT, NextStep.FAIL, charged=charged)
    assert rules.booked_millis(state, failure, 100, told) == booked


@pytest.mark.parametrize(
    ("sender", "alone", "now_ms", "orphaned"),
    [
        ("sender_1/7", True, NOW_MS + 10**9, False),
        ("sender_2/7", True, NOW_MS, True),
        ("sender_2/7", False, NOW_MS + 44_999, False),
        ("sender_2/7", False, NOW_MS + 45_000, True),
        ("sender_3/7", False, NOW_MS, True),
        ("sender_33/7", False, NOW_MS, False),
    ],
)
def test_an_orphan_is_one_that_nobody_can_be_sending(
    sender: str, alone: bool, now_ms: int, orphaned: bool
) -> None:
    senders = rules.Senders("sender_1", alone, frozenset({"sender_3"}))
    assert senders.are_gone_from(sender, NOW_MS, 45_000, now_ms) is orphaned


@pytest.mark.parametrize(
    ("error", "reason", "step", "breaker", "kind"),
    [
        (interface.InvalidRequest("x"), "REQUEST_REJECTED", NextStep.FAIL, None, None),
        (interface.ContentBlocked("x"), "CONTENT_REFUSED", NextStep.FAIL, None, None),
        (interface.AuthFailed("x"), "PROVIDER_UNAVAILABLE", NextStep.ROTATE, "", FaultKind.OUT),
        (interface.InsufficientBalance("x"), "PROVIDER_UNAVAILABLE", NextStep.ROTATE, "", FaultKind.OUT),
        (interface.AccountRestricted("x"), "PROVIDER_UNAVAILABLE", NextStep.ROTATE, "", FaultKind.OUT),
        (
            interface.ModelNotEnabled("x"),
            "PROVIDER_UNAVAILABLE",
            NextStep.ROTATE,
            PICTURE.model,
            FaultKind.OUT,
        ),
        (interface.RateLimited("x"), "PROVIDER_UNAVAILABLE", NextStep.ROTATE, "", FaultKind.COOL_DOWN),
        (
            interface.TransientFailure("x"),
            "PROVIDER_UNAVAILABLE",
            NextStep.ROTATE,
            PICTURE.model,
            FaultKind.TRANSIENT,
        ),
        (interface.GenerationFailed("x"), "GENERATION_FAILED", NextStep.FAIL, None, None),
        (
            interface.SubmissionUnknown("x"),
            "SUBMISSION_UNKNOWN",
            NextStep.RECONCILE,
            PICTURE.model,
            FaultKind.TRANSIENT,
        ),
        (interface.OutputUnavailable("x"), "OUTPUT_UNUSABLE", NextStep.FAIL, None, None),
    ],
    ids=lambda one: one.code if isinstance(one, ProviderError) else None,
)
def test_every_error_has_a_reason_a_step_and_perhaps_a_breaker(
    error: ProviderError, reason: str, step: NextStep, breaker: str | None, kind: FaultKind | None
) -> None:
    failure = failures.failure_of(error)
    assert (failure.reason.name, failure.next_step) == (reason, step)
    found = failures.fault_of(error, PICTURE.model, NOW_MS)
    assert (None if found is None else (found[0], found[1].kind)) == (
        None if kind is None else (breaker, kind)
    )


def test_a_page_of_html_is_cut_in_the_detail() -> None:
    failure = failures.failure_of(interface.TransientFailure("<html>" * 10_000))
    assert len(failure.detail) == failures.DETAIL_LIMIT_CHARACTERS


@pytest.mark.parametrize("asked_s", [float("inf"), float("nan"), 1e300, -1.0])
def test_a_provider_may_ask_for_any_pause(asked_s: float) -> None:
    error = interface.RateLimited("429", retry_after_s=asked_s)
    found = failures.fault_of(error, PICTURE.model, NOW_MS)
    assert found is not None
    assert 0 <= found[1].retry_after_ms <= failures.RETRY_AFTER_LIMIT_S * 1000
    assert failures.failure_of(error).retry_after_ms == found[1].retry_after_ms


def test_an_accepted_attempt_keeps_no_prompt() -> None:
    change = outcomes.accepted(ATTEMPT, Submission(TASK), 100, NOW_MS, NOW_MS)
    assert (change.to, change.task_id, change.cost_millis) == (AttemptState.RUNNING, "task_1", None)
    assert change.generation is not None
    assert "secret" not in change.generation


def test_an_attempt_in_doubt_keeps_what_it_will_be_looked_for_by() -> None:
    change = outcomes.refused(ATTEMPT, interface.SubmissionUnknown("x"), 100, NOW_MS, NOW_MS)
    assert (change.to, change.generation, change.cost_millis) == (AttemptState.UNKNOWN, None, None)


def test_a_provider_that_answers_at_once_ends_the_attempt_with_its_submission() -> None:
    done = Snapshot(TaskState.SUCCEEDED, outputs=[OUTPUT], cost_millis=70)
    change = outcomes.accepted(ATTEMPT, Submission(TASK, done), 100, NOW_MS, NOW_MS)
    assert (change.to, change.expected_cost_millis) == (AttemptState.SUCCEEDED, 70)
    assert codec.read_outputs(change.outputs or "") == [OUTPUT]


def test_a_success_without_output_is_an_unusable_one_that_was_charged() -> None:
    change = outcomes.ended(ATTEMPT, Snapshot(TaskState.SUCCEEDED), 100, NOW_MS)
    assert change is not None
    assert change.to is AttemptState.FAILED
    assert change.failure is not None
    assert (change.failure.reason, change.cost_millis) == (FailureReason.OUTPUT_UNUSABLE, 100)


@pytest.mark.parametrize("state", [TaskState.QUEUED, TaskState.RUNNING])
def test_a_task_under_way_changes_nothing(state: TaskState) -> None:
    assert outcomes.ended(ATTEMPT, Snapshot(state), 100, NOW_MS) is None


def test_a_refused_content_speaks_well_of_the_account() -> None:
    change = outcomes.refused(ATTEMPT, interface.ContentBlocked("x"), 100, NOW_MS, NOW_MS)
    assert [(signal.model, signal.fault) for signal in change.signals] == [("", None), (PICTURE.model, None)]


def test_terminal_states_are_those_that_end() -> None:
    assert {state.value for state in TERMINAL} == {"succeeded", "failed", "abandoned"}
