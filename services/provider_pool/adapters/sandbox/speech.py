"""Says a prompt aloud, in one of a few voices and in the language that its letters show."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.provider_pool.adapters.sandbox.render_order import RenderOrder
from services.provider_pool.adapters.sandbox.sound_file import write_sound
from services.provider_pool.adapters.sandbox.speech_process import HEAD, SpeechFailed
from services.provider_pool.adapters.sandbox.voices import SPEAKERS, USUAL, language_of

Floats = NDArray[np.float32]

_LIBRARY: Final = "espeakng_loader"
_PROCESS: Final = "services.provider_pool.adapters.sandbox.speech_process"
_ROOT: Final = Path(__file__).resolve().parents[4]
# Ten minutes of speech take two seconds on a quiet machine.
_DEADLINE_S: Final = 120.0
_MARKER: Final = re.compile(r"\[sandbox:[^\]]*\]")
_SAID_OF_NOTHING: Final = "There is nothing here that can be said."
_QUIET_S: Final = 0.15
_PEAK: Final = 0.8


def speak(text: str, voice: str) -> tuple[Floats, int]:
    """Mono sound, shape (1, samples), within -1 to 1, and its samples a second.

    Raises SpeechFailed, and ImportError where the speech library is not installed.
    """
    said = " ".join(_MARKER.sub(" ", text).split())
    if not any(char.isalnum() for char in said):
        said = _SAID_OF_NOTHING
    rate_hz, levels = _spoken(said, voice or USUAL)
    sound = np.frombuffer(levels, dtype="<i2").astype(np.float32)
    quiet = np.zeros(int(rate_hz * _QUIET_S), dtype=np.float32)
    loudest = float(np.abs(sound).max(initial=0.0)) or 1.0
    return np.concatenate([quiet, sound * np.float32(_PEAK / loudest), quiet])[None, :], rate_hz


def write_speech(order: RenderOrder, path: Path) -> float:
    """Say an order of kind voice into a file; how long it takes, in seconds. Raises as `speak`."""
    sound, rate_hz = speak(order.prompt, order.voice)
    write_sound(sound, rate_hz, order.format or "mp3", path)
    return float(sound.shape[1] / rate_hz)


def _spoken(said: str, voice: str) -> tuple[int, bytes]:
    if importlib.util.find_spec(_LIBRARY) is None:
        raise ImportError("the speech library is not installed", name=_LIBRARY)
    speaker = SPEAKERS[voice]
    asked = {
        "text": said,
        "voice": f"{language_of(said)}+{speaker.variant}",
        "words_a_minute": speaker.words_a_minute,
        "pitch": speaker.pitch,
        "movement": speaker.movement,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", _PROCESS],
            input=json.dumps(asked).encode() + b"\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_ROOT,
            timeout=_DEADLINE_S,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise SpeechFailed("the text could not be said") from error
    (rate_hz,) = HEAD.unpack_from(done.stdout)
    return rate_hz, done.stdout[HEAD.size :]
