"""Draws each file once, in a thread, and keeps it."""

from __future__ import annotations

import asyncio
import io
import math
import struct
import wave
from array import array
from collections import OrderedDict
from fractions import Fraction
from typing import Any, Final

from PIL import Image

from services.chassis.settings import SettingsError
from services.simulator.drawings import Drawing, Film, Picture, Sound, Text

try:
    import av
except ModuleNotFoundError:  # a production image has no need of it
    av = None  # type: ignore[assignment]

# Drawn files are small; a quarter of a gigabyte holds every size that a run asks for.
_KEPT_BYTES: Final = 256 * 1024 * 1024
# Encoders use whole cores.
_AT_ONCE: Final = 2
_FRAMES_PER_S: Final = 24
_X264: Final = {"preset": "ultrafast", "crf": "40", "threads": "1", "g": str(_FRAMES_PER_S)}
_TONE_HZ: Final = 220
_TONE_LEVEL: Final = 2000
_TINTS: Final = ((70, 110, 160), (150, 90, 80), (90, 140, 90), (140, 120, 70), (110, 90, 150), (80, 140, 150))
# The rates that Opus knows; whatever is asked is drawn at the highest.
_OPUS_HZ: Final = 48_000
# Codec and container of what PyAV writes.
_SOUND_CODECS: Final = {
    "mp3": ("libmp3lame", "mp3"),
    "opus": ("libopus", "ogg"),
    "aac": ("aac", "adts"),
    "flac": ("flac", "flac"),
    "ulaw": ("pcm_mulaw", "mulaw"),
    "alaw": ("pcm_alaw", "alaw"),
}


class Studio:
    """Raises SettingsError at once where it cannot draw."""

    def __init__(self) -> None:
        if av is None:
            raise SettingsError(
                ["the simulator draws with PyAV, which is not installed: requirements/sandbox.lock"]
            )
        self._kept: OrderedDict[Drawing, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._under_way: dict[Drawing, asyncio.Task[bytes]] = {}

    async def draw(self, drawing: Drawing) -> bytes:
        """The file's bytes."""
        if isinstance(drawing, Text):
            return drawing.content.encode()
        if drawing in self._kept:
            self._kept.move_to_end(drawing)
            return self._kept[drawing]
        under_way = self._under_way.get(drawing)
        if under_way is None:
            under_way = self._under_way[drawing] = asyncio.create_task(self._made(drawing))
            under_way.add_done_callback(lambda _: self._under_way.pop(drawing, None))
        return await asyncio.shield(under_way)

    async def _made(self, drawing: Drawing) -> bytes:
        async with self._places:
            made = await asyncio.to_thread(_bytes_of, drawing)
        self._kept[drawing] = made
        self._kept_bytes += len(made)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return made


def _bytes_of(drawing: Drawing) -> bytes:
    match drawing:
        case Picture():
            return _picture(drawing)
        case Film():
            return _film(drawing)
        case Sound():
            return _sound(drawing)
        case Text():
            return drawing.content.encode()


def _picture(picture: Picture) -> bytes:
    tint = _TINTS[picture.tint % len(_TINTS)]
    mode = "RGBA" if picture.is_transparent else "RGB"
    image = Image.new(mode, (picture.width, picture.height), (*tint, 160) if picture.is_transparent else tint)
    file = io.BytesIO()
    image.save(file, picture.format.upper())
    return file.getvalue()


def _film(film: Film) -> bytes:
    # One second is encoded, and its packets are written again for every further one: each begins with a key frame.
    file = io.BytesIO()
    with av.open(file, "w", format=film.format) as container:
        video: Any = container.add_stream("libx264", rate=_FRAMES_PER_S, options=_X264)
        video.width, video.height, video.pix_fmt = film.width, film.height, "yuv420p"
        sound: Any = container.add_stream("aac", rate=44_100, layout="stereo") if film.has_sound else None
        packets = _one_second(video, film)
        for number in range(max(1, round(film.seconds * _FRAMES_PER_S))):
            key, content = packets[number % _FRAMES_PER_S]
            packet = av.Packet(content)
            packet.stream, packet.time_base = video, Fraction(1, _FRAMES_PER_S)
            packet.pts = packet.dts = number
            packet.duration = 1
            packet.is_keyframe = key
            container.mux(packet)
        if sound is not None:
            _encode_tone(container, sound, film.seconds, 44_100)
    return file.getvalue()


def _one_second(stream: Any, film: Film) -> list[tuple[bool, bytes]]:
    # Without B frames, which `ultrafast` has none of, packets come in the order of their frames.
    picture = Image.new("RGB", (film.width, film.height), _TINTS[film.tint % len(_TINTS)])
    frames: Any = av.VideoFrame
    frame = frames.from_image(picture).reformat(format="yuv420p")
    packets: list[tuple[bool, bytes]] = []
    for number in range(_FRAMES_PER_S):
        frame.pts = number
        packets += [(packet.is_keyframe, bytes(packet)) for packet in stream.encode(frame)]
    packets += [(packet.is_keyframe, bytes(packet)) for packet in stream.encode(None)]
    return packets


def _sound(sound: Sound) -> bytes:
    if sound.format in {"pcm", "wav"}:
        samples = _tone(round(sound.seconds * sound.rate_hz), sound.rate_hz)
        return samples if sound.format == "pcm" else _wav(samples, sound.rate_hz)
    codec, container_format = _SOUND_CODECS[sound.format]
    rate_hz = _OPUS_HZ if sound.format == "opus" else sound.rate_hz
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=rate_hz, layout="mono")
        if sound.format in {"mp3", "opus", "aac"}:
            stream.bit_rate = sound.bits_per_s
        _encode_tone(container, stream, sound.seconds, rate_hz)
    return file.getvalue()


def _encode_tone(container: Any, stream: Any, seconds: float, rate_hz: int) -> None:
    samples = _tone(max(1, round(seconds * rate_hz)), rate_hz)
    resampler = av.AudioResampler(stream.format, stream.layout, rate_hz)
    fifo = av.AudioFifo()
    frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples) // 2)
    frame.sample_rate, frame.pts = rate_hz, 0
    frame.time_base = Fraction(1, rate_hz)
    frame.planes[0].update(samples)
    for resampled in resampler.resample(frame):
        fifo.write(resampled)
    size = stream.codec_context.frame_size or 1024
    while part := fifo.read(size, partial=True):
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def _tone(samples: int, rate_hz: int) -> bytes:
    # One turn of the wave, again and again: rounding its length makes it a little off, which nobody hears.
    length = max(2, round(rate_hz / _TONE_HZ))
    turn = array("h", (round(_TONE_LEVEL * math.sin(2 * math.pi * i / length)) for i in range(length)))
    return (turn * (samples // length + 1))[:samples].tobytes()


def _wav(samples: bytes, rate_hz: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(struct.calcsize("h"))
        sound.setframerate(rate_hz)
        sound.writeframes(samples)
    return file.getvalue()
