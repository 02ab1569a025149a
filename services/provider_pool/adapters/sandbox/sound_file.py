"""Sounds as files: MP3 and WAV, whose bytes depend on the sound alone."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Speech needs less; nobody hears a difference above this.
_BITS_PER_S: Final = {1: 96_000, 2: 192_000}
_LAYOUTS: Final = {1: "mono", 2: "stereo"}
# What an encoder is given at once: some ten seconds.
_PIECE: Final = 460_800
# The quick search: nobody hears the difference, and it takes a third of the time.
_LAME: Final = {"compression_level": "7"}
_LOUDEST: Final = 32_767


def write_sound(sound: Floats, rate_hz: int, ending: str, path: Path) -> None:
    """Store a sound, shape (channels, samples), within -1 to 1, as `mp3` or `wav`."""
    if ending == "wav":
        _write_wav(sound, rate_hz, path)
    else:
        _write_mp3(sound, rate_hz, path)


def _write_wav(sound: Floats, rate_hz: int, path: Path) -> None:
    levels = np.rint(np.clip(sound, -1, 1) * _LOUDEST).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(sound.shape[0])
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(levels.T.tobytes())


def _write_mp3(sound: Floats, rate_hz: int, path: Path) -> None:
    # Without tags: they would name the library that made them.
    options = {"fflags": "+bitexact", "id3v2_version": "0"}
    with av.open(str(path), "w", format="mp3", options=options) as container:
        stream = container.add_stream(
            "libmp3lame", rate=rate_hz, layout=_LAYOUTS[sound.shape[0]], options=_LAME
        )
        stream.bit_rate = _BITS_PER_S[sound.shape[0]]
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for frame in _frames(sound, rate_hz):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _frames(sound: Floats, rate_hz: int) -> Iterator[AudioFrame]:
    for start in range(0, sound.shape[1], _PIECE):
        part = np.ascontiguousarray(sound[:, start : start + _PIECE], dtype=np.float32)
        frame = AudioFrame.from_ndarray(part, format="fltp", layout=_LAYOUTS[sound.shape[0]])
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
        yield frame
