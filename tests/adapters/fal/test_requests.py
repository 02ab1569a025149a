"""Generations in fal's words, field by field as its documents have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.provider_pool.adapters.fal import requests
from services.provider_pool.adapters.fal.adapter import FalAdapter
from services.provider_pool.adapters.interface import (
    Generation,
    InvalidRequest,
    Kind,
    Reference,
    ReferenceRole,
    RemoteFile,
)
from tests.adapters.scripted import account, image_file

ADAPTER = FalAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}
FILM = Generation(Kind.VIDEO, "seedance-2.0", "A red balloon", 1280, 720, duration_s=5, audio=True)
PICTURE = Generation(Kind.IMAGE, "gpt-image-2", "A lighthouse", 1024, 1024, quality="low")


def following(*roles: ReferenceRole, **changes: Any) -> Generation:
    return replace(FILM, references=tuple(Reference(role=role) for role in roles), **changes)


def test_a_film_is_asked_for_with_everything_that_has_a_price() -> None:
    assert ADAPTER.prepare(FILM, SPECS["seedance-2.0"]).body == {
        "prompt": "A red balloon",
        "resolution": "720p",
        "duration": "5",
        "aspect_ratio": "16:9",
        "generate_audio": True,
    }


def test_references_that_the_prompt_speaks_of_are_named_as_its_documents_have_them() -> None:
    asked = following(ReferenceRole.IMAGE, prompt="@Image1 turns")
    assert requests.body_of(asked, SPECS["seedance-2.0"])["prompt"] == "@Image1 turns"


def test_a_seed_is_sent_unless_it_means_any() -> None:
    assert ADAPTER.prepare(replace(FILM, seed=7), SPECS["seedance-2.0"]).body["seed"] == 7
    assert "seed" not in ADAPTER.prepare(replace(FILM, seed=-1), SPECS["seedance-2.0"]).body


@pytest.mark.parametrize(
    ("size", "resolution", "ratio"),
    [
        ((1470, 630), "720p", "21:9"),
        ((864, 496), "480p", "16:9"),
        ((1112, 834), "720p", "4:3"),
        ((960, 960), "720p", "1:1"),
        ((1248, 1664), "1080p", "3:4"),
        ((496, 864), "480p", "9:16"),
    ],
)
def test_pixels_become_a_resolution_and_a_ratio(size: tuple[int, int], resolution: str, ratio: str) -> None:
    body = ADAPTER.prepare(replace(FILM, width=size[0], height=size[1]), SPECS["seedance-2.0"]).body
    assert (body["resolution"], body["aspect_ratio"]) == (resolution, ratio)


def test_a_ratio_that_follows_a_picture_is_left_to_the_model() -> None:
    asked = replace(FILM, width=1280, height=1280, adaptive_ratio=True)
    body = ADAPTER.prepare(asked, SPECS["seedance-2.0"]).body
    assert (body["resolution"], body["aspect_ratio"]) == ("720p", "auto")


@pytest.mark.parametrize(
    ("roles", "way"),
    [
        ((), "text-to-video"),
        ((ReferenceRole.FIRST_FRAME,), "image-to-video"),
        ((ReferenceRole.FIRST_FRAME, ReferenceRole.LAST_FRAME), "image-to-video"),
        ((ReferenceRole.IMAGE, ReferenceRole.VIDEO, ReferenceRole.AUDIO), "reference-to-video"),
    ],
)
@pytest.mark.parametrize(
    ("model", "app"),
    [
        ("seedance-2.0", "bytedance/seedance-2.0"),
        ("seedance-2.0-fast", "bytedance/seedance-2.0/fast"),
        ("seedance-2.0-mini", "bytedance/seedance-2.0/mini"),
    ],
)
def test_each_way_to_begin_has_its_endpoint(
    roles: tuple[ReferenceRole, ...], way: str, model: str, app: str
) -> None:
    assert requests.endpoint_of(following(*roles, model=model), SPECS[model]) == f"{app}/{way}"


def test_references_stand_where_the_documents_have_them_and_in_their_order() -> None:
    frames = following(ReferenceRole.FIRST_FRAME, ReferenceRole.LAST_FRAME)
    assert requests.with_references({"prompt": "x"}, frames, [RemoteFile("u1"), RemoteFile("u2")]) == {
        "prompt": "x",
        "image_url": "u1",
        "end_image_url": "u2",
    }
    mixed = following(ReferenceRole.IMAGE, ReferenceRole.AUDIO, ReferenceRole.IMAGE, ReferenceRole.VIDEO)
    uploads = [RemoteFile(f"u{number}") for number in range(4)]
    assert requests.with_references({}, mixed, uploads) == {
        "image_urls": ["u0", "u2"],
        "audio_urls": ["u1"],
        "video_urls": ["u3"],
    }


@pytest.mark.parametrize(
    "roles",
    [
        (ReferenceRole.LAST_FRAME,),
        (ReferenceRole.FIRST_FRAME, ReferenceRole.IMAGE),
        (ReferenceRole.AUDIO,),
        (ReferenceRole.IMAGE,) * 10,
        (ReferenceRole.IMAGE,) * 9 + (ReferenceRole.VIDEO,) * 3 + (ReferenceRole.AUDIO,),
    ],
)
def test_references_that_do_not_go_together_are_refused(
    roles: tuple[ReferenceRole, ...], tmp_path: Path
) -> None:
    files = [
        image_file(tmp_path, f"{number}", role=role, duration_ms=0 if role.medium == "image" else 3000)
        for number, role in enumerate(roles)
    ]
    with pytest.raises(InvalidRequest):
        ADAPTER.prepare(following(*roles), SPECS["seedance-2.0"], files)


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [
        (640, 640, True),
        (854, 480, True),
        (992, 432, True),
        (1280, 720, True),
        (720, 1280, True),
        (1112, 834, True),
        (640, 360, False),
        (1920, 1080, False),
        (1440, 1440, False),
    ],
)
@pytest.mark.parametrize("model", ["seedance-2.0", "seedance-2.0-fast", "seedance-2.0-mini"])
def test_a_film_to_follow_is_of_480p_to_720p_before_it_is_uploaded(
    tmp_path: Path, model: str, width: int, height: int, fits: bool
) -> None:
    spec = next(spec for spec in FalAdapter().models() if spec.model == model)
    file = image_file(
        tmp_path, "1.mp4", role=ReferenceRole.VIDEO, content_type="video/mp4", duration_ms=5_000
    )
    assert spec.capability.references.suits(replace(file, width=width, height=height)) is fits


def test_videos_that_last_too_long_together_are_refused(tmp_path: Path) -> None:
    roles = (ReferenceRole.VIDEO, ReferenceRole.VIDEO)
    files = [
        image_file(tmp_path, f"{n}.mp4", role=role, content_type="video/mp4", duration_ms=9_000)
        for n, role in enumerate(roles)
    ]
    with pytest.raises(InvalidRequest):
        ADAPTER.prepare(following(*roles), SPECS["seedance-2.0"], files)


def test_a_picture_is_asked_for_by_its_pixels() -> None:
    prepared = ADAPTER.prepare(PICTURE, SPECS["gpt-image-2"])
    assert prepared.body == {
        "prompt": "A lighthouse",
        "image_size": {"width": 1024, "height": 1024},
        "quality": "low",
        "num_images": 1,
        "output_format": "png",
    }
    assert requests.endpoint_of(PICTURE, prepared.spec) == "openai/gpt-image-2"
    after = replace(PICTURE, references=(Reference(),))
    assert requests.endpoint_of(after, prepared.spec) == "openai/gpt-image-2/edit"
    assert requests.with_references({}, after, [RemoteFile("u1")]) == {"image_urls": ["u1"]}


def test_a_chart_is_a_picture_with_an_instruction() -> None:
    spec = SPECS["infographic-1"]
    asked = Generation(Kind.INFOGRAPHIC, spec.model, "Rain in Bergen", 1152, 864, style="bold")
    body = ADAPTER.prepare(asked, spec).body
    assert requests.endpoint_of(asked, spec) == "openai/gpt-image-2.5/sunburst/text-to-image"
    assert str(body["prompt"]).startswith("Design one finished infographic")
    assert "heavy type" in str(body["prompt"])
    assert (body["quality"], body["num_images"]) == ("high", 1)


def test_a_listed_request_is_ours_if_it_has_all_that_was_sent_and_the_same_references() -> None:
    uploads = [RemoteFile("u1"), RemoteFile("u2")]
    asked = following(ReferenceRole.IMAGE, ReferenceRole.IMAGE)
    sent = {"prompt": "A red balloon", "duration": "5"}
    told: dict[str, object] = {**sent, "image_urls": ["u1", "u2"], "task": "reference"}
    assert requests.is_this(told, sent, asked, uploads)
    assert not requests.is_this(told | {"duration": "6"}, sent, asked, uploads)
    assert not requests.is_this(told | {"image_urls": ["u1"]}, sent, asked, uploads)
    assert not requests.is_this(told | {"image_urls": ["u1", "u3"]}, sent, asked, uploads)
    assert not requests.is_this(told | {"video_urls": ["u3"]}, sent, asked, uploads)
    assert not requests.is_this(told, sent, asked, [])
    oddities: list[object] = [None, [], "text", {}]
    for odd in oddities:
        assert not requests.is_this(odd, sent, asked, uploads)


def test_a_request_is_found_below_its_owner_and_app_alone() -> None:
    own = account("fal", options={"base_url": "http://127.0.0.1:9/fal/queue"})
    told = requests.task_addresses(own, "bytedance/seedance-2.0/fast/text-to-video", "a/b")
    assert told == {
        "status_url": "http://127.0.0.1:9/fal/queue/bytedance/seedance-2.0/requests/a%2Fb/status",
        "response_url": "http://127.0.0.1:9/fal/queue/bytedance/seedance-2.0/requests/a%2Fb",
        "cancel_url": "http://127.0.0.1:9/fal/queue/bytedance/seedance-2.0/requests/a%2Fb/cancel",
    }
