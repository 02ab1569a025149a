"""The first and the last frame that a film was given: it begins with the one, and ends with the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from PIL import Image

from services.provider_pool.adapters.sandbox.reference_print import read_print
from services.provider_pool.adapters.sandbox.render_order import RenderOrder

# In shares of the film: how long a frame stands, and by when it has given way to the scene.
_STANDS: Final = 0.05
_GONE: Final = 0.3


@dataclass(frozen=True, slots=True)
class GivenFrame:
    """One of them, filling the frame."""

    picture: Image.Image
    role: Literal["first_frame", "last_frame"]

    def opacity(self, progress: float) -> float:
        """How much of it is seen, 0 to 1; `progress` is 0 with the film's first frame and 1 with its last."""
        away = progress if self.role == "first_frame" else 1 - progress
        return min(max((_GONE - away) / (_GONE - _STANDS), 0.0), 1.0)


def given_frames(order: RenderOrder) -> Sequence[GivenFrame]:
    """The frames that came with an order. Raises ReferenceUnusable."""
    frames = []
    for reference in order.references:
        if reference.role in ("first_frame", "last_frame"):
            picture = read_print(reference.path, order.width, order.height)
            frames.append(GivenFrame(picture, reference.role))
    return frames
