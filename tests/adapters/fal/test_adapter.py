"""fal's calls: one for each submission, addresses that stay at fal, and webhooks that are only hints."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.provider_pool.adapters.fal.adapter import LIST_PAGES, FalAdapter
from services.provider_pool.adapters.interface import (
    AuthFailed,
    Cancellation,
    ContentBlocked,
    Generation,
    Hint,
    Kind,
    ProtocolViolation,
    ProviderError,
    Reference,
    RemoteFile,
    SubmissionUnknown,
    TaskRef,
    TaskState,
    TransientFailure,
)
from tests.adapters.scripted import ScriptedCalls, account, answer, context, image_file
from tests.clocks import T0_MS, HandClock

ADAPTER = FalAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
FILM = Generation(Kind.VIDEO, "seedance-2.0-fast", "A red balloon", 1280, 720, duration_s=5)
ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
APP = "https://queue.fal.run/bytedance/seedance-2.0"
ADDRESSES = {
    "status_url": f"{APP}/requests/{ID}/status",
    "response_url": f"{APP}/requests/{ID}",
    "cancel_url": f"{APP}/requests/{ID}/cancel",
}
QUEUED = {"request_id": ID, "gateway_request_id": ID, "status": "IN_QUEUE", "queue_position": 0, **ADDRESSES}
TASK = TaskRef(ID, T0_MS, {**ADDRESSES, "kind": "video"})
KEY = {"authorization": "Key key-1"}


async def test_a_film_is_one_billable_call_to_its_endpoint_with_the_address_for_hints() -> None:
    calls = ScriptedCalls(answer(QUEUED))
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    lent = context(calls, callback_url="https://api.example.com/hints/t0ken")
    submission = await ADAPTER.submit(lent, account("fal"), prepared, "job_1:1")
    sent = calls.only
    assert sent.method == "POST"
    assert sent.url == "https://queue.fal.run/bytedance/seedance-2.0/fast/text-to-video"
    assert sent.query == (("fal_webhook", "https://api.example.com/hints/t0ken"),)
    assert sent.json == prepared.body
    assert sent.billable
    assert sent.headers.items() >= KEY.items()
    told = json.loads(sent.headers["x-fal-object-lifecycle-preference"])
    assert told == {"expiration_duration_seconds": 86_400}
    assert submission.done is None
    assert submission.task == TASK


async def test_without_an_address_for_hints_none_is_named() -> None:
    calls = ScriptedCalls(answer(QUEUED))
    await ADAPTER.submit(context(calls), account("fal"), ADAPTER.prepare(FILM, SPECS[FILM.model]), "job_1:1")
    assert calls.only.query == ()


async def test_references_go_by_the_addresses_of_their_uploads(tmp_path: Path) -> None:
    asked = replace(FILM, references=(Reference(),))
    prepared = ADAPTER.prepare(asked, SPECS[FILM.model], [image_file(tmp_path)])
    calls = ScriptedCalls(answer(QUEUED))
    uploaded = replace(prepared, uploads=(RemoteFile("https://v3.fal.media/files/a.png"),))
    await ADAPTER.submit(context(calls), account("fal"), uploaded, "job_1:1")
    assert calls.only.url.endswith("/fast/reference-to-video")
    assert calls.only.json == {**prepared.body, "image_urls": ["https://v3.fal.media/files/a.png"]}


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/status", "http://queue.fal.run/x", "", "https://queue.fal.run@evil/x"]
)
async def test_no_address_outside_fal_is_kept_from_the_answer(elsewhere: str) -> None:
    calls = ScriptedCalls(answer(QUEUED | {"status_url": elsewhere}))
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    submission = await ADAPTER.submit(context(calls), account("fal"), prepared, "job_1:1")
    assert submission.task == TASK


async def test_a_task_whose_address_is_not_fal_s_is_not_asked_about_with_the_key() -> None:
    task = replace(TASK, state={**TASK.state, "status_url": "https://evil.example/status"})
    calls = ScriptedCalls()
    with pytest.raises(ProtocolViolation):
        await ADAPTER.poll(context(calls), account("fal"), task)
    assert calls.sent == []


@pytest.mark.parametrize("told", [b"<html>", {"status": "IN_QUEUE"}, {"request_id": ""}])
async def test_a_submission_whose_answer_cannot_be_read_is_in_doubt(told: object) -> None:
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    with pytest.raises(SubmissionUnknown):
        await ADAPTER.submit(context(ScriptedCalls(answer(told))), account("fal"), prepared, "job_1:1")


@pytest.mark.parametrize(
    ("status", "told", "state"),
    [
        (202, {"status": "IN_QUEUE", "queue_position": 3}, TaskState.QUEUED),
        (202, {"status": "IN_PROGRESS", "logs": []}, TaskState.RUNNING),
    ],
)
async def test_a_request_that_is_under_way_is_asked_about_again_the_later_the_older_it_is(
    status: int, told: object, state: TaskState
) -> None:
    calls, clock = ScriptedCalls(*[answer(told, status)] * 2), HandClock()
    young = await ADAPTER.poll(context(calls, clock=clock), account("fal"), TASK)
    clock.at_ms += 300_000
    old = await ADAPTER.poll(context(calls, clock=clock), account("fal"), TASK)
    assert (young.state, old.state) == (state, state)
    assert 0 < young.poll_after_ms < old.poll_after_ms
    assert (calls.sent[0].method, calls.sent[0].url) == ("GET", ADDRESSES["status_url"])
    assert calls.sent[0].headers == KEY


async def test_a_request_that_ended_well_has_its_output_in_its_result() -> None:
    result = {"video": {"url": "https://v3.fal.media/x.mp4", "content_type": "video/mp4"}}
    calls = ScriptedCalls(answer({"status": "COMPLETED"}), answer(result))
    snapshot = await ADAPTER.poll(context(calls), account("fal"), TASK)
    assert snapshot.state is TaskState.SUCCEEDED
    assert snapshot.outputs[0].location == "https://v3.fal.media/x.mp4"
    assert calls.sent[1].url == ADDRESSES["response_url"]


async def test_a_request_that_ended_badly_is_a_snapshot_and_no_error() -> None:
    result = answer({"detail": [{"type": "content_policy_violation", "input": "secret"}]}, 422)
    calls = ScriptedCalls(answer({"status": "COMPLETED", "error": "x"}), result)
    snapshot = await ADAPTER.poll(context(calls), account("fal"), TASK)
    assert snapshot.state is TaskState.FAILED
    assert isinstance(snapshot.error, ContentBlocked)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([answer({"status": "COMPLETED"}), answer(b"<html>", 502)], TransientFailure),
        (
            [
                answer({"status": "COMPLETED"}),
                answer({"detail": "Internal server error", "error_type": "internal_error"}, 500),
            ],
            TransientFailure,
        ),
        ([answer({"status": "COMPLETED"}), answer({"detail": "x"}, 401)], AuthFailed),
        ([answer({"status": "PAUSED"})], ProtocolViolation),
        ([answer(b"<html>")], ProtocolViolation),
        ([TransientFailure("cut")], TransientFailure),
    ],
)
async def test_a_question_that_failed_says_nothing_of_the_request(
    answers: list[object], expected: type[ProviderError]
) -> None:
    calls = ScriptedCalls(*answers)  # type: ignore[arg-type]
    with pytest.raises(expected):
        await ADAPTER.poll(context(calls), account("fal"), TASK)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([answer({"status": "ALREADY_COMPLETED"}, 400)], Cancellation("maybe")),
        ([answer({"status": "NOT_FOUND"}, 404)], Cancellation("maybe")),
        (
            [answer({"status": "CANCELLATION_REQUESTED"}, 202), answer({"status": "IN_QUEUE"}, 202)],
            Cancellation("no", 0),
        ),
        (
            [
                answer({"status": "CANCELLATION_REQUESTED"}, 202),
                answer({"status": "COMPLETED", "error_type": "client_cancelled"}),
            ],
            Cancellation("no", 0),
        ),
        (
            [answer({"status": "CANCELLATION_REQUESTED"}, 202), answer({"status": "IN_PROGRESS"}, 202)],
            Cancellation("maybe"),
        ),
    ],
)
async def test_a_request_that_was_to_stop_is_free_only_if_it_never_ran(
    answers: list[object], expected: Cancellation
) -> None:
    calls = ScriptedCalls(*answers)  # type: ignore[arg-type]
    assert await ADAPTER.cancel(context(calls), account("fal"), TASK) == expected
    assert (calls.sent[0].method, calls.sent[0].url) == ("PUT", ADDRESSES["cancel_url"])


def listed(request_id: str, prompt: str = "A red balloon", sent_at: str = "2027-01-15T08:00:05Z") -> object:
    sent = {**ADAPTER.prepare(replace(FILM, prompt=prompt), SPECS[FILM.model]).body}
    return {"request_id": request_id, "sent_at": sent_at, "status_code": 200, "json_input": sent}


async def test_a_submission_in_doubt_is_found_by_what_was_sent() -> None:
    items = [listed("a", "Another"), listed(ID), listed("b", sent_at="2027-01-15T07:00:00Z")]
    calls = ScriptedCalls(
        answer({"items": items[:1], "next_cursor": "c1", "has_more": True}),
        answer({"items": items[1:], "next_cursor": None, "has_more": False}),
    )
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    found = await ADAPTER.list_tasks(context(calls), account("fal"), prepared, T0_MS, "job_1:1")
    assert found == [replace(TASK, submitted_at_ms=T0_MS + 5_000)]
    first, second = calls.sent
    assert first.url == "https://api.fal.ai/v1/models/requests/by-endpoint"
    assert first.query == (
        ("endpoint_id", "bytedance/seedance-2.0/fast/text-to-video"),
        ("start", "2027-01-15T08:00:00.000+00:00"),
        ("limit", "100"),
        ("expand", "payloads"),
    )
    assert second.query == (*first.query, ("cursor", "c1"))


async def test_a_list_without_an_end_is_not_read_to_its_end() -> None:
    page = answer({"items": [], "next_cursor": "again", "has_more": True})
    calls = ScriptedCalls(*[page] * LIST_PAGES)
    prepared = ADAPTER.prepare(FILM, SPECS[FILM.model])
    assert await ADAPTER.list_tasks(context(calls), account("fal"), prepared, T0_MS, "job_1:1") == []


async def test_a_reference_is_put_where_the_storage_says_without_the_key(tmp_path: Path) -> None:
    place = {
        "upload_url": "https://storage.example/put?sig=1",
        "file_url": "https://v3.fal.media/files/x.png",
    }
    calls, file = ScriptedCalls(answer(place), answer()), image_file(tmp_path)
    uploaded = await ADAPTER.upload(context(calls), account("fal"), SPECS[FILM.model], file)
    assert uploaded == RemoteFile("https://v3.fal.media/files/x.png")
    asked, put = calls.sent
    assert asked.url == "https://rest.fal.ai/storage/upload/initiate"
    assert asked.query == (("storage_type", "fal-cdn-v3"),)
    assert asked.json == {"file_name": f"{file.sha256[:32]}.png", "content_type": "image/png"}
    assert (put.method, put.url) == ("PUT", "https://storage.example/put?sig=1")
    assert put.headers == {"content-type": "image/png"}
    assert put.file == b"bytes of a reference"
    assert not asked.billable
    assert not put.billable


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([answer({"upload_url": "file:///etc/passwd", "file_url": "https://x.example"})], ProtocolViolation),
        ([answer({"upload_url": "https://x.example", "file_url": "http://x.example"})], ProtocolViolation),
        ([answer({}, 401)], AuthFailed),
        (
            [answer({"upload_url": "https://x.example", "file_url": "https://x.example"}), answer(b"", 403)],
            TransientFailure,
        ),
    ],
)
async def test_an_upload_that_failed_is_no_fault_of_the_account_s_unless_it_is(
    answers: list[object], expected: type[ProviderError], tmp_path: Path
) -> None:
    calls = ScriptedCalls(*answers)  # type: ignore[arg-type]
    with pytest.raises(expected):
        await ADAPTER.upload(context(calls), account("fal"), SPECS[FILM.model], image_file(tmp_path))


async def test_a_key_is_proved_by_prices_and_the_balance_told_to_an_admin_key() -> None:
    calls = ScriptedCalls(answer({"prices": []}), answer({"credits": {"current_balance": 24.5}}))
    own = account("fal", {"api_key": "key-1", "admin_key": "admin-1"})
    status = await ADAPTER.check(context(calls), own)
    assert (status.ok, status.balance_millis) == (True, 24_500)
    priced, billing = calls.sent
    assert priced.url == "https://api.fal.ai/v1/models/pricing"
    assert priced.headers == KEY
    assert billing.url == "https://api.fal.ai/v1/account/billing"
    assert billing.query == (("expand", "credits"),)
    assert billing.headers == {"authorization": "Key admin-1"}


async def test_an_admin_key_that_is_none_costs_the_balance_and_not_the_account() -> None:
    own = account("fal", {"api_key": "key-1", "admin_key": "key-2"})
    calls = ScriptedCalls(answer({"prices": []}), answer({"detail": "Forbidden"}, 403))
    status = await ADAPTER.check(context(calls), own)
    assert (status.ok, status.balance_millis) == (True, None)
    assert "admin_key" in status.detail


async def test_without_an_admin_key_no_balance_is_known() -> None:
    status = await ADAPTER.check(context(ScriptedCalls(answer({"prices": []}))), account("fal"))
    assert (status.ok, status.balance_millis) == (True, None)


async def test_an_output_is_fetched_without_the_key() -> None:
    result = answer({"video": {"url": "https://v3.fal.media/x.mp4"}})
    calls = ScriptedCalls(answer({"status": "COMPLETED"}), result, answer(b"film"))
    lent, own = context(calls), account("fal")
    snapshot = await ADAPTER.poll(lent, own, TASK)
    async with ADAPTER.open_output(lent, own, TASK, snapshot.outputs[0]) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"film"
    assert calls.sent[-1].headers == {}


# ---------------------------------------------------------------- webhooks

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
JWKS = {
    "keys": [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": urlsafe_b64encode(SIGNER.public_key().public_bytes_raw()).decode().rstrip("="),
        }
    ]
}
EVENT = json.dumps({"request_id": ID, "gateway_request_id": ID, "status": "OK", "payload": {}}).encode()


def signed(clock: HandClock, body: bytes = EVENT, signer: Ed25519PrivateKey = SIGNER) -> dict[str, str]:
    at = str(clock.at_ms // 1000)
    text = f"{ID}\nuser_1\n{at}\n{hashlib.sha256(body).hexdigest()}".encode()
    return {
        "x-fal-webhook-request-id": ID,
        "x-fal-webhook-user-id": "user_1",
        "x-fal-webhook-timestamp": at,
        "x-fal-webhook-signature": signer.sign(text).hex(),
    }


async def test_a_signed_webhook_names_the_request_to_ask_about() -> None:
    calls, clock = ScriptedCalls(answer(JWKS)), HandClock()
    lent = context(calls, clock=clock)
    hint = await FalAdapter().hint(lent, account("fal"), signed(clock), EVENT)
    assert hint == Hint((ID,), ID)
    assert calls.only.url == "https://rest.fal.ai/.well-known/jwks.json"
    assert calls.only.headers == {}


async def test_keys_are_kept_for_a_day_and_no_longer() -> None:
    calls, clock, adapter = ScriptedCalls(answer(JWKS), answer(JWKS)), HandClock(), FalAdapter()
    lent = context(calls, clock=clock)
    for _ in range(3):
        assert await adapter.hint(lent, account("fal"), signed(clock), EVENT)
        clock.at_ms += 3_600_000
    assert len(calls.sent) == 1
    clock.at_ms += 86_400_000
    assert await adapter.hint(lent, account("fal"), signed(clock), EVENT)
    assert len(calls.sent) == 2


async def test_a_forger_decides_neither_what_is_believed_nor_how_often_keys_are_fetched() -> None:
    calls, clock, adapter = ScriptedCalls(answer(JWKS)), HandClock(), FalAdapter()
    lent, forger = context(calls, clock=clock), Ed25519PrivateKey.from_private_bytes(bytes(32))
    for _ in range(5):
        assert await adapter.hint(lent, account("fal"), signed(clock, signer=forger), EVENT) is None
    assert len(calls.sent) == 1


async def test_a_new_key_of_fal_s_is_found_once_the_known_ones_are_minutes_old() -> None:
    calls, clock, adapter = ScriptedCalls(answer({"keys": []}), answer(JWKS)), HandClock(), FalAdapter()
    lent = context(calls, clock=clock)
    assert await adapter.hint(lent, account("fal"), signed(clock), EVENT) is None
    clock.at_ms += 301_000
    assert await adapter.hint(lent, account("fal"), signed(clock), EVENT) is not None


async def test_a_webhook_that_is_none_asks_nobody() -> None:
    for body in (b"", b"<html>", b"[]", b"{}", b'{"request_id": 5}'):
        assert await FalAdapter().hint(context(ScriptedCalls()), account("fal"), {}, body) is None


async def test_keys_that_cannot_be_fetched_are_told_and_not_remembered() -> None:
    calls, clock, adapter = ScriptedCalls(answer(b"", 503), answer(JWKS)), HandClock(), FalAdapter()
    lent = context(calls, clock=clock)
    with pytest.raises(ProviderError):
        await adapter.hint(lent, account("fal"), signed(clock), EVENT)
    assert await adapter.hint(lent, account("fal"), signed(clock), EVENT) is not None


@pytest.mark.parametrize(
    ("options", "secrets", "complaint"),
    [
        ({}, {"api_key": "", "admin_key": ""}, None),
        ({"rest_url": "https://r.example", "api_url": "https://a.example"}, {"api_key": ""}, None),
        ({}, {"admin_key": ""}, "api_key"),
        ({"api_url": "http://a.example"}, {"api_key": ""}, "api_url"),
        ({"colour": "red"}, {"api_key": ""}, "colour"),
    ],
)
def test_an_account_is_looked_at_before_it_is_added(
    options: dict[str, str], secrets: dict[str, object], complaint: str | None
) -> None:
    told = ADAPTER.complaint(options, secrets)
    assert (told is None) if complaint is None else (told is not None and complaint in told)
