"""What a model takes: sizes, seeds and references that no number alone can say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.provider_pool.adapters.frames import TABLES, Size, sizes_of
from services.provider_pool.adapters.interface import (
    Capability,
    Generation,
    Kind,
    Range,
    Reference,
    ReferenceCapability,
    ReferenceRole,
)
from tests.adapters.scripted import image_file

FILM = Generation(Kind.VIDEO, "film", "p", 1280, 720, 5)
TAKES_FILMS = Capability(
    Range(1, 100), durations_s=Range(4, 15), sizes=TABLES["seedance-2"], adaptive_ratio=True
)
TAKES_PICTURES = Capability(
    Range(1, 100),
    Range(16, 3840, 16),
    Range(16, 3840, 16),
    pixels=Range(655_360, 8_294_400),
    ratio_percent_max=300,
)


def _follows(*roles: ReferenceRole) -> tuple[Reference, ...]:
    return tuple(Reference(url="u", role=role) for role in roles)


@pytest.mark.parametrize("size", TABLES["seedance-2"].sizes, ids=lambda size: f"{size.width}x{size.height}")
def test_every_size_of_a_table_is_taken(size: Size) -> None:
    assert TAKES_FILMS.accepts(replace(FILM, width=size.width, height=size.height))


@pytest.mark.parametrize(
    ("width", "height", "fits"), [(3840, 2160, True), (2160, 3840, True), (2880, 2880, False)]
)
def test_a_short_side_may_have_a_limit_of_its_own(width: int, height: int, fits: bool) -> None:
    picture = Generation(Kind.IMAGE, "picture", "p", width, height)
    assert TAKES_PICTURES.accepts(picture)
    assert replace(TAKES_PICTURES, short_side_max=2160).accepts(picture) is fits


@pytest.mark.parametrize(("width", "height"), [(700, 700), (1280, 721), (720, 1080), (3840, 2160), (0, 0)])
def test_a_size_that_is_not_in_the_table_is_not_taken(width: int, height: int) -> None:
    assert not TAKES_FILMS.accepts(replace(FILM, width=width, height=height))


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((720, 720), Size(960, 960, "720p", "1:1")),
        ((960, 720), Size(1112, 834, "720p", "4:3")),
        ((720, 960), Size(834, 1112, "720p", "3:4")),
        ((480, 480), Size(640, 640, "480p", "1:1")),
        ((960, 960), Size(960, 960, "720p", "1:1")),
    ],
)
def test_lines_and_a_ratio_name_a_size(asked: tuple[int, int], made: Size) -> None:
    film = replace(FILM, width=asked[0], height=asked[1])
    assert TAKES_FILMS.accepts(film)
    assert TABLES["seedance-2"].possible(film) == (made,)


@pytest.mark.parametrize(
    ("width", "height", "ratio"),
    [(2000, 1000, "16:9"), (900, 1000, "1:1"), (700, 1000, "3:4"), (300, 1000, "9:16"), (3000, 1000, "16:9")],
)
def test_an_adaptive_ratio_is_the_nearest_that_fits_the_square(
    tmp_path: Path, width: int, height: int, ratio: str
) -> None:
    asked = replace(
        FILM, width=1280, height=1280, adaptive_ratio=True, references=_follows(ReferenceRole.IMAGE)
    )
    chosen = TABLES["seedance-2"].chosen(asked, [image_file(tmp_path, width=width, height=height)])
    assert chosen is not None
    assert (chosen.resolution, chosen.ratio) == ("720p", ratio)


def test_a_square_that_is_of_no_resolution_is_not_taken() -> None:
    assert not TAKES_FILMS.accepts(replace(FILM, width=1000, height=1000, adaptive_ratio=True))


@pytest.mark.parametrize(
    ("width", "height", "taken"),
    [
        (1024, 1024, True),
        (1280, 720, True),
        (1152, 864, True),
        (848, 1264, True),
        (1000, 1000, False),
        (512, 512, False),
        (3840, 1024, False),
        (3840, 3840, False),
    ],
)
def test_a_free_size_has_its_multiple_its_pixels_and_its_ratio(width: int, height: int, taken: bool) -> None:
    picture = Generation(Kind.IMAGE, "picture", "p", width, height)
    assert TAKES_PICTURES.accepts(picture) is taken


def test_a_seed_out_of_range_is_not_taken_and_one_that_nobody_knows_is_let_through() -> None:
    seeded = replace(TAKES_FILMS, seeds=Range(0, 10))
    assert seeded.accepts(replace(FILM, seed=10))
    assert not seeded.accepts(replace(FILM, seed=11))
    assert TAKES_FILMS.accepts(replace(FILM, seed=11))


FRAMES = ReferenceCapability(
    9,
    videos=3,
    audios=3,
    frames=True,
    total=10,
    frames_exclude_references=True,
    last_needs_first=True,
    audio_needs_picture=True,
    videos_total_ms=15_500,
    total_bytes=1_000,
    ratios_percent=Range(40, 250),
    video_types=frozenset({"video/mp4"}),
)
IMAGE, SOUND, CLIP = ReferenceRole.IMAGE, ReferenceRole.AUDIO, ReferenceRole.VIDEO
FIRST, LAST = ReferenceRole.FIRST_FRAME, ReferenceRole.LAST_FRAME


@pytest.mark.parametrize(
    ("roles", "taken"),
    [
        ((), True),
        ((FIRST,), True),
        ((FIRST, LAST), True),
        ((LAST,), False),
        ((FIRST, IMAGE), False),
        ((SOUND,), False),
        ((SOUND, IMAGE), True),
        ((SOUND, CLIP), True),
        ((IMAGE,) * 9 + (CLIP,), True),
        ((IMAGE,) * 9 + (CLIP,) * 2, False),
    ],
)
def test_which_references_go_together(roles: tuple[ReferenceRole, ...], taken: bool) -> None:
    assert FRAMES.takes(_follows(*roles)) is taken


def test_videos_that_are_too_long_together_do_not_suit(tmp_path: Path) -> None:
    clips = [
        image_file(tmp_path, f"{n}.mp4", role=CLIP, content_type="video/mp4", duration_ms=8_000)
        for n in range(2)
    ]
    assert FRAMES.suit(clips[:1])
    assert not FRAMES.suit(clips)


def test_a_reference_of_another_type_ratio_or_weight_does_not_suit(tmp_path: Path) -> None:
    assert not FRAMES.suit([image_file(tmp_path, "a.webm", role=CLIP, content_type="video/webm")])
    assert not FRAMES.suit([image_file(tmp_path, "b.png", width=3000, height=1000)])
    assert not FRAMES.suit([image_file(tmp_path, "c.png", content=bytes(1_001))])
    assert FRAMES.suit([image_file(tmp_path, "d.png")])


@pytest.mark.parametrize("word", ["1024", "1024×1024", "x", "ax1"])
def test_a_word_that_is_no_size_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        sizes_of([word])
