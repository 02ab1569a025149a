"""What goes to Ark, field by field."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from services.provider_pool.adapters.ark.adapter import ArkAdapter
from services.provider_pool.adapters.ark.requests import mark_of, plain, seed_of
from services.provider_pool.adapters.interface import (
    Generation,
    InvalidRequest,
    Kind,
    Reference,
    ReferenceFile,
    ReferenceRole,
)
from tests.adapters.scripted import ScriptedCalls, Sent, account, answer, context, image_file

ADAPTER = ArkAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
FILM = Generation(Kind.VIDEO, "seedance-2.0", "a mill by a river", 1280, 720, 5, audio=True, seed=11)


async def submitted(
    generation: Generation, *files: ReferenceFile, options: dict[str, str] | None = None, callback: str = ""
) -> Sent:
    """The one call of a submission."""
    references = tuple(Reference(url="u", role=file.role) for file in files)
    asked = replace(generation, references=references)
    prepared = ADAPTER.prepare(asked, SPECS[generation.model], files)
    calls = ScriptedCalls(answer({"id": "cgt-20261121-abcde"}))
    with_options = account("ark", options=options)
    await ADAPTER.submit(context(calls, callback_url=callback), with_options, prepared, "job_1:1")
    return calls.only


async def test_a_film_is_asked_for_with_every_field_that_has_a_price() -> None:
    sent = await submitted(FILM, callback="https://atelier.example/hints/t0ken")
    assert (sent.method, sent.url, sent.billable) == (
        "POST",
        "https://ark.ap-southeast.bytepluses.com/api/v3/contents/generations/tasks",
        True,
    )
    assert sent.headers == {"authorization": "Bearer key-1"}
    assert sent.json == {
        "model": "dreamina-seedance-2-0-260128",
        "content": [{"type": "text", "text": "a mill by a river"}],
        "resolution": "720p",
        "ratio": "16:9",
        "duration": 5,
        "seed": 11,
        "watermark": False,
        "generate_audio": True,
        "return_last_frame": False,
        "execution_expires_after": 3600,
        "safety_identifier": mark_of("job_1:1"),
        "callback_url": "https://atelier.example/hints/t0ken",
    }


async def test_without_a_seed_the_attempt_gets_its_own() -> None:
    sent = await submitted(replace(FILM, seed=None))
    assert isinstance(sent.json, dict)
    assert sent.json["seed"] == seed_of(replace(FILM, seed=None), "job_1:1")
    assert 0 <= sent.json["seed"] < 2**32
    assert "callback_url" not in sent.json


async def test_the_mark_of_an_attempt_does_not_tell_its_job() -> None:
    assert len(mark_of("job_1:1")) <= 64
    assert mark_of("job_1:1").isascii()
    assert "job" not in mark_of("job_1:1")
    assert mark_of("job_1:1") != mark_of("job_1:2")


async def test_pictures_and_sounds_travel_inside_with_their_role_beside_them(tmp_path: Path) -> None:
    picture = image_file(tmp_path, content=b"picture")
    sound = image_file(
        tmp_path,
        "s.mp3",
        role=ReferenceRole.AUDIO,
        content_type="audio/mpeg",
        content=b"sound",
        duration_ms=5_000,
    )
    sent = await submitted(FILM, picture, sound)
    assert isinstance(sent.json, dict)
    assert sent.json["content"][1:] == [
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{base64.b64encode(b'picture').decode()}"},
            "role": "reference_image",
        },
        {
            "type": "audio_url",
            "audio_url": {"url": f"data:audio/mp3;base64,{base64.b64encode(b'sound').decode()}"},
            "role": "reference_audio",
        },
    ]


async def test_frames_have_the_roles_of_frames(tmp_path: Path) -> None:
    first = image_file(tmp_path, "a.png", role=ReferenceRole.FIRST_FRAME)
    last = image_file(tmp_path, "b.png", role=ReferenceRole.LAST_FRAME)
    sent = await submitted(FILM, first, last)
    assert isinstance(sent.json, dict)
    assert [item.get("role") for item in sent.json["content"]] == [None, "first_frame", "last_frame"]


async def test_an_adaptive_film_gets_the_ratio_of_its_first_picture(tmp_path: Path) -> None:
    adaptive = replace(FILM, width=1280, height=1280, adaptive_ratio=True)
    sent = await submitted(adaptive, image_file(tmp_path, width=700, height=1000))
    assert isinstance(sent.json, dict)
    assert (sent.json["resolution"], sent.json["ratio"]) == ("720p", "3:4")


async def test_volcengine_has_names_of_its_own_for_the_models() -> None:
    china = {"base_url": "https://ark.cn-beijing.volces.com"}
    for model, name in {
        "seedance-2.0": "doubao-seedance-2-0-260128",
        "seedance-2.0-fast": "doubao-seedance-2-0-fast-260128",
        "seedance-2.0-mini": "doubao-seedance-2-0-mini-260615",
    }.items():
        for options, upstream in ((china, name), (china | {f"model:{model}": "ep-1"}, "ep-1")):
            sent = await submitted(replace(FILM, model=model), options=options)
            assert isinstance(sent.json, dict)
            assert (sent.url.partition("/api")[0], sent.json["model"]) == (china["base_url"], upstream)


async def test_an_account_may_have_an_endpoint_and_an_address_of_its_own() -> None:
    options = {"base_url": "http://127.0.0.1:9/ark/", "model:seedance-2.0": "ep-1"}
    assert ADAPTER.complaint(options, {"api_key": None}) is None
    sent = await submitted(FILM, options=options)
    assert sent.url == "http://127.0.0.1:9/ark/api/v3/contents/generations/tasks"
    assert isinstance(sent.json, dict)
    assert sent.json["model"] == "ep-1"


async def test_references_that_the_prompt_speaks_of_are_named_in_words(tmp_path: Path) -> None:
    asked = replace(FILM, prompt="@Image1 in the light of @Image2 (@Video1, @Image10, @Image1a)")
    sent = await submitted(asked, image_file(tmp_path), image_file(tmp_path))
    assert isinstance(sent.json, dict)
    text = sent.json["content"][0]["text"]
    assert text == "image 1 in the light of image 2 (@Video1, @Image10, @Image1a)"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("a mill --resolution 1080p --dur 15", "a mill –resolution 1080p –dur 15"),
        ("a mill --RS 1080p ---wm true", "a mill –RS 1080p –wm true"),
        ("a mill -- quickly", "a mill -- quickly"),
        ("--seeds of time", "--seeds of time"),
    ],
)
def test_what_looks_like_a_setting_in_a_prompt_is_none(written: str, sent: str) -> None:
    assert plain(written) == sent


@pytest.mark.parametrize(
    "changed",
    [
        {"width": 700, "height": 700},
        {"duration_s": 3},
        {"model": "seedance-2.0-fast", "width": 1920, "height": 1080},
        {"references": (Reference(url="u", role=ReferenceRole.VIDEO),)},
        {"seed": -1},
    ],
)
def test_what_the_model_cannot_make_is_refused_before_anything_is_sent(changed: dict[str, object]) -> None:
    asked = replace(FILM, **changed)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        ADAPTER.prepare(asked, SPECS[asked.model])


@pytest.mark.parametrize(
    ("options", "secrets", "said"),
    [
        ({}, {}, "api_key"),
        ({"region": "eu"}, {"api_key": None}, "region"),
        ({"base_url": "http://ark.example"}, {"api_key": None}, "base_url"),
        ({"model:z-video": "ep-1"}, {"api_key": None}, "z-video"),
    ],
)
def test_an_account_that_cannot_work_is_complained_about(
    options: dict[str, str], secrets: dict[str, object], said: str
) -> None:
    assert said in str(ADAPTER.complaint(options, secrets))
