"""A short calm piece for a film: chords, a bass and a soft melody, all from the seed."""

from __future__ import annotations

import random
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RATE_HZ: Final = 48_000
_BEAT_S: Final = 0.6
_CHORD_BEATS: Final = 4
_FADE_IN_S: Final = 0.4
_FADE_OUT_S: Final = 1.5
_PEAK: Final = 0.7
# Steps of the scale on which each chord stands; every row is a progression that ends well into its own start.
_PROGRESSIONS: Final = ((0, 5, 3, 4), (0, 3, 5, 4), (5, 3, 0, 4), (0, 2, 3, 4), (0, 4, 5, 3))
_SCALES: Final = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 6, 7, 9, 11))
_PENTATONIC: Final = (0, 1, 2, 4, 5)


def compose_piece(chance: int, samples: int) -> Floats:
    """Stereo sound of exactly `samples` samples at RATE_HZ, shape (2, samples), within -1 to 1."""
    rng = random.Random(chance ^ 0x50A6D)
    scale, chords = rng.choice(_SCALES), rng.choice(_PROGRESSIONS)
    root_hz = 110.0 * 2 ** (rng.randrange(-2, 6) / 12)
    track = np.zeros((2, samples), dtype=np.float32)
    beat = int(_BEAT_S * RATE_HZ)
    for bar in range(samples // (beat * _CHORD_BEATS) + 1):
        degree = chords[bar % len(chords)]
        _add_bar(track, bar * beat * _CHORD_BEATS, scale, degree, root_hz, rng)
    _add_echo(track, int(beat * 0.75))
    return _finished(track)


def _pitch(root_hz: float, scale: tuple[int, ...], degree: int) -> float:
    octave, step = divmod(degree, len(scale))
    return float(root_hz * 2 ** (octave + scale[step] / 12))


def _add_bar(
    track: Floats, start: int, scale: tuple[int, ...], degree: int, root_hz: float, rng: random.Random
) -> None:
    beat = int(_BEAT_S * RATE_HZ)
    for third, side in ((0, 0.5), (2, 0.3), (4, 0.7)):
        hz = _pitch(root_hz, scale, degree + third + 7)
        _add_tone(track, start, int(beat * _CHORD_BEATS * 1.15), hz, 0.10, side, attack_s=0.5, decay_s=2.6)
    _add_tone(track, start, beat * _CHORD_BEATS, _pitch(root_hz, scale, degree) / 2, 0.20, 0.5, 0.05, 1.6)
    for step in range(_CHORD_BEATS * 2):
        if rng.random() < (0.75 if step % 2 == 0 else 0.4):
            note = degree * (step % 4 == 0) + rng.choice(_PENTATONIC) + 14
            _add_tone(
                track,
                start + step * beat // 2,
                int(beat * 2.2),
                _pitch(root_hz, scale, note),
                0.13,
                rng.uniform(0.2, 0.8),
                0.012,
                0.45,
            )


def _add_tone(
    track: Floats,
    start: int,
    length: int,
    hz: float,
    loudness: float,
    side: float,
    attack_s: float,
    decay_s: float,
) -> None:
    """One note; `side` is 0 for left to 1 for right."""
    length = min(length, track.shape[1] - start)
    if length <= 0:
        return
    time_s = np.arange(length, dtype=np.float32) / RATE_HZ
    angle = np.float32(2 * np.pi * hz) * time_s
    tone = np.sin(angle) + np.float32(0.3) * np.sin(2 * angle) + np.float32(0.12) * np.sin(3.003 * angle)
    envelope = np.minimum(time_s / attack_s, 1) * np.exp(-time_s / decay_s)
    # The last 30 ms fall to nothing, or the end of a note would click.
    envelope *= np.clip((length / RATE_HZ - time_s) / 0.03, 0, 1)
    wave = (tone * envelope * np.float32(loudness)).astype(np.float32)
    track[0, start : start + length] += wave * np.float32(np.sqrt(1 - side))
    track[1, start : start + length] += wave * np.float32(np.sqrt(side))


def _add_echo(track: Floats, delay: int) -> None:
    if track.shape[1] > delay:
        track[:, delay:] += np.float32(0.28) * track[::-1, :-delay].copy()


def _finished(track: Floats) -> Floats:
    samples = track.shape[1]
    place = np.arange(samples, dtype=np.float32) / RATE_HZ
    fade = np.minimum(place / _FADE_IN_S, 1) * np.minimum((samples / RATE_HZ - place) / _FADE_OUT_S, 1)
    track *= np.clip(fade, 0, 1)
    loudest = float(np.abs(track).max()) or 1.0
    return np.asarray(track * np.float32(_PEAK / loudest), dtype=np.float32)
