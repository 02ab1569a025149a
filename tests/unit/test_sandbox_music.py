"""What the sandbox plays is music that follows the words: tempo, mode, players, form, and no two pieces alike."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from services.provider_pool.adapters.sandbox.instruments import RATE_HZ, hertz, sounded
from services.provider_pool.adapters.sandbox.music import compose, write_music
from services.provider_pool.adapters.sandbox.music_plan import plan
from services.provider_pool.adapters.sandbox.render_order import RenderOrder
from services.provider_pool.media.probe import probe

Floats = NDArray[np.float32]


def chroma(sound: Floats, start_s: float = 0.0, end_s: float = 60.0) -> Floats:
    """How strong each of the twelve notes is, whatever its octave; 0 is C. Above 480 Hz there is much that is only overtone."""
    mono = sound.mean(axis=0)[int(start_s * RATE_HZ) : int(end_s * RATE_HZ)]
    power = np.abs(np.fft.rfft(mono * np.hanning(mono.size))) ** 2
    hz = np.fft.rfftfreq(mono.size, 1 / RATE_HZ)
    heard = (hz > 60) & (hz < 480)
    notes = np.rint(69 + 12 * np.log2(hz[heard] / 440)).astype(int) % 12
    strength = np.bincount(notes, power[heard], minlength=12)
    return np.asarray(strength / strength.sum(), dtype=np.float32)


def beats_hz(sound: Floats) -> Floats:
    """How strongly the loudness pulses, for each number of pulses a minute from 40 to 200."""
    mono = np.abs(sound).mean(axis=0)
    blocks = mono[: mono.size // 441 * 441].reshape(-1, 441).mean(axis=1)
    onsets = np.maximum(np.diff(np.log(blocks + 1e-3)), 0)
    onsets -= onsets.mean()
    turns = np.arange(onsets.size) / 100
    return np.array([abs(np.sum(onsets * np.exp(-2j * np.pi * turns * bpm / 60))) for bpm in range(40, 201)])


@pytest.mark.parametrize("duration_s", [5, 17, 60])
def test_a_piece_is_exactly_as_long_as_asked_and_neither_silent_nor_cut_off(duration_s: int) -> None:
    sound = compose("a calm piece for piano", 1, duration_s)
    assert sound.shape == (2, duration_s * RATE_HZ)
    assert 0.5 < np.abs(sound).max() <= 1
    seconds = np.sqrt((sound**2).mean(axis=0).reshape(duration_s, RATE_HZ).mean(axis=1))
    assert seconds[:-1].min() > 0.01
    assert np.abs(sound[:, -200:]).max() < 0.01


def test_the_same_prompt_and_seed_are_the_same_piece_and_others_are_others() -> None:
    first = compose("a happy song", 1, 6)
    assert np.array_equal(first, compose("a happy song", 1, 6))
    for other in (compose("a happy song", 2, 6), compose("a happy tune", 1, 6)):
        assert np.abs(first - other).mean() > 0.01


@pytest.mark.parametrize("players", ["happy ukulele", "sad piano", "waltz", "jazz trio", "a hymn"])
def test_what_is_heard_is_of_the_key(players: str) -> None:
    prompt = f"{players} without drums"
    found = plan(prompt, 3, 12)
    share = chroma(compose(prompt, 3, 12))
    in_key = [sum(share[(root + step) % 12] for step in found.scale) for root in range(12)]
    # A key has six notes of seven in common with its neighbours, a fifth up and a fifth down.
    assert in_key[found.root % 12] >= sorted(in_key)[-2]
    assert in_key[found.root % 12] > 0.7


def test_several_notes_sound_in_the_course_of_a_piece() -> None:
    sound = compose("gentle guitar", 1, 12)
    notes = {int(np.argmax(chroma(sound, start, start + 1.0))) for start in np.arange(0, 11, 0.5)}
    assert len(notes) >= 4


def test_the_last_chord_is_the_root_s() -> None:
    found = plan("a march", 2, 10)
    share = chroma(compose("a march", 2, 10), 10 - found.tail_s + 0.1, 9.8)
    chord = {(found.root + found.scale[step]) % 12 for step in (0, 2, 4)}
    assert sum(share[note] for note in chord) > 0.7


@pytest.mark.parametrize("beats_a_minute", [90, 120, 150])
def test_a_tempo_that_is_asked_for_is_heard(beats_a_minute: int) -> None:
    pulse = beats_hz(compose(f"techno at {beats_a_minute} bpm", 1, 20))
    strongest = 40 + int(np.argmax(pulse))
    assert min(abs(strongest * share - beats_a_minute) for share in (0.5, 1, 2)) <= 2, strongest


@pytest.mark.parametrize(
    ("prompt", "mode", "lead"),
    [
        ("a sad farewell", "minor", "piano"),
        ("happy birthday jingle", "major", "marimba"),
        ("sad violin and harp", "minor", "strings"),
        ("upbeat pop in minor", "minor", "marimba"),
        ("trumpet solo", "", "brass"),
        ("CHIPTUNE boss fight", "major", "square"),
        ("a dreamy flute", "lydian", "flute"),
    ],
)
def test_words_choose_mode_and_players(prompt: str, mode: str, lead: str) -> None:
    found = plan(prompt, 1, 20).manner
    assert found.mode == mode or not mode
    assert found.lead == lead


def test_slow_is_slower_and_fast_is_faster() -> None:
    slow, usual, fast = (plan(f"{word} rock", 1, 30).manner.beats_a_minute for word in ("slow", "", "fast"))
    assert slow < usual < fast


def test_without_drums_there_are_none() -> None:
    assert plan("techno without drums", 1, 10).manner.drums == ""
    assert plan("techno", 1, 10).manner.drums == "four"


def test_longer_pieces_have_a_form_with_a_contrast_and_a_return() -> None:
    sections = plan("a symphony", 1, 60).sections
    assert sections[0] == "I"
    assert "B" in sections
    assert sections[-1] == "A"
    assert plan("a symphony", 1, 5).sections == ("A",)


def test_every_length_and_prompt_has_a_plan() -> None:
    for duration_s in range(5, 61):
        for prompt in ("", "9999 bpm", "1 bpm", "waltz", "\ud800", "[sandbox:fail]"):
            found = plan(prompt, duration_s, duration_s)
            assert found.bars >= 1
            assert found.tail_s > 0.9


@pytest.mark.parametrize(
    "instrument", ["piano", "strings", "brass", "flute", "guitar", "organ", "bells", "choir"]
)
def test_an_instrument_plays_the_note_it_is_given(instrument: str) -> None:
    wave = sounded(instrument, 69, 900)
    power = np.abs(np.fft.rfft(wave * np.hanning(wave.size)))
    hz = np.fft.rfftfreq(wave.size, 1 / RATE_HZ)
    near = power[(hz > 430) & (hz < 450)].max()
    assert near > 0.3 * power[hz > 50].max()
    assert power[(hz > 50) & (hz < 400)].max() < 0.2 * near
    assert hertz(69) == 440


def test_a_file_holds_the_piece_in_stereo(tmp_path: Path) -> None:
    order = RenderOrder("order", "music", "a waltz", 0, 0, 6, False, 1, "")
    write_music(order, tmp_path / "piece.mp3")
    assert probe(tmp_path / "piece.mp3").content_type == "audio/mpeg"
    with av.open(str(tmp_path / "piece.mp3")) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.channels, stream.rate) == ("mp3float", 2, RATE_HZ)
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)
    assert heard.shape[1] / RATE_HZ == pytest.approx(6, abs=0.1)
    assert np.abs(heard[0] - heard[1]).mean() > 0.001
