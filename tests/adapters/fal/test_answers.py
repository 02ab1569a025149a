"""fal's answers: COMPLETED is not success, and every documented error is of its class."""

from __future__ import annotations

import pytest

from services.provider_pool.adapters.fal import answers
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AuthFailed,
    ContentBlocked,
    GenerationDied,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    ModelNotEnabled,
    Next,
    OutputRef,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    ReferenceRejected,
    Role,
    SubmissionUnknown,
    TaskNotFound,
    TransientFailure,
)
from tests.adapters.scripted import answer
from tests.clocks import T0_MS

DONE = answers.Status("COMPLETED")


def detail(*types: str) -> object:
    return {
        "detail": [
            {"loc": ["body", "prompt"], "msg": "secret", "type": kind, "url": "u", "input": "secret"}
            for kind in types
        ]
    }


SUBMITS: list[tuple[int, object, type[ProviderError]]] = [
    (401, {"detail": "No user found for Key ID and Secret"}, AuthFailed),
    (403, {"detail": "User is locked. Reason: Exhausted balance. Top up"}, InsufficientBalance),
    (403, {"detail": "Access to secret is denied"}, AccountRestricted),
    (402, {}, InsufficientBalance),
    (404, {"detail": "Application not found"}, ModelNotEnabled),
    (422, detail("content_policy_violation"), ContentBlocked),
    (422, detail("missing", "content_policy_violation"), ContentBlocked),
    (422, detail("file_download_error"), ReferenceRejected),
    (422, detail("image_too_small"), ReferenceRejected),
    (422, detail("unsupported_video_format"), ReferenceRejected),
    (422, detail("video_duration_too_long"), ReferenceRejected),
    (422, detail("greater_than_equal"), InvalidRequest),
    (422, detail("string_too_long"), InvalidRequest),
    (422, detail("never_heard_of"), InvalidRequest),
    (422, b"<html>", InvalidRequest),
    (400, {"detail": "x", "error_type": "bad_request"}, InvalidRequest),
    (429, {"detail": "slow down"}, RateLimited),
    (408, {}, SubmissionUnknown),
    (418, {}, InvalidRequest),
    (500, {"detail": "x", "error_type": "internal_error"}, SubmissionUnknown),
    (502, b"<html>", SubmissionUnknown),
    (504, b"", SubmissionUnknown),
]


@pytest.mark.parametrize(("status", "body", "expected"), SUBMITS)
def test_every_error_of_a_submission_is_of_its_class(
    status: int, body: object, expected: type[ProviderError]
) -> None:
    error = answers.submit_error(answer(body, status), T0_MS)
    assert type(error) is expected
    assert "secret" not in str(error)


def test_a_rate_limit_says_when_to_come_back() -> None:
    busy = answer({}, 429, {"retry-after": "7"})
    assert answers.submit_error(busy, T0_MS).retry_after_s == 7.0


FAILURES: list[tuple[int, object, type[ProviderError], str]] = [
    (422, detail("content_policy_violation"), ContentBlocked, "maybe"),
    (422, detail("no_media_generated"), GenerationFailed, "maybe"),
    (422, detail("image_load_error"), ReferenceRejected, "maybe"),
    (422, detail("feature_not_supported"), InvalidRequest, "maybe"),
    (422, detail("int_type"), InvalidRequest, "maybe"),
    (422, detail("never_heard_of"), GenerationFailed, "maybe"),
    (400, {"detail": "x"}, GenerationFailed, "maybe"),
    (500, detail("internal_server_error"), GenerationDied, "no"),
    (504, detail("generation_timeout"), GenerationDied, "no"),
    (503, detail("downstream_service_unavailable"), GenerationDied, "no"),
    (502, detail("downstream_service_error"), GenerationDied, "no"),
]


@pytest.mark.parametrize(("status", "body", "expected", "charged"), FAILURES)
def test_a_request_that_ended_badly_says_why_in_its_result(
    status: int, body: object, expected: type[ProviderError], charged: str
) -> None:
    error = answers.failure(DONE, answer(body, status))
    assert type(error) is expected
    assert error is not None
    assert error.charged == charged
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("error_type", "expected"),
    [
        ("request_timeout", GenerationDied),
        ("startup_timeout", GenerationDied),
        ("runner_scheduling_failure", GenerationDied),
        ("runner_connection_timeout", GenerationDied),
        ("runner_disconnected", GenerationDied),
        ("runner_connection_refused", GenerationDied),
        ("runner_connection_error", GenerationDied),
        ("runner_incomplete_response", GenerationDied),
        ("runner_server_error", GenerationDied),
        ("internal_error", GenerationDied),
        ("client_cancelled", GenerationFailed),
        ("client_disconnected", GenerationFailed),
        ("bad_request", InvalidRequest),
        ("url_error", GenerationFailed),
    ],
)
def test_a_request_that_the_queue_lost_says_why_in_its_status(
    error_type: str, expected: type[ProviderError]
) -> None:
    status = answers.Status("COMPLETED", error="it failed", error_type=error_type)
    for result in (answer({"detail": "x", "error_type": error_type}, 500), answer({}, 200)):
        assert type(answers.failure(status, result)) is expected


