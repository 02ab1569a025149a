"""Films and sounds: honest ones as recorders write them, and the boxes, elements and pages to make others from."""

from __future__ import annotations

import functools
import io
import struct
import tempfile
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import av.logging
import numpy as np

TITLE: Final = "canary-title-4711"
PLACE: Final = "+48.8577+002.2950/"
"""What recorders write into a film's metadata: nobody but the customer may know it."""

_CODERS: Final[dict[str, tuple[str | None, str | None]]] = {
    "mp4": ("libx264", "aac"),
    "mov": ("libx264", "aac"),
    "webm": ("libvpx-vp9", "libopus"),
    "mp3": (None, "libmp3lame"),
    "wav": (None, "pcm_s16le"),
    "ipod": (None, "aac"),
    "ogg": (None, "libopus"),
}
_SAMPLES: Final = {"flt": "float32", "s16": "int16", "s32": "int32"}
_RATE_HZ: Final = 48_000
_PICTURES_A_SECOND: Final = 12


@dataclass(frozen=True)
class Recording:
    """An honest one: its name, its medium, the format that it is recognised as, and its bytes."""

    name: str
    medium: str
    format: str
    content: bytes


def honest() -> list[Recording]:
    """One of each format that is taken."""
    return [
        Recording("mp4", "video", "mp4", recorded("mp4")),
        Recording("mp4 in fragments", "video", "mp4", recorded("mp4", movflags="frag_keyframe+empty_moov")),
        Recording("mp4 with its index first", "video", "mp4", recorded("mp4", movflags="faststart")),
        Recording("mov", "video", "mov", recorded("mov")),
        Recording("webm", "video", "webm", recorded("webm")),
        Recording("webm as it is streamed", "video", "webm", recorded("webm", live="1")),
        Recording("mp3", "audio", "mp3", recorded("mp3")),
        Recording("wav", "audio", "wav", recorded("wav")),
        Recording("m4a", "audio", "m4a", recorded("ipod")),
        Recording("ogg", "audio", "ogg", recorded("ogg")),
    ]


@functools.cache
def recorded(
    container: str,
    *,
    seconds: float = 1.0,
    width: int = 64,
    height: int = 48,
    film: str = "",
    **options: str,
) -> bytes:
    """Made by the same library that most recorders use, with a title and a place in it."""
    av.logging.set_level(None)
    film_coder, sound_coder = _CODERS[container]
    film_coder = film or film_coder
    # In a folder, because who writes the index first opens the file once more.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        with av.open(path, "w", format=container, options=options) as target:
            target.metadata.update(title=TITLE, location=PLACE)
            pictures: Any = target.add_stream(film_coder, rate=_PICTURES_A_SECOND) if film_coder else None
            sound: Any = target.add_stream(sound_coder, rate=_RATE_HZ) if sound_coder else None
            if pictures is not None:
                pictures.width, pictures.height, pictures.pix_fmt = width, height, "yuv420p"
                pictures.codec_context.thread_count = 1
            if sound is not None:
                sound.layout = "stereo"
            # Only now: the first picture writes the header, and what is in it then is all there is.
            if pictures is not None:
                _draw(target, pictures, round(seconds * _PICTURES_A_SECOND))
            if sound is not None:
                _play(target, sound, round(seconds * _RATE_HZ))
        return path.read_bytes()


