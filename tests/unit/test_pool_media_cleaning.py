"""What a provider wrote into an output beside picture, film and sound is taken out; these stay as they are."""

from __future__ import annotations

import io
import struct
import tempfile
import wave
from collections.abc import Callable, Iterator

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from services.provider_pool.media.cleaning import cleaned
from services.provider_pool.media.probe import UnknownMedia, probe_bytes

CANARY = b"canary"


def clean(content: bytes) -> bytes:
    parts = cleaned(content, probe_bytes(content).content_type)
    return content if parts is None else b"".join(parts)


def picture(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, kind, **options)
    return file.getvalue()


def png() -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Software", "canary-provider")
    notes.add_itxt("XML:com.adobe.xmp", "<x>canary</x>")
    return picture("PNG", pnginfo=notes)


def jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0131] = "canary-provider"
    exif[0x0112] = 6
    return picture("JPEG", exif=exif, comment=b"canary", quality=90)


def webp() -> bytes:
    exif = Image.Exif()
    exif[0x0131] = "canary-provider"
    return picture("WEBP", exif=exif, xmp=b"<x>canary</x>", lossless=True)


def film(**options: str) -> bytes:
    # Moving the index to the front reads the file again by its name.
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        _write_film(file.name, options)
        return file.read()


def _write_film(name: str, options: dict[str, str]) -> None:
    with av.open(name, "w", format="mp4", options=options) as container:
        container.metadata.update(title="canary", comment="https://canary.example.com/task")
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.metadata["handler_name"] = "canary handler"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number * 20, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def mp3() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        container.metadata.update(title="canary", comment="canary")
        stream = container.add_stream("libmp3lame", rate=44_100)
        samples = (np.sin(np.arange(44_100) / 20) * 9_000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
        frame.rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue() + b"TAG" + b"canary".ljust(125, b"\0")


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8_000, 0, "NONE", ""))
        sound.writeframes(bytes(range(200)) * 40)
    content = file.getvalue()
    notes = b"INFOISFT" + (8).to_bytes(4, "little") + b"canary\0\0"
    chunk = b"LIST" + len(notes).to_bytes(4, "little") + notes
    whole = content[:36] + chunk + content[36:]
    return whole[:4] + (len(whole) - 8).to_bytes(4, "little") + whole[8:]


def frames(content: bytes) -> Iterator[bytes]:
    """Everything that a player would show or sound."""
    with av.open(io.BytesIO(content), "r") as container:
        frames = container.decode(video=0) if container.streams.video else container.decode(audio=0)
        for frame in frames:
            yield frame.to_ndarray().tobytes()


@pytest.mark.parametrize("made", [png, jpeg, webp])
def test_a_picture_keeps_its_pixels_and_loses_its_notes(made: Callable[[], bytes]) -> None:
    content = made()
    assert CANARY in content
    after = clean(content)
    assert CANARY not in after
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(after)) as kept:
        assert kept.tobytes() == before.tobytes()


def test_a_photograph_keeps_its_orientation() -> None:
    with Image.open(io.BytesIO(clean(jpeg()))) as kept:
        assert kept.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    "content",
    [film(), film(movflags="faststart"), film(movflags="frag_keyframe+empty_moov"), mp3(), wav()],
    ids=["film", "film, index first", "film in fragments", "mp3", "wav"],
)
def test_a_film_or_sound_keeps_its_frames_and_loses_its_notes(content: bytes) -> None:
    assert CANARY in content
    after = clean(content)
    assert CANARY not in after
    assert list(frames(after)) == list(frames(content))
    assert probe_bytes(after) == probe_bytes(content)


def test_notes_before_and_behind_a_sound_go() -> None:
    sound = clean(mp3())
    tag = b"ID3\x04\0\x10\0\0\0\x06canary"
    end = b"3DI\x04\0\x10\0\0\0\x06"
    lyrics = b"LYRICSBEGININD00003110LYR00006canary000032LYRICS200"
    item = b"\6\0\0\0\0\0\0\0Comment\0canary"
    ape = item + b"APETAGEX" + struct.pack("<4I8x", 2_000, len(item) + 32, 1, 0)
    for behind in (tag + end, lyrics, ape, lyrics + ape + b"TAG".ljust(128, b"x")):
        assert clean(tag + end + bytes(20) + sound + behind) == sound


@pytest.mark.parametrize("size", [0, 2**32 - 1])
@pytest.mark.parametrize("notes", [True, False])
def test_a_streamed_sound_keeps_its_samples_and_learns_their_length(size: int, notes: bool) -> None:
    whole = wav() if notes else clean(wav())
    place = whole.index(b"data") + 4
    after = clean(whole[:place] + size.to_bytes(4, "little") + whole[place + 4 :])
    assert after == clean(wav())


@pytest.mark.parametrize(
    ("inside", "hidden"),
    [
        (b"stbl", b"uuid" + CANARY * 4),
        (b"mvex", b"uuid" + CANARY * 4),
        (b"edts", b"udta" + CANARY * 4),
        (b"traf", b"uuid" + CANARY * 4),
        (b"dinf", b"dref" + bytes(7) + b"\1" + struct.pack(">I4s4x", 18, b"url ") + CANARY),
    ],
)
@pytest.mark.parametrize("wide", [False, True])
def test_no_box_of_a_film_hides_anything(inside: bytes, hidden: bytes, wide: bool) -> None:
    name, content = hidden[:4], hidden[4:]
    head = (
        struct.pack(">I4sQ", 1, name, 16 + len(content))
        if wide
        else struct.pack(">I4s", 8 + len(content), name)
    )
    box = head + content
    for parent in (inside, *PARENTS[inside]):
        box = struct.pack(">I4s", 8 + len(box), parent) + box
    whole = film()
    after = clean(whole + box)
    assert CANARY not in after
    assert list(frames(after)) == list(frames(whole))


PARENTS = {
    b"stbl": (b"minf", b"mdia", b"trak", b"moov"),
    b"mvex": (b"moov",),
    b"edts": (b"trak", b"moov"),
    b"traf": (b"moof",),
    b"dinf": (b"minf", b"mdia", b"trak", b"moov"),
}


@pytest.mark.parametrize("made", [png, jpeg, webp, film, mp3, wav])
def test_what_is_clean_stays_as_it_is(made: Callable[[], bytes]) -> None:
    after = clean(made())
    assert clean(after) == after


@pytest.mark.parametrize("cut", [30, 200, 700])
def test_a_broken_film_is_refused(cut: int) -> None:
    with pytest.raises(UnknownMedia):
        cleaned(film()[:-cut], "video/mp4")