def test_completed_with_an_error_is_no_success_whatever_its_result_is() -> None:
    status = answers.Status("COMPLETED", error="something")
    error = answers.failure(status, answer({"video": {"url": "https://v3.fal.media/x.mp4"}}))
    assert type(error) is GenerationFailed


@pytest.mark.parametrize(
    ("told", "status", "expected"),
    [
        ("true", 500, GenerationDied),
        ("false", 500, GenerationFailed),
        # What may have been charged is not made again elsewhere.
        ("true", 422, GenerationFailed),
    ],
)
def test_the_header_that_says_whether_to_try_again_decides_where_nothing_was_charged(
    told: str, status: int, expected: type[ProviderError]
) -> None:
    kind = "internal_server_error" if status == 500 else "never_heard_of"
    result = answer(detail(kind), status, {"x-fal-retryable": told})
    error = answers.failure(DONE, result)
    assert type(error) is expected
    assert error is not None
    assert (error.next is Next.ROTATE) is (expected is GenerationDied)


def test_no_header_makes_a_refused_content_worth_another_try() -> None:
    result = answer(detail("content_policy_violation"), 422, {"x-fal-retryable": "true"})
    assert type(answers.failure(DONE, result)) is ContentBlocked


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503])
def test_an_answer_that_is_not_about_the_request_does_not_end_it(status: int) -> None:
    assert answers.failure(DONE, answer(b"<html>", status)) is None
    assert answers.failure(DONE, answer({"detail": "Internal Server Error"}, status)) is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, TaskNotFound),
        (410, TaskNotFound),
        (401, AuthFailed),
        (429, RateLimited),
        (503, TransientFailure),
    ],
)
def test_an_error_of_a_question_about_a_request_leaves_nothing_in_doubt(
    status: int, expected: type[ProviderError]
) -> None:
    assert type(answers.task_error(answer(b"", status), T0_MS)) is expected


def test_a_film_is_one_output() -> None:
    body = {
        "video": {"url": "https://v3.fal.media/x.mp4", "content_type": "video/mp4", "file_size": 1},
        "seed": 1,
    }
    assert answers.result(answer(body)) == (
        OutputRef(Role.PRIMARY, "https://v3.fal.media/x.mp4", "video/mp4"),
    )


def test_a_picture_is_one_output_with_its_pixels() -> None:
    image = {"url": "https://v3.fal.media/x.png", "width": 1024, "height": 768, "content_type": "image/png"}
    body = {"images": [image, image], "has_nsfw_concepts": [False], "timings": {}, "prompt": "secret"}
    assert answers.result(answer(body)) == (
        OutputRef(Role.PRIMARY, "https://v3.fal.media/x.png", "image/png", 1024, 768),
    )


@pytest.mark.parametrize("body", [{}, {"images": []}, {"video": {"url": ""}}])
def test_a_success_without_output_has_none(body: object) -> None:
    assert answers.result(answer(body)) == ()


def test_a_picture_that_was_blackened_is_a_refused_content() -> None:
    body = {"images": [{"url": "https://v3.fal.media/x.png"}], "has_nsfw_concepts": [True]}
    assert isinstance(answers.result(answer(body)), ContentBlocked)


def test_a_result_of_another_shape_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation):
        answers.result(answer({"video": "https://v3.fal.media/x.mp4"}))


def test_a_balance_is_rounded_down_to_thousandths_of_a_dollar() -> None:
    body = {"username": "x", "credits": {"current_balance": 24.5559, "currency": "USD"}}
    assert answers.balance_millis(answer(body)) == 24_555


@pytest.mark.parametrize(
    ("text", "at_ms"), [("2026-11-21T10:00:00.500Z", 1_795_255_200_500), ("", 0), ("soon", 0)]
)
def test_a_time_is_read_in_milliseconds(text: str, at_ms: int) -> None:
    assert answers.at_ms(text) == at_ms
