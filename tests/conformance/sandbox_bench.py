"""A sandbox provider on a bench: a clock that is moved by hand, and the calls as a pool makes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.provider_pool.adapters.interface import (
    AccountAccess,
    Cancellation,
    Context,
    Generation,
    Kind,
    OutputRef,
    Prepared,
    Reference,
    ReferenceFile,
    Snapshot,
    TaskRef,
    TaskState,
)
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.adapters.sandbox.models import MODELS
from tests.clocks import HandClock

PICTURE = Generation(Kind.IMAGE, "gpt-image-2", "a cat", 256, 320, quality="low")
FILM = Generation(Kind.VIDEO, "seedance-2.0-fast", "a cat that runs", 320, 256, 4, audio=True)
VOICE = Generation(Kind.VOICE, "eleven-multilingual-v2", "a cat sat on the mat", voice="brian")
MUSIC = Generation(Kind.MUSIC, "eleven-music-v1", "a happy cat", duration_s=5)
CHART = Generation(Kind.INFOGRAPHIC, "infographic-1", "cats: Q1 20, Q2 35", 320, 256, style="dark")
TEXT = Generation(Kind.TEXT, "gpt-5-mini", "write about a cat", max_words=60)
EVERY_KIND = (PICTURE, FILM, VOICE, MUSIC, CHART, TEXT)
SPECS = {spec.model: spec for spec in MODELS}
ACCOUNT = AccountAccess("acc_1", "sandbox")
OTHER_ACCOUNT = AccountAccess("acc_2", "sandbox")
INSTANT = AccountAccess("acc_1", "sandbox", options={"render": "instant", "pace_ms": "0"})
URL = "https://pictures.example/secret-path.png"


@dataclass
class Bench:
    """An adapter with its clock and folder, and the calls as a pool makes them."""

    adapter: SandboxAdapter
    clock: HandClock
    folder: Path

    @property
    def context(self) -> Context:
        return Context(self.clock)

    def prepared(self, generation: Generation, files: Sequence[ReferenceFile] = ()) -> Prepared:
        asked = replace(generation, references=tuple(Reference(file.strength, url=URL) for file in files))
        return self.adapter.prepare(asked, SPECS[generation.model], files)

    async def submit(
        self,
        generation: Generation,
        account: AccountAccess = ACCOUNT,
        reference: str = "job_1:1",
        files: Sequence[ReferenceFile] = (),
    ) -> TaskRef:
        prepared = self.prepared(generation, files)
        return (await self.adapter.submit(self.context, account, prepared, reference)).task

    async def poll(self, task: TaskRef, account: AccountAccess = ACCOUNT) -> Snapshot:
        return await self.adapter.poll(self.context, account, task)

    async def ended(self, task: TaskRef, account: AccountAccess = ACCOUNT) -> Snapshot:
        """Polls after the pace is over, until the drawing is done too."""
        self.clock.at_ms += 3_600_000
        deadline_s = time.monotonic() + 60
        while (found := await self.poll(task, account)).state is TaskState.RUNNING:
            assert time.monotonic() < deadline_s, "it is never drawn"
            await asyncio.sleep(0.02)
        return found

    async def cancel(self, task: TaskRef, account: AccountAccess = ACCOUNT) -> Cancellation:
        return await self.adapter.cancel(self.context, account, task)

    async def fetch(self, task: TaskRef, output: OutputRef, account: AccountAccess = ACCOUNT) -> bytes:
        async with self.adapter.open_output(self.context, account, task, output) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def listed(
        self,
        generation: Generation,
        account: AccountAccess = ACCOUNT,
        since_ms: int = 0,
        files: Sequence[ReferenceFile] = (),
    ) -> list[str]:
        prepared = self.prepared(generation, files)
        found = await self.adapter.list_tasks(self.context, account, prepared, since_ms, "")
        return [task.task_id for task in found]

    def files(self) -> list[Path]:
        """Everything that the adapter has on the disk."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


def marked(*markers: str, of: Generation = PICTURE) -> Generation:
    return replace(of, prompt=of.prompt + "".join(f" [sandbox:{marker}]" for marker in markers))
