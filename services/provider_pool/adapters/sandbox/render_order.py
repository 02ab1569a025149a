"""What a renderer is asked for and what it hands back; light enough for the pool process to import."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Kind = Literal["image", "video", "voice", "music", "infographic", "text"]
Role = Literal["primary", "preview", "last_frame"]
Strength = Literal["low", "mid", "high"]
ReferenceRole = Literal["image", "video", "audio", "first_frame", "last_frame"]
Format = Literal["", "mp3", "wav"]

KINDS: Final[tuple[Kind, ...]] = ("image", "video", "voice", "music", "infographic", "text")
FORMATS: Final[tuple[Format, ...]] = ("", "mp3", "wav")
VOICES: Final = ("alice", "brian", "charlotte", "daniel", "george", "lily")
STYLES: Final = ("clean", "bold", "dark", "paper")

# An order's id becomes a file name, so nothing that could leave the folder or hide the file is let in.
_ORDER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
# Below this no caption fits; above it a supersampled layer would pass the worker's memory limit.
SIDE_MIN_PX: Final = 64
SIDE_MAX_PX: Final = 4096
# The longest film any storefront sells is far shorter; this only bounds a worker's time.
DURATION_MAX_S: Final = 120
# Contracts accept 4,000 characters; the rest is room for prompts put together from several fields.
PROMPT_MAX_CHARACTERS: Final = 20_000
LABEL_MAX_CHARACTERS: Final = 200
# As many as any storefront takes; each costs the worker a decoding of up to 50 megapixels.
REFERENCES_MAX: Final = 15
# What a customer is told of a text is at most 64 KiB; two thousand words are a quarter of that.
WORDS_MAX: Final = 2_000


class ReferenceUnusable(Exception):
    """A reference is gone or cannot be decoded. The message is for operators and names no file."""


@dataclass(frozen=True)
class RenderReference:
    """A medium that the drawing is to follow: a file that stays until the drawing is done, what for, and how closely."""

    path: str
    strength: Strength
    role: ReferenceRole = "image"


@dataclass(frozen=True)
class RenderOrder:
    """One output to make. Sizes are pixels, `duration_s` is whole seconds; what a kind has no use for is ignored.

    The order's words, numbers and switches and the contents, roles and strengths of its references alone decide every
    byte of the result; its id does not.
    """

    order_id: str
    kind: Kind
    prompt: str
    width: int
    height: int
    duration_s: int
    audio: bool
    seed: int
    quality: str
    label: str = ""
    references: tuple[RenderReference, ...] = ()
    watermark: bool = False
    last_frame: bool = False
    voice: str = ""
    format: Format = ""
    style: str = ""
    max_words: int = 0

    def complaint(self) -> str | None:
        """Say in one sentence why this order cannot be drawn, or None when it can."""
        if not _ORDER_ID.fullmatch(self.order_id):
            return "order_id must be 1 to 128 letters, digits, '-' or '_'"
        if self.kind not in KINDS or self.format not in FORMATS:
            return "kind or format is not one that can be made"
        if self.voice not in ("", *VOICES) or self.style not in ("", *STYLES):
            return "there is no such voice or style"
        if len(self.prompt) > PROMPT_MAX_CHARACTERS or len(self.label) > LABEL_MAX_CHARACTERS:
            return "the prompt or the label is too long to draw"
        if len(self.references) > REFERENCES_MAX:
            return f"a drawing follows at most {REFERENCES_MAX} references"
        return self._size_complaint() or self._length_complaint()

    def _size_complaint(self) -> str | None:
        if self.kind not in ("image", "video", "infographic"):
            return None
        if not all(SIDE_MIN_PX <= side <= SIDE_MAX_PX for side in (self.width, self.height)):
            return f"width and height must be {SIDE_MIN_PX} to {SIDE_MAX_PX} pixels"
        if self.kind == "video" and (self.width % 2 or self.height % 2):
            return "a film's width and height must be even, because its colour is stored for 2x2 pixels"
        return None

    def _length_complaint(self) -> str | None:
        if self.kind in ("video", "music") and not 1 <= self.duration_s <= DURATION_MAX_S:
            return f"a duration must be 1 to {DURATION_MAX_S} whole seconds"
        if self.kind == "text" and not 1 <= self.max_words <= WORDS_MAX:
            return f"max_words must be 1 to {WORDS_MAX}"
        return None


@dataclass(frozen=True)
class RenderedFile:
    """A finished file. `duration_s` is None where it has none, and pixels are 0."""

    role: Role
    path: Path
    content_type: str
    width: int
    height: int
    duration_s: float | None


RenderedFiles = tuple[RenderedFile, ...]
