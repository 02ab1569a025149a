"""What goes to Leonardo, field by field."""

from __future__ import annotations

import json
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
    ReferenceRejected,
    ReferenceRole,
    RemoteFile,
    Strength,
    TransientFailure,
)
from services.provider_pool.adapters.leonardo.adapter import LeonardoAdapter
from tests.adapters.scripted import ScriptedCalls, Sent, account, answer, context, image_file

ADAPTER = LeonardoAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
FILM = Generation(Kind.VIDEO, "seedance-2.0-fast", "a mill by a river", 1280, 720, 8, audio=True)
PICTURE = Generation(Kind.IMAGE, "gpt-image-2", "a mill", 1376, 768, quality="low")
BEGUN = {"generate": {"generationId": "gen-1", "cost": {"amount": "0.80", "unit": "DOLLARS"}}}
FORM = {
    "uploadInitImage": {
        "id": "img-1",
        "fields": json.dumps({"Content-Type": "image/png", "bucket": "b", "key": "k", "Policy": "p"}),
        "key": "k",
        "url": "https://store.example/",
    }
}


async def submitted(generation: Generation, *files: ReferenceFile) -> Sent:
    """The one call of a submission, with an upload `img-0`, `img-1` … for each file."""
    references = tuple(Reference(url="u", role=file.role) for file in files)
    prepared = ADAPTER.prepare(replace(generation, references=references), SPECS[generation.model], files)
    uploads = tuple(RemoteFile(f"img-{n}") for n in range(len(files)))
    calls = ScriptedCalls(answer(BEGUN))
    await ADAPTER.submit(context(calls), account("leonardo"), replace(prepared, uploads=uploads), "job_1:1")
    return calls.only


async def test_references_that_the_prompt_speaks_of_are_named_in_words(tmp_path: Path) -> None:
    sent = await submitted(replace(FILM, prompt="@Image1 turns, not @Image2"), image_file(tmp_path))
    assert isinstance(sent.json, dict)
    assert sent.json["parameters"]["prompt"] == "image 1 turns, not @Image2"


async def test_a_film_is_asked_for_by_the_second_api_with_every_field_that_has_a_price() -> None:
    sent = await submitted(FILM)
    assert (sent.method, sent.url, sent.billable) == (
        "POST",
        "https://cloud.leonardo.ai/api/rest/v2/generations",
        True,
    )
    assert sent.headers == {"authorization": "Bearer key-1", "accept": "application/json"}
    assert sent.json == {
        "model": "seedance-2.0-fast",
        "public": False,
        "parameters": {
            "prompt": "a mill by a river",
            "quantity": 1,
            "duration": 8,
            "width": 1280,
            "height": 720,
            "motion_has_audio": True,
            "seed": -1,
        },
    }


async def test_pictures_to_follow_are_named_by_their_upload_their_strength_and_their_order(
    tmp_path: Path,
) -> None:
    near = image_file(tmp_path, "a.png", strength=Strength.HIGH)
    sent = await submitted(FILM, near, image_file(tmp_path, "b.png"))
    assert isinstance(sent.json, dict)
    assert sent.json["parameters"]["guidances"] == {
        "image_reference": [
            {"image": {"id": "img-0", "type": "UPLOADED"}, "strength": "HIGH", "order": 1},
            {"image": {"id": "img-1", "type": "UPLOADED"}, "strength": "MID", "order": 2},
        ]
    }


async def test_first_and_last_frame_have_places_of_their_own(tmp_path: Path) -> None:
    first = image_file(tmp_path, "a.png", role=ReferenceRole.FIRST_FRAME)
    last = image_file(tmp_path, "b.png", role=ReferenceRole.LAST_FRAME)
    sent = await submitted(FILM, first, last)
    assert isinstance(sent.json, dict)
    assert sent.json["parameters"]["guidances"] == {
        "start_frame": [{"image": {"id": "img-0", "type": "UPLOADED"}}],
        "end_frame": [{"image": {"id": "img-1", "type": "UPLOADED"}}],
    }


async def test_a_picture_has_its_quality_and_its_references_no_strength(tmp_path: Path) -> None:
    sent = await submitted(PICTURE, image_file(tmp_path))
    assert isinstance(sent.json, dict)
    assert sent.json == {
        "model": "gpt-image-2",
        "public": False,
        "parameters": {
            "prompt": "a mill",
            "quantity": 1,
            "width": 1376,
            "height": 768,
            "quality": "LOW",
            "prompt_enhance": "OFF",
            "guidances": {"image_reference": [{"image": {"id": "img-0", "type": "UPLOADED"}}]},
        },
    }


