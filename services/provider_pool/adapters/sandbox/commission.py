"""An order as it is given to the renderer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

from services.provider_pool.adapters.interface import Generation, Kind, ReferenceRole
from services.provider_pool.adapters.sandbox.orders import Order
from services.provider_pool.adapters.sandbox.render_order import Format, RenderOrder, RenderReference

# A strip of a picture gives a film of this shape at most, as wide screens and phones held upright have it.
_LONGEST_SHAPE: Final = 21 / 9
_SHORTEST_SIDE_PX: Final = 128


def render_order(order: Order, uploaded: Sequence[Path]) -> RenderOrder:
    """What is to be drawn. `uploaded`: a file for each of the order's uploads."""
    generation = order.generation
    width, height = size_of(order)
    return RenderOrder(
        order_id=order.task_id,
        kind=generation.kind.value,
        prompt=generation.prompt,
        width=width,
        height=height,
        duration_s=generation.duration_s,
        audio=generation.audio,
        seed=_seed(generation),
        quality=generation.quality,
        label=_heard(order),
        references=tuple(
            RenderReference(str(path), upload.strength.value, upload.role.value)
            for path, upload in zip(uploaded, order.uploads, strict=True)
        ),
        watermark=generation.watermark,
        last_frame=generation.last_frame,
        voice=generation.voice,
        # The models' capability lets no other through.
        format=cast("Format", generation.format),
        style=generation.style,
        max_words=generation.max_words,
    )


def size_of(order: Order) -> tuple[int, int]:
    """Pixels of the output: where its shape is to follow a reference, the largest of that shape that is allowed."""
    generation = order.generation
    most = generation.width, generation.height
    seen = next((one for one in order.uploads if one.role is not ReferenceRole.AUDIO and one.height), None)
    if generation.kind is not Kind.VIDEO or not generation.adaptive_ratio or seen is None:
        return most
    shape = min(max(seen.width / seen.height, 1 / _LONGEST_SHAPE), _LONGEST_SHAPE)
    width = min(most[0], most[1] * shape)
    return _even(width, most[0]), _even(width / shape, most[1])


def _heard(order: Order) -> str:
    """What is said of sounds, which a picture cannot show."""
    sounds = sum(upload.role is ReferenceRole.AUDIO for upload in order.uploads)
    return f"with {sounds} sound{'s' if sounds > 1 else ''}" if sounds else ""


def _even(side_px: float, most_px: int) -> int:
    return min(max(round(side_px / 2) * 2, _SHORTEST_SIDE_PX), most_px)


def _seed(generation: Generation) -> int:
    if generation.seed is not None:
        return generation.seed
    # Without a seed the prompt decides, so that the same request gives the same output.
    return int.from_bytes(hashlib.sha256(generation.prompt.encode()).digest()[:4])
