"""Indoor and abstract scenes: portrait, product, ribbons and mosaic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from services.provider_pool.adapters.sandbox.layers import (
    Motion,
    Scaled,
    Stage,
    add_glow,
    add_ground,
    add_shadow,
    add_sprite,
    gradient,
    mix,
    value_noise,
)
from services.provider_pool.adapters.sandbox.scene import Colour, Composition

_SKINS: Final[tuple[Colour, ...]] = (
    (245, 208, 180),
    (229, 178, 143),
    (198, 140, 104),
    (141, 92, 66),
    (96, 62, 48),
)
_HAIRS: Final[tuple[Colour, ...]] = ((38, 28, 34), (74, 46, 34), (128, 72, 40), (196, 150, 88), (60, 56, 72))


def paint_portrait(stage: Stage) -> None:
    """A bust before a large disc, in flat colours."""
    palette, rng, unit = stage.palette, stage.rng, stage.unit
    wall = (
        mix(palette.sky[1], palette.sky[2], 0.5),
        palette.sky[2],
        mix(palette.sky[2], palette.accent2, 0.35),
    )
    stage.add(gradient(stage.width, stage.height, wall, stage.noise), None, 0, 0)
    x, y = stage.width / 2, stage.height * 0.37
    add_glow(stage, x, y, unit * 30, mix(palette.accent, palette.light, 0.25), Motion(drift_y=-0.015), 0.3)
    for side in (-1, 1):
        for _ in range(3 + 2 * stage.detail):
            _add_leaf(stage, x + side * unit * rng.uniform(22, 42), y + unit * rng.uniform(-6, 40), side)
    _add_bust(stage, x, y)


def _add_leaf(stage: Stage, x: float, y: float, side: int) -> None:
    rng, size = stage.rng, stage.unit * stage.rng.uniform(13, 22)
    tone = mix(
        stage.palette.near, rng.choice((stage.palette.accent2, stage.palette.far)), rng.uniform(0.3, 0.7)
    )
    lean = side * rng.uniform(0.1, 0.9)

    def draw(pen: ImageDraw.ImageDraw, at: Scaled) -> None:
        outline, vein = [], []
        for step in range(41):
            t = step / 40
            spine_x, spine_y = size * (0.5 + lean * 0.4 * t * t), size * (1 - 0.95 * t)
            vein += at(spine_x, spine_y)
            outline.append((spine_x, spine_y, size * 0.2 * math.sin(math.pi * t) ** 0.8))
        left = [n for px, py, w in outline for n in at(px - w, py)]
        right = [n for px, py, w in reversed(outline) for n in at(px + w, py)]
        pen.polygon(left + right, tone)
        pen.line(vein, mix(tone, stage.palette.light, 0.3), max(1, round(at(size * 0.012)[0])))

    sway = Motion(sway_x_px=stage.unit * 0.7, period_s=rng.uniform(4, 7), phase=rng.random())
    add_sprite(stage, x - size / 2, y - size / 2, size, size, draw, sway)


def _add_bust(stage: Stage, x: float, y: float) -> None:
    """Head and shoulders; the head's centre is at `x`, `y`."""
    rng, palette, head = stage.rng, stage.palette, stage.unit * 15
    skin, hair = rng.choice(_SKINS), rng.choice(_HAIRS)
    cloth = rng.choice((palette.accent2, mix(palette.near, palette.accent2, 0.4)))
    long_hair = rng.random() < 0.6
    bottom = stage.height - y + head * 2.2

    def draw_body(pen: ImageDraw.ImageDraw, at: Scaled) -> None:
        c = head * 2.6
        if long_hair:
            pen.ellipse(at(c - head * 1.18, head * 0.75, c + head * 1.18, head * 3.1), hair)
            pen.rounded_rectangle(
                at(c - head * 1.18, head * 1.8, c + head * 1.18, head * 3.9), at(head * 0.7)[0], hair
            )
        pen.rounded_rectangle(
            at(c - head * 2.35, head * 3.75, c + head * 2.35, bottom + head), at(head * 1.4)[0], cloth
        )
        pen.rounded_rectangle(
            at(c - head * 0.4, head * 2.7, c + head * 0.4, head * 4.1),
            at(head * 0.35)[0],
            mix(skin, (58, 24, 20), 0.22),
        )
        pen.ellipse(
            at(c - head * 0.62, head * 3.45, c + head * 0.62, head * 4.35), mix(skin, (58, 24, 20), 0.22)
        )

    def draw_head(pen: ImageDraw.ImageDraw, at: Scaled) -> None:
        _draw_face(pen, at, head, skin, hair, mix(palette.accent, skin, 0.35))

    breath = Motion(sway_y_px=stage.unit * 0.35, period_s=4.2)
    nod = Motion(sway_y_px=stage.unit * 0.6, sway_x_px=stage.unit * 0.3, period_s=4.2, phase=0.06)
    add_sprite(stage, x - head * 2.6, y - head * 2.0, head * 5.2, bottom, draw_body, breath)
    add_sprite(stage, x - head * 1.4, y - head * 1.6, head * 2.8, head * 3.2, draw_head, nod)


