"""What Runway's answers mean: states of tasks, what they cost, and every documented error."""

from __future__ import annotations

import pytest

from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AuthFailed,
    ContentBlocked,
    Generation,
    GenerationDied,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    Kind,
    OutputRef,
    OutputUnavailable,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    ReferenceRejected,
    Role,
    Snapshot,
    SubmissionUnknown,
    TaskNotFound,
    TaskRef,
    TaskState,
    TransientFailure,
)
from services.provider_pool.adapters.runway.adapter import RunwayAdapter
from tests.adapters.scripted import ScriptedCalls, account, answer, context
from tests.clocks import T0_MS

ADAPTER = RunwayAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
ACCOUNT = account("runway")
FILM = Generation(Kind.VIDEO, "seedance-2.0", "a secret mill", 1280, 720, 5)
TASK = TaskRef("task-1", T0_MS)
ENDED = {
    "id": "task-1",
    "createdAt": "2026-11-21T10:00:00Z",
    "status": "SUCCEEDED",
    "output": ["https://cdn.example/x.mp4?sig=1"],
    "cost": {"credits": 36},
}


async def poll(reply: HttpAnswer) -> Snapshot:
    """A poll of the one task."""
    return await ADAPTER.poll(context(ScriptedCalls(reply)), ACCOUNT, TASK)


async def refused(reply: HttpAnswer) -> ProviderError:
    """What a submission that was refused raises."""
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    with pytest.raises(ProviderError) as raised:
        await ADAPTER.submit(context(ScriptedCalls(reply)), ACCOUNT, prepared, "job_1:1")
    return raised.value


async def test_a_task_that_succeeded_has_its_film_and_what_it_cost() -> None:
    found = await poll(answer(ENDED))
    assert found.state is TaskState.SUCCEEDED
    assert found.outputs == (OutputRef(Role.PRIMARY, "https://cdn.example/x.mp4?sig=1", "video/mp4"),)
    assert found.cost_millis == 36_000


@pytest.mark.parametrize(
    ("changed", "state", "progress"),
    [
        ({"status": "PENDING"}, TaskState.QUEUED, 0),
        ({"status": "THROTTLED"}, TaskState.QUEUED, 0),
        ({"status": "RUNNING", "progress": 0.42}, TaskState.RUNNING, 42),
        ({"status": "RUNNING", "progress": 1.0}, TaskState.RUNNING, 99),
        ({"status": "PAUSED"}, TaskState.RUNNING, 0),
    ],
)
async def test_a_task_under_way_is_asked_about_again_and_not_too_soon(
    changed: dict[str, object], state: TaskState, progress: int
) -> None:
    found = await poll(answer({"id": "task-1", "createdAt": "2026-11-21T10:00:00Z", **changed}))
    assert (found.state, found.progress) == (state, progress)
    assert found.poll_after_ms >= 5_000


@pytest.mark.parametrize(
    ("code", "took", "error", "charged"),
    [
        ("SAFETY.INPUT.TEXT", 36, ContentBlocked, "yes"),
        ("SAFETY.OUTPUT.VIDEO", 0, ContentBlocked, "no"),
        ("INPUT_PREPROCESSING.SAFETY.TEXT", 0, ContentBlocked, "no"),
        ("ASSET.INVALID", 0, ReferenceRejected, "no"),
        ("INTERNAL.BAD_OUTPUT.CODE01", 0, GenerationDied, "no"),
        ("INTERNAL.BAD_OUTPUT.CODE01", 36, GenerationFailed, "yes"),
        ("INPUT_PREPROCESSING.INTERNAL", 0, GenerationDied, "no"),
        ("THIRD_PARTY.UNAVAILABLE", 0, GenerationDied, "no"),
        ("INTERNAL", None, GenerationFailed, "maybe"),
        (None, 0, GenerationDied, "no"),
        ("SOMETHING.NEW", 0, GenerationFailed, "no"),
    ],
)
async def test_a_task_that_failed_says_why_and_what_it_took(
    code: str | None, took: int | None, error: type[ProviderError], charged: str
) -> None:
    told = {
        "id": "task-1",
        "status": "FAILED",
        "failure": "a secret mill",
        "failureCode": code,
        "cost": None if took is None else {"credits": took},
    }
    found = await poll(answer(told))
    assert found.state is TaskState.FAILED
    assert type(found.error) is error
    assert found.error.charged == charged
    assert found.cost_millis == (None if took is None else took * 1000)
    assert "secret" not in str(found.error)


