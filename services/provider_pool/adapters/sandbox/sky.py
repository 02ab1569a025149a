"""The sky of every outdoor scene: stars, sun or moon, clouds and birds."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from services.provider_pool.adapters.sandbox.layers import (
    Motion,
    Scaled,
    Stage,
    add_glow,
    add_sprite,
    gradient,
    mix,
)


def add_sky(stage: Stage) -> None:
    """The sky over the whole frame, with stars at night."""
    sky = gradient(stage.width, stage.height, stage.palette.sky, stage.noise)
    if stage.palette.night:
        draw_stars(stage, sky, count=140 + 120 * stage.detail)
    stage.add(sky, None, 0, 0)


def draw_stars(stage: Stage, sky: Image.Image, count: int) -> None:
    """Scatter stars over a picture of the sky, most of them high up."""
    pen = ImageDraw.Draw(sky)
    for _ in range(count):
        x, y = stage.rng.random() * stage.width, stage.rng.random() ** 1.6 * stage.height * 0.7
        radius = stage.unit * stage.rng.choice((0.08, 0.1, 0.1, 0.14, 0.2))
        shine = mix(stage.palette.sky[0], stage.palette.light, stage.rng.uniform(0.35, 1))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shine)


def add_sun(stage: Stage, height: float) -> float:
    """The sun or moon about `height` (share of the frame) from the top; gives its x as a share of the width."""
    x = stage.rng.choice((stage.rng.uniform(0.2, 0.4), stage.rng.uniform(0.6, 0.8)))
    radius = stage.unit * stage.rng.uniform(6, 9)
    path = Motion(drift_x=0.06, drift_y=-0.05)
    strength = 0.3 if stage.palette.night else 0.6
    add_glow(stage, x * stage.width, height * stage.height, radius, stage.palette.light, path, strength)
    return x


def add_clouds(stage: Stage, count: int) -> None:
    """Long soft clouds that drift slowly."""
    rng = stage.rng
    colour = mix(stage.palette.sky[2], stage.palette.light, 0.1 if stage.palette.night else 0.55)
    for _ in range(count):
        mask = _cloud(stage, stage.unit * rng.uniform(28, 62), stage.unit * rng.uniform(4, 8))
        x, y = rng.uniform(-0.15, 0.85) * stage.width, rng.uniform(0.04, 0.32) * stage.height
        stage.add(Image.new("RGB", mask.size, colour), mask, x, y, Motion(drift_x=rng.uniform(0.03, 0.09)))


def _cloud(stage: Stage, width: float, height: float) -> Image.Image:
    """The mask of one cloud: puffs on a flat base, thinner towards its foot."""
    rng, blur = stage.rng, stage.unit * 0.7
    rim = blur * 3
    mask = Image.new("L", (int(width + 2 * rim), int(height * 1.9 + 2 * rim)))
    pen = ImageDraw.Draw(mask)
    base = rim + height * 1.4
    for _ in range(8):
        w, h = width * rng.uniform(0.16, 0.42), height * rng.uniform(0.6, 1.8)
        x = rim + rng.uniform(w / 2, width - w / 2)
        pen.pieslice((x - w / 2, base - h * 0.75, x + w / 2, base + h * 0.75), 180, 360, fill=190)
    pen.rounded_rectangle(
        (rim, base - height * 0.22, rim + width, base + height * 0.12), height * 0.16, fill=190
    )
    fade = np.linspace(1.05, 0.35, mask.height, dtype=np.float32).clip(0, 1)[:, None]
    soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32) * fade
    return Image.fromarray(soft.astype(np.uint8))


def add_birds(stage: Stage, count: int) -> None:
    """A small flock crossing the sky."""
    unit, rng = stage.unit, stage.rng
    x0, y0 = rng.uniform(0.2, 0.6) * stage.width, rng.uniform(0.14, 0.3) * stage.height
    ink = mix(stage.palette.near, stage.palette.sky[1], 0.2)
    for _ in range(count):
        size = unit * rng.uniform(1.2, 2.2)

        def draw(pen: ImageDraw.ImageDraw, at: Scaled, size: float = size) -> None:
            line = max(1, round(at(size * 0.11)[0]))
            pen.arc(at(0, size * 0.15, size * 1.05, size), 200, 320, ink, line)
            pen.arc(at(size * 0.95, size * 0.15, size * 2, size), 220, 340, ink, line)

        x, y = x0 + rng.uniform(-10, 10) * unit, y0 + rng.uniform(-5, 5) * unit
        motion = Motion(drift_x=0.16, drift_y=-0.05, sway_y_px=unit * 0.4, period_s=2.2, phase=rng.random())
        add_sprite(stage, x, y, size * 2.1, size * 1.1, draw, motion)
