"""Images on their way through an inspector, and the processes that it keeps meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.provider_pool.references.container import FORMATS, ImageLimits, ImageRefused
from services.provider_pool.references.inspector import Inspector
from tests.corpus import hostile_jpeg, images

EVERYTHING = ImageLimits(FORMATS, 20 * 1024 * 1024, first_frame_of_animations=True)
SINGLE = ImageLimits(frozenset({"jpeg", "png", "webp"}), 20 * 1024 * 1024)
# Many times what a decode takes on a busy machine.
PATIENCE_S = 60.0
# Half a second of work for a decoder: long enough to do something to it meanwhile.
SLOW = hostile_jpeg.endless(64, width=8_000, height=6_250)
PLAIN = images.saved("PNG")


@asynccontextmanager
async def inspecting(**changes: Any) -> AsyncIterator[Inspector]:
    settings = {"workers": 1, "deadline_s": PATIENCE_S} | changes
    running = Inspector(**settings)
    try:
        yield running
    finally:
        await running.close()


def put(folder: Path, content: bytes, name: str = "came") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def forks(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descriptors(pid: int | None = None) -> int:
    try:
        return len(list(Path(f"/proc/{pid or 'self'}/fd").iterdir()))
    except PermissionError:
        # To anybody but root, a process that has settled shows nothing.
        return 0


async def fork_of(running: Inspector) -> int:
    """The process that is decoding."""
    await until(lambda: any(forks(pid) for pid in running.worker_pids))
    return next(child for pid in running.worker_pids for child in forks(pid))


def deaths(cause: str) -> float:
    return REGISTRY.get_sample_value("atelier_pool_decode_worker_deaths_total", {"cause": cause}) or 0.0


def refusals(rule: str) -> float:
    return REGISTRY.get_sample_value("atelier_pool_reference_refusals_total", {"rule": rule}) or 0.0


async def refusal(running: Inspector, source: Path, limits: ImageLimits = EVERYTHING) -> str:
    target = source.with_suffix(".refused")
    with pytest.raises(ImageRefused) as caught:
        await running.inspect(source, target, limits)
    assert not target.exists()
    return caught.value.rule
