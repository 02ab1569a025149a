"""What the sandbox says can be understood: a recogniser that knows nothing of the synthesis hears the words."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from pocketsphinx import Decoder

from services.provider_pool.adapters.sandbox.render_order import VOICES, Format, RenderOrder
from services.provider_pool.adapters.sandbox.speech import speak, write_speech
from services.provider_pool.adapters.sandbox.voices import SPEAKERS, language_of

HEARD_HZ = 16_000
# What the recogniser may hear: one of these. By chance it would be right once in twelve times.
WORDS = [
    "seven",
    "eight",
    "orange",
    "window",
    "garden",
    "mountain",
    "yellow",
    "paper",
    "river",
    "monday",
    "butterfly",
    "computer",
]
GRAMMAR = f"#JSGF V1.0;\ngrammar words;\npublic <word> = {' | '.join(WORDS)} ;\n"


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    grammar = tmp_path_factory.mktemp("grammar") / "words.gram"
    grammar.write_text(GRAMMAR)
    return Decoder(jsgf=str(grammar), samprate=HEARD_HZ, loglevel="FATAL")


def order(prompt: str, voice: str = "", ending: Format = "mp3") -> RenderOrder:
    return RenderOrder("order", "voice", prompt, 0, 0, 0, False, 1, "", voice=voice, format=ending)


def samples(path: Path) -> NDArray[np.int16]:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=HEARD_HZ)
        parts = [
            piece.to_ndarray()[0]
            for frame in container.decode(audio=0)
            for piece in resampler.resample(frame)
        ]
    return np.concatenate(parts)


def heard(recogniser: Decoder, path: Path) -> str:
    recogniser.start_utt()
    recogniser.process_raw(samples(path).tobytes(), full_utt=True)
    recogniser.end_utt()
    found = recogniser.hyp()
    return "" if found is None else str(found.hypstr)


@pytest.mark.parametrize("voice", VOICES)
def test_a_listener_understands_every_voice(voice: str, recogniser: Decoder, tmp_path: Path) -> None:
    understood = []
    for word in WORDS:
        write_speech(order(f"{word}.", voice), tmp_path / "said.mp3")
        understood.append(heard(recogniser, tmp_path / "said.mp3") == word)
    assert sum(understood) >= 8, dict(zip(WORDS, understood, strict=True))


def test_markers_are_not_read_aloud(tmp_path: Path) -> None:
    plain, marked = (order(text, "brian", "wav") for text in ("monday", "[sandbox:pace=0.2] monday"))
    assert write_speech(plain, tmp_path / "said.wav") == write_speech(marked, tmp_path / "said.wav")


def test_the_same_words_are_the_same_bytes_and_another_voice_is_another_sound(tmp_path: Path) -> None:
    files = []
    for number, voice in enumerate(("alice", "alice", "george")):
        write_speech(order("good morning", voice), tmp_path / f"{number}.mp3")
        files.append((tmp_path / f"{number}.mp3").read_bytes())
    assert files[0] == files[1] != files[2]


def test_women_speak_higher_than_men() -> None:
    heights = {voice: pitch_hz(voice) for voice in VOICES}
    highest_man = max(heights[voice] for voice in ("brian", "daniel", "george"))
    assert highest_man < min(heights[voice] for voice in ("alice", "charlotte", "lily")), heights


def pitch_hz(voice: str) -> float:
    """The usual pitch, by the distance after which the wave is most like itself."""
    sound, rate_hz = speak("mama mia, my name is mina, and I am on the moon", voice)
    found = []
    for start in range(0, sound.shape[1] - 2048, 1024):
        part = sound[0, start : start + 2048]
        if np.sqrt(np.mean(part**2)) < 0.05:
            continue
        likeness = np.correlate(part, part, "full")[2047:]
        shortest, longest = rate_hz // 400, rate_hz // 60
        found.append(rate_hz / (shortest + int(np.argmax(likeness[shortest:longest]))))
    return float(np.median(found))


def test_a_wav_file_is_what_it_says(tmp_path: Path) -> None:
    length_s = write_speech(order("hello there", ending="wav"), tmp_path / "said.wav")
    with wave.open(io.BytesIO((tmp_path / "said.wav").read_bytes())) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert file.getnframes() / file.getframerate() == pytest.approx(length_s, abs=0.001)


def test_every_listed_voice_has_a_speaker() -> None:
    assert set(SPEAKERS) == set(VOICES)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Good morning, dear café owners", "en-us"),
        ("Xin chào các bạn, hôm nay trời đẹp quá", "vi"),
        ("Größe und Schönheit für Mädchen und Jungen", "de"),
        ("Der Hund geht heute mit dem Ball in den Park", "de"),
        ("Bonjour tout le monde, je suis content", "fr"),
        ("Hola, el tren no sale por la mañana", "es"),
        ("Buongiorno a tutti, questa è la nostra città", "it"),
        ("O trem não sai de manhã", "pt"),
        ("Ik ga met de trein van Utrecht", "nl"),
        ("Hej, jag är från Sverige och du", "sv"),
        ("Xin chào", "vi"),
        ("The film is called La vie en rose, and it is on at ten", "en-us"),  # codespell:ignore
        ("Do as I do, no, no, no: die hard and dance in the van", "en-us"),
        ("Los Angeles", "en-us"),
        ("Ciao", "en-us"),
        ("Привіт світ", "uk"),
        ("Доброе утро", "ru"),
        ("東京の天気は晴れです", "ja"),
        ("今天天气很好", "cmn"),
        ("안녕하세요", "ko"),
        ("12345 !?", "en-us"),
        ("", "en-us"),
    ],
)
def test_the_language_is_told_by_the_letters(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    "prompt", ["", "...", "\x00\x1b[2J", "\ud800", "<speak><break time='9999s'/></speak>", "[sandbox:x]"]
)
def test_what_cannot_be_said_is_still_a_sound_of_some_length(prompt: str, tmp_path: Path) -> None:
    length_s = write_speech(order(prompt), tmp_path / "said.mp3")
    assert 0.3 < length_s < 10
