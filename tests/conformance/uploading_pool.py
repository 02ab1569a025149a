"""A provider that takes references by uploads, and the submitting parts of a pool in front of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import ClassVar

from services.chassis.clock import SystemClock
from services.chassis.database import Database
from services.provider_pool.accounts.registry import Accounts, Terms
from services.provider_pool.accounts.vault import KeyRing
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.costs import PerImage
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Adapter,
    Capability,
    Context,
    Feature,
    Generation,
    Kind,
    ModelSpec,
    OutputRef,
    Prepared,
    Range,
    Reference,
    ReferenceCapability,
    ReferenceFile,
    ReferenceLimits,
    ReferenceRole,
    RemoteFile,
    Snapshot,
    Strength,
    Submission,
    TaskRef,
    TaskState,
)
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.states import Attempt
from services.provider_pool.attempts.submission import Submissions
from services.provider_pool.attempts.uploads import Uploads
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection.capacity import Capacity
from services.provider_pool.selection.leasing import Leasing
from services.provider_pool.selection.pool import Mode, Policy

LIMITS = ReferenceLimits(frozenset({"png"}), 1 << 20, 9, videos=3, video_bytes=1 << 20)
LIFETIME_S = 7_200


def asks_for(*names: str, role: ReferenceRole = ReferenceRole.IMAGE) -> Generation:
    references = tuple(Reference(reference_id=name, role=role) for name in names)
    return Generation(Kind.IMAGE, "picture", "a cat", references=references, reference_limits=LIMITS)


def file_of(reference: Reference) -> ReferenceFile:
    name, role = reference.reference_id, reference.role
    return ReferenceFile(Path("/nowhere"), "image/png", 9, f"sha-{name}", 64, 64, Strength.MID, role)


class UploadingAdapter(Adapter):
    """A provider that takes references by uploads, and whose every answer a test decides."""

    name: ClassVar[str] = "toy"
    features: ClassVar[frozenset[Feature]] = frozenset({Feature.UPLOAD})
    terms: ClassVar[interface.Terms] = interface.Terms(
        submit_timeout_s=1.0, upload_timeout_s=0.3, upload_lifetime_s=LIFETIME_S
    )

    def __init__(self) -> None:
        self.uploads: Counter[tuple[str, str]] = Counter()
        self.submitted: list[Prepared] = []
        self.upload_error: Exception | None = None
        self.submit_error: Exception | None = None
        self.upload_s = 0.0
        self.expires_at_ms = 0
        self.at_once = self.most_at_once = 0
        self.while_uploading: Callable[[], None] = lambda: None

    def models(self) -> Sequence[ModelSpec]:
        takes = ReferenceCapability(images=9, sides_px=Range(8, 4_000), videos=3, frames=True)
        capability = Capability(Range(1, 100), references=takes)
        return [ModelSpec("picture", "p", Kind.IMAGE, capability, PerImage({"": 100}))]

    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        if generation.prompt == "refuse":
            raise interface.InvalidRequest("never")
        return Prepared(generation, spec, {}, tuple(references))

    async def upload(
        self, context: Context, account: AccountAccess, spec: ModelSpec, file: ReferenceFile
    ) -> RemoteFile:
        self.uploads[account.account_id, file.sha256] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.upload_s)
        finally:
            self.at_once -= 1
        self.while_uploading()
        if self.upload_error is not None:
            raise self.upload_error
        turn = self.uploads[account.account_id, file.sha256]
        location = f"{account.account_id}/{file.sha256}/{file.role.medium}/{turn}"
        return RemoteFile(location, self.expires_at_ms, {"turn": str(turn)})

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        self.submitted.append(prepared)
        if self.submit_error is not None:
            raise self.submit_error
        return Submission(TaskRef(f"task of {reference}", 1))

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        return Snapshot(TaskState.RUNNING)

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        return AccountStatus(ok=True)

    def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise NotImplementedError


class MovedClock(SystemClock):
    """The system's, moved by hand."""

    moved_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.moved_ms


class Pool:
    """The submitting parts of one replica."""

    def __init__(self, database: Database, adapter: UploadingAdapter, clock: MovedClock) -> None:
        self.adapter, self.clock, self.database = adapter, clock, database
        self.gone: set[str] = set()
        self.catalog = Catalog([adapter])
        capacity = Capacity(database, self.catalog, clock)
        self.accounts = Accounts(database, KeyRing({"k": b"k" * 32}), self.catalog, clock, capacity)
        self.attempts = AttemptLog(database, clock, capacity)
        self.leasing = Leasing(database, self.catalog, Policy.SPREAD, clock, capacity)
        self.uploads = Uploads(database, self.accounts, self.catalog, clock)
        self.submissions = Submissions(
            self.attempts, self.accounts, self.catalog, self.files, clock, uploads=self.uploads
        )

    async def files(self, job_id: str, generation: Generation) -> Sequence[ReferenceFile | None]:
        return [None if one.reference_id in self.gone else file_of(one) for one in generation.references]

    async def account(self, label: str = "one") -> str:
        terms = Terms(concurrency_limit=100, balance_millis=1_000_000, serves_live=True)
        return (await self.accounts.create("toy", label, {}, terms)).account.account_id

    async def lease(
        self, attempt_id: str, generation: Generation, avoid: frozenset[str] = frozenset()
    ) -> None:
        job_id = attempt_id.partition(":")[0]
        await self.leasing.lease(
            attempt_id, job_id, Mode.LIVE, generation, ttl_ms=3_600_000, behind_others=False, avoid=avoid
        )

    async def submit(
        self, attempt_id: str, generation: Generation, avoid: frozenset[str] = frozenset()
    ) -> Attempt:
        await self.lease(attempt_id, generation, avoid)
        return await self.submissions.submit(attempt_id, attempt_id.partition(":")[0], generation)

    def locations(self) -> list[str]:
        """What the last submission said of its references."""
        return [file.location for file in self.adapter.submitted[-1].uploads]

    async def causes(self) -> set[str]:
        accounts = (await self.accounts.load()).values()
        return {breaker.cause for account in accounts for breaker in account.breakers.values()}

    async def close(self) -> None:
        for part in (self.submissions, self.uploads, self.leasing, self.attempts):
            await part.close()