def _draw_face(
    pen: ImageDraw.ImageDraw, at: Scaled, head: float, skin: Colour, hair: Colour, lips: Colour
) -> None:
    c, m, line = head * 1.4, head * 1.6, max(2, round(at(head * 0.045)[0]))
    ink = mix(hair, (20, 16, 20), 0.5)
    pen.ellipse(at(c - head * 1.02, m - head * 1.25, c + head * 1.02, m + head * 0.5), hair)
    pen.ellipse(at(c - head * 0.98, m - head * 0.22, c - head * 0.7, m + head * 0.24), skin)
    pen.ellipse(at(c + head * 0.7, m - head * 0.22, c + head * 0.98, m + head * 0.24), skin)
    pen.ellipse(at(c - head * 0.83, m - head * 1.0, c + head * 0.83, m + head * 1.1), skin)
    pen.chord(at(c - head * 0.94, m - head * 1.22, c + head * 0.94, m + head * 0.62), 188, 338, hair)
    for side in (-1, 1):
        eye = c + side * head * 0.36
        pen.arc(at(eye - head * 0.17, m - head * 0.1, eye + head * 0.17, m + head * 0.14), 15, 165, ink, line)
        pen.arc(at(eye - head * 0.2, m - head * 0.3, eye + head * 0.2, m - head * 0.08), 200, 340, ink, line)
        cheek = c + side * head * 0.5
        pen.ellipse(
            at(cheek - head * 0.15, m + head * 0.28, cheek + head * 0.15, m + head * 0.5),
            mix(skin, lips, 0.3),
        )
    pen.arc(
        at(c - head * 0.12, m + head * 0.02, c + head * 0.1, m + head * 0.36),
        20,
        130,
        mix(skin, ink, 0.4),
        line,
    )
    pen.chord(at(c - head * 0.22, m + head * 0.46, c + head * 0.22, m + head * 0.74), 5, 175, lips)


