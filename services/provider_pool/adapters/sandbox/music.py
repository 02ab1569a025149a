"""Plays a piece: melody, chords, low notes and drums after a plan, mixed in a room, faded out with the last chord."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.provider_pool.adapters.sandbox.instruments import RATE_HZ, sounded, struck
from services.provider_pool.adapters.sandbox.music_plan import BARS_OF_A_SECTION, Plan, plan
from services.provider_pool.adapters.sandbox.render_order import RenderOrder
from services.provider_pool.adapters.sandbox.sound_file import write_sound

Floats = NDArray[np.float32]

# Every one of them a C: the key is counted from there.
_LEAD_NOTE, _CHORD_NOTE, _BASS_NOTE = 72, 60, 36
# Above these, a chord would cover the melody, and a low note would be none.
_CHORD_TOP, _BASS_TOP = 69, 47
# Where they sit from left (0) to right (1), how loud they are, and how much of them goes into the room.
_LEAD_MIX, _CHORD_MIX, _BASS_MIX, _DRUM_MIX = (0.56, 1.0), (0.4, 0.42), (0.5, 0.8), (0.5, 0.8)
_ROOM_S: Final = 1.4
_ROOM_LEVEL: Final = 0.2
_PEAK: Final = 0.88
_FADE_IN_S: Final = 0.02
_FADE_OUT_S: Final = 1.2
# Lengths of the notes of a bar of four beats, and of three.
_RHYTHMS: Final = {
    4: (
        (1, 1, 1, 1),
        (1.5, 0.5, 1, 1),
        (1, 0.5, 0.5, 2),
        (0.5, 0.5, 1, 0.5, 0.5, 1),
        (2, 1, 1),
        (1.5, 0.5, 2),
    ),
    3: ((1, 1, 1), (2, 1), (1.5, 0.5, 1), (1, 0.5, 0.5, 1)),
}
# Steps up or down from one note of the melody to the next: mostly neighbours, now and then a leap.
_MOVES: Final = (-1, 1, -1, 1, -2, 2, 0, 3, -3)
# By drum, at which eighths of a bar of four beats it is struck, and how hard.
_BEATS: Final[dict[str, tuple[tuple[str, tuple[int, ...], float], ...]]] = {
    "soft": (("kick", (0, 5), 0.8), ("brush", (2, 6), 0.7), ("hat", (0, 2, 3, 4, 6, 7), 0.3)),
    "rock": (("kick", (0, 4, 5), 1.0), ("snare", (2, 6), 0.7), ("hat", (0, 1, 2, 3, 4, 5, 6, 7), 0.35)),
    "four": (("kick", (0, 2, 4, 6), 1.0), ("snare", (2, 6), 0.4), ("hat", (1, 3, 5, 7), 0.5)),
    "brush": (("hat", (0, 2, 3, 4, 6, 7), 0.4), ("brush", (2, 6), 0.5), ("kick", (0,), 0.4)),
    "war": (("war", (0, 3, 4), 1.0), ("war", (6, 7), 0.6)),
}


@dataclass(frozen=True, slots=True)
class Tone:
    """One note of the melody: beats from the start of its phrase, beats it lasts, its step in the scale."""

    at: float
    beats: float
    step: int


class _Band:
    """The tracks of a piece, and the players who fill them."""

    def __init__(self, plan_: Plan, samples: int) -> None:
        self.plan = plan_
        self.track = np.zeros((2, samples), dtype=np.float32)

    def play(
        self, instrument: str, note: int, at_beat: float, beats: float, mix: tuple[float, float]
    ) -> None:
        """One note; `mix` is its side and its loudness."""
        length_ms = max(60, round(beats * self.plan.beat_s * 1000))
        self._add(sounded(instrument, note, length_ms), at_beat, mix)

    def strike(self, drum: str, at_beat: float, mix: tuple[float, float]) -> None:
        """One stroke of a drum."""
        self._add(struck(drum), at_beat, mix)

    def _add(self, wave: Floats, at_beat: float, mix: tuple[float, float]) -> None:
        start = int(self._swung(at_beat) * self.plan.beat_s * RATE_HZ)
        wave = wave[: max(0, self.track.shape[1] - start)]
        side, loudness = mix
        self.track[0, start : start + wave.size] += wave * np.float32(loudness * np.sqrt(1 - side))
        self.track[1, start : start + wave.size] += wave * np.float32(loudness * np.sqrt(side))

    def _swung(self, at_beat: float) -> float:
        off = at_beat % 1
        return at_beat + (0.13 if self.plan.manner.swing and 0.4 < off < 0.6 else 0.0)


def compose(prompt: str, seed: int, duration_s: int) -> Floats:
    """A piece of exactly this length, stereo at RATE_HZ, shape (2, samples), within -1 to 1."""
    plan_ = plan(prompt, seed, duration_s)
    band = _Band(plan_, duration_s * RATE_HZ)
    rng = random.Random(plan_.chance ^ 0x5EED)
    phrases = {"A": _phrase(plan_, rng, 0), "B": _phrase(plan_, rng, 2)}
    for number, section in enumerate(plan_.sections):
        bars = range(number * BARS_OF_A_SECTION, min((number + 1) * BARS_OF_A_SECTION, plan_.bars))
        _accompany(band, section, bars, rng)
        if section != "I" and bars:
            varied = section == "A" and section in plan_.sections[:number]
            _sing(band, phrases[section], bars, rng if varied else None)
    _close(band)
    return _mixed(band.track, plan_.chance)


def write_music(order: RenderOrder, path: Path) -> None:
    """Play an order of kind music into a file."""
    write_sound(compose(order.prompt, order.seed, order.duration_s), RATE_HZ, order.format or "mp3", path)


def _chord(plan_: Plan, section: str, bar: int) -> int:
    steps = plan_.answer if section == "B" else plan_.progression
    return steps[bar % len(steps)]


def _note(plan_: Plan, step: int, around: int) -> int:
    octave, place = divmod(step, 7)
    return around + plan_.root + 12 * octave + plan_.scale[place]


def _chord_note(plan_: Plan, step: int) -> int:
    note = _note(plan_, step, _CHORD_NOTE)
    return note - 12 * max(0, -(-(note - _CHORD_TOP) // 12))


def _low_note(plan_: Plan, step: int) -> int:
    note = _note(plan_, step, _BASS_NOTE)
    return note - 12 * max(0, -(-(note - _BASS_TOP) // 12))


def _phrase(plan_: Plan, rng: random.Random, start: int) -> list[Tone]:
    """Four bars: a motif, its answer a step away, the motif again, and a way home."""
    beats = plan_.manner.beats
    rhythms = rng.sample(_RHYTHMS[beats], 2)
    motif = [rng.choice(_MOVES) for _ in range(6)]
    tones: list[Tone] = []
    section = "B" if start else "A"
    for bar in range(BARS_OF_A_SECTION):
        chord = _chord(plan_, section, bar)
        step, at = _nearest(chord + start, start + 2 * (bar % 2)), float(bar * beats)
        last = bar == BARS_OF_A_SECTION - 1
        for place, length in enumerate((beats - 1, 1) if last else rhythms[bar % 2]):
            strong = place == 0 or (at % 2 == 0 and length >= 1)
            step = _nearest(chord, step) if strong else step
            tones.append(Tone(at, float(length), step))
            move = motif[place % len(motif)]
            # What has wandered too far comes back.
            step += -move if abs(step + move - start - 2) > 6 else move
            at += length
    return tones


def _nearest(chord: int, step: int) -> int:
    """The tone of a chord that is next to a step of the scale."""
    tones = [chord + third + 7 * octave for third in (0, 2, 4) for octave in (-2, -1, 0, 1, 2)]
    return min(tones, key=lambda tone: (abs(tone - step), tone))


def _sing(band: _Band, phrase: Sequence[Tone], bars: range, rng: random.Random | None) -> None:
    """Play a phrase; with `rng`, with a grace note here and there."""
    plan_, beats = band.plan, band.plan.manner.beats
    end = (bars.stop - bars.start) * beats
    for tone in phrase:
        if tone.at >= end:
            break
        at, side_loudness = bars.start * beats + tone.at, _LEAD_MIX
        note = _note(plan_, tone.step, _LEAD_NOTE)
        if rng is not None and tone.beats >= 1 and rng.random() < 0.4:
            neighbour = _note(plan_, tone.step + 1, _LEAD_NOTE)
            band.play(plan_.manner.lead, neighbour, at, tone.beats / 2, side_loudness)
            band.play(plan_.manner.lead, note, at + tone.beats / 2, tone.beats / 2, side_loudness)
        else:
            band.play(plan_.manner.lead, note, at, tone.beats * 0.95, side_loudness)


_HELD: Final = frozenset({"strings", "pad", "organ", "choir", "brass", "saws"})


def _accompany(band: _Band, section: str, bars: range, rng: random.Random) -> None:
    plan_, manner = band.plan, band.plan.manner
    for bar in bars:
        at, chord = bar * manner.beats, _chord(plan_, section, bar)
        notes = sorted(_chord_note(plan_, chord + third) for third in (0, 2, 4))
        if manner.chords in _HELD:
            for place, note in enumerate(notes):
                band.play(manner.chords, note, at, manner.beats, (0.25 + 0.25 * place, _CHORD_MIX[1]))
        else:
            _break_chord(band, [*notes, notes[0] + 12], at, rng)
        low = _low_note(plan_, chord)
        band.play(manner.bass, low, at, manner.beats * 0.6, _BASS_MIX)
        if section != "I":
            fifth = _low_note(plan_, chord + 4)
            band.play(manner.bass, fifth if bar % 2 else low, at + manner.beats - 1, 0.9, _BASS_MIX)
            _drum(band, at)


def _break_chord(band: _Band, notes: list[int], at: float, rng: random.Random) -> None:
    order = (0, 1, 2, 3, 2, 1, 2, 1)
    for eighth in range(band.plan.manner.beats * 2):
        loudness = _CHORD_MIX[1] * (1.25 if eighth == 0 else rng.uniform(0.75, 1.0))
        note = notes[order[eighth % len(order)]]
        band.play(band.plan.manner.chords, note, at + eighth / 2, 0.9, (_CHORD_MIX[0], loudness))


def _drum(band: _Band, at: float) -> None:
    manner = band.plan.manner
    for drum, eighths, loudness in _BEATS.get(manner.drums, ()):
        for eighth in eighths:
            if eighth < manner.beats * 2:
                side = 0.62 if drum == "hat" else _DRUM_MIX[0]
                band.strike(drum, at + eighth / 2, (side, loudness * _DRUM_MIX[1]))


def _close(band: _Band) -> None:
    """The chord of the root, with its octave above, in everybody's hands."""
    plan_, at = band.plan, band.plan.bars * band.plan.manner.beats
    beats = plan_.tail_s / plan_.beat_s
    for place, step in enumerate((0, 2, 4)):
        band.play(plan_.manner.chords, _chord_note(plan_, step), at, beats, (0.2 + 0.2 * place, 0.4))
    band.play(plan_.manner.lead, _note(plan_, 7, _LEAD_NOTE - 12), at, beats, _LEAD_MIX)
    band.play(plan_.manner.bass, _low_note(plan_, 0), at, beats, _BASS_MIX)


