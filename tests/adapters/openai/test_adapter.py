"""OpenAI's calls: one for each submission, and its result kept before anything else is done."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from services.provider_pool.adapters.interface import (
    AuthFailed,
    Generation,
    Kind,
    OutputUnavailable,
    ProviderError,
    Reference,
    SubmissionUnknown,
    TaskNotFound,
    TaskRef,
    TaskState,
    TransientFailure,
)
from services.provider_pool.adapters.openai.adapter import OpenAIAdapter
from tests.adapters.scripted import KeptResults, ScriptedCalls, account, answer, context, image_file
from tests.clocks import T0_MS

ADAPTER = OpenAIAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
PNG = b"\x89PNG\r\n\x1a\n picture"
PICTURE = {
    "data": [{"b64_json": base64.b64encode(PNG).decode()}],
    "usage": {"input_tokens": 0, "output_tokens": 1000},
}
ASKED = Generation(Kind.IMAGE, "gpt-image-2", "A lighthouse", 1024, 1024, quality="low")


async def test_a_picture_is_one_billable_call_whose_result_is_kept() -> None:
    calls, results = ScriptedCalls(answer(PICTURE)), KeptResults()
    lent = context(calls, results=results)
    prepared = ADAPTER.prepare(ASKED, SPECS["gpt-image-2"])
    submission = await ADAPTER.submit(lent, account("openai"), prepared, "job_1:1")
    sent = calls.only
    assert (sent.method, sent.url) == ("POST", "https://api.openai.com/v1/images/generations")
    assert sent.headers == {"authorization": "Bearer key-1", "x-client-request-id": "job_1:1"}
    assert sent.json == prepared.body
    assert sent.billable
    assert sent.timeout_s == 300
    assert submission.task == TaskRef("job_1:1", T0_MS)
    assert submission.done is not None
    assert (submission.done.state, submission.done.cost_millis) == (TaskState.SUCCEEDED, 30)
    assert results.kept == {"job_1:1": {"0.png": PNG}}
    assert results.sealed == {"job_1:1"}


async def test_a_picture_after_others_is_a_form(tmp_path: Path) -> None:
    calls = ScriptedCalls(answer(PICTURE))
    asked = Generation(
        Kind.IMAGE, "gpt-image-2", "A lighthouse", 1024, 1024, quality="low", references=(Reference(),)
    )
    prepared = ADAPTER.prepare(asked, SPECS["gpt-image-2"], [image_file(tmp_path)])
    await ADAPTER.submit(context(calls), account("openai"), prepared, "job_1:1")
    assert calls.only.url == "https://api.openai.com/v1/images/edits"
    assert calls.only.json is None
    assert [part.name for part in calls.only.form][-1] == "image"


async def test_a_text_goes_to_whatever_compatible_provider_the_account_is_at() -> None:
    body = {"choices": [{"message": {"content": "A tower."}, "finish_reason": "stop"}]}
    calls, results = ScriptedCalls(answer(body)), KeptResults()
    own = account(
        "openai",
        options={"base_url": "https://llm.example.com/v1/", "organization": "org-1", "project": "proj_1"},
    )
    prepared = ADAPTER.prepare(
        Generation(Kind.TEXT, "gpt-5-mini", "Describe it", max_words=10), SPECS["gpt-5-mini"]
    )
    await ADAPTER.submit(context(calls, results=results), own, prepared, "job_1:1")
    assert calls.only.url == "https://llm.example.com/v1/chat/completions"
    assert calls.only.headers["openai-organization"] == "org-1"
    assert calls.only.timeout_s == 120
    assert results.kept["job_1:1"] == {"0.txt": b"A tower."}


async def test_what_was_kept_before_a_crash_is_found_polled_opened_and_let_go() -> None:
    results = KeptResults()
    lent, own = context(ScriptedCalls(answer(PICTURE)), results=results), account("openai")
    prepared = ADAPTER.prepare(ASKED, SPECS["gpt-image-2"])
    await ADAPTER.submit(lent, own, prepared, "job_1:1")
    (task,) = await ADAPTER.list_tasks(lent, own, prepared, T0_MS, "job_1:1")
    assert await ADAPTER.list_tasks(lent, own, prepared, T0_MS, "job_2:1") == []
    snapshot = await ADAPTER.poll(lent, own, task)
    assert snapshot.state is TaskState.SUCCEEDED
    async with ADAPTER.open_output(lent, own, task, snapshot.outputs[0]) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == PNG
    await ADAPTER.forget(lent, own, task)
    with pytest.raises(TaskNotFound):
        await ADAPTER.poll(lent, own, task)
    with pytest.raises(OutputUnavailable):
        async with ADAPTER.open_output(lent, own, task, snapshot.outputs[0]):
            pass


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (OSError(28, "No space left on device"), SubmissionUnknown),
        (OutputUnavailable("larger than anything that is kept"), OutputUnavailable),
    ],
)
async def test_a_result_that_cannot_be_kept_is_paid_and_never_asked_for_again(
    trouble: Exception, expected: type[ProviderError]
) -> None:
    class FullDisk(KeptResults):
        async def keep(self, reference: str, name: str, content: bytes) -> str:
            raise trouble

    lent = context(ScriptedCalls(answer(PICTURE)), results=FullDisk())
    with pytest.raises(expected) as lost:
        await ADAPTER.submit(lent, account("openai"), ADAPTER.prepare(ASKED, SPECS["gpt-image-2"]), "job_1:1")
    assert lost.value.charged == "yes"


@pytest.mark.parametrize("error", [SubmissionUnknown("cut"), TransientFailure("refused")])
async def test_what_the_connection_did_is_told_as_it_is(error: ProviderError) -> None:
    prepared = ADAPTER.prepare(ASKED, SPECS["gpt-image-2"])
    with pytest.raises(type(error)):
        await ADAPTER.submit(context(ScriptedCalls(error)), account("openai"), prepared, "job_1:1")


async def test_a_key_is_proved_by_the_list_of_models() -> None:
    calls = ScriptedCalls(answer({"object": "list", "data": []}))
    status = await ADAPTER.check(context(calls), account("openai"))
    assert status.ok
    assert status.balance_millis is None
    assert (calls.only.method, calls.only.url) == ("GET", "https://api.openai.com/v1/models")
    assert not calls.only.billable


async def test_a_wrong_key_is_told_by_its_class() -> None:
    refused = answer({"error": {"code": "invalid_api_key", "message": "Incorrect API key: key-1"}}, 401)
    with pytest.raises(AuthFailed) as failed:
        await ADAPTER.check(context(ScriptedCalls(refused)), account("openai"))
    assert "key-1" not in str(failed.value)


@pytest.mark.parametrize(
    ("options", "secrets", "complaint"),
    [
        ({}, {"api_key": ""}, None),
        ({"base_url": "https://x.example/v1", "text_model": "m"}, {"api_key": ""}, None),
        ({}, {}, "api_key"),
        ({"base_url": "http://x.example"}, {"api_key": ""}, "base_url"),
        ({"colour": "red"}, {"api_key": ""}, "colour"),
    ],
)
def test_an_account_is_looked_at_before_it_is_added(
    options: dict[str, str], secrets: dict[str, object], complaint: str | None
) -> None:
    told = ADAPTER.complaint(options, secrets)
    assert (told is None) if complaint is None else (told is not None and complaint in told)
