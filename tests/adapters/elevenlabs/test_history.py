"""ElevenLabs: speech whose answer was lost is found in the account's history, and nobody else's is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.provider_pool.adapters.elevenlabs.adapter import ElevenLabsAdapter
from services.provider_pool.adapters.interface import (
    Generation,
    Kind,
    OutputRef,
    Role,
    TaskRef,
    TaskState,
    TransientFailure,
)
from tests.adapters.scripted import KeptResults, ScriptedCalls, account, answer, context
from tests.clocks import T0_MS

ADAPTER = ElevenLabsAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
SPEECH, MUSIC = SPECS["eleven-multilingual-v2"], SPECS["eleven-music-v1"]
SPOKEN = Generation(Kind.VOICE, SPEECH.model, "Good evening", voice="george")
PREPARED = ADAPTER.prepare(SPOKEN, SPEECH)
SINCE_MS = T0_MS - 60_000
ITEM: dict[str, Any] = {
    "history_item_id": "item-1",
    "request_id": "request-1",
    "date_unix": T0_MS // 1000 - 30,
    "text": "Good evening",
    "voice_id": "JBFqnCBsd6RMkjVDRZzb",
    "model_id": "eleven_multilingual_v2",
    "content_type": "audio/mpeg",
    "state": "created",
    "character_count_change_from": 100,
    "character_count_change_to": 112,
}


def page(*items: object, has_more: bool = False) -> Any:
    last = items[-1] if items else None
    last_id = last.get("history_item_id") if isinstance(last, dict) else None
    return answer({"history": list(items), "last_history_item_id": last_id, "has_more": has_more})


async def found(calls: ScriptedCalls, results: KeptResults | None = None, **changes: Any) -> list[TaskRef]:
    given = account("elevenlabs", **changes)
    return list(
        await ADAPTER.list_tasks(context(calls, results=results), given, PREPARED, SINCE_MS, "job_1:1")
    )


async def test_what_was_spoken_is_adopted_and_fetched_from_the_history_with_what_it_cost() -> None:
    calls = ScriptedCalls(page(ITEM))
    (task,) = await found(calls)
    assert (task.task_id, task.submitted_at_ms) == ("request-1", (T0_MS // 1000 - 30) * 1000)
    assert (calls.only.method, calls.only.url) == ("GET", "https://api.elevenlabs.io/v1/history")
    snapshot = await ADAPTER.poll(context(ScriptedCalls()), account("elevenlabs"), task)
    assert (snapshot.state, snapshot.cost_millis) == (TaskState.SUCCEEDED, 12_000)
    fetched = ScriptedCalls(answer(b"ID3 sound"))
    async with ADAPTER.open_output(
        context(fetched), account("elevenlabs"), task, snapshot.outputs[0]
    ) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"ID3 sound"
    assert fetched.only.url == "https://api.elevenlabs.io/v1/history/item-1/audio"
    assert fetched.only.headers == {"xi-api-key": "key-1"}


@pytest.mark.parametrize(
    "change",
    [
        {"text": "Good evening "},
        {"text": None},
        {"voice_id": "Xb7hH8MSUJpSbSDYk0k2"},
        {"model_id": "eleven_v3"},
        {"date_unix": SINCE_MS // 1000 - 1},
        {"date_unix": 10**18},
        {"request_id": None},
        {"request_id": "a b"},
        {"history_item_id": "../../secret"},
        {"content_type": "audio/wav"},
        {"state": "processing"},
        {"state": "deleted"},
    ],
    ids=str,
)
async def test_anything_else_in_the_history_is_nobody_s(change: dict[str, Any]) -> None:
    assert await found(ScriptedCalls(page(ITEM | change))) == []


async def test_a_voice_of_the_account_s_own_is_what_is_looked_for() -> None:
    options = {"voice_george": "own-voice"}
    assert await found(ScriptedCalls(page(ITEM)), options=options) == []
    assert len(await found(ScriptedCalls(page(ITEM | {"voice_id": "own-voice"})), options=options)) == 1


async def test_one_item_that_nobody_understands_hides_no_other() -> None:
    assert len(await found(ScriptedCalls(page({"history_item_id": 1}, "x", ITEM)))) == 1


async def test_what_was_kept_is_taken_before_anybody_is_asked() -> None:
    results = KeptResults()
    sound = answer(b"ID3 sound", headers={"content-type": "audio/mpeg", "request-id": "request-1"})
    sent = await ADAPTER.submit(
        context(ScriptedCalls(sound), results=results), account("elevenlabs"), PREPARED, "job_1:1"
    )
    (task,) = await found(ScriptedCalls(), results)
    assert task.task_id == sent.task.task_id == "request-1"
    snapshot = await ADAPTER.poll(context(ScriptedCalls(), results=results), account("elevenlabs"), task)
    assert snapshot.outputs == (OutputRef(Role.PRIMARY, "job_1:1/0.mp3"),)
    await ADAPTER.forget(context(ScriptedCalls(), results=results), account("elevenlabs"), task)
    assert results.kept == {}


async def test_an_attempt_that_got_its_answer_owns_the_item_that_a_twin_in_doubt_finds() -> None:
    sound = answer(b"ID3 sound", headers={"content-type": "audio/mpeg", "request-id": "request-1"})
    sent = await ADAPTER.submit(context(ScriptedCalls(sound)), account("elevenlabs"), PREPARED, "job_1:1")
    (twin,) = await found(ScriptedCalls(page(ITEM)))
    assert twin.task_id == sent.task.task_id


async def test_pages_are_turned_until_one_is_older() -> None:
    old = ITEM | {"date_unix": SINCE_MS // 1000 - 100}
    other = ITEM | {"text": "another", "history_item_id": "item-0"}
    calls = ScriptedCalls(page(other, has_more=True), page(ITEM, has_more=True), page(old, has_more=True))
    assert len(await found(calls)) == 1
    assert calls.left() == ()
    assert ("start_after_history_item_id", "item-0") in calls.sent[1].query


async def test_a_key_that_may_not_look_back_finds_nothing_and_waits_for_nothing() -> None:
    lacks = answer({"detail": {"status": "missing_permissions", "message": "history"}}, 401)
    assert await found(ScriptedCalls(lacks)) == []


async def test_a_history_that_cannot_be_had_is_asked_for_again() -> None:
    with pytest.raises(TransientFailure):
        await found(ScriptedCalls(answer(b"", 503)))


async def test_music_is_not_looked_for_there() -> None:
    played = Generation(Kind.MUSIC, MUSIC.model, "Good evening", duration_s=30)
    calls = ScriptedCalls()
    prepared = ADAPTER.prepare(replace(played), MUSIC)
    assert not await ADAPTER.list_tasks(context(calls), account("elevenlabs"), prepared, SINCE_MS, "job_1:1")
    assert calls.sent == []