def _mixed(track: Floats, chance: int) -> Floats:
    samples = track.shape[1]
    wet = _in_a_room(track, chance)
    place = np.arange(samples, dtype=np.float32) / RATE_HZ
    fade = np.minimum(place / _FADE_IN_S, 1) * np.minimum((samples / RATE_HZ - place) / _FADE_OUT_S, 1)
    # Peaks are bent rather than cut off.
    strength = float(np.sqrt(np.mean(wet**2))) or 1.0
    bent = np.tanh(wet * np.float32(0.22 / strength)) * np.clip(fade, 0, 1)
    loudest = float(np.abs(bent).max()) or 1.0
    return np.asarray(bent * np.float32(_PEAK / loudest), dtype=np.float32)


def _in_a_room(track: Floats, chance: int) -> Floats:
    """The sound with its echoes from the walls of a room, different ones to the left and to the right."""
    length = int(_ROOM_S * RATE_HZ)
    noise = np.random.default_rng(chance & 0xFFFF).standard_normal((2, length)).astype(np.float32)
    fall = np.exp(-np.arange(length, dtype=np.float32) / np.float32(RATE_HZ * _ROOM_S / 5))
    walls = noise * fall
    walls /= np.sqrt((walls**2).sum(axis=1, keepdims=True))
    size = 1 << (track.shape[1] + length - 1).bit_length()
    echoes = np.fft.irfft(np.fft.rfft(track, size) * np.fft.rfft(walls, size), size)[:, : track.shape[1]]
    return np.asarray(track + np.float32(_ROOM_LEVEL) * echoes, dtype=np.float32)
