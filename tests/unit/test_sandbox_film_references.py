"""What films do with references that are films, sounds, and given frames; the watermark and the last frame."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.provider_pool.adapters.interface import Generation, Kind, ReferenceRole, Strength
from services.provider_pool.adapters.sandbox.commission import render_order, size_of
from services.provider_pool.adapters.sandbox.film import write_film
from services.provider_pool.adapters.sandbox.orders import Ending, Order, Upload
from services.provider_pool.adapters.sandbox.render_order import (
    ReferenceRole as RoleName,
)
from services.provider_pool.adapters.sandbox.render_order import (
    ReferenceUnusable,
    RenderOrder,
    RenderReference,
)
from services.provider_pool.adapters.sandbox.sound_file import write_sound

RED, BLUE = (200, 40, 40), (40, 40, 220)
FILM = RenderOrder("film", "video", "the sea", 256, 144, 4, True, 1, "")
RATE_HZ = 44_100


def still(folder: Path, colour: tuple[int, int, int]) -> str:
    path = folder / f"{colour[0]}.png"
    Image.new("RGB", (320, 180), colour).save(path)
    return str(path)


def tone(folder: Path, hz: float) -> str:
    wave = 0.6 * np.sin(2 * np.pi * hz * np.arange(RATE_HZ * 3) / RATE_HZ)
    write_sound(wave.astype(np.float32)[None, :], RATE_HZ, "wav", folder / "tone.wav")
    return str(folder / "tone.wav")


def reference(path: str, role: RoleName) -> RenderReference:
    return RenderReference(path, "high", role)


def drawn(folder: Path, *references: RenderReference, **changes: object) -> Path:
    order = dataclasses.replace(FILM, references=references, **changes)  # type: ignore[arg-type]
    write_film(order, folder / "film.mp4", folder / "poster.jpg", folder / "last.jpg")
    return folder / "film.mp4"


def frames(path: Path) -> list[NDArray[np.int16]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(np.int16) for frame in container.decode(video=0)]


def middle(picture: NDArray[np.int16]) -> NDArray[np.float64]:
    return np.asarray(picture[50:80, 100:150].mean(axis=(0, 1)))


def strength_at(path: Path, hz: float) -> float:
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        rate_hz = container.streams.audio[0].rate
    power = np.abs(np.fft.rfft(sound * np.hanning(sound.size))) ** 2
    heard_hz = np.fft.rfftfreq(sound.size, 1 / rate_hz)
    return float(power[np.abs(heard_hz - hz) < 5].sum() / power.sum())


def test_a_film_begins_and_ends_with_the_frames_it_was_given(tmp_path: Path) -> None:
    film = drawn(
        tmp_path,
        reference(still(tmp_path, RED), "first_frame"),
        reference(still(tmp_path, BLUE), "last_frame"),
    )
    seen = frames(film)
    assert np.abs(middle(seen[0]) - RED).max() < 14
    assert np.abs(middle(seen[-1]) - BLUE).max() < 14
    half = middle(seen[len(seen) // 2])
    assert min(np.abs(half - RED).max(), np.abs(half - BLUE).max()) > 25
    with Image.open(tmp_path / "poster.jpg") as poster:
        assert np.abs(middle(np.asarray(poster, dtype=np.int16)) - RED).max() < 14


def test_the_last_frame_is_the_film_s_own(tmp_path: Path) -> None:
    last = frames(drawn(tmp_path))[-1]
    with Image.open(tmp_path / "last.jpg") as image:
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image, dtype=np.int16) - last).mean() < 6


def test_a_film_follows_a_film_by_a_picture_of_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    red = drawn(source, reference(still(source, RED), "first_frame"), audio=False)
    seen = frames(drawn(tmp_path, reference(str(red), "video")))
    assert np.abs(middle(seen[0]) - RED).max() < 60


def test_a_sound_is_heard_in_the_film(tmp_path: Path) -> None:
    silent = strength_at(drawn(tmp_path), 1_234)
    assert strength_at(drawn(tmp_path, reference(tone(tmp_path, 1_234), "audio")), 1_234) > 0.3 > silent


def test_a_watermark_is_seen_on_every_frame(tmp_path: Path) -> None:
    plain, marked = frames(drawn(tmp_path)), frames(drawn(tmp_path, watermark=True))
    for one, other in zip(plain[::24], marked[::24], strict=True):
        assert np.abs(one - other)[:30, :128].max() > 60


@pytest.mark.parametrize("role", ["video", "audio"])
@pytest.mark.parametrize(
    "content", [None, b"", b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile x\n"]
)
def test_what_is_no_film_or_sound_is_unusable(role: RoleName, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "reference"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ReferenceUnusable):
        drawn(tmp_path, reference(str(path), role))


def order(
    width: int, height: int, *, adaptive: bool = True, role: ReferenceRole = ReferenceRole.IMAGE
) -> Order:
    generation = Generation(Kind.VIDEO, "seedance-2.0", "the sea", 1280, 720, 5, adaptive_ratio=adaptive)
    upload = Upload("ab12", Strength.MID, role, width, height)
    return Order("task_1", "acc_1", generation, 0, 0, Ending.WELL, uploads=(upload,))


@pytest.mark.parametrize(
    ("picture", "film"),
    [
        ((1600, 900), (1280, 720)),
        ((500, 500), (720, 720)),
        ((900, 1600), (404, 720)),
        ((4000, 1000), (1280, 548)),
        ((10, 16_000), (308, 720)),
    ],
)
def test_a_film_takes_the_shape_of_its_first_reference_within_its_size(
    picture: tuple[int, int], film: tuple[int, int]
) -> None:
    assert size_of(order(*picture)) == film
    assert size_of(order(*picture, adaptive=False)) == (1280, 720)


def test_a_sound_has_no_shape(tmp_path: Path) -> None:
    heard = order(0, 0, role=ReferenceRole.AUDIO)
    assert size_of(heard) == (1280, 720)
    assert "1 sound" in render_order(heard, [tmp_path]).label
