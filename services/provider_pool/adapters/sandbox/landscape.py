"""Outdoor scenes: hills, dunes, sea, city, terraces, forest and space, each a few layers back to front."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from services.provider_pool.adapters.sandbox.layers import (
    Floats,
    Motion,
    Scaled,
    Stage,
    add_glow,
    add_ground,
    add_sprite,
    gradient,
    mix,
    value_noise,
)
from services.provider_pool.adapters.sandbox.scene import Colour, Composition
from services.provider_pool.adapters.sandbox.sky import add_birds, add_clouds, add_sky, add_sun, draw_stars


def paint_hills(stage: Stage) -> None:
    """Mountain ranges behind one another, hazy where they are far."""
    palette, h = stage.palette, stage.height
    add_sky(stage)
    add_sun(stage, stage.rng.uniform(0.2, 0.32))
    add_clouds(stage, 3 + 2 * stage.detail)
    if stage.detail:
        add_birds(stage, 5)
    count = 4 + stage.detail
    for index in range(count):
        near = index / (count - 1)
        x = stage.across() * stage.width / (stage.unit * 100)
        rough = value_noise(x * (1.6 + near), stage.rng, 7, 0.5, smooth=near > 0.6)
        ridge = (0.40 + 0.42 * near - (0.15 - 0.07 * near) * rough) * h
        top = mix(palette.far, palette.near, near**1.2)
        foot = mix(top, palette.sky[2], 0.55 * (1 - near) + 0.12)
        drift = Motion(drift_x=-0.015 - 0.075 * near)
        if index == count - 1 and stage.detail:
            _add_pines(stage, ridge, top, drift)
        add_ground(stage, ridge.astype(np.float32), h, (top, foot), drift)


def _add_pines(stage: Stage, ridge: Floats, colour: Colour, motion: Motion, size: float = 9) -> None:
    """A row of pines standing on `ridge`, as one wide layer."""
    rng, tall = stage.rng, stage.unit * size
    top = int(ridge.min() - tall * 1.5)
    mask = Image.new("L", (ridge.size * 2, int(ridge.max() - top + tall) * 2))
    pen = ImageDraw.Draw(mask)
    x = rng.uniform(0, tall)
    while x < ridge.size:
        height = tall * rng.uniform(0.55, 1.4)
        _draw_pine(pen, 2 * x, 2 * (float(ridge[int(x)]) - top + height * 0.06), 2 * height)
        x += tall * rng.choice((0.18, 0.3, 0.4, 0.7, 1.8))
    mask = mask.reduce(2)
    stage.add(Image.new("RGB", mask.size, colour), mask, -stage.travel, top, motion)


def _draw_pine(pen: ImageDraw.ImageDraw, x: float, foot: float, height: float) -> None:
    pen.rectangle((x - height * 0.02, foot - height * 0.3, x + height * 0.02, foot), fill=255)
    for step in range(4):
        spread, top = height * (0.08 + 0.045 * step), foot - height * (1 - 0.17 * step)
        pen.polygon((x, top, x - spread, top + height * 0.33, x + spread, top + height * 0.33), fill=255)


def paint_dunes(stage: Stage) -> None:
    """Sand dunes with a lit and a shaded side."""
    palette, h = stage.palette, stage.height
    add_sky(stage)
    add_sun(stage, stage.rng.uniform(0.2, 0.34))
    add_clouds(stage, 1 + stage.detail)
    for index in range(5):
        near = index / 4
        ridge = (
            0.50
            + 0.36 * near
            - (0.05 + 0.05 * near) * value_noise(stage.across() * (1.2 + 0.5 * near), stage.rng, 2, 0.25)
        ) * h
        lit = mix(mix(palette.far, palette.sky[2], 0.5 * (1 - near)), palette.accent, 0.15 * near)
        shade = mix(lit, palette.near, 0.35 + 0.3 * near)
        drift = Motion(drift_x=-0.02 - 0.07 * near)
        add_ground(stage, ridge.astype(np.float32), h, (lit, mix(lit, shade, 0.5)), drift)
        slope = (0.05 + 0.06 * near) * h * (1.1 + value_noise(stage.across() * 2.3, stage.rng, 3, 0.4))
        add_ground(stage, (ridge + slope).astype(np.float32), h, (shade, lit), drift)


def paint_sea(stage: Stage) -> None:
    """A sun over the sea, its light on the water, waves and a boat."""
    palette, h, rng = stage.palette, stage.height, stage.rng
    horizon = int(h * rng.uniform(0.46, 0.54))
    add_sky(stage)
    sun_x = add_sun(stage, horizon / h - rng.uniform(0.05, 0.14))
    add_clouds(stage, 3 + 2 * stage.detail)
    if stage.detail:
        add_birds(stage, 4)
        coast = horizon - np.maximum(value_noise(stage.across() * 2.2, rng, 5, 0.5), 0) * h * 0.12
        add_ground(
            stage, coast.astype(np.float32), horizon, (palette.far, palette.far), Motion(drift_x=-0.02)
        )
    deep = mix(palette.near, palette.sky[0], 0.45)
    flat = np.full(stage.width + 2 * stage.travel, horizon, dtype=np.float32)
    add_ground(stage, flat, h, (mix(palette.sky[2], palette.sky[0], 0.35), deep))
    boat_row = rng.randint(1, 2)
    for row in range(6):
        near = (row + 1) / 6
        if row == boat_row:
            _add_boat(stage, horizon + (h - horizon) * near**1.5 * 0.5)
        level = horizon + (h - horizon) * near**1.5 * 0.8
        _add_wave(stage, level, near, deep)
        if row < 5:
            _add_glitter(stage, sun_x, level, near)


def _add_wave(stage: Stage, level: float, near: float, deep: Colour) -> None:
    rng, unit = stage.rng, stage.unit
    x = stage.across() * stage.width / unit
    length = 4 + 16 * near
    swell = np.sin(x * 2 * math.pi / length + rng.uniform(0, 6)) + 0.5 * np.sin(
        x * 2 * math.pi / (length * 1.7)
    )
    ridge = level - unit * (0.2 + 1.1 * near) * (swell + 0.6 * value_noise(x / length * 0.7, rng, 2, 0.5))
    motion = Motion(
        drift_x=0.03 * near * rng.choice((-1, 1)),
        sway_x_px=unit * (0.7 + 1.9 * near),
        sway_y_px=unit * 0.4 * near,
        period_s=rng.uniform(3.2, 5),
        phase=rng.random(),
    )
    crest = mix(mix(stage.palette.sky[2], stage.palette.sky[0], 0.3), deep, 0.35 + 0.5 * near)
    foam = (mix(crest, stage.palette.light, 0.45), unit * (0.25 + 0.5 * near))
    bottom = stage.height + int(4 * unit)
    add_ground(stage, ridge, bottom, (crest, mix(crest, deep, 0.8)), motion, rims=[foam])


def _add_glitter(stage: Stage, sun_x: float, level: float, near: float) -> None:
    """Light of the sun on the water below `level`: short bright strokes that sway."""
    rng, unit = stage.rng, stage.unit
    width, height = unit * (16 + 22 * near), unit * (3 + 7 * near)

    def draw(pen: ImageDraw.ImageDraw, at: Scaled) -> None:
        for _ in range(9):
            half, thick = unit * rng.uniform(0.8, 2 + 2 * near), unit * (0.2 + 0.3 * near)
            x, y = rng.gauss(width / 2, width * 0.16), rng.random() * (height - thick)
            fill = (*stage.palette.light, int(200 * (1 - near * 0.65)))
            pen.rounded_rectangle(at(x - half, y, x + half, y + thick), at(thick / 2)[0], fill)

    sway = Motion(drift_x=0.06, sway_x_px=unit * 0.9, period_s=2.6, phase=near * 2)
    add_sprite(stage, sun_x * stage.width - width / 2, level + unit * near, width, height, draw, sway)


def _add_boat(stage: Stage, level: float) -> None:
    unit, palette = stage.unit, stage.palette
    size = unit * stage.rng.uniform(13, 18)

    def draw(pen: ImageDraw.ImageDraw, at: Scaled) -> None:
        hull, sail = mix(palette.near, palette.accent, 0.2), mix(palette.light, palette.sky[2], 0.25)
        pen.polygon(
            at(0.12 * size, 0.8 * size, 0.88 * size, 0.8 * size, 0.74 * size, size, 0.26 * size, size), hull
        )
        pen.rectangle(at(0.49 * size, 0.04 * size, 0.51 * size, 0.8 * size), hull)
        pen.polygon(at(0.53 * size, 0.06 * size, 0.53 * size, 0.74 * size, 0.86 * size, 0.74 * size), sail)
        pen.polygon(
            at(0.47 * size, 0.16 * size, 0.47 * size, 0.74 * size, 0.2 * size, 0.74 * size), palette.accent
        )

    x = stage.rng.uniform(0.15, 0.7) * stage.width
    motion = Motion(drift_x=0.1, sway_y_px=unit * 0.8, period_s=3.8)
    add_sprite(stage, x, level - size * 0.82, size, size, draw, motion)


def paint_city(stage: Stage) -> None:
    """Three rows of buildings with lit windows, and the quay in front."""
    palette, h = stage.palette, stage.height
    add_sky(stage)
    add_sun(stage, stage.rng.uniform(0.16, 0.3))
    add_clouds(stage, 2 + stage.detail)
    for row in range(3 + (stage.detail > 0)):
        near = row / (2 + (stage.detail > 0))
        wall = mix(mix(palette.far, palette.sky[2], 0.45 * (1 - near)), palette.near, near)
        _add_skyline(stage, near, wall, Motion(drift_x=-0.02 - 0.07 * near))
    ground = np.full(stage.width + 2 * stage.travel, h * 0.9, dtype=np.float32)
    add_ground(
        stage, ground, h, (mix(palette.near, palette.accent, 0.12), palette.near), Motion(drift_x=-0.09)
    )
    _add_cars(stage)


def _add_skyline(stage: Stage, near: float, wall: Colour, motion: Motion) -> None:
    rng, unit = stage.rng, stage.unit
    width, top, bottom = stage.width + 2 * stage.travel, int(stage.height * 0.08), int(stage.height * 0.92)
    colour, mask = (
        gradient(width, bottom - top, (wall, mix(wall, stage.palette.sky[2], 0.25)), stage.noise),
        None,
    )
    mask = Image.new("L", colour.size)
    paint, cut = ImageDraw.Draw(colour), ImageDraw.Draw(mask)
    # No gap between houses reaches the ground.
    cut.rectangle((0, (bottom - top) * 0.8, width, bottom), fill=255)
    x = -unit * rng.uniform(0, 6)
    while x < width:
        wide = unit * rng.uniform(6, 12 + 4 * near)
        share = rng.triangular(0.12, 0.66 - 0.24 * near, 0.3)
        roof = (bottom - top) * (1 - share)
        cut.rectangle((x, roof, x + wide, bottom), fill=255)
        _draw_roof(stage, cut, x, roof, wide)
        _draw_windows(stage, paint, (x, roof, wide, bottom - top), near, wall)
        x += wide + unit * rng.choice((0, 0, 0.5, 2.5))
    stage.add(colour, mask, -stage.travel, top, motion)


def _draw_roof(stage: Stage, cut: ImageDraw.ImageDraw, x: float, roof: float, wide: float) -> None:
    unit, kind = stage.unit, stage.rng.randrange(5)
    if kind == 0:
        cut.rectangle((x + wide * 0.47, roof - unit * 6, x + wide * 0.53, roof), fill=255)
    elif kind == 1:
        cut.rectangle((x + wide * 0.2, roof - unit * 2.5, x + wide * 0.8, roof), fill=255)
    elif kind == 2:
        cut.polygon((x, roof, x + wide, roof, x + wide, roof - wide * 0.35), fill=255)
    elif kind == 3:
        cut.polygon((x, roof, x + wide, roof, x + wide / 2, roof - wide * 0.6), fill=255)


def _draw_windows(
    stage: Stage,
    paint: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    near: float,
    wall: Colour,
) -> None:
    rng, unit, palette = stage.rng, stage.unit, stage.palette
    x, roof, wide, foot = box
    step, size = unit * (1.5 + 0.8 * near), unit * (0.55 + 0.45 * near)
    lit_share = 0.5 if palette.night else 0.28
    columns = max(1, int((wide - step * 0.6) / step))
    left = x + (wide - (columns - 1) * step - size) / 2
    for row in range(int((foot - roof) / (step * 1.25))):
        for column in range(columns):
            lit = rng.random() < lit_share
            lamp = rng.choice((palette.light, palette.light, palette.accent2, palette.accent))
            fill = mix(wall, lamp, 0.35 + 0.55 * near) if lit else mix(wall, palette.sky[0], 0.22)
            wx, wy = left + column * step, roof + step * (0.8 + row * 1.25)
            paint.rectangle((wx, wy, wx + size, wy + size * 1.3), fill=fill)


def _add_cars(stage: Stage) -> None:
    """Lights of traffic, streaming both ways along the quay."""
    unit, rng, palette = stage.unit, stage.rng, stage.palette
    for lane, colour in ((0.925, palette.light), (0.95, palette.accent)):
        for _ in range(5 + 3 * stage.detail):
            length = unit * rng.uniform(2, 6)

            def draw(
                pen: ImageDraw.ImageDraw, at: Scaled, length: float = length, fill: Colour = colour
            ) -> None:
                pen.rounded_rectangle(at(0, 0, length, unit * 0.45), at(unit * 0.2)[0], fill)

            speed = rng.uniform(0.5, 1.1) * (1 if lane < 0.94 else -1)
            x = rng.random() * stage.width
            add_sprite(stage, x, lane * stage.height, length, unit * 0.5, draw, Motion(drift_x=speed))


def paint_terraces(stage: Stage) -> None:
    """Rice terraces: bands of water and green that follow the slope, below far hills."""
    palette, h, rng = stage.palette, stage.height, stage.rng
    add_sky(stage)
    add_sun(stage, rng.uniform(0.14, 0.24))
    add_clouds(stage, 3 + stage.detail)
    for index in range(3):
        ridge = (0.32 + 0.06 * index - 0.09 * value_noise(stage.across() * 2, rng, 6, 0.5)) * h
        tone = mix(mix(palette.far, palette.sky[2], 0.5 - 0.2 * index), palette.near, 0.12 * index)
        add_ground(
            stage,
            ridge.astype(np.float32),
            h,
            (tone, mix(tone, palette.sky[2], 0.4)),
            Motion(drift_x=-0.02 - 0.01 * index),
        )
    slope_left, slope_right = (value_noise(stage.across() * 1.3, rng, 3, 0.45) for _ in range(2))
    count = 9 + 3 * stage.detail
    grass = mix((86, 148, 62), palette.near, 0.25 + 0.25 * palette.night)
    for index in range(count):
        near = index / (count - 1)
        bend = slope_left * (1 - near) + slope_right * near
        ripple = value_noise(stage.across() * (3 + 2 * near), rng, 2, 0.4) * 0.012
        ridge = (0.46 + 0.5 * near**1.35 - (0.075 - 0.03 * near) * bend + ripple) * h
        _add_terrace(stage, ridge.astype(np.float32), near, grass, Motion(drift_x=-0.035 - 0.05 * near))
        if index == count // 2:
            _add_hut(stage, ridge, Motion(drift_x=-0.035 - 0.05 * near))


def _add_terrace(stage: Stage, ridge: Floats, near: float, grass: Colour, motion: Motion) -> None:
    palette, unit, h = stage.palette, stage.unit, stage.height
    bank, lip = unit * (0.7 + 1.7 * near), unit * (0.25 + 0.4 * near)
    green = mix(mix(grass, palette.sky[2], 0.35 * (1 - near)), palette.near, 0.3 * near)
    water = mix(mix(palette.sky[1], palette.sky[2], 0.6), green, 0.08 + 0.25 * near)
    field = water if stage.rng.random() < 0.62 else mix(green, (190, 206, 84), 0.4)
    rims = [(mix(green, palette.light, 0.42), lip), (mix(green, palette.near, 0.3), bank)]
    add_ground(stage, ridge, h, (field, mix(field, palette.light, 0.25)), motion, rims=rims)


def _add_hut(stage: Stage, ridge: Floats, motion: Motion) -> None:
    palette, size = stage.palette, stage.unit * 13
    x = stage.rng.uniform(0.15, 0.75)
    level = float(ridge[int(x * stage.width + size / 2) + stage.travel])

    def draw(pen: ImageDraw.ImageDraw, at: Scaled) -> None:
        wall, roof = mix(palette.far, (150, 100, 60), 0.6), mix((110, 74, 44), palette.near, 0.35)
        pen.rectangle(at(0.24 * size, 0.45 * size, 0.76 * size, 0.84 * size), wall)
        pen.rectangle(at(0.45 * size, 0.56 * size, 0.58 * size, 0.84 * size), mix(wall, palette.near, 0.75))
        pen.rectangle(at(0.3 * size, 0.56 * size, 0.39 * size, 0.66 * size), palette.light)
        pen.polygon(
            at(
                0.08 * size,
                0.5 * size,
                0.32 * size,
                0.14 * size,
                0.68 * size,
                0.14 * size,
                0.92 * size,
                0.5 * size,
            ),
            roof,
        )
        for leg in (0.26, 0.48, 0.7):
            pen.rectangle(at(leg * size, 0.84 * size, (leg + 0.03) * size, size), roof)

    add_sprite(stage, x * stage.width, level - size * 0.9, size, size, draw, motion)


def paint_forest(stage: Stage) -> None:
    """Rows of trees that fade into fog."""
    palette, h = stage.palette, stage.height
    add_sky(stage)
    add_sun(stage, stage.rng.uniform(0.2, 0.32))
    if stage.detail:
        add_birds(stage, 4)
    count = 5 + stage.detail
    for index in range(count):
        near = index / (count - 1)
        ridge = (0.46 + 0.42 * near - 0.07 * value_noise(stage.across() * 2, stage.rng, 3, 0.4)) * h
        tone = mix(mix(palette.far, palette.sky[2], 0.6 * (1 - near)), palette.near, near)
        drift = Motion(drift_x=-0.02 - 0.07 * near)
        _add_pines(stage, ridge, tone, drift, size=9 + 17 * near)
        add_ground(
            stage, ridge.astype(np.float32), h, (tone, mix(tone, palette.sky[2], 0.65 * (1 - near))), drift
        )


def paint_space(stage: Stage) -> None:
    """A ringed planet before a nebula and stars."""
    palette, rng, unit = stage.palette, stage.rng, stage.unit
    sky = gradient(stage.width, stage.height, (palette.sky[0], palette.sky[1], palette.sky[0]), stage.noise)
    for colour in (palette.sky[2], palette.accent2):
        cells = (max(4, stage.height * 5 // min(sky.size)), max(4, stage.width * 5 // min(sky.size)))
        small = stage.noise.random(cells, dtype=np.float32) ** 2 * 150
        cloud = Image.fromarray(small.astype(np.uint8)).resize(sky.size, Image.Resampling.BICUBIC)
        sky.paste(Image.new("RGB", sky.size, colour), (0, 0), cloud)
    draw_stars(stage, sky, 180 + 160 * stage.detail)
    stage.add(sky, None, 0, 0)
    x, y = rng.uniform(0.35, 0.65) * stage.width, stage.height * 0.38
    radius = unit * rng.uniform(17, 22)
    add_glow(stage, x, y, radius * 0.9, palette.accent, Motion(drift_y=-0.02), 0.5, disc=False)
    _add_ring(stage, x, y, radius, front=False)
    _add_planet(stage, x, y, radius)
    _add_ring(stage, x, y, radius, front=True)
    side = rng.choice((-1, 1))
    add_glow(
        stage,
        x + side * unit * 34,
        y - unit * 14,
        unit * 3.2,
        palette.light,
        Motion(drift_x=-side * 0.12),
        0.3,
    )
    ridge = (0.86 - 0.07 * value_noise(stage.across() * 3, rng, 5, 0.5)) * stage.height
    add_ground(
        stage,
        ridge.astype(np.float32),
        stage.height,
        (mix(palette.near, palette.accent2, 0.25), palette.near),
        Motion(drift_x=-0.08),
    )


def _add_planet(stage: Stage, x: float, y: float, radius: float) -> None:
    size = int(radius * 2 + 4)
    span = (np.arange(size, dtype=np.float32) - (size - 1) / 2) / radius
    across, down = span[None, :], span[:, None]
    distance = np.sqrt(across**2 + down**2)
    bands = value_noise((span * 3.1).astype(np.float32), stage.rng, 4, 0.55)[:, None]
    lit = np.clip(0.62 - 0.55 * across - 0.45 * down, 0.06, 1.15)[..., None]
    palette = stage.palette
    blend = np.clip(0.5 + 0.9 * bands, 0, 1)[..., None]
    tint = np.array(palette.accent, np.float32) * (1 - blend) + np.array(palette.accent2, np.float32) * blend
    colour = Image.fromarray(np.clip(np.broadcast_to(tint, (size, size, 3)) * lit, 0, 255).astype(np.uint8))
    mask = Image.fromarray((np.clip((1 - distance) * radius + 0.5, 0, 1) * 255).astype(np.uint8))
    stage.add(colour, mask, x - size / 2, y - size / 2, Motion(drift_y=-0.02))


def _add_ring(stage: Stage, x: float, y: float, radius: float, *, front: bool) -> None:
    wide, tall = radius * 4.4, radius * 1.25
    start, end = (0, 180) if front else (180, 360)

    def draw(pen: ImageDraw.ImageDraw, at: Scaled) -> None:
        for step, strength in ((0.0, 150), (0.05, 230), (0.11, 110)):
            box = at(wide * step, tall * step, wide * (1 - step), tall * (1 - step))
            fill = (*mix(stage.palette.light, stage.palette.accent2, step * 4), strength)
            pen.arc(box, start, end, fill, round(at(radius * 0.06)[0]))

    add_sprite(stage, x - wide / 2, y - tall / 2, wide, tall, draw, Motion(drift_y=-0.02))


PAINTERS: Final[dict[Composition, Callable[[Stage], Any]]] = {
    Composition.HILLS: paint_hills,
    Composition.DUNES: paint_dunes,
    Composition.SEA: paint_sea,
    Composition.CITY: paint_city,
    Composition.TERRACES: paint_terraces,
    Composition.FOREST: paint_forest,
    Composition.SPACE: paint_space,
}
