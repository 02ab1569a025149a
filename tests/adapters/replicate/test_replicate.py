"""Replicate: requests as its documents have them, every state and error in its class, lists that poll and reconcile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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
    ModelNotEnabled,
    OutputUnavailable,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    Reference,
    ReferenceRole,
    RemoteFile,
    SubmissionUnknown,
    TaskNotFound,
    TaskRef,
    TaskState,
    TransientFailure,
)
from services.provider_pool.adapters.replicate import answers, requests
from services.provider_pool.adapters.replicate.adapter import ReplicateAdapter
from tests.adapters.scripted import ScriptedCalls, account, answer, context, image_file
from tests.clocks import T0_MS

ADAPTER = ReplicateAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
FILM = Generation(Kind.VIDEO, "seedance-2.0", "A red balloon", 1280, 720, duration_s=5, audio=True)
SPEC = SPECS[FILM.model]
ID = "rrr4z55ocneqzikepnug6xezpe"
TASK = TaskRef(ID, T0_MS)
KEY = {"authorization": "Bearer key-1"}
OUTPUT = "https://replicate.delivery/xezq/film.mp4"


def prediction(status: str = "starting", **changes: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": ID,
        "model": "bytedance/seedance-2.0",
        "version": "hidden",
        "input": {"prompt": "A red balloon"},
        "logs": "",
        "output": None,
        "data_removed": False,
        "error": None,
        "status": status,
        "created_at": "2027-01-15T08:00:05.000Z",
        "started_at": None,
        "completed_at": None,
        "metrics": {},
        "urls": {"get": f"https://api.replicate.com/v1/predictions/{ID}"},
    }
    return told | changes


def snapshot(status: str, **changes: Any) -> Any:
    return answers.snapshot(answers.Prediction(ID, status, **changes), 0)


# ---------------------------------------------------------------- requests


async def test_a_film_is_one_billable_call_to_its_model_with_the_address_for_hints() -> None:
    calls = ScriptedCalls(answer(prediction(), 201))
    lent = context(calls, callback_url="https://api.example.com/hints/t0ken")
    submission = await ADAPTER.submit(lent, account("replicate"), ADAPTER.prepare(FILM, SPEC), "job_1:1")
    sent = calls.only
    assert sent.method == "POST"
    assert sent.url == "https://api.replicate.com/v1/models/bytedance/seedance-2.0/predictions"
    assert sent.headers == KEY
    assert sent.json == {
        "input": {
            "prompt": "A red balloon",
            "duration": 5,
            "resolution": "720p",
            "aspect_ratio": "16:9",
            "generate_audio": True,
        },
        "webhook": "https://api.example.com/hints/t0ken",
        "webhook_events_filter": ["completed"],
    }
    assert sent.billable
    assert submission.task == TASK


def test_without_an_address_for_hints_none_is_named() -> None:
    assert requests.body_of({"prompt": "x"}, FILM, (), "") == {"input": {"prompt": "x"}}


def test_references_that_the_prompt_speaks_of_are_named_in_brackets() -> None:
    follows = tuple(Reference(url="u", role=role) for role in (ReferenceRole.IMAGE, ReferenceRole.VIDEO))
    asked = replace(FILM, prompt="@Image1 as in @Video1, not @Image2", references=follows)
    assert requests.input_of(asked, SPEC)["prompt"] == "[Image1] as in [Video1], not @Image2"


def test_a_seed_is_sent_unless_it_means_any_and_a_ratio_may_follow_a_picture() -> None:
    asked = replace(FILM, seed=7, width=864, height=864, adaptive_ratio=True)
    body = ADAPTER.prepare(asked, SPEC).body
    assert (body["seed"], body["resolution"], body["aspect_ratio"]) == (7, "480p", "adaptive")
    assert "seed" not in ADAPTER.prepare(replace(FILM, seed=-1), SPEC).body


def test_references_stand_where_the_documents_have_them_and_in_their_order() -> None:
    roles = [ReferenceRole.FIRST_FRAME, ReferenceRole.LAST_FRAME]
    framed = replace(FILM, references=tuple(Reference(role=role) for role in roles))
    uploads = [RemoteFile("u0"), RemoteFile("u1")]
    assert requests.body_of({}, framed, uploads, "") == {"input": {"image": "u0", "last_frame_image": "u1"}}
    roles = [ReferenceRole.IMAGE, ReferenceRole.VIDEO, ReferenceRole.IMAGE, ReferenceRole.AUDIO]
    mixed = replace(FILM, references=tuple(Reference(role=role) for role in roles))
    assert requests.body_of({}, mixed, [RemoteFile(f"u{n}") for n in range(4)], "") == {
        "input": {"reference_images": ["u0", "u2"], "reference_videos": ["u1"], "reference_audios": ["u3"]}
    }


@pytest.mark.parametrize("change", [{"duration_s": 3}, {"width": 1000}, {"prompt": ""}, {"watermark": True}])
def test_what_the_model_cannot_make_is_refused_before_it_is_sent(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.prepare(replace(FILM, **change), SPEC)


async def test_a_reference_becomes_a_file_of_the_account_s(tmp_path: Path) -> None:
    told = {
        "id": "file_1",
        "expires_at": "2027-01-15T09:00:00Z",
        "urls": {"get": "https://api.replicate.com/v1/files/file_1"},
    }
    calls, file = ScriptedCalls(answer(told, 201)), image_file(tmp_path)
    uploaded = await ADAPTER.upload(context(calls), account("replicate"), SPEC, file)
    assert uploaded == RemoteFile("https://api.replicate.com/v1/files/file_1", T0_MS + 3_600_000)
    assert calls.only.url == "https://api.replicate.com/v1/files"
    assert not calls.only.billable
    (part,) = calls.only.form
    assert (part.name, part.path, part.content_type) == ("content", file.path, "image/png")


async def test_an_upload_without_an_address_is_a_violation(tmp_path: Path) -> None:
    calls = ScriptedCalls(answer({"urls": {"get": "file:///etc/passwd"}}, 201))
    with pytest.raises(ProtocolViolation):
        await ADAPTER.upload(context(calls), account("replicate"), SPEC, image_file(tmp_path))


# ---------------------------------------------------------------- errors


ERRORS: list[tuple[int, object, type[ProviderError], type[ProviderError]]] = [
    (401, {"title": "Unauthenticated", "detail": "secret"}, AuthFailed, AuthFailed),
    (402, {"title": "Insufficient credit", "detail": "secret"}, InsufficientBalance, InsufficientBalance),
    (403, {}, AccountRestricted, AccountRestricted),
    (404, {"detail": "The requested resource could not be found."}, ModelNotEnabled, TaskNotFound),
    (422, {"title": "Input validation failed", "detail": "secret"}, InvalidRequest, ProtocolViolation),
    (400, b"", InvalidRequest, ProtocolViolation),
    (429, {"detail": "Request was throttled."}, RateLimited, RateLimited),
    (500, {}, SubmissionUnknown, TransientFailure),
    (502, b"<html>", SubmissionUnknown, TransientFailure),
    (503, b"", SubmissionUnknown, TransientFailure),
]


@pytest.mark.parametrize(("status", "body", "submitted", "asked"), ERRORS)
def test_every_error_is_of_its_class(
    status: int, body: object, submitted: type[ProviderError], asked: type[ProviderError]
) -> None:
    told = answer(body, status)
    for error, expected in (
        (answers.submit_error(told, T0_MS), submitted),
        (answers.read_error(told, T0_MS), asked),
    ):
        assert type(error) is expected
        assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("headers", "detail", "wait_s"),
    [
        ({}, "Request was throttled. Your rate limit resets in ~30s.", 30.0),
        ({"retry-after": "5"}, "Request was throttled. Your rate limit resets in ~30s.", 5.0),
        ({}, "Request was throttled.", None),
        ({}, ["resets in ~30s"], None),
        ({}, "resets in ~99999s", 3600.0),
    ],
)
def test_a_throttled_account_says_when_to_come_back(
    headers: dict[str, str], detail: object, wait_s: float | None
) -> None:
    error = answers.submit_error(answer({"detail": detail}, 429, headers), T0_MS)
    assert error.retry_after_s == wait_s


async def test_a_submission_whose_answer_cannot_be_read_is_in_doubt() -> None:
    for body in (b"<html>", prediction() | {"id": "a/../b"}):
        with pytest.raises(SubmissionUnknown):
            await ADAPTER.submit(
                context(ScriptedCalls(answer(body, 201))),
                account("replicate"),
                ADAPTER.prepare(FILM, SPEC),
                "job_1:1",
            )


# ---------------------------------------------------------------- states


def test_what_is_under_way_tells_how_far_it_is_by_its_logs() -> None:
    assert snapshot("starting").state is TaskState.QUEUED
    running = snapshot("processing", logs=" 10%|#   | 1/10\n 60%|######  | 6/10 [00:01]")
    assert (running.state, running.progress) == (TaskState.RUNNING, 60)
    assert snapshot("processing", logs="150%|").progress == 99
    assert running.poll_after_ms > 0


@pytest.mark.parametrize(
    "output", [OUTPUT, [OUTPUT, "https://x.example/2"], {"url": OUTPUT}, {"video": OUTPUT}]
)
def test_an_output_is_found_in_whatever_form_its_model_has(output: object) -> None:
    ended = snapshot("succeeded", output=output)
    assert ended.state is TaskState.SUCCEEDED
    assert [one.location for one in ended.outputs] == [OUTPUT]


@pytest.mark.parametrize("output", [None, [], {}, "text", 5, ["file:///etc/passwd"]])
def test_a_success_without_output_has_none(output: object) -> None:
    ended = snapshot("succeeded", output=output)
    assert (ended.state, tuple(ended.outputs)) == (TaskState.SUCCEEDED, ())


def test_an_output_that_was_removed_is_gone_and_paid() -> None:
    ended = snapshot("succeeded", data_removed=True)
    assert ended.state is TaskState.FAILED
    assert isinstance(ended.error, OutputUnavailable)
    assert ended.error.charged == "yes"


@pytest.mark.parametrize(
    ("status", "changes", "expected", "charged"),
    [
        ("failed", {"error": "The input was flagged as sensitive. (E005) secret"}, ContentBlocked, "maybe"),
        ("failed", {"error": "Prediction interrupted (code: E6716) secret"}, GenerationDied, "no"),
        ("failed", {"error": "Director: unexpected error (E1000) secret"}, GenerationFailed, "maybe"),
        ("failed", {"error": "out of memory (E1001)"}, GenerationFailed, "maybe"),
        ("failed", {"error": {"odd": 1}}, GenerationFailed, "maybe"),
        ("aborted", {}, GenerationDied, "no"),
        ("canceled", {}, GenerationFailed, "no"),
        ("canceled", {"started_at": "2027-01-15T08:00:06Z"}, GenerationFailed, "maybe"),
    ],
)
def test_every_bad_end_is_of_its_class(
    status: str, changes: dict[str, Any], expected: type[ProviderError], charged: str
) -> None:
    ended = snapshot(status, **changes)
    assert ended.state is TaskState.FAILED
    assert type(ended.error) is expected
    assert ended.error.charged == charged
    assert "secret" not in str(ended.error)


async def test_a_prediction_is_asked_about_by_its_id() -> None:
    calls = ScriptedCalls(answer(prediction("succeeded", output=OUTPUT)))
    told = await ADAPTER.poll(context(calls), account("replicate"), TASK)
    assert told.state is TaskState.SUCCEEDED
    assert (calls.only.method, calls.only.url) == ("GET", f"https://api.replicate.com/v1/predictions/{ID}")
    assert calls.only.headers == KEY


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, {}, TaskNotFound),
        (200, b"<html>", ProtocolViolation),
        (200, {"id": ID, "status": "paused"}, ProtocolViolation),
    ],
)
async def test_a_question_without_an_answer_raises(
    status: int, body: object, expected: type[ProviderError]
) -> None:
    with pytest.raises(expected):
        await ADAPTER.poll(context(ScriptedCalls(answer(body, status))), account("replicate"), TASK)


# ---------------------------------------------------------------- many at once


def page(*predictions: dict[str, Any], following: str | None = None) -> Any:
    return answer({"next": following, "previous": None, "results": list(predictions)})


NEXT = "https://api.replicate.com/v1/predictions?cursor=c1"


async def test_many_are_asked_about_by_pages_and_only_the_others_by_themselves() -> None:
    tasks = [TaskRef(name, T0_MS) for name in ("a", "b", "c", "gone")]
    calls = ScriptedCalls(
        page(prediction("processing", id="a"), prediction(id="foreign"), following=NEXT),
        # A list may leave the output out: then the prediction itself is asked.
        page(prediction("failed", id="b"), prediction("succeeded", id="c")),
        answer(prediction("succeeded", id="c", output=OUTPUT)),
        answer({}, 404),
    )
    found = await ADAPTER.poll_many(context(calls), account("replicate"), tasks)
    assert {name: told.state for name, told in found.items()} == {
        "a": TaskState.RUNNING,
        "b": TaskState.FAILED,
        "c": TaskState.SUCCEEDED,
    }
    assert [sent.url.removeprefix("https://api.replicate.com/v1/predictions") for sent in calls.sent] == [
        "",
        "?cursor=c1",
        "/c",
        "/gone",
    ]


async def test_one_is_asked_about_without_a_page() -> None:
    calls = ScriptedCalls(answer(prediction("processing")))
    found = await ADAPTER.poll_many(context(calls), account("replicate"), [TASK])
    assert found[ID].state is TaskState.RUNNING
    assert calls.only.url.endswith(ID)


async def test_no_further_page_is_asked_for_once_all_are_found() -> None:
    calls = ScriptedCalls(page(prediction(id="a"), prediction(id="b"), following=NEXT))
    found = await ADAPTER.poll_many(
        context(calls), account("replicate"), [TaskRef("a", T0_MS), TaskRef("b", T0_MS)]
    )
    assert found.keys() == {"a", "b"}


async def test_one_odd_prediction_does_not_stand_before_the_others() -> None:
    tasks = [TaskRef(name, T0_MS) for name in ("a", "odd", "alone")]
    calls = ScriptedCalls(
        page(prediction("succeeded", id="a", output=OUTPUT), prediction("paused", id="odd")),
        answer(b"<html>"),
    )
    found = await ADAPTER.poll_many(context(calls), account("replicate"), tasks)
    assert found["a"].state is TaskState.SUCCEEDED
    assert found["odd"].state is TaskState.RUNNING
    assert found["alone"].state is TaskState.RUNNING


async def test_a_page_elsewhere_is_not_fetched_with_the_key() -> None:
    calls = ScriptedCalls(page(prediction(id="a"), following="https://evil.example/v1/predictions?cursor=1"))
    tasks = [TaskRef("a", T0_MS), TaskRef("b", T0_MS)]
    with pytest.raises(ProtocolViolation):
        await ADAPTER.poll_many(context(calls), account("replicate"), tasks)
    assert len(calls.sent) == 1


async def test_a_submission_in_doubt_is_found_by_what_was_sent_and_when() -> None:
    prepared = ADAPTER.prepare(FILM, SPEC)
    ours = {**prepared.body, "negative_prompt": ""}
    calls = ScriptedCalls(
        page(
            prediction(id="mine", input=ours),
            prediction(id="another_model", input=ours, model="bytedance/seedance-2.0-fast"),
            prediction(id="another_prompt", input={**ours, "prompt": "B"}),
            prediction(id="with_reference", input={**ours, "image": "u"}),
            following=NEXT,
        ),
        page(prediction(id="older", input=ours, created_at="2027-01-15T07:00:00Z"), following=NEXT),
    )
    found = await ADAPTER.list_tasks(context(calls), account("replicate"), prepared, T0_MS, "job_1:1")
    assert found == [TaskRef("mine", T0_MS + 5_000)]
    assert len(calls.sent) == 2


@pytest.mark.parametrize(
    ("uploads", "found"), [((RemoteFile("x"), RemoteFile("y")), ["two"]), ((), [])], ids=["known", "unknown"]
)
async def test_a_submission_with_references_is_found_by_those_that_were_uploaded(
    uploads: tuple[RemoteFile, ...], found: list[str], tmp_path: Path
) -> None:
    asked = replace(FILM, references=(Reference(), Reference()))
    files = [image_file(tmp_path, "a.png"), image_file(tmp_path, "b.png")]
    prepared = replace(ADAPTER.prepare(asked, SPEC, files), uploads=uploads)
    calls = ScriptedCalls(
        page(
            prediction(id="one", input={**prepared.body, "reference_images": ["x"]}),
            prediction(id="theirs", input={**prepared.body, "reference_images": ["x", "z"]}),
            prediction(id="two", input={**prepared.body, "reference_images": ["x", "y"]}),
        )
    )
    listed = await ADAPTER.list_tasks(context(calls), account("replicate"), prepared, T0_MS, "job_1:1")
    assert [task.task_id for task in listed] == found


# ---------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    ("status", "told", "charged"),
    [
        (200, prediction("canceled"), "no"),
        (200, prediction("canceled", started_at="2027-01-15T08:00:06Z"), "maybe"),
        (200, prediction("processing", started_at="2027-01-15T08:00:06Z"), "maybe"),
        (200, prediction("succeeded", output=OUTPUT), "yes"),
        (404, {}, "maybe"),
        (422, {}, "maybe"),
    ],
)
async def test_a_prediction_that_was_to_stop_is_free_only_if_it_never_ran(
    status: int, told: object, charged: str
) -> None:
    calls = ScriptedCalls(answer(told, status))
    assert (await ADAPTER.cancel(context(calls), account("replicate"), TASK)).charged == charged
    assert calls.only.method == "POST"
    assert calls.only.url == f"https://api.replicate.com/v1/predictions/{ID}/cancel"


async def test_a_key_is_proved_by_the_account_s_name() -> None:
    calls = ScriptedCalls(answer({"type": "organization", "username": "acme"}))
    status = await ADAPTER.check(context(calls), account("replicate"))
    assert (status.ok, status.balance_millis) == (True, None)
    assert calls.only.url == "https://api.replicate.com/v1/account"


async def test_an_output_is_fetched_without_the_key() -> None:
    calls = ScriptedCalls(answer(b"film"))
    lent, own = context(calls), account("replicate")
    output = snapshot("succeeded", output=OUTPUT).outputs[0]
    async with ADAPTER.open_output(lent, own, TASK, output) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"film"
    assert (calls.only.url, calls.only.headers) == (OUTPUT, {})


@pytest.mark.parametrize(
    ("options", "secrets", "complaint"),
    [
        ({"base_url": "http://127.0.0.1:9/replicate"}, {"api_key": "", "webhook_secret": ""}, None),
        ({}, {}, "api_key"),
        ({"base_url": "http://10.0.0.1"}, {"api_key": ""}, "base_url"),
        ({"colour": "red"}, {"api_key": ""}, "colour"),
    ],
)
def test_an_account_is_looked_at_before_it_is_added(
    options: dict[str, str], secrets: dict[str, object], complaint: str | None
) -> None:
    told = ADAPTER.complaint(options, secrets)
    assert (told is None) if complaint is None else (told is not None and complaint in told)
