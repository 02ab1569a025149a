"""Layers, the material every scene is made of: painted once, then laid over one another at any moment of a film."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from services.provider_pool.adapters.sandbox.scene import Colour, Palette, Scene

Floats = NDArray[np.float32]
# A layer this wide beyond both edges of the frame can travel through a whole film without showing its end.
TRAVEL_SHARE: Final = 0.10
_SUPERSAMPLE: Final = 3
# Above this many pixels a sprite is smooth enough at two samples, and three would cost too much memory.
_SUPERSAMPLE_PIXELS_MAX: Final = 600_000


@dataclass(frozen=True)
class Motion:
    """How a layer moves. Drifts are shares of frame width and height over the whole film; sways are pixels."""

    drift_x: float = 0.0
    drift_y: float = 0.0
    sway_x_px: float = 0.0
    sway_y_px: float = 0.0
    period_s: float = 4.0
    phase: float = 0.0

    def offset(self, progress: float, time_s: float, width: int, height: int) -> tuple[int, int]:
        """The layer's displacement in pixels at `progress` (0 to 1) of a film, `time_s` after its start."""
        turn = 2 * math.pi * (time_s / self.period_s + self.phase)
        # The sway starts at zero so that a picture equals the first frame of its film.
        swing = math.sin(turn) - math.sin(2 * math.pi * self.phase)
        x = self.drift_x * width * progress + self.sway_x_px * swing
        y = self.drift_y * height * progress + self.sway_y_px * swing
        return round(x), round(y)


STILL: Final = Motion()


@dataclass(frozen=True)
class Layer:
    """An RGB picture with a mask (None: opaque) whose top left corner is at `x`, `y` of the frame."""

    colour: Image.Image
    mask: Image.Image | None
    x: int = 0
    y: int = 0
    motion: Motion = STILL


@dataclass
class Stage:
    """The frame a scene is painted on, with its palette, chance and the layers so far, back to front."""

    width: int
    height: int
    scene: Scene
    moving: bool
    rng: random.Random = field(init=False)
    noise: np.random.Generator = field(init=False)
    layers: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.scene.chance ^ 0x5CE7E)
        self.noise = np.random.Generator(np.random.PCG64(self.scene.chance))

    @property
    def palette(self) -> Palette:
        return self.scene.palette

    @property
    def detail(self) -> int:
        return self.scene.detail

    @property
    def unit(self) -> float:
        """A hundredth of the shorter side, in pixels: the measure of everything that has a shape."""
        return min(self.width, self.height) / 100

    @property
    def travel(self) -> int:
        """Pixels that wide layers reach beyond the left and right edge; none in a picture, which stands still."""
        return 2 * math.ceil(self.width * TRAVEL_SHARE / 2) if self.moving else 0

    def across(self) -> Floats:
        """The x coordinate of each column of a wide layer, in frame widths: 0 at the left edge, 1 at the right."""
        columns = np.arange(-self.travel, self.width + self.travel, dtype=np.float32)
        return columns / np.float32(self.width)

    def add(
        self, colour: Image.Image, mask: Image.Image | None, x: float, y: float, motion: Motion = STILL
    ) -> None:
        """Lay a picture over what is there."""
        self.layers.append(Layer(colour, mask, round(x), round(y), motion))


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from `a` to `b`."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def gradient(
    width: int, height: int, stops: Sequence[Colour], noise: np.random.Generator | None = None
) -> Image.Image:
    """A vertical gradient through evenly spaced `stops`, dithered when `noise` is given so that no bands show."""
    places = np.linspace(0, 1, len(stops))
    rows = np.linspace(0, 1, max(height, 1))
    channels = [np.interp(rows, places, [stop[i] for stop in stops]) for i in range(3)]
    pixels = np.repeat(np.stack(channels, axis=1).astype(np.float32)[:, None, :], width, axis=1)
    if noise is not None:
        pixels += noise.random((height, width, 1), dtype=np.float32) - 0.5
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def value_noise(x: Floats, rng: random.Random, octaves: int, roughness: float, smooth: bool = True) -> Floats:
    """One-dimensional noise of about -1 to 1 at each `x`; each octave doubles the frequency."""
    total = np.zeros_like(x)
    weight, weights = 1.0, 0.0
    for octave in range(octaves):
        table = np.array([rng.uniform(-1, 1) for _ in range(64)], dtype=np.float32)
        place = x * np.float32(2**octave) + np.float32(rng.uniform(0, 64))
        cell = np.floor(place).astype(np.int64)
        part = place - cell
        part = part * part * (3 - 2 * part) if smooth else part
        total += weight * (table[cell % 64] * (1 - part) + table[(cell + 1) % 64] * part)
        weights += weight
        weight *= roughness
    return np.asarray(total / weights, dtype=np.float32)