def paint_product(stage: Stage) -> None:
    """An object on a round pedestal in a studio, with an arch and soft shadows."""
    palette, rng, unit = stage.palette, stage.rng, stage.unit
    wall, floor = mix(palette.sky[2], palette.accent, 0.18), mix(palette.sky[1], palette.sky[2], 0.45)
    stage.add(
        gradient(stage.width, stage.height, (mix(wall, palette.far, 0.35), wall), stage.noise), None, 0, 0
    )
    x, level = stage.width * rng.uniform(0.46, 0.54), stage.height * 0.66
    add_glow(
        stage,
        x - unit * 12,
        level - unit * 42,
        unit * 26,
        palette.light,
        Motion(drift_x=0.05),
        0.5,
        disc=False,
    )
    _add_arch(stage, x + unit * 12, level, mix(palette.accent2, wall, 0.35))
    ground = np.full(stage.width + 2 * stage.travel, level - unit * 4, dtype=np.float32)
    add_ground(stage, ground, stage.height, (mix(floor, palette.light, 0.2), mix(floor, palette.near, 0.3)))
    shade = mix(palette.near, floor, 0.2)
    add_shadow(stage, x + unit * 10, level + unit * 11, unit * 96, unit * 16, 0.55, shade)
    _add_pedestal(stage, x, level)
    _add_object(stage, x, level)
    for _ in range(2 + 2 * stage.detail):
        side = rng.choice((-1, 1))
        place = x + side * unit * rng.uniform(20, 44), level - unit * rng.uniform(4, 46)
        _add_ball(stage, *place, unit * rng.uniform(1.6, 4.4))


def _add_arch(stage: Stage, x: float, level: float, colour: Colour) -> None:
    wide, tall = stage.unit * 42, stage.unit * 58

    def draw(pen: ImageDraw.ImageDraw, at: Scaled) -> None:
        pen.rounded_rectangle(at(0, 0, wide, tall * 1.6), at(wide / 2)[0], colour)
        inner = mix(colour, stage.palette.near, 0.25)
        pen.rounded_rectangle(at(wide * 0.1, wide * 0.1, wide * 0.9, tall * 1.6), at(wide * 0.4)[0], inner)

    add_sprite(stage, x - wide / 2, level - tall, wide, tall, draw, Motion(drift_x=-0.02))


def _add_pedestal(stage: Stage, x: float, level: float) -> None:
    unit, palette = stage.unit, stage.palette
    wide, flat, tall = unit * 48, unit * 9, unit * 9
    side = np.linspace(0, 1, int(wide), dtype=np.float32)
    tint = mix(palette.sky[2], palette.accent2, 0.25)
    light, dark = (
        np.array(mix(tint, palette.light, 0.4), np.float32),
        np.array(mix(tint, palette.near, 0.5), np.float32),
    )
    row = light * (1 - side[:, None]) + dark * side[:, None]
    body = Image.fromarray(np.broadcast_to(row, (int(flat + tall), row.shape[0], 3)).astype(np.uint8))
    shape = Image.new("L", (body.width * 2, body.height * 2))
    pen = ImageDraw.Draw(shape)
    pen.rectangle((0, 0, shape.width, 2 * tall + flat), fill=255)
    pen.rectangle((0, 2 * tall + 1, shape.width, shape.height), fill=0)
    pen.ellipse((0, 2 * tall - flat, shape.width - 1, 2 * tall + flat - 1), fill=255)
    stage.add(body, shape.reduce(2), x - wide / 2, level - flat / 2)

    def draw(pen: ImageDraw.ImageDraw, at: Scaled) -> None:
        pen.ellipse(at(0, 0, wide, flat), mix(tint, palette.light, 0.6))

    add_sprite(stage, x - wide / 2, level - flat, wide, flat, draw)
    add_shadow(
        stage, x + unit * 3, level - flat / 2 + unit, unit * 34, unit * 6, 0.6, mix(tint, palette.near, 0.7)
    )


# Outlines as (share of height from the top, share of half width), one turned object each.
_OUTLINES: Final[tuple[tuple[tuple[float, float], ...], ...]] = (
    (
        (0.0, 0.22),
        (0.12, 0.22),
        (0.13, 0.14),
        (0.2, 0.14),
        (0.26, 0.6),
        (0.32, 0.78),
        (0.95, 0.78),
        (1.0, 0.7),
    ),
    (
        (0.0, 0.42),
        (0.05, 0.4),
        (0.2, 0.3),
        (0.45, 0.72),
        (0.65, 0.85),
        (0.85, 0.66),
        (0.97, 0.42),
        (1.0, 0.42),
    ),
    ((0.25, 0.8), (0.28, 0.84), (0.5, 0.8), (0.8, 0.62), (0.96, 0.42), (1.0, 0.42)),
    ((0.0, 0.14), (0.28, 0.14), (0.4, 0.34), (0.48, 0.46), (0.95, 0.46), (1.0, 0.4)),
    ((0.12, 0.56), (0.13, 0.62), (0.28, 0.62), (0.29, 0.7), (0.93, 0.7), (1.0, 0.62)),
)