@pytest.mark.parametrize(
    ("changed", "charged"),
    [({"status": "CANCELLED", "cost": {"credits": 0}}, "no"), ({"output": []}, "yes")],
)
async def test_a_task_without_a_film_has_failed(changed: dict[str, object], charged: str) -> None:
    found = await poll(answer({**ENDED, **changed}))
    assert type(found.error) is GenerationFailed
    assert found.error.charged == charged


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer({"error": "Validation of body failed"}, 400), InvalidRequest),
        (answer({"error": "You do not have enough credits to run this task."}, 400), InsufficientBalance),
        (answer({"error": "ASSET.INVALID"}, 400), ReferenceRejected),
        (answer({"error": "Unauthorized"}, 401), AuthFailed),
        (answer({"error": "pay"}, 402), InsufficientBalance),
        (answer({"error": "no"}, 403), AccountRestricted),
        (answer({"error": "Not found"}, 404), InvalidRequest),
        (answer({"error": "Method"}, 405), InvalidRequest),
        (answer({"error": "slow down"}, 429), RateLimited),
        (answer({"error": "oops"}, 500), SubmissionUnknown),
        (answer({"error": "not now"}, 502), TransientFailure),
        (answer({"error": "not now"}, 503), TransientFailure),
        (answer({"error": "not now"}, 504), SubmissionUnknown),
        (answer({"error": "slow"}, 408), SubmissionUnknown),
        (answer({"error": "unfit: 'insufficient credits'"}, 400), InvalidRequest),
        (answer(b"<html>502</html>", 502), SubmissionUnknown),
        (answer(b"{", 200), SubmissionUnknown),
        (answer({"task": 1}, 200), SubmissionUnknown),
    ],
)
async def test_every_documented_refusal_has_its_class(reply: HttpAnswer, error: type[ProviderError]) -> None:
    assert type(await refused(reply)) is error


async def test_a_limit_of_a_day_is_not_tried_again_in_a_minute() -> None:
    raised = await refused(answer({"error": "You reached your daily task limit"}, 429))
    assert raised.retry_after_s == 1_800


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer({"error": "Not found"}, 404), TaskNotFound),
        (answer({"error": "not now"}, 503), TransientFailure),
        (answer(b"<html>502</html>", 502), TransientFailure),
        (answer({"error": "Unauthorized"}, 401), AuthFailed),
        (answer({"error": "what"}, 400), ProtocolViolation),
        (answer(b"<html>", 200), ProtocolViolation),
    ],
)
async def test_a_poll_that_is_not_answered_says_why(reply: HttpAnswer, error: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as raised:
        await poll(reply)
    assert type(raised.value) is error


async def test_a_key_is_proved_by_its_organization_with_balance_and_slots() -> None:
    models = {
        "seedance2": {"maxConcurrentGenerations": 3, "maxDailyGenerations": 200},
        "seedance2_fast": {"maxConcurrentGenerations": 5, "maxDailyGenerations": 200},
        "gen4_turbo": {"maxConcurrentGenerations": 20, "maxDailyGenerations": 200},
    }
    told = {
        "creditBalance": 1234,
        "tier": {"maxMonthlyCreditSpend": 10_000, "models": models},
        "usage": {"models": {}},
    }
    calls = ScriptedCalls(answer(told))
    status = await ADAPTER.check(context(calls), ACCOUNT)
    assert (status.ok, status.balance_millis, status.concurrency_limit) == (True, 1_234_000, 5)
    assert calls.only.url == "https://api.dev.runwayml.com/v1/organization"


@pytest.mark.parametrize(
    ("replies", "charged", "methods"),
    [
        (
            [
                answer({**ENDED, "status": "RUNNING"}),
                answer(None, 204),
                answer({**ENDED, "status": "CANCELLED"}),
            ],
            "yes",
            ["GET", "DELETE", "GET"],
        ),
        (
            [answer({**ENDED, "status": "RUNNING"}), answer(None, 204), answer({}, 404)],
            "maybe",
            ["GET", "DELETE", "GET"],
        ),
        ([answer(ENDED)], "yes", ["GET"]),
    ],
)
async def test_a_task_is_cancelled_only_while_it_has_not_ended(
    replies: list[HttpAnswer], charged: str, methods: list[str]
) -> None:
    calls = ScriptedCalls(*replies)
    assert (await ADAPTER.cancel(context(calls), ACCOUNT, TASK)).charged == charged
    assert [sent.method for sent in calls.sent] == methods


OUTPUT = OutputRef(Role.PRIMARY, "https://cdn.example/old.mp4")


async def test_an_output_whose_address_has_run_out_is_fetched_from_a_new_one() -> None:
    calls = ScriptedCalls(answer(None, 403), answer(ENDED), answer(b"film"))
    async with ADAPTER.open_output(context(calls), ACCOUNT, TASK, OUTPUT) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"film"
    assert [sent.url for sent in calls.sent][2] == "https://cdn.example/x.mp4?sig=1"
    assert calls.sent[2].headers == {}


async def test_an_output_that_is_gone_for_good_is_said_to_be() -> None:
    calls = ScriptedCalls(answer(None, 403), answer({**ENDED, "status": "FAILED", "output": None}))
    with pytest.raises(OutputUnavailable):
        async with ADAPTER.open_output(context(calls), ACCOUNT, TASK, OUTPUT):
            raise AssertionError("nothing was there to open")
