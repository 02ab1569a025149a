"""What a reference image costs: each stage, and how long the event loop waits meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageChops
from prometheus_client import REGISTRY

from services.provider_pool.references.container import FORMATS, ImageLimits
from services.provider_pool.references.inspector import Inspector

_LIMITS = ImageLimits(FORMATS, 20 * 1024 * 1024, first_frame_of_animations=True)
_PIXELS_12M = (4_000, 3_000)
_STAGES = ("walk", "decode", "all")
# Often enough that a block of a millisecond is seen.
_PROBE_S = 0.001
# As long as a large image takes.
_IDLE_S = 0.5


@dataclass
class Longest:
    """The longest that the loop was late for a timer."""

    late_s: float = 0.0


@dataclass
class Case:
    """One image and the milliseconds of its stages, run by run."""

    name: str
    path: Path
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in _STAGES})
    blocks: list[float] = field(default_factory=list)

    def row(self) -> str:
        middle = {stage: statistics.median(spent) for stage, spent in self.stages.items()}
        rest = middle["all"] - middle["walk"] - middle["decode"]
        size = self.path.stat().st_size / 1024**2
        numbers = (middle["walk"], middle["decode"], rest, middle["all"], max(self.blocks))
        return f"| {self.name} | {size:.2f} | " + " | ".join(f"{number:.1f}" for number in numbers) + " |"


async def measure(folder: Path, slices: int) -> str:
    """A Markdown table of medians in milliseconds."""
    cases = await asyncio.to_thread(_cases, folder)
    inspector = Inspector(workers=1, deadline_s=60)
    idle: list[float] = []
    try:
        await inspector.inspect(cases[0].path, folder / "target", _LIMITS)
        for _ in range(slices):
            for case in cases:
                await _examine(inspector, case, folder / "target")
            async with _probe() as longest:
                await asyncio.sleep(_IDLE_S)
            idle.append(1_000 * longest.late_s)
    finally:
        await inspector.close()
    lines = [
        "## Reference images, one worker",
        "",
        "| image | MiB | walk and rewrite ms | decode ms | the rest ms | all ms | longest block of the loop ms |",
        "|---|---|---|---|---|---|---|",
    ]
    note = f"Of a loop with nothing to do, in the same run, the longest block was {max(idle):.1f} ms."
    return "\n".join([*lines, *(case.row() for case in cases), "", note])


async def _examine(inspector: Inspector, case: Case, target: Path) -> None:
    before = _spent()
    async with _probe() as longest:
        await inspector.inspect(case.path, target, _LIMITS)
    after = _spent()
    for stage in _STAGES:
        case.stages[stage].append(1_000 * (after[stage] - before[stage]))
    case.blocks.append(1_000 * longest.late_s)


def _spent() -> dict[str, float]:
    name = "atelier_pool_reference_decode_seconds_sum"
    return {stage: REGISTRY.get_sample_value(name, {"stage": stage}) or 0.0 for stage in _STAGES}


@asynccontextmanager
async def _probe() -> AsyncIterator[Longest]:
    longest = Longest()

    async def watch() -> None:
        while True:
            due_s = time.perf_counter() + _PROBE_S
            await asyncio.sleep(_PROBE_S)
            longest.late_s = max(longest.late_s, time.perf_counter() - due_s)

    watching = asyncio.create_task(watch())
    try:
        yield longest
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def _cases(folder: Path) -> list[Case]:
    small, large = _photograph((640, 480)), _photograph(_PIXELS_12M)
    wanted = [
        ("640×480 JPEG", small, "JPEG", {"quality": 90}),
        ("640×480 PNG", small, "PNG", {}),
        ("12 MP JPEG", large, "JPEG", {"quality": 90}),
        ("12 MP progressive JPEG", large, "JPEG", {"quality": 90, "progressive": True}),
        ("12 MP PNG", large, "PNG", {"compress_level": 3}),
        ("12 MP WebP", large, "WEBP", {"quality": 85, "method": 0}),
        ("12 MP GIF, to PNG", large.quantize(64), "GIF", {}),
        ("6 MP BMP, to PNG", large.resize((2_900, 2_175)), "BMP", {}),
    ]
    cases = []
    for number, (name, picture, kind, options) in enumerate(wanted):
        path = folder / str(number)
        picture.save(path, kind, **options)
        cases.append(Case(name, path))
    return cases


def _photograph(size: tuple[int, int]) -> Image.Image:
    """Soft colours under the noise of a sensor."""
    chance = random.Random(5)
    soft = Image.frombytes("RGB", (40, 30), chance.randbytes(3_600)).resize(size, Image.Resampling.BICUBIC)
    grain = Image.frombytes("RGB", size, chance.randbytes(3 * size[0] * size[1])).point(
        lambda value: value // 50
    )
    return ImageChops.add(soft, grain)
