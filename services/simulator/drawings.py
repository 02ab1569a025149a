"""What an output is: valid files of the asked size and length with nothing to see in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

PictureFormat = Literal["png", "jpeg", "webp", "gif"]
FilmFormat = Literal["mp4", "mov"]
SoundFormat = Literal["mp3", "wav", "pcm", "opus", "aac", "flac", "ulaw", "alaw"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One colour in the asked pixels; `tint` chooses which."""

    width: int
    height: int
    format: PictureFormat = "png"
    tint: int = 0
    is_transparent: bool = False

    @property
    def extension(self) -> str:
        return {"jpeg": "jpg"}.get(self.format, self.format)

    @property
    def content_type(self) -> str:
        return f"image/{self.format}"


@dataclass(frozen=True, slots=True)
class Film:
    """One colour at 24 frames a second, with a quiet tone if it has sound."""

    width: int
    height: int
    seconds: float
    has_sound: bool = False
    format: FilmFormat = "mp4"
    tint: int = 0

    @property
    def extension(self) -> str:
        return self.format

    @property
    def content_type(self) -> str:
        return {"mp4": "video/mp4", "mov": "video/quicktime"}[self.format]


@dataclass(frozen=True, slots=True)
class Sound:
    """A quiet tone."""

    seconds: float
    format: SoundFormat = "mp3"
    rate_hz: int = 44_100
    bits_per_s: int = 128_000

    @property
    def extension(self) -> str:
        return self.format

    @property
    def content_type(self) -> str:
        return _SOUND_TYPES[self.format]


@dataclass(frozen=True, slots=True)
class Text:
    """Words, for what is a file only where it is delivered."""

    content: str
    content_type: str = "text/plain; charset=utf-8"
    extension: str = "txt"


_SOUND_TYPES: Final = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "ulaw": "audio/basic",
    "alaw": "audio/alaw",
}
Drawing = Picture | Film | Sound | Text
