"""ElevenLabs: speech and music in the answer to their request, and its many ways to say no."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.elevenlabs import answers, requests
from services.provider_pool.adapters.elevenlabs.adapter import ElevenLabsAdapter
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AuthFailed,
    ConcurrencyLimited,
    ContentBlocked,
    Generation,
    InsufficientBalance,
    InvalidRequest,
    Kind,
    ModelNotEnabled,
    Overloaded,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    SubmissionUnknown,
    TaskState,
    TransientFailure,
)
from tests.adapters.scripted import KeptResults, ScriptedCalls, account, answer, context
from tests.clocks import T0_MS

ADAPTER = ElevenLabsAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
SPEECH, MUSIC = SPECS["eleven-multilingual-v2"], SPECS["eleven-music-v1"]
SPOKEN = Generation(Kind.VOICE, SPEECH.model, "Good evening", voice="george", format="wav")
PLAYED = Generation(Kind.MUSIC, MUSIC.model, "A calm piano", duration_s=30)


def sound(headers: dict[str, str] | None = None) -> HttpAnswer:
    return answer(b"ID3 sound", headers={"content-type": "audio/mpeg"} | (headers or {}))


async def test_speech_is_one_billable_call_whose_sound_is_kept() -> None:
    calls, results = ScriptedCalls(sound({"character-cost": "12"})), KeptResults()
    prepared = ADAPTER.prepare(SPOKEN, SPEECH)
    submission = await ADAPTER.submit(
        context(calls, results=results), account("elevenlabs"), prepared, "job_1:1"
    )
    sent = calls.only
    assert sent.method == "POST"
    assert sent.url == "https://api.elevenlabs.io/v1/text-to-speech/JBFqnCBsd6RMkjVDRZzb"
    assert sent.query == (("output_format", "wav_24000"),)
    assert sent.headers == {"xi-api-key": "key-1"}
    assert sent.json == {"text": "Good evening", "model_id": "eleven_multilingual_v2"}
    assert sent.billable
    assert results.kept == {"job_1:1": {"0.wav": b"ID3 sound"}}
    assert submission.done is not None
    assert (submission.done.state, submission.done.cost_millis) == (TaskState.SUCCEEDED, 12_000)


async def test_music_is_asked_for_by_its_length_with_its_model_named() -> None:
    calls = ScriptedCalls(sound())
    prepared = ADAPTER.prepare(PLAYED, MUSIC)
    submission = await ADAPTER.submit(context(calls), account("elevenlabs"), prepared, "job_1:1")
    assert calls.only.url == "https://api.elevenlabs.io/v1/music"
    assert calls.only.query == (("output_format", "mp3_44100_128"),)
    assert calls.only.json == {
        "prompt": "A calm piano",
        "music_length_ms": 30_000,
        "model_id": "music_v1",
        "force_instrumental": False,
    }
    assert submission.done is not None
    assert submission.done.cost_millis is None


@pytest.mark.parametrize(
    ("prompt", "instrumental"),
    [
        ("An instrumental waltz", True),
        ("Instrumental only", True),
        ("Jazz, no vocals", True),
        ("Folk without singing", True),
        ("A song, not instrumental", False),
        ("A non-instrumental song", False),
        ("Played on old instruments", False),
    ],
)
def test_nobody_sings_where_instrumental_music_was_asked_for(prompt: str, instrumental: bool) -> None:
    body = ADAPTER.prepare(replace(PLAYED, prompt=prompt), MUSIC).body
    assert body["force_instrumental"] is instrumental


def test_a_seed_is_sent_with_speech_and_not_with_music() -> None:
    assert ADAPTER.prepare(replace(SPOKEN, seed=7), SPEECH).body["seed"] == 7
    assert "seed" not in ADAPTER.prepare(replace(PLAYED, seed=7), MUSIC).body


@pytest.mark.parametrize("voice", ["", "alice", "brian", "charlotte", "daniel", "george", "lily"])
def test_every_voice_that_is_sold_has_one_of_the_provider_s(voice: str) -> None:
    path = requests.path_of(replace(SPOKEN, voice=voice), SPEECH, account("elevenlabs"))
    assert len(path.removeprefix("/v1/text-to-speech/")) == 20


def test_an_account_may_have_a_voice_of_its_own() -> None:
    own = account("elevenlabs", options={"voice_george": "own/../voice"})
    assert requests.path_of(SPOKEN, SPEECH, own) == "/v1/text-to-speech/own%2F..%2Fvoice"
    assert ADAPTER.complaint(own.options, own.secrets) is None


@pytest.mark.parametrize(
    ("change", "spec"),
    [
        ({"prompt": "x" * 10_001}, SPEECH),
        ({"voice": "nobody"}, SPEECH),
        ({"format": "ogg"}, SPEECH),
        ({"kind": Kind.MUSIC}, SPEECH),
        ({"kind": Kind.MUSIC, "voice": "", "format": "", "duration_s": 2}, MUSIC),
        ({"kind": Kind.MUSIC, "voice": "", "format": "", "duration_s": 30, "prompt": "x" * 4101}, MUSIC),
    ],
)
def test_what_the_model_cannot_make_is_refused_before_it_is_sent(change: dict[str, Any], spec: Any) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.prepare(replace(SPOKEN, **change), spec)


def test_speech_costs_a_credit_a_character() -> None:
    assert SPEECH.cost.estimate(SPOKEN).ceiling_millis == 12 * 1000


def detail(code: str, status: str | None = None) -> object:
    told = {"type": "error", "code": code, "message": "Your text 'secret'", "request_id": "1"}
    return {"detail": told | ({} if status is None else {"status": status})}


ERRORS: list[tuple[int, object, type[ProviderError]]] = [
    (401, detail("invalid_api_key"), AuthFailed),
    (401, detail("missing_permissions"), AuthFailed),
    (401, {"detail": {"status": "quota_exceeded", "message": "This request exceeds"}}, InsufficientBalance),
    (401, detail("quota_exceeded"), InsufficientBalance),
    (402, detail("payment_required"), InsufficientBalance),
    (402, b"", InsufficientBalance),
    (401, detail("detected_unusual_activity"), AccountRestricted),
    (400, detail("voice_not_found"), ModelNotEnabled),
    (404, {"detail": {"status": "voice_not_found"}}, ModelNotEnabled),
    (400, detail("max_character_limit_exceeded"), InvalidRequest),
    (400, detail("invalid_parameters"), InvalidRequest),
    (422, {"detail": [{"loc": ["body", "text"], "msg": "secret", "type": "missing"}]}, InvalidRequest),
    (400, detail("bad_prompt"), ContentBlocked),
    (403, detail("bad_prompt"), ContentBlocked),
    (422, detail("bad_composition_plan"), ContentBlocked),
    (403, detail("content_policy_violation"), ContentBlocked),
    (403, detail("something_new"), AccountRestricted),
    (403, detail("content_moderation_blocked"), ContentBlocked),
    (422, {"detail": {"status": "voice_content_violation"}}, ContentBlocked),
    (408, b"", SubmissionUnknown),
    (429, detail("concurrent_limit_exceeded"), ConcurrencyLimited),
    (429, {"detail": {"status": "too_many_concurrent_requests"}}, ConcurrencyLimited),
    (429, detail("rate_limit_exceeded"), RateLimited),
    (429, {"detail": {"status": "system_busy"}}, Overloaded),
    (429, b"<html>", RateLimited),
    (500, detail("internal"), SubmissionUnknown),
    (502, b"<html>", SubmissionUnknown),
]


@pytest.mark.parametrize(("status", "body", "expected"), ERRORS)
def test_every_error_of_a_submission_is_of_its_class(
    status: int, body: object, expected: type[ProviderError]
) -> None:
    error = answers.submit_error(answer(body, status), T0_MS)
    assert type(error) is expected
    assert "secret" not in str(error)


@pytest.mark.parametrize("told", ["1e12", "-1", "many"])
def test_a_cost_that_cannot_be_one_is_not_booked(told: str) -> None:
    assert answers.cost_millis(answer(b"sound", headers={"character-cost": told})) is None


@pytest.mark.parametrize(
    "changed", [{"character_limit": 10**20}, {"next_character_count_reset_unix": 10**18}], ids=list
)
async def test_a_balance_that_cannot_be_one_is_not_believed(changed: dict[str, int]) -> None:
    told = {"tier": "pro", "character_count": 1, "character_limit": 10} | changed
    with pytest.raises(ProtocolViolation):
        answers.subscription(answer(told))


def test_a_busy_account_says_when_to_come_back() -> None:
    busy = answer(detail("concurrent_limit_exceeded"), 429, {"retry-after": "3"})
    assert answers.submit_error(busy, T0_MS).retry_after_s == 3.0


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (500, b"", TransientFailure),
        (418, b"", ProtocolViolation),
        (401, detail("invalid_api_key"), AuthFailed),
    ],
)
def test_an_error_of_a_question_that_costs_nothing_leaves_nothing_in_doubt(
    status: int, body: object, expected: type[ProviderError]
) -> None:
    assert type(answers.read_error(answer(body, status), T0_MS)) is expected


@pytest.mark.parametrize(
    "told", [answer(b""), answer({"detail": "x"}, headers={"content-type": "application/json"})]
)
async def test_a_success_without_a_sound_is_in_doubt_and_never_sent_again(
    told: HttpAnswer,
) -> None:
    prepared = ADAPTER.prepare(PLAYED, MUSIC)
    with pytest.raises(SubmissionUnknown):
        await ADAPTER.submit(context(ScriptedCalls(told)), account("elevenlabs"), prepared, "job_1:1")


SUBSCRIPTION = {
    "tier": "creator",
    "character_count": 17_231,
    "character_limit": 100_000,
    "next_character_count_reset_unix": 1_738_356_858,
    "status": "active",
    "max_credit_limit_extension": "unlimited",
    "currency": "usd",
}


async def test_an_account_has_what_its_plan_leaves_until_it_renews() -> None:
    calls = ScriptedCalls(answer(SUBSCRIPTION))
    status = await ADAPTER.check(context(calls), account("elevenlabs"))
    assert (calls.only.method, calls.only.url) == ("GET", "https://api.elevenlabs.io/v1/user/subscription")
    assert status.ok
    assert status.balance_millis == (100_000 - 17_231) * 1000
    assert status.renews_at_ms == 1_738_356_858_000
    assert status.concurrency_limit == 5


@pytest.mark.parametrize("standing", ["past_due", "incomplete", "free_disabled"])
def test_an_account_that_does_not_pay_its_plan_is_not_well(standing: str) -> None:
    status = answers.subscription(answer(SUBSCRIPTION | {"status": standing}))
    assert not status.ok
    assert standing in status.detail


@pytest.mark.parametrize(
    ("options", "secrets", "complaint"),
    [
        ({"base_url": "https://api.us.elevenlabs.io"}, {"api_key": ""}, None),
        ({}, {}, "api_key"),
        ({"base_url": "ftp://x"}, {"api_key": ""}, "base_url"),
        ({"voice_nobody": "x"}, {"api_key": ""}, "voice_nobody"),
    ],
)
def test_an_account_is_looked_at_before_it_is_added(
    options: dict[str, str], secrets: dict[str, object], complaint: str | None
) -> None:
    told = ADAPTER.complaint(options, secrets)
    assert (told is None) if complaint is None else (told is not None and complaint in told)
