"""How long people wait: for a house to be ready, for a picture, for a film."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.house import Answer, Customer, running_house


async def measure(folder: Path, slices: int) -> str:
    """A Markdown table of medians in seconds."""
    starts = []
    for _ in range(slices + 1):
        began_s = time.perf_counter()
        async with running_house(folder / "var"):
            starts.append(time.perf_counter() - began_s)
    async with running_house(folder / "var") as house, aiohttp.ClientSession() as session:
        customer = Customer(session, house.base_url, house.key())
        pictures = await _times(customer, customer.image, slices, size="16:9_SMALL", quality="MEDIUM")
        films = await _times(
            customer, customer.video, min(slices, 3), size="16:9_SMALL", duration=15, motionHasAudio=True
        )
    rows = [
        ("first start to ready, on an empty folder", "–", starts[:1]),
        ("warm start to ready", "< 4 s", starts[1:]),
        ("a picture (1376×768), request to complete", "about 3 s", pictures),
        ("a 15 s film with sound (1280×720), request to complete", "about 20 s", films),
    ]
    lines = ["## What people wait for", "", "| what | aim | median s | slowest s |", "|---|---|---|---|"]
    lines += [f"| {what} | {aim} | {statistics.median(s):.2f} | {max(s):.2f} |" for what, aim, s in rows]
    return "\n".join(lines)


async def _times(
    customer: Customer, make: Callable[..., Awaitable[Answer]], count: int, **fields: Any
) -> list[float]:
    seconds = []
    for number in range(count):
        began_s = time.perf_counter()
        made = await make(f"bench-{make.__name__}-{number}", f"a harbour at dawn, {number}", **fields)
        ended = await customer.ended(made.json["jobId"], deadline_s=120)
        if ended["status"] != "complete":
            raise RuntimeError(f"a job of the bench failed: {ended['error']}")
        seconds.append(time.perf_counter() - began_s)
    return seconds
