"""What Leonardo's answers mean: generations, balances, webhooks, and every documented error, also those with status 200."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AuthFailed,
    ConcurrencyLimited,
    ContentBlocked,
    Generation,
    GenerationFailed,
    Hint,
    InsufficientBalance,
    InvalidRequest,
    Kind,
    ModelNotEnabled,
    Prepared,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    Reference,
    ReferenceRejected,
    RemoteFile,
    Snapshot,
    Submission,
    SubmissionUnknown,
    TaskNotFound,
    TaskRef,
    TaskState,
    TransientFailure,
)
from services.provider_pool.adapters.leonardo.adapter import LeonardoAdapter
from tests.adapters.scripted import ScriptedCalls, account, answer, context, image_file
from tests.clocks import T0_MS, HandClock

ADAPTER = LeonardoAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
ACCOUNT = account("leonardo")
FILM = Generation(Kind.VIDEO, "seedance-2.0", "a secret mill", 1280, 720, 8)
TASK = TaskRef("gen-1", T0_MS, {"kind": "video", "cost_millis": "800"})
# T0 is 2027-01-15T08:00:00Z.
ITEM = {
    "id": "gen-1",
    "status": "COMPLETE",
    "createdAt": "2027-01-15T08:00:02.000",
    "modelId": None,
    "prompt": "a secret mill",
    "imageWidth": 1280,
    "imageHeight": 720,
    "generated_images": [
        {"id": "i", "url": "https://cdn.example/x.jpg", "motionMP4URL": "https://cdn.example/x.mp4"}
    ],
}
ME = {
    "user_details": [
        {
            "user": {"id": "user-1", "username": "x"},
            "apiPaidTokens": 12000,
            "apiSubscriptionTokens": 500,
            "apiConcurrencySlots": 10,
            "apiPlanTokenRenewalDate": "2026-12-01T00:00:00.000",
            "tokenRenewalDate": None,
        }
    ]
}


async def submit(reply: HttpAnswer) -> Submission:
    """A submission of the film."""
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    return await ADAPTER.submit(context(ScriptedCalls(reply)), ACCOUNT, prepared, "job_1:1")


async def refused(reply: HttpAnswer) -> ProviderError:
    """What a submission that was refused raises."""
    with pytest.raises(ProviderError) as raised:
        await submit(reply)
    return raised.value


async def poll(item: object, task: TaskRef = TASK) -> Snapshot:
    """A poll of the one task."""
    reply = answer({"generations_by_pk": item})
    return await ADAPTER.poll(context(ScriptedCalls(reply)), ACCOUNT, task)


def refusal(status: int, text: str, code: str = "unexpected") -> HttpAnswer:
    """An error as the documents have it."""
    return answer({"error": text, "path": "$", "code": code}, status)


def listed_refusal(text: str, code: str) -> HttpAnswer:
    """An error of the second API: status 200 and a list."""
    told = {"code": code, "details": {"message": text}}
    return answer([{"message": "a secret mill", "extensions": told, "path": ["generate"]}])


@pytest.mark.parametrize(
    ("body", "cost_millis"),
    [
        (
            {"generate": {"generationId": "gen-1", "cost": {"amount": "0.80", "unit": "DOLLARS"}}},
            "800",
        ),
        ({"generationId": "gen-1", "apiCreditCost": 80}, "800"),
        ({"generationId": "gen-1", "apiCreditCost": None}, None),
        (
            {
                "sdGenerationJob": {
                    "generationId": "gen-1",
                    "apiCreditCost": 7,
                    "cost": {"amount": "0.0125", "unit": "DOLLARS"},
                }
            },
            "13",
        ),
        ({"generate": {"generationId": "gen-1", "cost": {"amount": "7", "unit": "CREDITS"}}}, "70"),
    ],
)
async def test_what_was_begun_is_read_in_every_documented_shape(
    body: dict[str, object], cost_millis: str | None
) -> None:
    submission = await submit(answer(body))
    task = submission.task
    assert task.task_id == "gen-1"
    assert task.state.get("cost_millis") == cost_millis
    assert submission.cost_millis == (None if cost_millis is None else int(cost_millis))


async def test_a_film_is_its_mp4_and_costs_what_was_told_when_it_was_begun() -> None:
    found = await poll(ITEM)
    assert found.state is TaskState.SUCCEEDED
    assert [output.location for output in found.outputs] == ["https://cdn.example/x.mp4"]
    assert found.cost_millis == 800


async def test_a_picture_is_its_url() -> None:
    found = await poll(ITEM, replace(TASK, state={"kind": "image"}))
    assert [output.location for output in found.outputs] == ["https://cdn.example/x.jpg"]
    assert found.cost_millis is None


@pytest.mark.parametrize(
    ("given", "location"),
    [
        ({"audioUrl": "https://cdn.example/x.mp3", "url": "https://cdn.example/x.jpg"}, "x.mp3"),
        ({"motionMP4URL": "https://cdn.example/y.mp3", "url": None}, "y.mp3"),
        ({"url": "https://cdn.example/z.mp3"}, "z.mp3"),
    ],
)
async def test_a_sound_is_looked_for_wherever_it_may_be(given: dict[str, object], location: str) -> None:
    found = await poll({**ITEM, "generated_images": [given]}, replace(TASK, state={"kind": "music"}))
    assert found.outputs[0].location.endswith(location)


@pytest.mark.parametrize(
    ("changed", "error", "charged"),
    [
        ({"status": "FAILED", "generated_images": []}, GenerationFailed, "maybe"),
        ({"generated_images": []}, GenerationFailed, "yes"),
        ({"generated_images": [{"url": "https://cdn.example/x.jpg"}]}, ProtocolViolation, "yes"),
    ],
)
async def test_a_generation_without_an_output_has_failed(
    changed: dict[str, object], error: type[ProviderError], charged: str
) -> None:
    found = await poll({**ITEM, **changed})
    assert found.state is TaskState.FAILED
    assert type(found.error) is error
    assert found.error.charged == charged
    assert found.cost_millis == 800


@pytest.mark.parametrize("status", ["PENDING", "WAITING"])
async def test_a_generation_under_way_is_asked_about_again(status: str) -> None:
    found = await poll({**ITEM, "status": status, "generated_images": []})
    assert found.state is TaskState.RUNNING
    assert found.poll_after_ms >= 2_000


@pytest.mark.parametrize("reply", [answer({"generations_by_pk": None}), answer({}, 404)])
async def test_a_generation_that_is_not_known_is_said_to_be(reply: HttpAnswer) -> None:
    with pytest.raises(TaskNotFound):
        await ADAPTER.poll(context(ScriptedCalls(reply)), ACCOUNT, TASK)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (refusal(401, "Authentication hook unauthorized this request", "access-denied"), AuthFailed),
        (refusal(500, "Invalid response from authorization hook"), AuthFailed),
        (refusal(400, "not enough api tokens userId: 1"), InsufficientBalance),
        (refusal(402, "pay"), InsufficientBalance),
        (refusal(403, "We detected inappropriate content"), ContentBlocked),
        (refusal(403, "content moderation filter: X"), ContentBlocked),
        (refusal(403, "no"), AccountRestricted),
        (refusal(400, "a secret mill", "validation-failed"), InvalidRequest),
        (refusal(400, "Unexpected variable x", "bad-request"), InvalidRequest),
        (refusal(400, "invalid dimensions"), InvalidRequest),
        (refusal(400, "Too many images"), InvalidRequest),
        (refusal(400, "Invalid init image id", "validation-failed"), ReferenceRejected),
        (refusal(400, "couldn't access image"), ReferenceRejected),
        (refusal(400, "abc is not supported within the Production API"), ModelNotEnabled),
        (refusal(429, "slow down"), RateLimited),
        (refusal(429, "too many concurrent jobs"), ConcurrencyLimited),
        (refusal(503, "Service Error"), TransientFailure),
        (refusal(504, "Service Error"), SubmissionUnknown),
        (answer({"message": "Internal server error"}, 500), SubmissionUnknown),
        (answer({"message": "Endpoint request timed out"}, 504), SubmissionUnknown),
        (answer(b"", 408), SubmissionUnknown),
        (refusal(400, "prompt is too long: 'not enough api tokens'", "validation-failed"), InvalidRequest),
        (refusal(400, "unfit: x\nnot enough api tokens", "validation-failed"), InvalidRequest),
        (refusal(400, "unfit: a is not supported within the Production API", "bad-request"), InvalidRequest),
        (answer(b"", 503), SubmissionUnknown),
        (answer(b"<html>502</html>", 502), SubmissionUnknown),
        (answer(b"{", 200), SubmissionUnknown),
        (answer({"generate": None}, 200), SubmissionUnknown),
        (listed_refusal("width is wrong", "VALIDATION_ERROR"), InvalidRequest),
        (listed_refusal("not enough api tokens", "ERROR"), InsufficientBalance),
        (listed_refusal("content moderation filter: X", "ERROR"), ContentBlocked),
        (listed_refusal("PROMPT_MODERATION_BLOCKED", "ERROR"), ContentBlocked),
        (listed_refusal("oops", "INTERNAL_SERVER_ERROR"), SubmissionUnknown),
        (listed_refusal("oops", "TIMEOUT"), SubmissionUnknown),
        (listed_refusal("oops", "BAD_USER_INPUT"), InvalidRequest),
        (answer([], 200), SubmissionUnknown),
    ],
)
async def test_every_documented_refusal_has_its_class(reply: HttpAnswer, error: type[ProviderError]) -> None:
    raised = await refused(reply)
    assert type(raised) is error
    assert "secret" not in str(raised)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (refusal(500, "Invalid response from authorization hook"), AuthFailed),
        (refusal(500, "Service Error"), TransientFailure),
        (answer(b"<html>504</html>", 504), TransientFailure),
        (refusal(429, "slow down"), RateLimited),
        (refusal(400, "what", "bad-request"), ProtocolViolation),
        (answer(b"<html>", 200), ProtocolViolation),
        (answer([{"message": "what"}]), ProtocolViolation),
    ],
)
async def test_a_poll_that_is_not_answered_says_why(reply: HttpAnswer, error: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as raised:
        await ADAPTER.poll(context(ScriptedCalls(reply)), ACCOUNT, TASK)
    assert type(raised.value) is error


async def test_a_few_tasks_are_asked_about_one_by_one() -> None:
    calls = ScriptedCalls(answer({"generations_by_pk": ITEM}), answer({"generations_by_pk": None}))
    found = await ADAPTER.poll_many(context(calls), ACCOUNT, [TASK, replace(TASK, task_id="gen-2")])
    assert set(found) == {"gen-1"}


async def test_many_tasks_are_read_off_the_list_and_what_slid_off_it_is_still_found() -> None:
    tasks = [replace(TASK, task_id=f"gen-{n}") for n in range(1, 6)]
    page = [{**ITEM, "id": f"gen-{n}"} for n in (1, 2, 3, 4, 9)]
    lost = {**ITEM, "id": "gen-5", "status": "PENDING", "generated_images": []}
    calls = ScriptedCalls(answer(ME), answer({"generations": page}), answer({"generations_by_pk": lost}))
    found = await ADAPTER.poll_many(context(calls), ACCOUNT, tasks)
    assert set(found) == {task.task_id for task in tasks}
    assert found["gen-5"].state is TaskState.RUNNING
    assert calls.sent[1].url.endswith("/api/rest/v1/generations/user/user-1")


async def test_what_slid_off_the_list_costs_four_more_questions_and_the_others_are_no_news() -> None:
    tasks = [replace(TASK, task_id=f"gen-{n}") for n in range(100)]
    gone = [answer({"generations_by_pk": None})] * 4
    calls = ScriptedCalls(answer(ME), answer({"generations": []}), *gone)
    found = await ADAPTER.poll_many(context(calls), ACCOUNT, tasks)
    assert len(calls.sent) == 6
    assert [one.state for one in found.values()] == [TaskState.RUNNING] * 96


async def test_everything_that_slid_off_the_list_is_asked_about_before_long() -> None:
    tasks = [replace(TASK, task_id=f"gen-{n}") for n in range(12)]
    asked: set[str] = set()
    for _ in range(100):
        one = answer({"generations_by_pk": ITEM})
        calls = ScriptedCalls(answer(ME), answer({"generations": []}), *[one] * 4)
        await ADAPTER.poll_many(context(calls), ACCOUNT, tasks)
        asked |= {sent.url.rpartition("/")[2] for sent in calls.sent[2:]}
    assert asked == {task.task_id for task in tasks}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, True),
        ({"prompt": "another mill"}, False),
        ({"imageWidth": 720}, False),
        ({"imageWidth": None, "imageHeight": None}, True),
        ({"createdAt": "2027-01-15T07:59:00.000"}, False),
        ({"createdAt": "yesterday"}, False),
    ],
)
async def test_an_attempt_in_doubt_is_found_by_its_words_its_size_and_its_time(
    changed: dict[str, object], found: bool
) -> None:
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    calls = ScriptedCalls(answer(ME), answer({"generations": [{**ITEM, **changed}]}))
    lent = context(calls, clock=HandClock(T0_MS + 60_000))
    tasks = await ADAPTER.list_tasks(lent, ACCOUNT, prepared, T0_MS, "job_1:1")
    assert [task.task_id for task in tasks] == (["gen-1"] if found else [])
    assert all(task.submitted_at_ms == T0_MS + 2_000 for task in tasks)


def followed(folder: Path, **changed: Any) -> Prepared:
    asked = replace(FILM, references=(Reference(),), **changed)
    prepared = ADAPTER.prepare(asked, SPECS[FILM.model], [image_file(folder)])
    return replace(prepared, uploads=(RemoteFile("image-1"),))


async def test_words_that_others_send_too_do_not_make_their_pictures_this_attempt_s(tmp_path: Path) -> None:
    prepared = followed(tmp_path)
    begun = ScriptedCalls(answer({"generationId": "gen-1"}))
    await ADAPTER.submit(context(begun), ACCOUNT, prepared, "job_1:1")
    sent = begun.only.json
    assert isinstance(sent, dict)
    seed = sent["parameters"]["seed"]
    items = [
        {**ITEM, "id": "theirs", "seed": 5},
        {**ITEM, "seed": seed},
        {**ITEM, "id": "untold", "seed": None},
    ]
    calls = ScriptedCalls(answer(ME), answer({"generations": items}))
    tasks = await ADAPTER.list_tasks(context(calls), ACCOUNT, prepared, T0_MS, "job_1:1")
    assert [task.task_id for task in tasks] == ["gen-1"]


async def test_a_wished_seed_marks_nobody_s_pictures(tmp_path: Path) -> None:
    calls = ScriptedCalls(answer(ME), answer({"generations": [{**ITEM, "seed": 5}]}))
    prepared = followed(tmp_path, seed=5)
    assert await ADAPTER.list_tasks(context(calls), ACCOUNT, prepared, T0_MS, "job_1:1") == []


@pytest.mark.parametrize("told", ["0.80", {"amount": ["x"], "unit": 7}, 5])
async def test_a_generation_that_was_taken_is_not_given_up_for_its_price(told: object) -> None:
    calls = ScriptedCalls(answer({"generate": {"generationId": "gen-1", "cost": told, "apiCreditCost": "?"}}))
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    begun = await ADAPTER.submit(context(calls), ACCOUNT, prepared, "job_1:1")
    assert begun.task.task_id == "gen-1"
    assert "cost_millis" not in begun.task.state


async def test_a_webhook_with_a_strange_header_is_nobody_s() -> None:
    keyed = account("leonardo", {"api_key": "key-1", "webhook_secret": "s"})
    headers = {"authorization": "Bearer \udc80"}
    assert await ADAPTER.hint(context(ScriptedCalls()), keyed, headers, b"{}") is None


@pytest.mark.parametrize(
    ("options", "balance"), [({}, 125_000), ({"token_usd_micros": "1000000"}, 12_500_000)]
)
async def test_a_key_is_proved_by_its_user_with_balance_slots_and_renewal(
    options: dict[str, str], balance: int
) -> None:
    calls = ScriptedCalls(answer(ME))
    status = await ADAPTER.check(context(calls), account("leonardo", options=options))
    assert (status.ok, status.balance_millis, status.concurrency_limit) == (True, balance, 10)
    assert status.renews_at_ms == 1_796_083_200_000
    assert calls.only.url == "https://cloud.leonardo.ai/api/rest/v1/me"


WEBHOOK = json.dumps(
    {
        "type": "image_generation.complete",
        "object": "generation",
        "timestamp": 1730000000000,
        "api_version": "v1",
        "data": {
            "object": {
                "id": "gen-1",
                "status": "COMPLETE",
                "apiKey": {"webhookCallbackApiKey": "hook-1"},
            }
        },
    }
).encode()


@pytest.mark.parametrize(
    ("told", "hint"),
    [
        ({"authorization": "Bearer hook-1"}, Hint(("gen-1",))),
        ({"authorization": "Bearer hook-2"}, None),
        ({}, None),
    ],
)
async def test_a_webhook_is_heard_only_with_its_callback_key(told: dict[str, str], hint: Hint | None) -> None:
    known = account("leonardo", {"api_key": "key-1", "webhook_secret": "hook-1"})
    assert await ADAPTER.hint(context(ScriptedCalls()), known, told, WEBHOOK) == hint


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data":{"object":{"id":"a b"}}}'])
async def test_a_webhook_that_names_no_generation_is_nothing(body: bytes) -> None:
    assert await ADAPTER.hint(context(ScriptedCalls()), ACCOUNT, {}, body) is None
