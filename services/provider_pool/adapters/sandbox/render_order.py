"""What a renderer is asked for and what it hands back; light enough for the pool process to import."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Kind = Literal["image", "video"]
Role = Literal["primary", "preview"]
Strength = Literal["low", "mid", "high"]

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
REFERENCES_MAX: Final = 9


class ReferenceUnusable(Exception):
    """A reference is gone or is no picture. The message is for operators and names no file."""


@dataclass(frozen=True)
class RenderReference:
    """A picture that the drawing is to follow: a file that stays until the drawing is done, and how closely."""

    path: str
    strength: Strength


@dataclass(frozen=True)
class RenderOrder:
    """One picture or film to draw. Sizes are pixels, `duration_s` is whole seconds and ignored for pictures.

    `seed`, `prompt`, size, `quality` and the contents and strengths of the references alone decide every byte of
    the result.
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

    def complaint(self) -> str | None:
        """Say in one sentence why this order cannot be drawn, or None when it can."""
        if not _ORDER_ID.fullmatch(self.order_id):
            return "order_id must be 1 to 128 letters, digits, '-' or '_'"
        if self.kind not in ("image", "video"):
            return "kind must be 'image' or 'video'"
        if len(self.prompt) > PROMPT_MAX_CHARACTERS or len(self.label) > LABEL_MAX_CHARACTERS:
            return "the prompt or the label is too long to draw"
        if len(self.references) > REFERENCES_MAX:
            return f"a drawing follows at most {REFERENCES_MAX} references"
        return self._size_complaint()

    def _size_complaint(self) -> str | None:
        if not all(SIDE_MIN_PX <= side <= SIDE_MAX_PX for side in (self.width, self.height)):
            return f"width and height must be {SIDE_MIN_PX} to {SIDE_MAX_PX} pixels"
        if self.kind == "image":
            return None
        if self.width % 2 or self.height % 2:
            return "a film's width and height must be even, because its colour is stored for 2x2 pixels"
        if not 1 <= self.duration_s <= DURATION_MAX_S:
            return f"a film's duration must be 1 to {DURATION_MAX_S} whole seconds"
        return None


@dataclass(frozen=True)
class RenderedFile:
    """A finished file. `duration_s` is None for pictures."""

    role: Role
    path: Path
    content_type: str
    width: int
    height: int
    duration_s: float | None


RenderedFiles = tuple[RenderedFile, ...]