def _add_object(stage: Stage, x: float, level: float) -> None:
    """A turned object, shaded as a round one, with a label band."""
    unit, rng, palette = stage.unit, stage.rng, stage.palette
    outline = rng.choice(_OUTLINES)
    tall, half = int(unit * 40), int(unit * 15)
    rows = np.linspace(0, 1, tall, dtype=np.float32)
    reach = (
        np.interp(rows, [p for p, _ in outline], [w for _, w in outline], left=0).astype(np.float32) * half
    )
    span = np.arange(-half, half, dtype=np.float32) + 0.5
    cover = np.clip(reach[:, None] - np.abs(span)[None, :] + 0.5, 0, 1)
    turn = np.clip(span[None, :] / np.maximum(reach[:, None], 1), -1, 1)
    light = 0.74 - 0.42 * turn + 0.34 * np.exp(-(((turn + 0.45) / 0.13) ** 2)) - 0.25 * np.abs(turn) ** 4
    tint = np.broadcast_to(np.array(palette.accent, np.float32), (tall, 2 * half, 3)).copy()
    tint[rows < outline[0][0] + 0.14] = mix(palette.near, palette.accent2, 0.35)
    band = (rows > 0.55) & (rows < 0.78)
    tint[band] = mix(palette.light, palette.accent2, 0.12)
    colour = Image.fromarray(np.clip(tint * light[..., None], 0, 255).astype(np.uint8))
    mask = Image.fromarray((cover * 255).astype(np.uint8))
    stage.add(colour, mask, x - half, level - unit * 4 - tall, Motion(sway_y_px=unit * 0.25, period_s=5))


def _add_ball(stage: Stage, x: float, y: float, radius: float) -> None:
    size = int(radius * 2 + 3)
    span = (np.arange(size, dtype=np.float32) - (size - 1) / 2) / radius
    across, down = span[None, :], span[:, None]
    distance = np.sqrt(across**2 + down**2)
    shine = np.clip(1.0 - 0.6 * np.sqrt((across + 0.35) ** 2 + (down + 0.4) ** 2), 0.25, 1)[..., None]
    tint = np.array(
        stage.rng.choice((stage.palette.accent, stage.palette.accent2, stage.palette.far)), np.float32
    )
    colour = Image.fromarray(np.clip(tint * (0.35 + 0.8 * shine), 0, 255).astype(np.uint8))
    mask = Image.fromarray((np.clip((1 - distance) * radius + 0.5, 0, 1) * 255).astype(np.uint8))
    bob = Motion(sway_y_px=stage.unit * 1.6, period_s=stage.rng.uniform(3.5, 6), phase=stage.rng.random())
    stage.add(colour, mask, x - size / 2, y - size / 2, bob)


