from __future__ import annotations

from dataclasses import replace

import pytest

from services.provider_pool.adapters.interface import Generation, Kind, OutputUnavailable, Role
from services.provider_pool.media.output_check import check
from services.provider_pool.media.probe import Probe

FILM = Generation(Kind.VIDEO, "seedance-2.0", "a cat", 1280, 720, duration_s=5)
PICTURE = Generation(Kind.IMAGE, "gpt-image-2", "a cat", 1024, 1024)
KINDS = {
    Kind.IMAGE: Probe("image/png", "png"),
    Kind.VIDEO: Probe("video/mp4", "mp4", duration_ms=5_000),
    Kind.VOICE: Probe("audio/mpeg", "mp3"),
    Kind.TEXT: Probe("text/plain", "txt"),
}


def film(width: int, height: int, duration_ms: int = 5_000) -> Probe:
    return Probe("video/mp4", "mp4", width, height, duration_ms)


def is_taken(generation: Generation, found: Probe, role: Role = Role.PRIMARY) -> bool:
    try:
        check(generation, role, found)
    except OutputUnavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("asked", "got", "taken"),
    [
        ((1280, 720), (1280, 720), True),
        # encoders' blocks
        ((1280, 720), (1280, 704), True),
        ((1280, 720), (1248, 704), True),
        ((1112, 834), (1120, 832), True),
        # one class by two names
        ((854, 480), (864, 496), True),
        ((864, 496), (854, 480), True),
        ((480, 854), (496, 864), True),
        # lines and a ratio, and what they are at makers of films
        ((720, 720), (720, 720), True),
        ((720, 720), (960, 960), True),
        ((960, 720), (1120, 832), True),
        ((720, 960), (834, 1112), True),
        ((720, 960), (1112, 834), False),
        ((720, 720), (640, 640), False),
        ((720, 720), (1440, 1440), False),
        # another class, another ratio, the wrong way round
        ((1280, 720), (864, 496), False),
        ((1280, 720), (1920, 1080), False),
        ((1280, 720), (1112, 834), False),
        ((1280, 720), (960, 960), False),
        ((1280, 720), (720, 1280), False),
        ((1470, 630), (1280, 720), False),
    ],
)
def test_a_film_has_the_size_asked_for_or_another_of_its_class(
    asked: tuple[int, int], got: tuple[int, int], taken: bool
) -> None:
    assert is_taken(replace(FILM, width=asked[0], height=asked[1]), film(*got)) is taken


@pytest.mark.parametrize(
    ("got", "taken"),
    [
        ((1280, 720), True),
        ((960, 960), True),
        ((720, 1280), True),
        ((1470, 630), True),
        ((1296, 720), True),
        ((1920, 1080), False),
        ((1440, 1440), False),
    ],
)
def test_a_film_whose_ratio_follows_a_picture_is_of_its_class(got: tuple[int, int], taken: bool) -> None:
    square = replace(FILM, width=1280, height=1280, adaptive_ratio=True)
    assert is_taken(square, film(*got)) is taken


@pytest.mark.parametrize("got", [(1024, 1023), (1032, 1024), (512, 512), (1024, 1536)])
def test_a_picture_has_exactly_the_pixels_asked_for(got: tuple[int, int]) -> None:
    assert is_taken(PICTURE, Probe("image/png", "png", 1024, 1024))
    assert not is_taken(PICTURE, Probe("image/png", "png", *got))


def test_a_picture_whose_header_tells_no_size_is_taken() -> None:
    assert is_taken(PICTURE, Probe("image/webp", "webp"))


@pytest.mark.parametrize(
    ("duration_ms", "taken"), [(4_000, True), (5_041, True), (6_000, True), (6_001, False), (3_999, False)]
)
def test_a_duration_is_within_a_second(duration_ms: int, taken: bool) -> None:
    assert is_taken(FILM, film(1280, 720, duration_ms)) is taken


@pytest.mark.parametrize(
    ("format_", "extension", "taken"),
    [
        ("", "jpg", True),
        ("", "png", True),
        ("jpeg", "jpg", True),
        ("png", "png", True),
        ("png", "jpg", False),
        ("jpeg", "png", False),
    ],
)
def test_another_format_comes_only_where_none_was_asked_for(
    format_: str, extension: str, taken: bool
) -> None:
    found = Probe(f"image/{extension}", extension, 1024, 1024)
    assert is_taken(replace(PICTURE, format=format_), found) is taken


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", KINDS)
def test_another_kind_is_never_taken(kind: Kind, given: Kind) -> None:
    seconds = 5 if kind is Kind.VIDEO else 0
    asked = Generation(kind, "a model", "a cat", duration_s=seconds)
    assert is_taken(asked, KINDS[given]) is (kind is given)


def test_what_is_not_what_was_asked_for_was_paid_for_all_the_same() -> None:
    with pytest.raises(OutputUnavailable) as raised:
        check(FILM, Role.PRIMARY, film(1920, 1080))
    assert raised.value.charged == "yes"


def test_what_comes_beside_is_a_picture() -> None:
    assert is_taken(FILM, Probe("image/jpeg", "jpg", 10, 10), Role.LAST_FRAME)
    assert not is_taken(FILM, film(1280, 720), Role.LAST_FRAME)
