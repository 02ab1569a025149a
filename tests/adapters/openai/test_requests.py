"""Generations in OpenAI's words, field by field as its documents have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.provider_pool.adapters.interface import (
    Generation,
    InvalidRequest,
    Kind,
    ModelSpec,
    Reference,
)
from services.provider_pool.adapters.openai import requests
from services.provider_pool.adapters.openai.adapter import OpenAIAdapter
from tests.adapters.scripted import account, image_file

ADAPTER = OpenAIAdapter()
SPECS = {spec.model: spec for spec in ADAPTER.models()}


def picture(**changes: Any) -> Generation:
    return replace(
        Generation(Kind.IMAGE, "gpt-image-2", "A lighthouse", 1024, 1024, quality="low"), **changes
    )


def chart(**changes: Any) -> Generation:
    return replace(Generation(Kind.INFOGRAPHIC, "infographic-1", "Rain in Bergen", 1152, 864), **changes)


def text(max_words: int = 100) -> Generation:
    return Generation(Kind.TEXT, "gpt-5-mini", "Describe a lighthouse", max_words=max_words)


def test_a_picture_is_asked_for_with_everything_that_has_a_price() -> None:
    assert ADAPTER.prepare(picture(), SPECS["gpt-image-2"]).body == {
        "model": "gpt-image-2",
        "prompt": "A lighthouse",
        "n": 1,
        "size": "1024x1024",
        "quality": "low",
        "output_format": "png",
    }


def test_a_quality_that_nobody_chose_is_said_all_the_same() -> None:
    body = ADAPTER.prepare(picture(quality=""), SPECS["gpt-image-2"]).body
    assert body["quality"] == "medium"


@pytest.mark.parametrize(
    "size", [(1376, 768), (848, 1264), (768, 1376), (1280, 720), (1152, 864), (864, 1152)]
)
def test_every_size_that_is_sold_can_be_made(size: tuple[int, int]) -> None:
    body = ADAPTER.prepare(picture(width=size[0], height=size[1]), SPECS["gpt-image-2"]).body
    assert body["size"] == f"{size[0]}x{size[1]}"


@pytest.mark.parametrize(
    "change",
    [
        {"width": 1000},
        {"width": 256, "height": 256},
        {"width": 3840, "height": 1024},
        {"quality": "best"},
        {"prompt": ""},
        {"prompt": "x" * 32_001},
        {"kind": Kind.VIDEO},
    ],
)
def test_what_the_model_cannot_make_is_refused_before_it_is_sent(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.prepare(picture(**change), SPECS["gpt-image-2"])


def test_a_chart_is_asked_for_with_its_instruction_and_its_style() -> None:
    body = ADAPTER.prepare(chart(style="dark"), SPECS["infographic-1"]).body
    assert body["model"] == "gpt-image-2.5-sunburst"
    assert body["quality"] == "high"
    prompt = str(body["prompt"])
    assert prompt.startswith("Design one finished infographic")
    assert "near-black background" in prompt
    assert prompt.endswith("\n\nRain in Bergen")


def test_a_chart_s_whole_prompt_has_the_length_that_a_picture_s_may_have() -> None:
    longest = SPECS["infographic-1"].capability.prompt_characters.high
    body = ADAPTER.prepare(chart(prompt="x" * longest, style="paper"), SPECS["infographic-1"]).body
    assert len(str(body["prompt"])) <= requests.PROMPT_LIMIT_CHARACTERS


def test_a_picture_after_one_other_is_a_form_with_one_image(tmp_path: Path) -> None:
    file = image_file(tmp_path)
    prepared = ADAPTER.prepare(picture(references=(Reference(),)), SPECS["gpt-image-2"], [file])
    form = requests.edit_form(prepared.body, prepared.references)
    assert [(part.name, part.text) for part in form[:-1]] == [
        ("model", "gpt-image-2"),
        ("prompt", "A lighthouse"),
        ("n", "1"),
        ("size", "1024x1024"),
        ("quality", "low"),
        ("output_format", "png"),
    ]
    assert (form[-1].name, form[-1].path) == ("image", file.path)
    assert (form[-1].file_name, form[-1].content_type) == ("0.png", "image/png")


def test_several_pictures_are_repeated_images_in_their_order(tmp_path: Path) -> None:
    files = [image_file(tmp_path, "a.png"), image_file(tmp_path, "b.jpg", content_type="image/jpeg")]
    form = requests.edit_form({"model": "gpt-image-2"}, files)
    assert [(part.name, part.file_name) for part in form[1:]] == [("image[]", "0.png"), ("image[]", "1.jpg")]


def test_a_reference_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        requests.edit_form({}, [image_file(tmp_path, content_type="image/tiff")])


def test_a_reference_without_its_file_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.prepare(picture(references=(Reference(),)), SPECS["gpt-image-2"])


def test_a_text_is_asked_for_with_room_for_the_thinking_before_it() -> None:
    body = ADAPTER.prepare(text(), SPECS["gpt-5-mini"]).body
    messages = body["messages"]
    assert isinstance(messages, list)
    assert body.keys() == {"model", "messages", "n", "max_completion_tokens", "reasoning_effort"}
    assert (body["model"], body["n"], body["reasoning_effort"]) == ("gpt-5.4-mini", 1, "low")
    assert messages[0]["role"] == "system"
    assert "At most 100 words" in messages[0]["content"]
    assert messages[1] == {"role": "user", "content": "Describe a lighthouse"}
    assert body["max_completion_tokens"] == 4 * 100 + 2000 + 50


def test_no_text_can_cost_more_than_its_ceiling() -> None:
    spec: ModelSpec = SPECS["gpt-5-mini"]
    for max_words in (1, 100, 2000):
        asked = text(max_words)
        most = ADAPTER.prepare(asked, spec).body["max_completion_tokens"]
        assert isinstance(most, int)
        # 4.5 dollars for a million, in thousandths of a dollar.
        assert spec.cost.estimate(asked).ceiling_millis >= most * 4.5 / 1000


def test_a_compatible_provider_is_asked_for_its_own_model_and_nothing_that_it_may_not_know() -> None:
    body = ADAPTER.prepare(text(), SPECS["gpt-5-mini"]).body
    told = requests.for_account(body, account("openai", options={"text_model": "seed-1"}))
    assert told == {name: value for name, value in body.items() if name != "reasoning_effort"} | {
        "model": "seed-1"
    }
    assert requests.for_account(body, account("openai")) == body


def test_credentials_are_sent_as_documented_and_print_themselves_nowhere() -> None:
    options = {"organization": "org-1", "project": "proj_1"}
    headers = requests.headers_of(account("openai", options=options), "job_1:1")
    assert headers["openai-organization"] == "org-1"
    assert headers["openai-project"] == "proj_1"
    assert headers["x-client-request-id"] == "job_1:1"
    assert "key-1" not in repr(headers)
