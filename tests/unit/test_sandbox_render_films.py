"""What the sandbox draws when it is asked for a film."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from services.provider_pool.adapters.sandbox.film import write_film
from services.provider_pool.adapters.sandbox.render_order import RenderOrder
from services.provider_pool.adapters.sandbox.sound import RATE_HZ, compose_piece

FILM = RenderOrder(
    order_id="att_2",
    kind="video",
    prompt="waves under a golden sun",
    width=320,
    height=180,
    duration_s=3,
    audio=True,
    seed=4,
    quality="MEDIUM",
)
AAC_FRAME_S = 1024 / RATE_HZ


def drawn(folder: Path, order: RenderOrder = FILM) -> Path:
    write_film(order, folder / "film.mp4", folder / "poster.jpg")
    return folder / "film.mp4"


def boxes(data: bytes) -> list[bytes]:
    """The names of an MP4 file's outermost boxes, in order."""
    names, place = [], 0
    while place < len(data):
        names.append(data[place + 4 : place + 8])
        place += int.from_bytes(data[place : place + 4], "big")
    return names


def decoded(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


@pytest.mark.parametrize("size", [(1280, 720), (960, 960), (720, 1080), (720, 1280), (130, 66)])
def test_a_film_has_exactly_the_size_that_was_asked(size: tuple[int, int], tmp_path: Path) -> None:
    order = dataclasses.replace(FILM, width=size[0], height=size[1], duration_s=1)
    with av.open(str(drawn(tmp_path, order))) as container:
        frame = next(container.decode(video=0))
        assert isinstance(frame, av.VideoFrame)
        assert (frame.width, frame.height, frame.format.name) == (*size, "yuv420p")
        assert container.streams.video[0].codec_context.name == "h264"
    with Image.open(tmp_path / "poster.jpg") as poster:
        assert (poster.format, poster.size) == ("JPEG", size)


@pytest.mark.parametrize("duration_s, audio", [(1, True), (3, False), (5, True), (15, True)])
def test_a_film_lasts_exactly_as_long_as_was_asked(duration_s: int, audio: bool, tmp_path: Path) -> None:
    order = dataclasses.replace(FILM, width=128, height=64, duration_s=duration_s, audio=audio, quality="LOW")
    path = drawn(tmp_path, order)
    assert len(decoded(path)) == 24 * duration_s
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert container.duration == duration_s * av.time_base
        assert video.duration is not None
        assert video.time_base is not None
        assert video.duration * video.time_base == duration_s
        assert video.average_rate == 24


def test_a_film_has_stereo_sound_as_long_as_its_pictures(tmp_path: Path) -> None:
    with av.open(str(drawn(tmp_path))) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.layout.name, stream.rate) == ("aac", "stereo", RATE_HZ)
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert abs(heard.shape[1] / RATE_HZ - FILM.duration_s) <= AAC_FRAME_S
    assert 0.1 < float(np.abs(heard).max()) <= 1.0
    assert not np.array_equal(heard[0], heard[1])


def test_a_film_without_audio_has_no_sound_at_all(tmp_path: Path) -> None:
    with av.open(str(drawn(tmp_path, dataclasses.replace(FILM, audio=False)))) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_the_same_order_gives_the_same_bytes(tmp_path: Path) -> None:
    first = drawn(tmp_path).read_bytes(), (tmp_path / "poster.jpg").read_bytes()
    assert (drawn(tmp_path).read_bytes(), (tmp_path / "poster.jpg").read_bytes()) == first


def test_a_player_can_start_before_the_whole_file_has_come(tmp_path: Path) -> None:
    names = boxes(drawn(tmp_path).read_bytes())
    assert names.index(b"moov") < names.index(b"mdat")


def test_a_film_tells_no_time_of_its_making(tmp_path: Path) -> None:
    with av.open(str(drawn(tmp_path))) as container:
        told = {**container.metadata, **container.streams.video[0].metadata}
    assert not {"creation_time", "encoder", "comment"} & set(told)


def test_the_scene_moves_and_the_progress_bar_grows(tmp_path: Path) -> None:
    frames = decoded(drawn(tmp_path))
    upper = [frame[: FILM.height // 2].astype(np.int16) for frame in frames[::12]]
    assert all(np.abs(a - b).max() > 20 for a, b in itertools.pairwise(upper))
    lit = [
        int((frame[int(FILM.height * 0.7) :] > 180).sum(axis=1).max()) for frame in (frames[6], frames[-1])
    ]
    assert lit[1] > FILM.width * 0.8 > lit[0]


def test_the_poster_shows_the_films_beginning(tmp_path: Path) -> None:
    first = decoded(drawn(tmp_path))[0].astype(np.int16)
    with Image.open(tmp_path / "poster.jpg") as poster:
        shown = np.asarray(poster.convert("L"), dtype=np.int16)
    assert np.abs(first - shown).mean() < 6


@pytest.mark.parametrize("prompt", ["\u202e\x00🌅 שלום", "W" * 4000, "\u200b"])
def test_no_prompt_breaks_a_film(prompt: str, tmp_path: Path) -> None:
    order = dataclasses.replace(FILM, prompt=prompt, duration_s=1, audio=False)
    assert len(decoded(drawn(tmp_path, order))) == 24


@pytest.mark.parametrize("chance", range(4))
def test_a_piece_is_never_louder_than_full_scale_and_ends_in_silence(chance: int) -> None:
    piece = compose_piece(chance, 3 * RATE_HZ)
    assert piece.shape == (2, 3 * RATE_HZ)
    assert 0.3 < float(np.abs(piece).max()) <= 0.71
    assert float(np.abs(piece[:, -200:]).max()) < 0.01


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"width": 321}, "must be even"),
        ({"height": 181}, "must be even"),
        ({"width": 4098}, "64 to 4096 pixels"),
        ({"duration_s": 0}, "duration must be 1 to 120"),
        ({"duration_s": 121}, "duration must be 1 to 120"),
        ({"order_id": "../att"}, "order_id"),
        ({"order_id": ".hidden"}, "order_id"),
        ({"order_id": "att\n"}, "order_id"),
        ({"prompt": "x" * 20_001}, "too long"),
    ],
)
def test_an_order_that_cannot_be_drawn_is_refused_with_a_sentence(
    change: dict[str, Any], sentence: str
) -> None:
    complaint = dataclasses.replace(FILM, **change).complaint()
    assert complaint is not None
    assert sentence in complaint


def test_a_picture_may_have_odd_sides() -> None:
    assert dataclasses.replace(FILM, kind="image", width=321, duration_s=0).complaint() is None
