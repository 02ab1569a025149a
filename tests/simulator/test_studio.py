from __future__ import annotations

import asyncio
import io

import av
import pytest
from PIL import Image

from services.chassis.settings import SettingsError
from services.simulator import studio
from services.simulator.drawings import Drawing, Film, Picture, PictureFormat, Sound, SoundFormat, Text
from services.simulator.studio import Studio


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp", "gif"])
async def test_a_picture_has_the_asked_pixels(format_: PictureFormat) -> None:
    content = await Studio().draw(Picture(640, 368, format_))
    image = Image.open(io.BytesIO(content))
    image.load()
    assert (image.size, image.format) == ((640, 368), format_.upper())


async def test_a_transparent_picture_is_transparent() -> None:
    image = Image.open(io.BytesIO(await Studio().draw(Picture(64, 64, is_transparent=True))))
    assert image.mode == "RGBA"


@pytest.mark.parametrize(
    "film",
    [
        Film(864, 496, 4),
        Film(1470, 630, 5, has_sound=True),
        Film(834, 1112, 15, has_sound=True, format="mov"),
    ],
)
async def test_a_film_has_the_asked_pixels_seconds_and_sound(film: Film) -> None:
    content = await Studio().draw(film)
    with av.open(io.BytesIO(content), "r") as container:
        [video] = container.streams.video
        assert (video.codec_context.width, video.codec_context.height) == (film.width, film.height)
        assert len(container.streams.audio) == int(film.has_sound)
        frames = len(list(container.decode(video)))
    assert frames == 24 * film.seconds
    with av.open(io.BytesIO(content), "r") as container:
        assert container.duration == pytest.approx(film.seconds * 1_000_000, rel=0.02)


@pytest.mark.parametrize("format_", ["mp3", "wav", "opus", "flac"])
async def test_a_sound_lasts_the_asked_seconds(format_: SoundFormat) -> None:
    content = await Studio().draw(Sound(3, format_))
    with av.open(io.BytesIO(content), "r") as container:
        assert container.duration == pytest.approx(3_000_000, rel=0.03)


async def test_raw_samples_are_two_bytes_each() -> None:
    assert len(await Studio().draw(Sound(2, "pcm", 24_000))) == 2 * 2 * 24_000


async def test_words_are_themselves() -> None:
    assert await Studio().draw(Text("Hé")) == "Hé".encode()


async def test_what_was_drawn_is_drawn_once_however_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    original = studio._bytes_of

    def counted(drawing: Drawing) -> bytes:
        drawn.append(drawing)
        return original(drawing)

    monkeypatch.setattr(studio, "_bytes_of", counted)
    one = Studio()
    first = await asyncio.gather(*(one.draw(Picture(64, 64)) for _ in range(5)))
    assert await one.draw(Picture(64, 64)) == first[0]
    assert len(drawn) == 1


def test_without_pyav_it_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "av", None)
    with pytest.raises(SettingsError, match="PyAV"):
        Studio()
