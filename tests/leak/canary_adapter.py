"""A provider that is the sandbox under canary names: every id, message and file of it would betray it."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import ClassVar

from services.provider_pool.adapters.interface import (
    AccountAccess,
    Cancellation,
    Context,
    ModelSpec,
    OutputRef,
    Prepared,
    ProviderError,
    Snapshot,
    Submission,
    TaskRef,
)
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from tests.leak.canaries import CANARY, MESSAGE, PROVIDER, TASK_PREFIX, UPSTREAM_MODEL


class CanaryAdapter(SandboxAdapter):
    """The sandbox, whose words all hold the canary."""

    name: ClassVar[str] = PROVIDER

    def models(self) -> Sequence[ModelSpec]:
        return [replace(spec, upstream=f"{UPSTREAM_MODEL}-{spec.model}") for spec in super().models()]

    def complaint(self, options: Mapping[str, str], secrets: Mapping[str, object]) -> str | None:
        return None

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        try:
            made = await super().submit(context, account, prepared, reference)
        except ProviderError as error:
            raise _betraying(error) from error
        return replace(made, task=_outside(made.task))

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        return _told(await super().poll(context, account, _inside(task)))

    async def poll_many(
        self, context: Context, account: AccountAccess, tasks: Sequence[TaskRef]
    ) -> Mapping[str, Snapshot]:
        found = await super().poll_many(context, account, [_inside(task) for task in tasks])
        return {TASK_PREFIX + task_id: _told(snapshot) for task_id, snapshot in found.items()}

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        found = await super().list_tasks(context, account, prepared, since_ms, reference)
        return [_outside(task) for task in found]

    @asynccontextmanager
    async def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with super().open_output(context, account, _inside(task), output) as chunks:
            content = b"".join([chunk async for chunk in chunks])
        yield _chunks(marked(content))

    async def cancel(self, context: Context, account: AccountAccess, task: TaskRef) -> Cancellation:
        return await super().cancel(context, account, _inside(task))

    async def forget(self, context: Context, account: AccountAccess, task: TaskRef) -> None:
        await super().forget(context, account, _inside(task))


def marked(content: bytes) -> bytes:
    """The file as a provider might hand it out: with its name in the metadata."""
    note = f"made by {CANARY}, task {TASK_PREFIX}1".encode()
    if content.startswith(b"\x89PNG"):
        chunk = b"tEXtSoftware\0" + note
        return (
            content[:33] + (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4) + content[33:]
        )
    if content.startswith(b"\xff\xd8"):
        return content[:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2) + note + content[2:]
    if content[4:8] == b"ftyp":
        return content + (len(note) + 8).to_bytes(4) + b"udta" + note
    if content.startswith(b"RIFF"):
        chunk = b"LIST" + (len(note) + len(note) % 2).to_bytes(4, "little") + note + b"\0" * (len(note) % 2)
        return b"RIFF" + (len(content) - 8 + len(chunk)).to_bytes(4, "little") + content[8:] + chunk
    if content.startswith((b"\xff\xfb", b"\xff\xf3", b"ID3")):
        return b"ID3\4\0\0" + bytes([0, 0, 0, len(note)]) + note + content
    return content


def _inside(task: TaskRef) -> TaskRef:
    return replace(task, task_id=task.task_id.removeprefix(TASK_PREFIX))


def _outside(task: TaskRef) -> TaskRef:
    return replace(task, task_id=TASK_PREFIX + task.task_id)


def _told(snapshot: Snapshot) -> Snapshot:
    return snapshot if snapshot.error is None else replace(snapshot, error=_betraying(snapshot.error))


def _betraying(error: ProviderError) -> ProviderError:
    return type(error)(f"{MESSAGE} ({error})", retry_after_s=error.retry_after_s, charged=error.charged)


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content
