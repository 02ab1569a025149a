"""The reference parts of a pool around a toy provider, a toy network and a toy inspector."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.chassis.database import Database
from services.chassis.errors import Kind, ServiceError
from services.provider_pool.adapters.interface import (
    Generation,
    Reference,
    ReferenceFile,
    ReferenceLimits,
    Strength,
)
from services.provider_pool.attempts.states import Failure
from services.provider_pool.references.container import ImageLimits, ImageRefused
from services.provider_pool.references.fetching import Fetching
from services.provider_pool.references.inspector import Inspected
from services.provider_pool.references.intake import Inspectors, Intake
from services.provider_pool.references.preparation import Preparation
from services.provider_pool.references.recordings.inspector import RecordingsUnread
from services.provider_pool.references.recordings.judgement import RecordingLimits, RecordingRefused
from services.provider_pool.references.staging import Staging
from services.provider_pool.references.store import ReferenceStore
from tests.unit.test_pool_calls import PICTURE, Parts, ToyAdapter

LIMITS = ReferenceLimits(frozenset({"png"}), 10_000, 9)
URL = "https://images.example.com/cat.png?secret=4711"


def image(text: str = "", width: int = 64) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + json.dumps({"width": width, "text": text}).encode()


def asking(*urls: str, limits: ReferenceLimits = LIMITS) -> Generation:
    references = tuple(Reference(Strength.MID, url=url) for url in urls)
    return replace(PICTURE, references=references, reference_limits=limits)


class FakeInspector:
    """Takes every toy image but those that say that they are broken."""

    def __init__(self) -> None:
        self.inspected = 0
        self.full = False

    async def inspect(self, source: Path, target: Path, limits: ImageLimits) -> Inspected:
        self.inspected += 1
        content = source.read_bytes()
        if self.full:
            raise ServiceError(Kind.RESOURCE_EXHAUSTED, "QUEUE_FULL", "later")
        if b"broken" in content:
            raise ImageRefused("bad_checksum")
        target.write_bytes(content)
        width = json.loads(content[8:])["width"]
        digest = hashlib.sha256(content).hexdigest()
        return Inspected("png", "image/png", "png", width, 64, len(content), digest)


class FakeRecordingInspector:
    """Takes every toy film of four seconds and every toy sound of two, but those that say that they are broken."""

    def __init__(self) -> None:
        self.inspected = 0
        self.installed = True

    def check(self) -> None:
        if not self.installed:
            raise RecordingsUnread

    async def inspect(self, source: Path, target: Path, limits: RecordingLimits) -> Inspected:
        self.inspected += 1
        content = source.read_bytes()
        if b"broken" in content:
            raise RecordingRefused("truncated")
        target.write_bytes(content)
        digest, size_bytes = hashlib.sha256(content).hexdigest(), len(content)
        if limits.medium == "audio":
            return Inspected("mp3", "audio/mpeg", "mp3", 0, 0, size_bytes, digest, 2_000)
        return Inspected("mp4", "video/mp4", "mp4", 640, 360, size_bytes, digest, 4_000)


@dataclass
class Body:
    """One answer on its way."""

    host: str
    content: bytes
    sent_bytes: int = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.content), 1000):
            self.sent_bytes += 1000
            yield self.content[start : start + 1000]


@dataclass
class FakeEgress:
    """Answers what a test decides, when it decides."""

    answer: Callable[[str], Awaitable[bytes]]
    fetched: list[str] = field(default_factory=list)
    allowed: list[tuple[float, int]] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    @asynccontextmanager
    async def fetch(self, url: str, *, total_s: float, limit_bytes: int) -> AsyncIterator[Body]:
        self.fetched.append(url)
        self.allowed.append((total_s, limit_bytes))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.bodies.append(Body("images.example.com", await self.answer(url)))
            yield self.bodies[-1]
        finally:
            self.at_once -= 1


class House:
    """The reference parts of a pool, around a toy provider."""

    def __init__(self, database: Database, folder: Path, adapter: ToyAdapter) -> None:
        self.folder = folder
        self.store = ReferenceStore(folder)
        self.inspector = FakeInspector()
        self.recordings = FakeRecordingInspector()
        self.egress = FakeEgress(self.always)
        self.content = image()
        self.toy = Parts(database, adapter, self.files)
        self.inspectors = Inspectors(self.inspector, self.recordings)
        intake = Intake(self.store, self.inspectors)
        fetching = Fetching(self.egress, intake, self.store)
        self.preparation = Preparation(self.store, fetching, self.toy.leasing, self.toy.catalog)
        self.staging = Staging(intake, self.store, self.toy.catalog)

    async def always(self, url: str) -> bytes:
        return self.content

    async def files(self, job_id: str, generation: Generation) -> list[ReferenceFile | None]:
        return list(await self.preparation.files(job_id, generation))

    async def prepare(self, generation: Generation, attempt_id: str = "job_1:1") -> Failure | None:
        job_id = await self.toy.lease(attempt_id, generation)
        return await self.preparation.prepare(attempt_id, job_id, generation)

    async def stage(self, content: bytes, model: str = "picture") -> str:
        return (await self.staging.stage(model, LIMITS, pieces(content))).reference_id

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())

    async def close(self) -> None:
        for part in (self.staging, self.preparation, self.toy):
            await part.close()
        self.store.close()


async def pieces(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def stalls(content: bytes) -> AsyncIterator[bytes]:
    yield content
    await asyncio.sleep(60)
