"""What the sandbox draws when it is given pictures to follow."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.chassis.errors import Kind, ServiceError
from services.provider_pool.adapters.sandbox.caption import make_overlay
from services.provider_pool.adapters.sandbox.film import write_film
from services.provider_pool.adapters.sandbox.picture import draw_picture, write_picture
from services.provider_pool.adapters.sandbox.reference_print import read_print
from services.provider_pool.adapters.sandbox.render_farm import RenderFarm
from services.provider_pool.adapters.sandbox.render_order import (
    ReferenceUnusable,
    RenderOrder,
    RenderReference,
    Strength,
)

PICTURE = RenderOrder(
    order_id="att_3",
    kind="image",
    prompt="a quiet harbour at dusk",
    width=512,
    height=288,
    duration_s=0,
    audio=False,
    seed=11,
    quality="LOW",
)
FILM = dataclasses.replace(PICTURE, kind="video", width=320, height=180, duration_s=2)
STRENGTHS: tuple[Strength, ...] = ("low", "mid", "high")
EXIF_ORIENTATION = 0x0112
# The mean colours of the picture of PICTURE, which were so before there were references.
HARBOUR = (
    ((113, 60, 102), (117, 63, 103), (137, 94, 113), (118, 67, 102)),
    ((84, 60, 76), (80, 57, 73), (81, 59, 73), (79, 57, 73)),
)
RED, BLUE = (200, 40, 40), (40, 60, 200)


def patches(chance: int, width: int = 640, height: int = 360) -> Image.Image:
    """A picture that resembles no other: large patches of chance colours."""
    colours = np.random.default_rng(chance).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)


def kept(folder: Path, chance: int = 1, name: str = "reference") -> Path:
    path = folder / f"{name}-{chance}"
    patches(chance).save(path, format="PNG")
    return path


def following(order: RenderOrder, strength: Strength, *paths: Path) -> RenderOrder:
    return dataclasses.replace(
        order, references=tuple(RenderReference(str(path), strength) for path in paths)
    )


def seen(image: Image.Image) -> NDArray[np.float64]:
    """What is above the caption, in few pixels."""
    upper = image.convert("RGB").crop((0, 0, image.width, image.height * 7 // 10))
    return np.asarray(upper.resize((24, 10), Image.Resampling.BOX), dtype=np.float64)


def likeness(drawn: Image.Image, reference: Image.Image) -> float:
    """The correlation of colours, place by place: 1 for the same picture."""
    a, b = seen(drawn), seen(reference.resize(drawn.size, Image.Resampling.BICUBIC))
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def decoded(path: Path) -> list[Image.Image]:
    with av.open(str(path)) as container:
        return [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def filmed(folder: Path, order: RenderOrder) -> tuple[list[Image.Image], Image.Image]:
    """The frames and the poster."""
    write_film(order, folder / "film.mp4", folder / "poster.png")
    with Image.open(folder / "poster.png") as poster:
        return decoded(folder / "film.mp4"), poster.convert("RGB")


@pytest.mark.parametrize("prompt", ["rice fields", "a portrait", "a city at night", "geometric tiles"])
def test_a_picture_is_the_more_like_its_reference_the_stronger_it_is(prompt: str, tmp_path: Path) -> None:
    order, path = dataclasses.replace(PICTURE, prompt=prompt), kept(tmp_path)
    drawn = [order, *(following(order, strength, path) for strength in STRENGTHS)]
    rising = [likeness(draw_picture(one), patches(1)) for one in drawn]
    assert all(b - a > 0.02 for a, b in itertools.pairwise(rising))
    assert rising[1] > rising[0] + 0.2
    assert rising[3] > 0.95


def test_every_frame_of_a_film_and_its_poster_are_like_the_reference(tmp_path: Path) -> None:
    path = kept(tmp_path)
    shown = []
    for order in (FILM, *(following(FILM, strength, path) for strength in STRENGTHS)):
        frames, poster = filmed(tmp_path, order)
        shown.append([likeness(image, patches(1)) for image in (poster, *frames[::12])])
    for weaker, stronger in itertools.pairwise(shown):
        assert all(b > a for a, b in zip(weaker, stronger, strict=True))
    assert min(shown[1]) > max(shown[0]) + 0.2


def test_a_film_slowly_approaches_its_reference(tmp_path: Path) -> None:
    reference = patches(1)
    frames, _ = filmed(tmp_path, following(FILM, "high", kept(tmp_path)))
    closer = reference.crop((40, 15, 600, 330))
    assert likeness(frames[0], reference) > likeness(frames[0], closer)
    assert likeness(frames[-1], closer) > likeness(frames[-1], reference)


def test_the_poster_shows_the_films_beginning_with_its_reference(tmp_path: Path) -> None:
    frames, poster = filmed(tmp_path, following(FILM, "mid", kept(tmp_path)))
    first, shown = (np.asarray(image.convert("L"), dtype=np.int16) for image in (frames[0], poster))
    assert np.abs(first - shown).mean() < 6


@pytest.mark.parametrize("size", [(512, 288), (288, 512)], ids=["wide", "tall"])
@pytest.mark.parametrize("count", range(2, 10))
def test_of_several_references_each_has_its_own_place(
    count: int, size: tuple[int, int], tmp_path: Path
) -> None:
    order = dataclasses.replace(PICTURE, width=size[0], height=size[1])
    colours = [tuple(int(255 * (index >> bit & 1)) for bit in range(3)) for index in (1, 2, 3, 4, 5, 6, 7, 0)]
    colours.append((128, 128, 128))
    paths = []
    for index, colour in enumerate(colours[:count]):
        paths.append(tmp_path / str(index))
        Image.new("RGB", (8, 8), colour).save(paths[-1], format="PNG")
    drawn = np.asarray(draw_picture(following(order, "high", *paths)), dtype=np.int16)
    shares = [float((np.abs(drawn - colour).max(axis=2) < 70).mean()) for colour in colours[:count]]
    # The largest place is at most twice as large as others; the caption takes a part of the lowest ones.
    assert min(shares) > 0.4 / count


@pytest.mark.parametrize("order", [PICTURE, FILM], ids=["picture", "film"])
def test_the_same_references_give_the_same_bytes_wherever_they_are(
    order: RenderOrder, tmp_path: Path
) -> None:
    results = []
    for name in ("one", "another"):
        wanted = following(order, "mid", kept(tmp_path, 1, name), kept(tmp_path, 2, name))
        if order.kind == "image":
            write_picture(wanted, tmp_path / "drawn.png")
            results.append((tmp_path / "drawn.png").read_bytes())
        else:
            write_film(wanted, tmp_path / "film.mp4", tmp_path / "poster.png")
            results.append((tmp_path / "film.mp4").read_bytes() + (tmp_path / "poster.png").read_bytes())
    assert results[0] == results[1]


def test_without_a_reference_a_picture_is_what_it_always_was() -> None:
    found = np.asarray(draw_picture(PICTURE).resize((4, 2), Image.Resampling.BOX), dtype=np.int16)
    assert np.abs(found - np.array(HARBOUR, dtype=np.int16)).max() <= 2


@pytest.mark.parametrize("colour", [(255, 255, 255), (246, 246, 242), (0, 0, 0)])
def test_the_caption_stands_out_whatever_the_reference(colour: tuple[int, int, int], tmp_path: Path) -> None:
    Image.new("RGB", (16, 9), colour).save(tmp_path / "flat", format="PNG")
    drawn = draw_picture(following(PICTURE, "high", tmp_path / "flat"))
    box = make_overlay(PICTURE.prompt, "", PICTURE.width, PICTURE.height, bar=False).panel_box
    shades = np.sort(np.asarray(drawn.crop(box).convert("L"), dtype=np.int16).ravel())
    ground, ink = int(shades[shades.size // 2]), int(shades[-shades.size // 200])
    assert ground < 64
    assert ink > 200


def saved(folder: Path, image: Image.Image, **options: Any) -> str:
    path = folder / "input"
    image.save(path, **options)
    return str(path)


# Where the red half of a picture, drawn at its left, is once the orientation is respected.
@pytest.mark.parametrize(
    ("orientation", "red"),
    [
        (1, "left"),
        (2, "right"),
        (3, "right"),
        (4, "left"),
        (5, "top"),
        (6, "top"),
        (7, "bottom"),
        (8, "bottom"),
    ],
)
@pytest.mark.parametrize("type_", ["JPEG", "PNG", "WEBP"])
def test_a_reference_stands_upright(orientation: int, red: str, type_: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (640, 480), BLUE)
    image.paste(RED, (0, 0, 320, 480))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    found = np.asarray(read_print(saved(tmp_path, image, format=type_, exif=exif), 40, 40), dtype=np.int16)
    rows, columns = {
        "left": (slice(None), slice(0, 16)),
        "right": (slice(None), slice(24, 40)),
        "top": (slice(0, 16), slice(None)),
        "bottom": (slice(24, 40), slice(None)),
    }[red]
    assert np.abs(found[rows, columns] - RED).max() < 30


GREY = Image.linear_gradient("L").resize((64, 64))


@pytest.mark.parametrize(
    ("image", "type_"),
    [
        (GREY, "PNG"),
        (GREY, "JPEG"),
        (GREY.convert("P"), "PNG"),
        (Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), "PNG"),
        (GREY.convert("LA"), "PNG"),
        (GREY.convert("RGBA"), "WEBP"),
        (GREY.convert("RGB").convert("CMYK"), "JPEG"),
    ],
    ids=["grey", "grey jpeg", "palette", "16 bits", "grey alpha", "webp alpha", "cmyk"],
)
def test_every_kind_of_pixel_keeps_its_brightness(image: Image.Image, type_: str, tmp_path: Path) -> None:
    found = read_print(saved(tmp_path, image, format=type_), 64, 64)
    assert (found.mode, found.size) == ("RGB", (64, 64))
    difference = np.asarray(found.convert("L"), dtype=np.int16) - np.asarray(GREY, dtype=np.int16)
    assert np.abs(difference).max() <= 8


@pytest.mark.parametrize("ink", [0, 255], ids=["black", "white"])
def test_what_is_drawn_on_nothing_can_be_seen(ink: int, tmp_path: Path) -> None:
    image = Image.new("RGBA", (64, 64), (ink, ink, ink, 0))
    image.paste((ink, ink, ink, 255), (0, 0, 32, 64))
    found = np.asarray(read_print(saved(tmp_path, image, format="PNG"), 64, 64).convert("L"), dtype=np.int16)
    assert abs(int(found[32, 8]) - int(found[32, 56])) > 60


@pytest.mark.parametrize("type_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16_000, 2), (2, 16_000), (6_000, 4_000)], ids=str)
def test_no_size_of_reference_is_too_odd(size: tuple[int, int], type_: str, tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGB", size, RED), format=type_)
    order = following(PICTURE, "high", Path(path))
    middle = np.asarray(draw_picture(order), dtype=np.int16)[60:120, 200:300]
    assert np.abs(middle.mean(axis=(0, 1)) - RED).max() < 60


def test_a_drawing_follows_at_most_fifteen_references() -> None:
    complaint = following(PICTURE, "low", *[Path("somewhere")] * 16).complaint()
    assert complaint is not None
    assert "at most 15" in complaint


def broken(folder: Path) -> Sequence[Path]:
    gone, text, cut, other = (folder / name for name in ("gone", "text", "cut", "other"))
    text.write_bytes(b"<svg onload=alert(1)>")
    patches(1).save(cut, format="PNG")
    cut.write_bytes(cut.read_bytes()[:200])
    patches(1).save(other, format="GIF")
    return gone, text, cut, other


@pytest.mark.parametrize("which", range(4), ids=["gone", "text", "cut", "a type that is not handed on"])
def test_a_reference_that_cannot_be_read_is_an_error_that_names_no_file(which: int, tmp_path: Path) -> None:
    with pytest.raises(ReferenceUnusable) as caught:
        draw_picture(following(PICTURE, "mid", broken(tmp_path)[which]))
    assert str(tmp_path) not in str(caught.value)


async def test_a_reference_that_is_gone_fails_its_order_and_not_the_worker(tmp_path: Path) -> None:
    farm = RenderFarm(tmp_path / "drawn", workers=1, deadline_s=60)
    try:
        with pytest.raises(ServiceError, match="a reference is gone") as caught:
            await farm.render(following(PICTURE, "mid", tmp_path / "gone"))
        pids = farm.worker_pids
        (file,) = await farm.render(following(PICTURE, "high", kept(tmp_path)))
        assert farm.worker_pids == pids
    finally:
        await farm.close()
    assert caught.value.kind is Kind.FAILED_PRECONDITION
    with Image.open(file.path) as drawn:
        assert likeness(drawn, patches(1)) > 0.95