def below(ridge: Floats, top: int, height: int) -> Image.Image:
    """A mask, `height` rows from row `top` on, of what lies below the line `ridge` (row of each column)."""
    rows = np.arange(top, top + height, dtype=np.float32)[:, None] + 0.5
    cover = np.clip(rows - ridge[None, :] + 0.5, 0, 1)
    return Image.fromarray((cover * 255).astype(np.uint8))


def add_ground(
    stage: Stage,
    ridge: Floats,
    bottom: int,
    stops: Sequence[Colour],
    motion: Motion = STILL,
    *,
    rims: Sequence[tuple[Colour, float]] = (),
) -> None:
    """Fill from the line `ridge` (pixels) down to `bottom`; only the jagged part pays for a mask.

    `rims` are bands (colour, pixels) that follow the line, the uppermost first.
    """
    top = max(int(ridge.min()) - 1, -stage.height // 4)
    depth = sum(thick for _, thick in rims)
    full = min(max(int(ridge.max() + depth) + 2, top + 1), bottom)
    # An even height needs no mask in a film either, whose colour is stored for 2x2 pixels.
    full += (bottom - full) % 2
    if bottom - top < 2:
        return
    fill = gradient(ridge.size, bottom - top, stops, stage.noise)
    edge = fill.crop((0, 0, ridge.size, full - top))
    for colour, thick in reversed(rims):
        above = below(ridge + np.float32(depth), top, full - top).point([255 - level for level in range(256)])
        edge.paste(colour, (0, 0), above)
        depth -= thick
    stage.add(edge, below(ridge, top, full - top), -stage.travel, top, motion)
    if full < bottom:
        body = fill.crop((0, full - top, ridge.size, bottom - top))
        stage.add(body, None, -stage.travel, full, motion)


def add_glow(
    stage: Stage,
    x: float,
    y: float,
    radius: float,
    colour: Colour,
    motion: Motion = STILL,
    strength: float = 0.55,
    disc: bool = True,
) -> None:
    """A shining disc with a halo, its centre at `x`, `y`."""
    reach = int(radius * 4)
    span = np.arange(-reach, reach + 1, dtype=np.float32)
    distance = np.sqrt(span[:, None] ** 2 + span[None, :] ** 2)
    halo = strength * np.exp(-np.maximum(distance - radius * 0.6, 0) / (radius * 0.85))
    halo *= np.clip((reach - distance) / (reach * 0.5), 0, 1)
    cover = np.maximum(halo, np.clip(radius - distance + 0.5, 0, 1)) if disc else halo
    mask = Image.fromarray((np.clip(cover, 0, 1) * 255).astype(np.uint8))
    stage.add(Image.new("RGB", mask.size, colour), mask, x - reach, y - reach, motion)


# Takes coordinates in a sprite's pixels, gives them on its enlarged canvas.
Scaled = Callable[..., list[float]]
Pen = Callable[[ImageDraw.ImageDraw, Scaled], None]


def sprite(width: float, height: float, draw: Pen) -> tuple[Image.Image, Image.Image]:
    """Draw a shape on transparent ground, smooth at its edges; `draw` gets a pen and a scale for its coordinates."""
    w, h = max(2, math.ceil(width)), max(2, math.ceil(height))
    scale = 2 if w * h > _SUPERSAMPLE_PIXELS_MAX else _SUPERSAMPLE
    canvas = Image.new("RGBA", (w * scale, h * scale))

    def scaled(*numbers: float) -> list[float]:
        return [number * scale for number in numbers]

    draw(ImageDraw.Draw(canvas), scaled)
    small = canvas.resize((w, h), Image.Resampling.BOX)
    return small.convert("RGB"), small.getchannel("A")


def add_sprite(
    stage: Stage, x: float, y: float, width: float, height: float, draw: Pen, motion: Motion = STILL
) -> None:
    """Draw a shape in the box of `width` x `height` pixels whose top left corner is `x`, `y`."""
    colour, mask = sprite(width, height, draw)
    stage.add(colour, mask, x, y, motion)


def add_shadow(
    stage: Stage,
    x: float,
    y: float,
    width: float,
    height: float,
    strength: float,
    colour: Colour,
    motion: Motion = STILL,
) -> None:
    """A soft elliptical shadow whose centre is `x`, `y`."""
    across = np.linspace(-1, 1, max(2, int(width)), dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, max(2, int(height)), dtype=np.float32)[:, None]
    cover = np.clip(1 - np.sqrt(across**2 + down**2), 0, 1) ** 1.3 * strength
    mask = Image.fromarray((np.clip(cover, 0, 1) * 255).astype(np.uint8))
    stage.add(Image.new("RGB", mask.size, colour), mask, x - width / 2, y - height / 2, motion)


def compose(stage: Stage) -> Image.Image:
    """The scene standing still."""
    frame = Image.new("RGB", (stage.width, stage.height), stage.palette.sky[1])
    for layer in stage.layers:
        frame.paste(layer.colour, (layer.x, layer.y), layer.mask)
    return frame
