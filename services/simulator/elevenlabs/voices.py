"""What an ElevenLabs account may use: voices, models, formats, plans."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

VOICES: Final[Mapping[str, str]] = {
    "9BWtsMINqrJLrRacOk9x": "Aria",
    "AZnzlk1XvdvUeBnXmlld": "Domi",
    "CwhRBWXzGAHq8TQ4Fs17": "Roger",
    "EXAVITQu4vr4xnSDxMaL": "Sarah",
    "ErXwobaYiN019PkySvjV": "Antoni",
    "FGY2WhTYpPnrIDTdsKH5": "Laura",
    "IKne3meq5aSn9XLyUdCD": "Charlie",
    "JBFqnCBsd6RMkjVDRZzb": "George",
    "MF3mGyEYCl7XYWbV9V6O": "Elli",
    "N2lVS1w4EtoT3dr4eOWO": "Callum",
    "SAz9YHcvj6GT2YYXdXww": "River",
    "TX3LPaxmHKxFdv7VOQHJ": "Liam",
    "TxGEqnHWrfWFTfGW9XjX": "Josh",
    "ThT5KcBeYPX3keUQqHPh": "Dorothy",
    "VR6AewLTigWG4xSOukaG": "Arnold",
    "XB0fDUnXU5powFXDhCwa": "Charlotte",
    "Xb7hH8MSUJpSbSDYk0k2": "Alice",
    "XrExE9yKIg1WjnnlVkGX": "Matilda",
    "bIHbv24MWmeRgasZH58o": "Will",
    "cgSgspJ2msm6clMCkdW9": "Jessica",
    "cjVigY5qzO86Huf0OWal": "Eric",
    "iP95p4xoKVk53GoZ742B": "Chris",
    "nPczCjzI2devNBz1zQrb": "Brian",
    "onwK4e9ZLuTAKqWW03F9": "Daniel",
    "pFZP5JQG7iQjIQuC4Bku": "Lily",
    "pNInz6obpgDQGcFmaJgB": "Adam",
    "pqHfZKP75CvOlQylNhV4": "Bill",
    "yoZ06aMxZJJ28mfd3POQ": "Sam",
    "21m00Tcm4TlvDq8ikWAM": "Rachel",
}


@dataclass(frozen=True, slots=True)
class SpeechModel:
    """`credits` for each character of the text."""

    name: str
    characters_limit: int
    credits: Decimal


SPEECH_MODELS: Final[Mapping[str, SpeechModel]] = {
    "eleven_v3": SpeechModel("Eleven v3", 5_000, Decimal(1)),
    "eleven_multilingual_v2": SpeechModel("Eleven Multilingual v2", 10_000, Decimal(1)),
    "eleven_flash_v2": SpeechModel("Eleven Flash v2", 30_000, Decimal("0.5")),
    "eleven_flash_v2_5": SpeechModel("Eleven Flash v2.5", 40_000, Decimal("0.5")),
    "eleven_turbo_v2_5": SpeechModel("Eleven Turbo v2.5", 40_000, Decimal("0.5")),
}
DEFAULT_SPEECH_MODEL: Final = "eleven_multilingual_v2"
MUSIC_MODELS: Final = ("music_v1", "music_v2", "music_v2_5")
SOUND_MODELS: Final = ("eleven_text_to_sound_v2", "eleven_text_to_sound_v3")
# About $0.15 a minute at the price that a plan of middle size pays for its credits.
MUSIC_CREDITS_PER_MINUTE: Final = 680
SOUND_CREDITS_PER_S: Final = 20

# Requests at the same time.
CONCURRENCY: Final[Mapping[str, int]] = {
    "free": 2,
    "starter": 3,
    "creator": 5,
    "pro": 10,
    "scale": 15,
    "business": 15,
}
_RANKS: Final = tuple(CONCURRENCY)
DEFAULT_TIER: Final = "creator"

_FORMATS: Final = re.compile(
    r"mp3_(?:22050_32|24000_48|44100_(?:32|64|96|128|192))"
    r"|opus_48000_(?:32|64|96|128|192)"
    r"|(?:pcm|wav)_(?:8000|16000|22050|24000|32000|44100|48000)"
    r"|[ua]law_8000"
)
_MUSIC_FORMATS: Final = re.compile(rf"auto|mp3_48000_(?:128|192|240|320)|{_FORMATS.pattern}")
DEFAULT_FORMAT: Final = "mp3_44100_128"
CONTENT_TYPES: Final[Mapping[str, str]] = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "pcm": "audio/pcm",
    "wav": "audio/wav",
    "ulaw": "audio/basic",
    "alaw": "audio/alaw",
}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """`mp3_44100_128`, in parts. `bitrate_kbps` is 0 where the codec has none."""

    codec: str
    sample_rate_hz: int
    bitrate_kbps: int

    @property
    def content_type(self) -> str:
        """As the answer names it."""
        return CONTENT_TYPES[self.codec]


def audio_format(name: str, *, for_music: bool = False) -> AudioFormat | None:
    """The format of that name; None when there is none."""
    known = _MUSIC_FORMATS if for_music else _FORMATS
    if known.fullmatch(name) is None:
        return None
    if name == "auto":
        return AudioFormat("mp3", 44_100, 128)
    codec, rate, *bitrate = name.split("_")
    return AudioFormat(codec, int(rate), int(bitrate[0]) if bitrate else 0)


def needed_tier(wanted: AudioFormat) -> str:
    """The smallest plan that may have it."""
    if wanted.codec == "mp3" and wanted.bitrate_kbps >= 192:
        return "creator"
    if wanted.codec in {"pcm", "wav"} and wanted.sample_rate_hz >= 44_100:
        return "pro"
    return "free"


def has_tier(tier: str, needed: str) -> bool:
    """Whether a plan is at least another. One that is not known is taken for the largest."""
    return tier not in _RANKS or _RANKS.index(tier) >= _RANKS.index(needed)