def _draw(target: Any, film: Any, count: int) -> None:
    for number in range(count):
        picture = np.full((film.height, film.width, 3), 20 * number % 255, dtype=np.uint8)
        target.mux(film.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    target.mux(film.encode())


def _play(target: Any, sound: Any, count: int) -> None:
    form = sound.codec_context.format.name
    size = sound.codec_context.frame_size or 1024
    shape = (2, size) if form.endswith("p") else (1, 2 * size)
    for start in range(0, count, size):
        frame = av.AudioFrame.from_ndarray(
            np.zeros(shape, dtype=_SAMPLES[form.rstrip("p")]), format=form, layout="stereo"
        )
        frame.sample_rate, frame.pts = _RATE_HZ, start
        target.mux(sound.encode(frame))
    target.mux(sound.encode())


@dataclass(frozen=True)
class Seen:
    """What is in a file, as the library sees it: pictures and pieces of sound, all that is told, kinds of streams, rotation."""

    frames: int
    told: dict[str, str]
    kinds: list[str]
    rotation: int


def seen(content: bytes) -> Seen:
    """Looks at all of a file."""
    with av.open(io.BytesIO(content), "r") as source:
        told = dict(source.metadata)
        for stream in source.streams:
            told.update(stream.metadata)
        kinds = [str(stream.type) for stream in source.streams]
        frames, rotation = 0, 0
        for packet in source.demux(*source.streams.video, *source.streams.audio):
            for frame in packet.decode():
                frames += 1
                if isinstance(frame, av.VideoFrame):
                    rotation = frame.rotation
    return Seen(frames, told, kinds, rotation)


# ---- MP4 ----------------------------------------------------------------------------------------------------


def box(kind: bytes, *parts: bytes) -> bytes:
    """One box."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def boxes(content: bytes) -> list[tuple[bytes, bytes]]:
    """The boxes side by side in `content`, by kind and content."""
    found, place = [], 0
    while place < len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        found.append((kind, content[place + 8 : place + size]))
        place += size
    return found


def changed(content: bytes, path: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The film with the box at a path like b"moov/trak/mdia" changed, wherever it is. Offsets of samples stay as they are."""
    first, _, rest = path.partition(b"/")
    rebuilt = []
    for kind, inner in boxes(content):
        if kind != first:
            rebuilt.append(box(kind, inner))
        elif rest:
            rebuilt.append(box(kind, changed(inner, rest, change)))
        else:
            rebuilt.append(box(kind, change(inner)))
    return b"".join(rebuilt)


def patched(content: bytes, path: bytes, at: int, value: bytes) -> bytes:
    """The film with some bytes of a box exchanged."""
    return changed(content, path, lambda inner: inner[:at] + value + inner[at + len(value) :])


# ---- WebM ---------------------------------------------------------------------------------------------------


def element(kind: int, *parts: bytes, size: int | None = None) -> bytes:
    """One element; `size` where it is to lie about it."""
    content = b"".join(parts)
    length = len(content) if size is None else size
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    return name + (length | 1 << 56).to_bytes(8, "big") + content


UNKNOWN_SIZE: Final = (1 << 56) - 1
EBML_HEADER: Final = element(0x1A45DFA3, element(0x4282, b"webm"))


def webm(
    *more: bytes,
    track: bytes = b"",
    kind: int = 1,
    width: int = 64,
    height: int = 48,
    duration: float = 1000.0,
    head: bytes = EBML_HEADER,
) -> bytes:
    """A small film without a picture in it."""
    info = element(0x1549A966, element(0x4489, struct.pack(">d", duration)))
    sides = element(0xE0, element(0xB0, struct.pack(">H", width)), element(0xBA, struct.pack(">H", height)))
    tracks = element(0x1654AE6B, element(0xAE, element(0x83, bytes([kind])), sides, track))
    return head + element(0x18538067, info, tracks, *more)


def cluster(timestamp_ms: int = 0, *more: bytes) -> bytes:
    """Some pictures, from a time on."""
    return element(0x1F43B675, element(0xE7, struct.pack(">I", timestamp_ms)), *more)


# ---- sounds -------------------------------------------------------------------------------------------------


def wav(seconds: float = 1.0, rate_hz: int = 8_000, channels: int = 1) -> bytes:
    """Silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setparams((channels, 2, rate_hz, 0, "NONE", ""))
        target.writeframes(bytes(2 * channels * round(seconds * rate_hz)))
    return file.getvalue()


MP3_FRAME: Final = bytes.fromhex("fffb9064") + bytes(413)
"""1,152 samples of silence at 44.1 kHz, 128 kbit/s."""


def page(serial: int, content: bytes, *, first: bool = False, time: int = 0) -> bytes:
    """One page of OGG, without its checksum."""
    sizes = bytes([255] * (len(content) // 255) + [len(content) % 255])
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, 2 if first else 0, time, serial, 0, 0, len(sizes))
    return head + sizes + content


OPUS_HEAD: Final = b"OpusHead" + struct.pack("<BBHIHB", 1, 2, 312, 48_000, 0, 0)
