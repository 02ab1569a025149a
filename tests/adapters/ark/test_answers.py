"""What Ark's answers mean: states of tasks, every documented error, and what is found of an attempt in doubt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.provider_pool.adapters.ark.adapter import ArkAdapter
from services.provider_pool.adapters.ark.requests import mark_of, seed_of
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AuthFailed,
    ConcurrencyLimited,
    ContentBlocked,
    Generation,
    GenerationDied,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    Kind,
    ModelNotEnabled,
    OutputRef,
    Overloaded,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    Role,
    Snapshot,
    SubmissionUnknown,
    TaskNotFound,
    TaskRef,
    TaskState,
    TransientFailure,
)
from tests.adapters.scripted import ScriptedCalls, account, answer, context
from tests.clocks import T0_MS

ADAPTER = ArkAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
ACCOUNT = account("ark")
FILM = Generation(Kind.VIDEO, "seedance-2.0", "a secret mill", 1280, 720, 5)
TASK = TaskRef("cgt-1", T0_MS, {"model": "seedance-2.0", "video": "0"})
ENDED = {
    "id": "cgt-1",
    "model": "dreamina-seedance-2-0-260128",
    "status": "succeeded",
    "error": None,
    "created_at": 1795257600,
    "updated_at": 1795257720,
    "content": {"video_url": "https://tos.example/x.mp4?X-Tos-1", "last_frame_url": None},
    "usage": {"completion_tokens": 108900, "total_tokens": 108900},
    "seed": 58944,
    "resolution": "720p",
    "ratio": "16:9",
    "duration": 5,
    "framespersecond": 24,
    "generate_audio": True,
}


def refusal(code: str, status: int, message: str = "a secret mill. Request id: 1") -> HttpAnswer:
    """An error as the documents have it."""
    return answer({"error": {"code": code, "message": message, "param": "", "type": "BadRequest"}}, status)


async def submission(reply: HttpAnswer) -> ProviderError:
    """What a refused submission raises."""
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    with pytest.raises(ProviderError) as raised:
        await ADAPTER.submit(context(ScriptedCalls(reply)), ACCOUNT, prepared, "job_1:1")
    return raised.value


async def poll(reply: HttpAnswer) -> Snapshot:
    """A poll of the one task."""
    return await ADAPTER.poll(context(ScriptedCalls(reply)), ACCOUNT, TASK)


async def test_a_task_that_succeeded_has_its_film_and_what_its_tokens_cost() -> None:
    found = await poll(answer(ENDED))
    assert found.state is TaskState.SUCCEEDED
    assert found.outputs == (OutputRef(Role.PRIMARY, "https://tos.example/x.mp4?X-Tos-1", "video/mp4"),)
    # 108,900 tokens at 7 dollars a million are 0.7623 dollars.
    assert found.cost_millis == 763


async def test_the_last_frame_is_an_output_of_its_own() -> None:
    content = {"video_url": "https://tos.example/x.mp4", "last_frame_url": "https://tos.example/x.png"}
    found = await poll(answer({**ENDED, "content": content}))
    assert [output.role for output in found.outputs] == [Role.PRIMARY, Role.LAST_FRAME]


@pytest.mark.parametrize(
    ("status", "state"),
    [("queued", TaskState.QUEUED), ("running", TaskState.RUNNING), ("paused", TaskState.RUNNING)],
)
async def test_a_task_under_way_is_asked_about_again(status: str, state: TaskState) -> None:
    found = await poll(answer({**ENDED, "status": status, "content": None, "usage": None}))
    assert found.state is state
    assert found.poll_after_ms >= 2_000


@pytest.mark.parametrize(
    ("changed", "error", "charged"),
    [
        ({"status": "succeeded", "content": None}, GenerationFailed, "yes"),
        ({"status": "cancelled"}, GenerationFailed, "no"),
        ({"status": "expired"}, GenerationDied, "no"),
        ({"error": {"code": "OutputVideoSensitiveContentDetected", "message": "m"}}, ContentBlocked, "no"),
        (
            {"error": {"code": "OutputVideoSensitiveContentDetected.PolicyViolation", "message": "m"}},
            ContentBlocked,
            "no",
        ),
        ({"error": {"code": "InputTextSensitiveContentDetected", "message": "m"}}, ContentBlocked, "no"),
        ({"error": {"code": "InternalServiceError", "message": "m"}}, GenerationDied, "no"),
        ({"error": {"code": "InvalidParameter.TaskTypeConstraint", "message": "m"}}, InvalidRequest, "no"),
        ({"error": {"code": "SomethingNew", "message": "m"}}, GenerationFailed, "no"),
        ({"error": None}, GenerationDied, "no"),
    ],
)
async def test_a_task_that_failed_says_why_and_what_it_took(
    changed: dict[str, object], error: type[ProviderError], charged: str
) -> None:
    found = await poll(answer({**ENDED, "status": "failed", "content": None, **changed}))
    assert found.state is TaskState.FAILED
    assert type(found.error) is error
    assert found.error.charged == charged
    assert found.cost_millis == (763 if charged == "yes" else 0)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "MissingParameter", InvalidRequest),
        (400, "InvalidParameter", InvalidRequest),
        (400, "InvalidParameter.TaskTypeConstraint", InvalidRequest),
        (400, "InvalidEndpoint.ClosedEndpoint", ModelNotEnabled),
        (400, "SensitiveContentDetected", ContentBlocked),
        (400, "InputTextSensitiveContentDetected", ContentBlocked),
        (400, "InputImageSensitiveContentDetected.PrivacyInformation", ContentBlocked),
        (400, "InputVideoSensitiveContentDetected.PolicyViolation", ContentBlocked),
        (400, "OutputTextSensitiveContentDetected", ContentBlocked),
        (401, "AuthenticationError", AuthFailed),
        (401, "InvalidAccountStatus", AuthFailed),
        (401, "SomethingNew", AuthFailed),
        (403, "AccountOverdueError", InsufficientBalance),
        (403, "ServiceOverdue", InsufficientBalance),
        (403, "AccessDenied", AccountRestricted),
        (403, "ServiceNotOpen", AccountRestricted),
        (403, "OperationDenied.InvalidState", AccountRestricted),
        (404, "ModelNotOpen", ModelNotEnabled),
        (404, "InvalidEndpointOrModel.NotFound", ModelNotEnabled),
        (404, "ResourceNotFound", InvalidRequest),
        (418, "SomethingNew", InvalidRequest),
        (429, "RateLimitExceeded.EndpointRPMExceeded", RateLimited),
        (429, "RateLimitExceeded.EndpointTPMExceeded", RateLimited),
        (429, "ModelAccountRpmRateLimitExceeded", RateLimited),
        (429, "ModelAccountTpmRateLimitExceeded", RateLimited),
        (429, "APIAccountRpmRateLimitExceeded", RateLimited),
        (429, "RequestBurstTooFast", RateLimited),
        (429, "SomethingNew", RateLimited),
        (429, "AccountConcurrencyExceeded", ConcurrencyLimited),
        (429, "ServerOverloaded", Overloaded),
        (429, "ModelLoadingError", Overloaded),
        (429, "QuotaExceeded", ModelNotEnabled),
        (429, "SetLimitExceeded", ModelNotEnabled),
        (500, "InternalServiceError", SubmissionUnknown),
        (503, "SomethingNew", SubmissionUnknown),
    ],
)
async def test_every_documented_refusal_has_its_class(
    status: int, code: str, error: type[ProviderError]
) -> None:
    raised = await submission(refusal(code, status))
    assert type(raised) is error
    assert "secret" not in str(raised)


async def test_a_refusal_says_how_long_to_wait() -> None:
    reply = refusal("RequestBurstTooFast", 429)
    raised = await submission(HttpAnswer(429, {"retry-after": "7"}, reply.body))
    assert raised.retry_after_s == 7


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer(b"<html>502 Bad Gateway</html>", 502), SubmissionUnknown),
        (answer(b"<html>403</html>", 403), TransientFailure),
        (answer(b'{"id":', 200), SubmissionUnknown),
        (answer([], 200), SubmissionUnknown),
        (answer({"id": 7}, 200), SubmissionUnknown),
        (answer({}, 302), SubmissionUnknown),
    ],
)
async def test_what_is_not_understood_leaves_a_submission_in_doubt(
    reply: HttpAnswer, error: type[ProviderError]
) -> None:
    assert type(await submission(reply)) is error


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (refusal("ResourceNotFound.Task", 404), TaskNotFound),
        (answer(b"", 404), TaskNotFound),
        (refusal("InternalServiceError", 500), TransientFailure),
        (answer(b"<html>502</html>", 502), TransientFailure),
        (answer(b"<html>", 200), ProtocolViolation),
        (refusal("AuthenticationError", 401), AuthFailed),
        (refusal("RequestBurstTooFast", 429), RateLimited),
    ],
)
async def test_a_poll_that_is_not_answered_says_why(reply: HttpAnswer, error: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as raised:
        await poll(reply)
    assert type(raised.value) is error


async def test_many_tasks_are_asked_about_in_one_call() -> None:
    calls = ScriptedCalls(answer({"total": 2, "items": [ENDED, {"id": "cgt-9", "status": "queued"}]}))
    found = await ADAPTER.poll_many(context(calls), ACCOUNT, [TASK, replace(TASK, task_id="cgt-2")])
    assert set(found) == {"cgt-1"}
    assert found["cgt-1"].cost_millis == 763
    assert [pair for pair in calls.only.query if pair[0] == "filter.task_ids"] == [
        ("filter.task_ids", "cgt-1"),
        ("filter.task_ids", "cgt-2"),
    ]


def listed(**changed: object) -> dict[str, object]:
    """A task in the list, begun two seconds after the attempt."""
    return {**ENDED, "created_at": T0_MS // 1000 + 2, **changed}


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (listed(safety_identifier=mark_of("job_1:1")), True),
        (listed(safety_identifier=mark_of("job_1:2")), False),
        (listed(safety_identifier=mark_of("job_1:1"), created_at=T0_MS // 1000 - 60), False),
        (listed(seed=seed_of(FILM, "job_1:1")), True),
        (listed(seed=seed_of(FILM, "job_1:1"), duration=6), False),
        (listed(seed=seed_of(FILM, "job_1:2")), False),
        (listed(seed=None), False),
    ],
)
async def test_only_a_task_that_carries_the_attempts_mark_is_its_own(
    item: dict[str, object], found: bool
) -> None:
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    calls = ScriptedCalls(answer({"total": 1, "items": [item]}))
    tasks = await ADAPTER.list_tasks(context(calls), ACCOUNT, prepared, T0_MS, "job_1:1")
    assert [task.task_id for task in tasks] == (["cgt-1"] if found else [])
    assert ("filter.model", "dreamina-seedance-2-0-260128") in calls.only.query


async def test_a_seed_that_the_customer_chose_identifies_nothing() -> None:
    seeded = replace(FILM, seed=42)
    prepared = ADAPTER.prepare(seeded, SPECS[FILM.model])
    calls = ScriptedCalls(answer({"total": 1, "items": [listed(seed=42)]}))
    assert await ADAPTER.list_tasks(context(calls), ACCOUNT, prepared, T0_MS, "job_1:1") == []


@pytest.mark.parametrize(
    ("before", "deleted", "charged"),
    [
        ({"status": "queued"}, answer(None, 200), "no"),
        ({"status": "queued"}, refusal("TaskRunningCannotCancel", 409), "maybe"),
        # What runs may have ended when the call arrives, which deletes the record then.
        ({"status": "running"}, None, "maybe"),
        ({"status": "succeeded"}, None, "yes"),
        ({"status": "succeeded", "content": None}, None, "yes"),
        ({"status": "failed"}, None, "no"),
    ],
)
async def test_only_what_waits_is_cancelled_and_what_has_ended_keeps_its_record(
    before: dict[str, object], deleted: HttpAnswer | None, charged: str
) -> None:
    replies = [answer({**ENDED, **before}), *([deleted] if deleted else [])]
    calls = ScriptedCalls(*replies)
    assert (await ADAPTER.cancel(context(calls), ACCOUNT, TASK)).charged == charged
    assert [sent.method for sent in calls.sent] == (["GET", "DELETE"] if deleted else ["GET"])


async def test_a_key_is_proved_by_a_list_of_one() -> None:
    calls = ScriptedCalls(answer({"total": 0, "items": []}))
    status = await ADAPTER.check(context(calls), ACCOUNT)
    assert (status.ok, status.balance_millis) == (True, None)
    assert calls.only.query == (("page_num", "1"), ("page_size", "1"))


async def test_a_callback_only_names_its_task() -> None:
    hint = await ADAPTER.hint(context(ScriptedCalls()), ACCOUNT, {}, answer(ENDED).body)
    assert hint is not None
    assert hint.task_ids == ("cgt-1",)
    assert await ADAPTER.hint(context(ScriptedCalls()), ACCOUNT, {}, b"<html>") is None


async def test_a_film_is_fetched_without_credentials() -> None:
    calls = ScriptedCalls(answer(b"film"))
    output = OutputRef(Role.PRIMARY, "https://tos.example/x.mp4")
    async with ADAPTER.open_output(context(calls), ACCOUNT, TASK, output) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"film"
    assert calls.only.headers == {}
