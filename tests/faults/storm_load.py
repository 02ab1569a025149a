"""Customers who keep asking while things break: seeded, bounded, and they remember what they were promised."""

from __future__ import annotations

import asyncio
import base64
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.faults.client import Client
from tests.faults.matrix_deeds import picture
from tests.faults.scene import Scene, said
from tests.faults.verdict import judge

# What is asked of the sandbox, and how often: most jobs go well, some end badly, a few in doubt.
_MARKERS = {
    "": 12,
    "[sandbox:pace=0.5]": 6,
    "[sandbox:pace=1.5]": 2,
    "[sandbox:fail]": 2,
    "[sandbox:refuse]": 1,
    "[sandbox:rate-limit]": 1,
    "[sandbox:unknown]": 1,
    "[sandbox:lost]": 1,
}
# A person does not click faster, and a storm is not a benchmark.
_PAUSE_S = (0.02, 0.2)
# One in five asks again at once, as an impatient client does; one in ten gives a picture to follow.
_IMPATIENT = 0.2
_WITH_PICTURE = 0.1
_RICH_CREDITS = 1_000_000
# Enough for a few images: the customer that is refused with 402 while others are served.
_POOR_CREDITS = 100
_REPLAYS_AT_ONCE = 16
# A death in mid-submission is looked for during the unknown window, and on PostgreSQL as long as a sender may live.
_SETTLED_WITHIN_S = 150.0


def soak_s() -> float:
    """How long a storm rages: SOAK minutes where somebody asked for that, else no longer than it must."""
    return float(os.environ.get("SOAK") or 0) * 60


def seeded() -> random.Random:
    """Chance that can be had again: SEED, or a new one; a failed test shows it."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    print(f"repeat with SEED={seed}")  # noqa: T201 - pytest shows it with a failure
    return random.Random(seed)


@dataclass(frozen=True)
class Promise:
    """What a customer asked for under a key, and the job that it was told of."""

    customer: Client
    key: str
    prompt: str
    fields: Mapping[str, Any]
    job_id: str


@dataclass
class Load:
    """What was promised so far."""

    scene: Scene
    chance: random.Random
    promised: list[Promise] = field(default_factory=list)
    refused: int = 0
    _numbers: int = 0

    async def worker(self, customer: Client, stop: asyncio.Event) -> None:
        """Asks, waits a moment, asks again."""
        while not stop.is_set():
            self._numbers += 1
            key = f"storm-{self._numbers}"
            markers = self.chance.choices(list(_MARKERS), list(_MARKERS.values()))[0]
            prompt = f"{key} {markers}"
            impatient = self.chance.random() < _IMPATIENT
            pause_s = self.chance.uniform(*_PAUSE_S)
            fields = _picture(key) if self.chance.random() < _WITH_PICTURE else {}
            tries = (customer.image(key, prompt, **fields) for _ in range(2 if impatient else 1))
            for answer in await asyncio.gather(*tries):
                if answer.status == 202:
                    self.promised.append(Promise(customer, key, prompt, fields, answer.json["jobId"]))
                else:
                    assert answer.status == 402, answer.body
                    self.refused += 1
            await asyncio.sleep(pause_s)

    async def kept(self) -> None:
        """Every job that was promised ends, and asking again under its key gives the same job."""
        gate = asyncio.Semaphore(_REPLAYS_AT_ONCE)

        async def one(promise: Promise) -> None:
            async with gate:
                await promise.customer.ended(promise.job_id)
                again = await promise.customer.image(promise.key, promise.prompt, **promise.fields)
                assert (again.status, again.json.get("jobId")) == (202, promise.job_id), again.body

        await asyncio.gather(*(one(promise) for promise in self.promised))


async def settled(scene: Scene) -> list[str]:
    """What is wrong once everything has come to rest. Raises AssertionError where it does not, with everybody's last words."""
    try:
        await scene.quiet(deadline_s=_SETTLED_WITHIN_S)
    except AssertionError as error:
        error.add_note(f"last words: {said(scene)}")
        raise
    wrong = await judge(scene)
    return [*wrong, f"last words: {said(scene)}"] if wrong else []


def _picture(name: str) -> dict[str, Any]:
    content = base64.b64encode(picture(name)).decode()
    return {"referenceImage": {"imageUrl": f"data:image/png;base64,{content}", "strength": "MID"}}


@asynccontextmanager
async def load(scene: Scene, chance: random.Random, *, workers: int = 6) -> AsyncIterator[Load]:
    """Keeps asking while the block runs; a worker that meets an answer it must not get fails the block."""
    await scene.inside.set_concurrency(20)
    rich = [await scene.customer(_RICH_CREDITS) for _ in range(2)]
    poor = await scene.customer(_POOR_CREDITS)
    running = Load(scene, chance)
    stop = asyncio.Event()
    customers = [rich[n % 2] for n in range(workers - 1)] + [poor]
    async with asyncio.TaskGroup() as group:
        for customer in customers:
            group.create_task(running.worker(customer, stop))
        try:
            yield running
        finally:
            stop.set()
