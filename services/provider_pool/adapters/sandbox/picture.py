"""Draws one picture: the scene, its references, a little grain, the caption, and a PNG whose bytes depend on the order alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from services.provider_pool.adapters.sandbox import landscape, studio
from services.provider_pool.adapters.sandbox.backdrop import Print, hang, lay, seen, taken_over
from services.provider_pool.adapters.sandbox.caption import make_overlay
from services.provider_pool.adapters.sandbox.layers import Stage, compose
from services.provider_pool.adapters.sandbox.render_order import RenderOrder
from services.provider_pool.adapters.sandbox.scene import choose_scene

PAINTERS: Final = {**landscape.PAINTERS, **studio.PAINTERS}
# Level 1 is four times as fast as the default and the files are hardly larger, because of the grain.
_PNG_LEVEL: Final = 1
_GRAIN: Final = 3.0
_JPEG_QUALITY: Final = 88


def paint_stage(order: RenderOrder, prints: Sequence[Print], *, moving: bool) -> Stage:
    """Paint all layers of the scene an order stands for, in the colours of its references if it has any."""
    scene = choose_scene(order.prompt, order.seed, order.quality)
    if prints:
        strengths = [reference.strength for reference in seen(order)]
        scene = replace(scene, palette=taken_over(scene.palette, prints, strengths))
    stage = Stage(order.width, order.height, scene, moving)
    PAINTERS[scene.composition](stage)
    return stage


def shown(stage: Stage, prints: Sequence[Print]) -> Image.Image:
    """The scene standing still, blended with its references."""
    frame = compose(stage)
    lay(frame, prints)
    return frame


def add_grain(frame: Image.Image, stage: Stage) -> Image.Image:
    """Add fine grey grain, as film has it."""
    pixels = np.asarray(frame, dtype=np.int16)
    grain = stage.noise.standard_normal((stage.height, stage.width, 1), dtype=np.float32) * (_GRAIN * 0.6)
    return Image.fromarray(np.clip(pixels + np.rint(grain).astype(np.int16), 0, 255).astype(np.uint8))


def draw_picture(order: RenderOrder) -> Image.Image:
    """The finished picture of an order, exactly `width` x `height`, RGB. Raises ReferenceUnusable."""
    prints = hang(order)
    stage = paint_stage(order, prints, moving=False)
    frame = add_grain(shown(stage, prints), stage)
    overlay = make_overlay(
        order.prompt, order.label, order.width, order.height, bar=False, watermark=order.watermark
    )
    frame.paste(overlay.image, (0, 0), overlay.image)
    return frame


def write_png(frame: Image.Image, path: Path) -> None:
    """Store a picture without time stamps or other metadata."""
    frame.save(path, format="PNG", compress_level=_PNG_LEVEL)


def write_jpeg(frame: Image.Image, path: Path) -> None:
    """Store a picture as a JPEG file, without time stamps or other metadata."""
    frame.save(path, format="JPEG", quality=_JPEG_QUALITY)


def write_picture(order: RenderOrder, path: Path) -> None:
    """Draw an order of kind image into a PNG file. Raises ReferenceUnusable."""
    write_png(draw_picture(order), path)
