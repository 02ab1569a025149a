"""OpenAI's answers: every documented error in its class, results and what they cost."""

from __future__ import annotations

import base64

import pytest

from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AuthFailed,
    ContentBlocked,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    ModelNotEnabled,
    Overloaded,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    SubmissionUnknown,
    TransientFailure,
)
from services.provider_pool.adapters.openai import answers, prices
from services.provider_pool.adapters.openai.adapter import OpenAIAdapter
from tests.adapters.scripted import answer
from tests.clocks import T0_MS

PNG = b"\x89PNG\r\n\x1a\n picture"
SPECS = {spec.model: spec for spec in OpenAIAdapter().models()}
PICTURE = {
    "created": 1795257600,
    "background": "opaque",
    "output_format": "png",
    "quality": "high",
    "size": "1024x1024",
    "data": [{"b64_json": base64.b64encode(PNG).decode(), "revised_prompt": None}],
    "usage": {
        "input_tokens": 50,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 0},
        "output_tokens": 4160,
        "output_tokens_details": {"image_tokens": 4160, "text_tokens": 0},
        "total_tokens": 4210,
    },
}


def fault(
    code: str | None, kind: str = "invalid_request_error", message: str = "You said: a secret"
) -> object:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def completion(content: str | None, finish: str = "stop", refusal: str | None = None) -> object:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 2000, "total_tokens": 3000},
    }


ERRORS: list[tuple[int, object, type[ProviderError]]] = [
    (400, fault(None), InvalidRequest),
    (400, fault("invalid_value"), InvalidRequest),
    (400, fault("moderation_blocked", "image_generation_user_error"), ContentBlocked),
    (400, fault("content_policy_violation"), ContentBlocked),
    (400, fault("billing_hard_limit_reached"), InsufficientBalance),
    (401, fault("invalid_api_key"), AuthFailed),
    (401, fault(None, message="You must be a member of an organization to use the API"), AuthFailed),
    (401, fault(None, message="Your IP is not authorized"), AuthFailed),
    (403, fault("unsupported_country_region_territory"), AccountRestricted),
    (403, fault(None, message="Your organization must be verified to use the model"), ModelNotEnabled),
    (404, fault("model_not_found"), ModelNotEnabled),
    (400, fault(None, message="Your prompt 'organization must be verified' is unfit"), InvalidRequest),
    (400, fault(None, message="Your prompt 'ip not authorized' is unfit"), InvalidRequest),
    (408, b"", SubmissionUnknown),
    (409, fault("conflict"), TransientFailure),
    (422, fault("unprocessable"), InvalidRequest),
    (429, fault("rate_limit_exceeded", "requests"), RateLimited),
    (429, fault("slow_down"), RateLimited),
    (429, fault(None, "tokens"), RateLimited),
    (429, fault(None, "insufficient_quota"), InsufficientBalance),
    (429, fault("insufficient_quota", "insufficient_quota"), InsufficientBalance),
    (429, fault("credit_balance_exhausted"), InsufficientBalance),
    (429, fault("organization_spend_limit_exceeded"), InsufficientBalance),
    (429, fault("project_spend_limit_exceeded"), InsufficientBalance),
    (429, fault("organization_usage_limit_exceeded"), InsufficientBalance),
    (500, fault(None, "server_error"), SubmissionUnknown),
    (503, fault("server_is_overloaded", "service_unavailable_error"), Overloaded),
    (503, fault(None, "service_unavailable_error"), Overloaded),
    (502, b"<html><body>Bad Gateway</body></html>", SubmissionUnknown),
    (503, b"<html>", SubmissionUnknown),
    (418, b"[]", InvalidRequest),
]


@pytest.mark.parametrize("usage", ["much", {"prompt_tokens": None}, {"prompt_tokens": 1.5}, []])
def test_a_text_is_not_given_up_for_tokens_that_are_told_in_another_way(usage: object) -> None:
    told = {"choices": [{"message": {"content": "A tale."}, "finish_reason": "stop"}], "usage": usage}
    assert answers.text(answer(told), 50) == answers.Result(b"A tale.", {})


@pytest.mark.parametrize("count", [-5, 10**30])
def test_tokens_that_nobody_can_have_used_are_not_booked(count: int) -> None:
    for spec in OpenAIAdapter().models():
        assert prices.settled_millis(spec, {"text_in": count, "text_out": 1}) is None