async def test_an_infographic_is_a_picture_whose_prompt_says_what_it_is() -> None:
    chart = Generation(Kind.INFOGRAPHIC, "infographic-1", "bees: 3, wasps: 5", 1280, 720, style="dark")
    sent = await submitted(chart)
    assert isinstance(sent.json, dict)
    prompt = sent.json["parameters"]["prompt"]
    assert prompt.startswith("Design one finished infographic")
    assert "Style: near-black" in prompt
    assert prompt.endswith("bees: 3, wasps: 5")
    assert sent.json["parameters"]["quality"] == "MEDIUM"


async def test_music_is_counted_in_minutes() -> None:
    sent = await submitted(Generation(Kind.MUSIC, "eleven-music-v1", "a waltz", duration_s=120))
    assert isinstance(sent.json, dict)
    assert sent.json["parameters"] == {
        "prompt": "a waltz",
        "quantity": 1,
        "duration_minutes": 2,
        "force_instrumental": False,
    }


async def test_the_providers_own_models_are_asked_for_one_picture_by_the_first_api(tmp_path: Path) -> None:
    picture = Generation(Kind.IMAGE, "phoenix-1.0", "a mill", 1024, 768, seed=5)
    sent = await submitted(picture, image_file(tmp_path, strength=Strength.LOW))
    assert sent.url == "https://cloud.leonardo.ai/api/rest/v1/generations"
    assert sent.json == {
        "prompt": "a mill",
        "modelId": "de7d3faf-762f-48e0-b3b7-9d0ac3a3fcf3",
        "width": 1024,
        "height": 768,
        "num_images": 1,
        "public": False,
        "contrast": 3.5,
        "alchemy": True,
        "seed": 5,
        "init_image_id": "img-0",
        "init_strength": 0.3,
    }


async def test_an_upload_is_a_form_with_the_file_last_and_without_credentials(tmp_path: Path) -> None:
    file = image_file(tmp_path)
    calls = ScriptedCalls(answer(FORM), answer(None, 204))
    stored = await ADAPTER.upload(context(calls), account("leonardo"), SPECS["gpt-image-2"], file)
    asked, sent = calls.sent
    assert (asked.url, asked.json) == (
        "https://cloud.leonardo.ai/api/rest/v1/init-image",
        {"extension": "png"},
    )
    assert (sent.method, sent.url, sent.headers) == ("POST", "https://store.example/", {})
    assert sent.form == (
        FormPart("Content-Type", "image/png"),
        FormPart("bucket", "b"),
        FormPart("key", "k"),
        FormPart("Policy", "p"),
        FormPart("file", path=file.path, file_name="reference.png", content_type="image/png"),
    )
    assert stored.location == "img-1"
    assert not asked.billable
    assert not sent.billable


async def test_an_upload_that_the_store_refuses_may_be_tried_again(tmp_path: Path) -> None:
    calls = ScriptedCalls(answer(FORM), answer(b"<Error/>", 403))
    with pytest.raises(TransientFailure):
        await ADAPTER.upload(context(calls), account("leonardo"), SPECS["gpt-image-2"], image_file(tmp_path))


async def test_a_file_that_is_no_picture_is_not_uploaded(tmp_path: Path) -> None:
    file = image_file(tmp_path, "a.tiff", content_type="image/tiff")
    with pytest.raises(ReferenceRejected):
        await ADAPTER.upload(context(ScriptedCalls()), account("leonardo"), SPECS["gpt-image-2"], file)


@pytest.mark.parametrize(
    "asked",
    [
        replace(FILM, references=(Reference(url="u", role=ReferenceRole.VIDEO),)),
        replace(FILM, references=(Reference(url="u", role=ReferenceRole.AUDIO),)),
        replace(FILM, references=tuple(Reference(url="u") for _ in range(5))),
        replace(FILM, width=1920, height=1080),
        replace(FILM, watermark=True),
        replace(FILM, prompt="p" * 5_001),
        replace(PICTURE, width=1000),
        replace(PICTURE, quality="ultra"),
        Generation(Kind.MUSIC, "eleven-music-v1", "a waltz", duration_s=90),
    ],
)
def test_what_the_model_cannot_make_is_refused_before_anything_is_sent(asked: Generation) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.prepare(asked, SPECS[asked.model])


@pytest.mark.parametrize(
    ("options", "secrets", "said"),
    [
        ({}, {}, "api_key"),
        ({"user": "x"}, {"api_key": None}, "user"),
        ({"base_url": "ftp://cloud.example"}, {"api_key": None}, "base_url"),
        ({"token_usd_micros": "0"}, {"api_key": None}, "token_usd_micros"),
        ({"token_usd_micros": "1.5"}, {"api_key": None}, "token_usd_micros"),
    ],
)
def test_an_account_that_cannot_work_is_complained_about(
    options: dict[str, str], secrets: dict[str, object], said: str
) -> None:
    assert said in str(ADAPTER.complaint(options, secrets))
