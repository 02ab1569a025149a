"""What goes to Runway, field by field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.provider_pool.adapters.calls import FormPart
from services.provider_pool.adapters.interface import (
    Generation,
    InvalidRequest,
    Kind,
    Reference,
    ReferenceFile,
    ReferenceRole,
    RemoteFile,
    TransientFailure,
)
from services.provider_pool.adapters.runway.adapter import RunwayAdapter
from tests.adapters.scripted import ScriptedCalls, Sent, account, answer, context, image_file

ADAPTER = RunwayAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
FILM = Generation(Kind.VIDEO, "seedance-2.0", "a mill by a river", 1280, 720, 5, audio=True, seed=11)
HEADERS = {"authorization": "Bearer key-1", "x-runway-version": "2024-11-06"}
FORM = {
    "uploadUrl": "https://store.example/",
    "fields": {"key": "k", "Policy": "p"},
    "runwayUri": "runway://1",
}


async def submitted(generation: Generation, *files: ReferenceFile) -> Sent:
    """The one call of a submission, with an upload `runway://0` … for each file."""
    references = tuple(Reference(url="u", role=file.role) for file in files)
    prepared = ADAPTER.prepare(replace(generation, references=references), SPECS[generation.model], files)
    uploads = tuple(RemoteFile(f"runway://{n}") for n in range(len(files)))
    calls = ScriptedCalls(answer({"id": "task-1", "estimatedCost": {"credits": 180}}))
    await ADAPTER.submit(context(calls), account("runway"), replace(prepared, uploads=uploads), "job_1:1")
    return calls.only


async def test_references_that_the_prompt_speaks_of_are_named_in_words(tmp_path: Path) -> None:
    sent = await submitted(replace(FILM, prompt="@Image1 turns, not @Image2"), image_file(tmp_path))
    assert isinstance(sent.json, dict)
    assert sent.json["promptText"] == "image 1 turns, not @Image2"


async def test_a_film_of_words_is_asked_for_with_every_field_that_has_a_price() -> None:
    sent = await submitted(FILM)
    assert (sent.method, sent.url, sent.billable) == (
        "POST",
        "https://api.dev.runwayml.com/v1/text_to_video",
        True,
    )
    assert sent.headers == HEADERS
    assert sent.json == {
        "model": "seedance2",
        "promptText": "a mill by a river",
        "ratio": "1280:720",
        "duration": 5,
        "audio": True,
        "seed": 11,
    }


@pytest.mark.parametrize(
    ("model", "upstream"),
    [
        ("seedance-2.0", "seedance2"),
        ("seedance-2.0-fast", "seedance2_fast"),
        ("seedance-2.0-mini", "seedance2_mini"),
    ],
)
async def test_every_model_has_its_name_there_and_no_seed_is_no_seed(model: str, upstream: str) -> None:
    sent = await submitted(replace(FILM, model=model, seed=None))
    assert isinstance(sent.json, dict)
    assert sent.json["model"] == upstream
    assert "seed" not in sent.json


async def test_what_is_to_be_followed_goes_by_its_medium(tmp_path: Path) -> None:
    picture = image_file(tmp_path)
    clip = image_file(
        tmp_path, "c.mp4", role=ReferenceRole.VIDEO, content_type="video/mp4", duration_ms=5_000
    )
    sound = image_file(
        tmp_path, "s.mp3", role=ReferenceRole.AUDIO, content_type="audio/mpeg", duration_ms=5_000
    )
    sent = await submitted(FILM, picture, clip, sound)
    assert sent.url.endswith("/v1/text_to_video")
    assert isinstance(sent.json, dict)
    assert sent.json["references"] == [{"type": "image", "uri": "runway://0"}]
    assert sent.json["referenceVideos"] == [{"type": "video", "uri": "runway://1"}]
    assert sent.json["referenceAudio"] == [{"type": "audio", "uri": "runway://2"}]


async def test_frames_make_it_a_film_of_pictures(tmp_path: Path) -> None:
    first = image_file(tmp_path, "a.png", role=ReferenceRole.FIRST_FRAME)
    last = image_file(tmp_path, "b.png", role=ReferenceRole.LAST_FRAME)
    sent = await submitted(FILM, first, last)
    assert sent.url.endswith("/v1/image_to_video")
    assert isinstance(sent.json, dict)
    assert sent.json["promptImage"] == [
        {"uri": "runway://0", "position": "first"},
        {"uri": "runway://1", "position": "last"},
    ]
    assert "references" not in sent.json


async def test_an_upload_is_a_form_with_the_file_last_and_without_credentials(tmp_path: Path) -> None:
    file = image_file(tmp_path)
    calls = ScriptedCalls(answer(FORM), answer(None, 204))
    stored = await ADAPTER.upload(context(calls), account("runway"), SPECS["seedance-2.0"], file)
    asked, sent = calls.sent
    assert asked.url == "https://api.dev.runwayml.com/v1/uploads"
    assert (asked.json, asked.headers) == ({"filename": "reference.png", "type": "ephemeral"}, HEADERS)
    assert (sent.url, sent.headers) == ("https://store.example/", {})
    assert sent.form == (
        FormPart("key", "k"),
        FormPart("Policy", "p"),
        FormPart("file", path=file.path, file_name="reference.png", content_type="image/png"),
    )
    assert stored.location == "runway://1"


async def test_an_upload_that_the_store_refuses_may_be_tried_again(tmp_path: Path) -> None:
    calls = ScriptedCalls(answer(FORM), answer(b"<Error/>", 403))
    with pytest.raises(TransientFailure):
        await ADAPTER.upload(context(calls), account("runway"), SPECS["seedance-2.0"], image_file(tmp_path))


@pytest.mark.parametrize(
    "asked",
    [
        replace(FILM, prompt="p" * 3_501),
        replace(FILM, watermark=True),
        replace(FILM, last_frame=True),
        replace(FILM, width=1024, height=1024),
        replace(FILM, references=(Reference(url="u", role=ReferenceRole.AUDIO),)),
        replace(FILM, references=(Reference(url="u", role=ReferenceRole.LAST_FRAME),)),
    ],
)
def test_what_the_model_cannot_make_is_refused_before_anything_is_sent(asked: Generation) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.prepare(asked, SPECS[asked.model])


@pytest.mark.parametrize(
    ("options", "secrets", "said"),
    [
        ({}, {}, "api_key"),
        ({"region": "eu"}, {"api_key": None}, "region"),
        ({"base_url": "http://api.example"}, {"api_key": None}, "base_url"),
    ],
)
def test_an_account_that_cannot_work_is_complained_about(
    options: dict[str, str], secrets: dict[str, object], said: str
) -> None:
    assert said in str(ADAPTER.complaint(options, secrets))
