"""What the sandbox draws when it is asked for a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from services.provider_pool.adapters.sandbox.caption import make_overlay, readable
from services.provider_pool.adapters.sandbox.picture import draw_picture, write_picture
from services.provider_pool.adapters.sandbox.render_order import RenderOrder
from services.provider_pool.adapters.sandbox.scene import Composition, choose_scene

PICTURE = RenderOrder(
    order_id="att_1",
    kind="image",
    prompt="a quiet harbour at dusk",
    width=512,
    height=384,
    duration_s=0,
    audio=False,
    seed=11,
    quality="LOW",
)

HOSTILE_PROMPTS = {
    "control characters": "a\x00b\x1b[31mc\r\n\td\x7f\u2028e",
    "right to left": "\u202eשלום עולם\u202c مرحبا بالعالم",
    "emoji": "👩\u200d👩\u200d👧\u200d👦 🌅 👍🏽 🇻🇳",
    "four thousand words": "wave " * 800,
    "four thousand letters without a space": "W" * 4000,
    "lone surrogate": "left \ud800 right",
    "combining flood": "e" + "\u0301" * 3999,
    "nothing that can be drawn": "\u200b\u200b\x00",
    "unassigned": "\U000fffff\U0010fffe\ufffe",
    "markup": "<svg onload=alert(1)> %s %n {0} \\N{BULLET}",
}


def luminance(colour: tuple[int, ...]) -> float:
    """Relative luminance as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    raw = image.convert("RGB").tobytes()
    return [tuple(raw[i : i + 3]) for i in range(0, len(raw), 3)]


@pytest.mark.parametrize("size", [(1376, 768), (1024, 1024), (848, 1264), (768, 1376), (64, 64), (1023, 333)])
def test_a_picture_has_exactly_the_size_that_was_asked(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    write_picture(dataclasses.replace(PICTURE, width=size[0], height=size[1]), path)
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.size, image.mode, image.info) == ("PNG", size, "RGB", {})


@pytest.mark.parametrize("composition", list(Composition))
def test_every_composition_fills_the_frame_with_many_colours(composition: Composition) -> None:
    order = dataclasses.replace(PICTURE, prompt=str(composition).rstrip("s"), quality="MEDIUM")
    if choose_scene(order.prompt, order.seed, order.quality).composition is not composition:
        order = dataclasses.replace(order, prompt=str(composition))
    assert choose_scene(order.prompt, order.seed, order.quality).composition is composition
    assert len(set(pixels(draw_picture(order)))) > 500


def test_the_same_order_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        write_picture(PICTURE, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize(
    "change", [{"seed": 12}, {"prompt": "a quiet harbour at dawn"}, {"quality": "MEDIUM"}]
)
def test_another_seed_prompt_or_quality_gives_another_picture(change: dict[str, object]) -> None:
    other = dataclasses.replace(PICTURE, **change)  # type: ignore[arg-type]
    assert draw_picture(other).tobytes() != draw_picture(PICTURE).tobytes()


@pytest.mark.parametrize("seed", range(6))
def test_the_prompt_stands_out_from_its_panel(seed: int) -> None:
    order = dataclasses.replace(PICTURE, seed=seed, prompt=f"snow in bright noon light, number {seed}")
    box = make_overlay(order.prompt, "", order.width, order.height, bar=False).panel_box
    shades = sorted(luminance(pixel) for pixel in pixels(draw_picture(order).crop(box)))
    ground, ink = shades[len(shades) // 2], shades[-len(shades) // 200]
    assert (ink + 0.05) / (ground + 0.05) > 7


@pytest.mark.parametrize("words", ["first words", "second thoughts"])
def test_the_words_of_the_prompt_are_what_is_written(words: str) -> None:
    written = make_overlay(words, "", 512, 384, bar=False).image
    assert written.tobytes() != make_overlay("entirely different", "", 512, 384, bar=False).image.tobytes()
    assert written.tobytes() == make_overlay(f"  {words}\n", "", 512, 384, bar=False).image.tobytes()


@pytest.mark.parametrize("prompt", HOSTILE_PROMPTS.values(), ids=HOSTILE_PROMPTS.keys())
def test_no_prompt_breaks_the_picture_or_leaves_its_panel(prompt: str) -> None:
    assert draw_picture(dataclasses.replace(PICTURE, prompt=prompt)).size == (512, 384)
    left, top, right, bottom = make_overlay(prompt, "", 512, 384, bar=False).panel_box
    assert 0 < left < right < 512
    assert 384 * 0.5 < top < bottom < 384


def test_a_prompt_that_is_too_long_ends_with_an_ellipsis_after_as_many_words_as_fit() -> None:
    short, long = ("word " * count for count in (300, 800))
    images = [make_overlay(prompt, "", 512, 384, bar=False).image.tobytes() for prompt in (short, long)]
    assert images[0] == images[1]
    assert images[0] != make_overlay("word " * 20, "", 512, 384, bar=False).image.tobytes()


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("Ruộng bậc thang mùa lúa chín ở Đà Lạt", "Ruong bac thang mua lua chin o Da Lat"),
        ("a sunrise 🌅 over “Huế” – wow…", 'a sunrise [sunrise] over "Hue" - wow...'),
        ("с любовью из Ханоя, 水墨", "[cyrillic] , [cjk]"),
        ("tab\tand\x00nul\u202e", "tab and nul"),
        ("½ cup", "1/2 cup"),
    ],
)
def test_what_the_font_lacks_is_spelled_or_named(prompt: str, expected: str) -> None:
    assert readable(prompt) == expected


@pytest.mark.parametrize(
    "prompt, composition",
    [
        ("cinematic product photo", Composition.PRODUCT),
        ("A CITY street", Composition.CITY),
        ("terraced rice fields", Composition.TERRACES),
        ("Portrait of an old fisherman", Composition.PORTRAIT),
        ("the sea, waves", Composition.SEA),
    ],
)
def test_a_word_that_names_a_scene_decides_the_composition(prompt: str, composition: Composition) -> None:
    assert {choose_scene(prompt, seed, "LOW").composition for seed in range(20)} == {composition}


def test_without_such_a_word_the_seed_decides() -> None:
    assert len({choose_scene("xyzzy", seed, "LOW").composition for seed in range(200)}) == len(Composition)