@pytest.mark.parametrize(("status", "body", "expected"), ERRORS)
def test_every_error_of_a_submission_is_of_its_class(
    status: int, body: object, expected: type[ProviderError]
) -> None:
    error = answers.submit_error(answer(body, status), T0_MS)
    assert type(error) is expected
    assert error.charged == ("maybe" if expected is SubmissionUnknown else "no")
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (500, fault(None, "server_error"), TransientFailure),
        (502, b"<html>", TransientFailure),
        (418, b"", ProtocolViolation),
        (401, fault("invalid_api_key"), AuthFailed),
    ],
)
def test_an_error_of_a_question_that_costs_nothing_leaves_nothing_in_doubt(
    status: int, body: object, expected: type[ProviderError]
) -> None:
    assert type(answers.read_error(answer(body, status), T0_MS)) is expected


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "20"}, 20.0),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-tokens": "90",
                "x-ratelimit-reset-tokens": "10m0s",
            },
            360.0,
        ),
        ({}, None),
    ],
)
def test_a_rate_limit_says_when_to_come_back(headers: dict[str, str], wait_s: float | None) -> None:
    error = answers.submit_error(answer(fault("rate_limit_exceeded"), 429, headers), T0_MS)
    assert error.retry_after_s == wait_s


def test_the_request_s_id_is_told_for_the_provider_s_support() -> None:
    error = answers.submit_error(answer(fault("slow_down"), 429, {"x-request-id": "req_123"}), T0_MS)
    assert str(error) == "openai answered 429 slow_down invalid_request_error req_123"


def test_a_picture_is_decoded_and_its_tokens_are_counted_by_their_kind() -> None:
    result = answers.picture(answer(PICTURE))
    assert result.content == PNG
    assert result.tokens == {"text_in": 50, "image_in": 0, "image_out": 4160}
    # 50 · 5 + 4160 · 30 dollars a million are 0.12505 dollars.
    assert prices.settled_millis(SPECS["gpt-image-2"], result.tokens) == 126


def test_tokens_whose_kind_is_not_told_cost_what_the_dearer_kind_does() -> None:
    body = PICTURE | {"usage": {"input_tokens": 1000, "output_tokens": 0}}
    assert prices.settled_millis(SPECS["gpt-image-2"], answers.picture(answer(body)).tokens) == 8


def test_a_compatible_provider_that_tells_no_tokens_is_booked_as_expected() -> None:
    result = answers.picture(answer({"data": PICTURE["data"]}))
    assert prices.settled_millis(SPECS["gpt-image-2"], result.tokens) is None


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        {},
        {"data": []},
        {"data": [{"url": "https://example.com/x.png"}]},
        {"data": [{"b64_json": "*** not base64 ***"}]},
        {"data": [{"b64_json": ""}]},
        {"data": [{"b64_json": "aGk="}, {"b64_json": "aGk="}]},
    ],
)
def test_a_success_without_a_picture_is_paid_and_never_sent_again(body: object) -> None:
    with pytest.raises(SubmissionUnknown) as unknown:
        answers.picture(answer(body))
    assert unknown.value.charged in ("maybe", "yes")


def test_a_text_is_what_the_model_wrote_and_costs_its_tokens() -> None:
    result = answers.text(answer(completion("  A tall white tower.\n")), 100)
    assert result.content == b"A tall white tower."
    # 1000 · 0.75 + 2000 · 4.5 dollars a million are 0.00975 dollars.
    assert prices.settled_millis(SPECS["gpt-5-mini"], result.tokens) == 10


def test_a_text_has_no_more_words_than_were_asked_for() -> None:
    result = answers.text(answer(completion("one two\n\nthree four five", finish="length")), 3)
    assert result.content == b"one two\n\nthree"


@pytest.mark.parametrize("body", [completion(None, refusal="No."), completion("x", finish="content_filter")])
def test_a_refused_text_is_the_customer_s_answer(body: object) -> None:
    with pytest.raises(ContentBlocked) as blocked:
        answers.text(answer(body), 10)
    assert blocked.value.charged == "yes"


def test_a_model_that_thought_for_too_long_wrote_nothing_and_is_paid() -> None:
    with pytest.raises(GenerationFailed, match="length") as failed:
        answers.text(answer(completion("  ", finish="length")), 10)
    assert failed.value.charged == "yes"


@pytest.mark.parametrize("body", [b"", {"choices": []}, {"choices": [{"message": "text"}]}])
def test_a_success_without_a_text_is_in_doubt(body: object) -> None:
    with pytest.raises(SubmissionUnknown):
        answers.text(answer(body), 10)