def paint_ribbons(stage: Stage) -> None:
    """Waves of colour flowing across the frame, with rings floating over them."""
    palette, rng, h = stage.palette, stage.rng, stage.height
    stage.add(
        gradient(stage.width, h, (palette.sky[0], palette.sky[1], palette.sky[2]), stage.noise), None, 0, 0
    )
    add_glow(
        stage,
        rng.uniform(0.25, 0.75) * stage.width,
        h * 0.24,
        stage.unit * 12,
        palette.light,
        Motion(drift_x=0.08),
        0.5,
    )
    row = (palette.sky[2], palette.accent2, palette.accent, palette.far, palette.sky[0], palette.near)
    count = 7 + 2 * stage.detail
    tilt = rng.uniform(-0.16, 0.16)
    for index in range(count):
        near = index / (count - 1)
        x = stage.across()
        wave = 0.09 * np.sin(2 * math.pi * (x * rng.uniform(0.6, 1.1) + rng.random())) + 0.05 * value_noise(
            x * 1.5, rng, 1, 0.5
        )
        ridge = (0.3 + 0.62 * near + wave * (1 - 0.4 * near) + tilt * (x - 0.5)) * h
        place = near * (len(row) - 1)
        low = min(int(place), len(row) - 2)
        tone = mix(row[low], row[low + 1], place - low)
        sway = Motion(
            drift_x=rng.uniform(-0.05, 0.05),
            sway_x_px=stage.unit * 2.2,
            sway_y_px=stage.unit * 0.9,
            period_s=rng.uniform(5, 9),
            phase=rng.random(),
        )
        foot = h + int(4 * stage.unit)
        rim = (mix(tone, palette.light, 0.5), stage.unit * 0.5)
        ground = (tone, mix(tone, palette.near, 0.45))
        add_ground(stage, ridge.astype(np.float32), foot, ground, sway, rims=[rim])
    for _ in range(3 + 3 * stage.detail):
        _add_ball(
            stage, rng.random() * stage.width, rng.uniform(0.1, 0.65) * h, stage.unit * rng.uniform(1, 4)
        )


def paint_mosaic(stage: Stage) -> None:
    """Tiles of quarter circles, discs and stripes, in rows that slide past each other."""
    palette, rng = stage.palette, stage.rng
    stage.add(Image.new("RGB", (stage.width, stage.height), palette.sky[2]), None, 0, 0)
    size = math.ceil(min(stage.width, stage.height) / (5 + stage.detail))
    inks = (palette.accent, palette.accent2, palette.near, palette.far, palette.sky[0], palette.light)
    for row in range(math.ceil(stage.height / size)):
        columns = math.ceil((stage.width + 2 * stage.travel) / size)
        strip = Image.new("RGB", (columns * size * 2, size * 2))
        pen = ImageDraw.Draw(strip)
        for column in range(columns):
            ground, ink, spot = rng.sample(inks, 3)
            _draw_tile(pen, column * size * 2, size * 2, rng.randrange(6), (ground, ink, spot))
        side = 1 if row % 2 else -1
        stage.add(strip.reduce(2), None, -stage.travel, row * size, Motion(drift_x=side * 0.09))


def _draw_tile(
    pen: ImageDraw.ImageDraw, x: int, size: int, kind: int, inks: tuple[Colour, Colour, Colour]
) -> None:
    ground, ink, spot = inks
    pen.rectangle((x, 0, x + size, size), ground)
    if kind < 4:
        left, top = x - size * (kind % 2), -size * (kind // 2)
        pen.pieslice((left, top, left + 2 * size, top + 2 * size), 0, 360, ink)
        inset = size // 2
        pen.pieslice(
            (left + inset, top + inset, left + 2 * size - inset, top + 2 * size - inset), 0, 360, spot
        )
        return
    if kind == 4:
        pen.ellipse((x + size * 0.12, size * 0.12, x + size * 0.88, size * 0.88), ink)
        pen.ellipse((x + size * 0.34, size * 0.34, x + size * 0.66, size * 0.66), spot)
        return
    pen.polygon((x, 0, x + size, 0, x, size), ink)
    pen.polygon((x + size, 0, x + size, size, x, size), spot)


PAINTERS: Final[dict[Composition, Callable[[Stage], Any]]] = {
    Composition.PORTRAIT: paint_portrait,
    Composition.PRODUCT: paint_product,
    Composition.RIBBONS: paint_ribbons,
    Composition.MOSAIC: paint_mosaic,
}
