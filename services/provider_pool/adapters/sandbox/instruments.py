"""Instruments: every one of them makes the wave of a note from a pitch, a length and the loudness of a touch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RATE_HZ: Final = 44_100
# Higher partials would be above what can be heard or stored.
_HIGHEST_HZ: Final = 15_000.0
_RELEASE_S: Final = 0.06


def hertz(note: int) -> float:
    """The pitch of a note; 69 is the A of 440 Hz."""
    return float(440.0 * 2 ** ((note - 69) / 12))


def _time(length_s: float) -> Floats:
    return np.arange(max(1, int(length_s * RATE_HZ)), dtype=np.float32) / np.float32(RATE_HZ)


def _partials(hz: float, time: Floats, levels: tuple[float, ...], *, stretch: float = 0.0) -> Floats:
    wave = np.zeros_like(time)
    for number, level in enumerate(levels, start=1):
        partial_hz = hz * number * (1 + stretch * number * number)
        if level and partial_hz < _HIGHEST_HZ:
            wave += np.float32(level) * np.sin(np.float32(2 * np.pi * partial_hz) * time)
    return wave


def _shaped(wave: Floats, time: Floats, attack_s: float, decay_s: float | None) -> Floats:
    envelope = np.minimum(time / np.float32(attack_s), 1)
    if decay_s is not None:
        envelope *= np.exp(-time / np.float32(decay_s))
    end = time[-1] - time
    release_s = min(_RELEASE_S if decay_s is not None else 0.18, float(time[-1]) / 3 + 1e-3)
    return np.asarray(wave * envelope * np.minimum(end / np.float32(release_s), 1), dtype=np.float32)


def _piano(hz: float, length_s: float) -> Floats:
    time = _time(length_s + 0.5)
    wave = _partials(hz, time, (1, 0.55, 0.32, 0.2, 0.12, 0.08, 0.05), stretch=0.0002)
    wave += _partials(hz * 1.0012, time, (0.5, 0.2, 0.1))
    return _shaped(wave, time, 0.004, 0.9 * (262 / hz) ** 0.35)


def _epiano(hz: float, length_s: float) -> Floats:
    time = _time(length_s + 0.4)
    bell = np.exp(-time / np.float32(0.25)) * np.float32(1.1)
    wave = np.sin(np.float32(2 * np.pi * hz) * time + bell * np.sin(np.float32(2 * np.pi * hz * 2) * time))
    sway = 1 + np.float32(0.12) * np.sin(np.float32(2 * np.pi * 5) * time)
    return _shaped(np.asarray(wave * sway, dtype=np.float32), time, 0.006, 1.1)


def _plucked(hz: float, length_s: float, *, brightness: float, decay_s: float) -> Floats:
    """A string: its upper partials die sooner than the lower ones."""
    time = _time(length_s + 0.5)
    wave = np.zeros_like(time)
    for number in range(1, 13):
        if hz * number < _HIGHEST_HZ:
            level = brightness ** (number - 1) * abs(np.sin(np.pi * number * 0.23))
            fade = np.exp(-time * np.float32((1 + 0.35 * number) / decay_s))
            wave += (
                np.float32(level)
                * fade
                * np.sin(np.float32(2 * np.pi * hz * number * (1 + 3e-4 * number)) * time)
            )
    return _shaped(wave, time, 0.003, 4.0)


def _electric(hz: float, length_s: float) -> Floats:
    clean = _plucked(hz, length_s, brightness=0.85, decay_s=2.4)
    return np.asarray(np.tanh(clean * np.float32(3.2)) * np.float32(0.6), dtype=np.float32)


def _bowed(hz: float, length_s: float, levels: tuple[float, ...], attack_s: float) -> Floats:
    """Several players, each a little out of tune with the others, with a vibrato that sets in late."""
    time = _time(length_s + 0.2)
    late = np.minimum(time / np.float32(0.6), 1) * np.float32(0.004 * hz / 5.3)
    bend = late * np.sin(np.float32(2 * np.pi * 5.3) * time)
    wave = np.zeros_like(time)
    for player in (-0.0025, 0.0, 0.003):
        angle = np.float32(2 * np.pi * hz * (1 + player)) * time + bend
        for number, level in enumerate(levels, start=1):
            if hz * number < _HIGHEST_HZ:
                wave += np.float32(level / 3) * np.sin(np.float32(number) * angle)
    return _shaped(wave, time, attack_s, None)


def _flute(hz: float, length_s: float) -> Floats:
    return _bowed(hz, length_s, (1, 0.22, 0.1, 0.03), 0.05)


def _strings(hz: float, length_s: float) -> Floats:
    return _bowed(hz, length_s, (1, 0.6, 0.42, 0.3, 0.22, 0.15, 0.1, 0.07), 0.11)


def _brass(hz: float, length_s: float) -> Floats:
    time = _time(length_s + 0.15)
    bright = np.minimum(time / np.float32(0.09), 1) * np.exp(-time / np.float32(2.5))
    wave = np.zeros_like(time)
    for number in range(1, 10):
        if hz * number < _HIGHEST_HZ:
            wave += (
                bright ** np.float32(number / 3)
                * np.sin(np.float32(2 * np.pi * hz * number) * time)
                / np.float32(number)
            )
    return _shaped(wave, time, 0.03, None)


def _choir(hz: float, length_s: float) -> Floats:
    # Partials near 700 and 1,100 Hz are what makes an "ah" of a tone.
    near = [
        np.exp(-(((hz * n - 700) / 260) ** 2)) + 0.6 * np.exp(-(((hz * n - 1100) / 240) ** 2))
        for n in range(1, 13)
    ]
    levels = tuple(float(0.25 / (n + 1) + level) for n, level in enumerate(near))
    return _bowed(hz, length_s, levels, 0.22)


def _organ(hz: float, length_s: float) -> Floats:
    time = _time(length_s + 0.08)
    return _shaped(_partials(hz, time, (1, 0.8, 0.35, 0.5, 0, 0.2, 0, 0.3)), time, 0.02, None)


def _pad(hz: float, length_s: float) -> Floats:
    return _bowed(hz, length_s + 0.4, (1, 0.35, 0.18, 0.08), 0.5)


def _bells(hz: float, length_s: float) -> Floats:
    time = _time(length_s + 1.0)
    wave = np.zeros_like(time)
    for ratio, level, decay_s in ((1, 1, 1.4), (2.0, 0.5, 0.9), (2.76, 0.35, 0.5), (5.4, 0.2, 0.25)):
        if hz * ratio < _HIGHEST_HZ:
            wave += (
                np.float32(level)
                * np.exp(-time / np.float32(decay_s))
                * np.sin(np.float32(2 * np.pi * hz * ratio) * time)
            )
    return _shaped(wave, time, 0.002, 3.0)


def _marimba(hz: float, length_s: float) -> Floats:
    time = _time(min(length_s, 0.6) + 0.3)
    wave = np.exp(-time / np.float32(0.3)) * np.sin(np.float32(2 * np.pi * hz) * time)
    wave += (
        np.float32(0.35) * np.exp(-time / np.float32(0.06)) * np.sin(np.float32(2 * np.pi * hz * 3.9) * time)
    )
    return _shaped(np.asarray(wave, dtype=np.float32), time, 0.002, 2.0)


def _saws(hz: float, length_s: float) -> Floats:
    return _bowed(hz, length_s, tuple(1 / n * 0.9**n for n in range(1, 16)), 0.02)


def _synth(hz: float, length_s: float) -> Floats:
    time = _time(length_s + 0.15)
    wave = np.zeros_like(time)
    for number in range(1, 14):
        if hz * number < _HIGHEST_HZ:
            closing = np.exp(-time * np.float32(0.9 * number))
            wave += closing * np.sin(np.float32(2 * np.pi * hz * number) * time) / np.float32(number)
    return _shaped(wave, time, 0.004, 1.2)


def _square(hz: float, length_s: float) -> Floats:
    time = _time(length_s)
    odd = tuple(1 / number if number % 2 else 0.0 for number in range(1, 16))
    return _shaped(_partials(hz, time, odd), time, 0.002, 0.9)


def _bass(hz: float, length_s: float) -> Floats:
    return _plucked(hz, length_s, brightness=0.55, decay_s=2.8)


def _synthbass(hz: float, length_s: float) -> Floats:
    time = _time(length_s)
    wave = np.tanh(_partials(hz, time, (1.4, 0.7, 0.4, 0.25, 0.15)))
    return _shaped(np.asarray(wave, dtype=np.float32), time, 0.005, 0.6)


_MAKERS: Final[dict[str, Callable[[float, float], Floats]]] = {
    "piano": _piano,
    "epiano": _epiano,
    "guitar": functools.partial(_plucked, brightness=0.72, decay_s=1.8),
    "harp": functools.partial(_plucked, brightness=0.6, decay_s=2.2),
    "electric": _electric,
    "strings": _strings,
    "flute": _flute,
    "brass": _brass,
    "choir": _choir,
    "organ": _organ,
    "pad": _pad,
    "bells": _bells,
    "marimba": _marimba,
    "saws": _saws,
    "synth": _synth,
    "square": _square,
    "bass": _bass,
    "synthbass": _synthbass,
}


@functools.lru_cache(maxsize=256)
def sounded(instrument: str, note: int, length_ms: int) -> Floats:
    """The wave of a note, about as loud as that of any other; it may ring on after its length."""
    wave = _MAKERS[instrument](hertz(note), length_ms / 1000)
    quarters = np.array_split(wave, max(1, wave.size // (RATE_HZ // 4)))
    # Of a tone that swells, what it swells to; of one that fades, what it begins with.
    strength = max(float(np.sqrt(np.mean(quarter**2))) for quarter in quarters) or 1.0
    return np.asarray(wave * np.float32(0.2 / strength), dtype=np.float32)


@functools.cache
def struck(drum: str) -> Floats:
    """The wave of a drum."""
    noise = np.random.default_rng(7).standard_normal(RATE_HZ // 2).astype(np.float32)
    time = _time(0.5)
    match drum:
        case "kick":
            fall = 48 + 110 * np.exp(-time / np.float32(0.035))
            wave = np.sin(2 * np.pi * np.cumsum(fall) / RATE_HZ) * np.exp(-time / np.float32(0.13))
        case "war":
            fall = 52 + 40 * np.exp(-time / np.float32(0.08))
            wave = np.sin(2 * np.pi * np.cumsum(fall) / RATE_HZ) * np.exp(-time / np.float32(0.22))
            wave += 0.25 * _smooth(noise, 24) * np.exp(-time / np.float32(0.05))
        case "snare":
            body = 0.5 * np.sin(np.float32(2 * np.pi * 190) * time) * np.exp(-time / np.float32(0.06))
            wave = body + 0.4 * noise * np.exp(-time / np.float32(0.09))
        case "brush":
            wave = (
                0.5
                * _smooth(noise, 4)
                * np.minimum(time / np.float32(0.05), 1)
                * np.exp(-time / np.float32(0.1))
            )
        case _:
            bright = noise - _smooth(noise, 6)
            wave = 0.3 * bright * np.exp(-time / np.float32(0.03))
    return np.asarray(wave * np.float32(0.5), dtype=np.float32)


def _smooth(noise: Floats, width: int) -> Floats:
    return np.asarray(
        np.convolve(noise, np.ones(width, dtype=np.float32) / width, mode="same"), dtype=np.float32
    )
