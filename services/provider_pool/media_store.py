"""The media store on a folder: `<job_id>/<role>.<extension>`, written whole and durable or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from services.chassis.ids import new_id
from services.provider_pool.media_probe import Probe, probe

P = ParamSpec("P")
T = TypeVar("T")

_WRITERS: Final = 16
"""Disk writes at once. Most of a write is waiting for the disk to say that it is durable, and such waits share."""

_HELD_BYTES: Final = 1024**2
"""Bytes gathered before they are written: a picture is one trip to a thread, a film some."""

# Not a job's name, because those have no dot: what is being written, and what a crash left half written.
_INCOMING: Final = ".incoming"
_STALE_S: Final = 86_400.0


class TooLarge(Exception):
    """More bytes came than an object may have."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Bytes that have arrived, with what they are; not yet in the store. Give it to `publish` or `discard`."""

    path: Path
    probe: Probe
    size_bytes: int
    sha256: str


class MediaStore:
    """Objects in a folder. Readers may open `folder / key` at any time: what they see there is whole."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._disk = ThreadPoolExecutor(_WRITERS, thread_name_prefix="media")

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Take in a stream. Raises TooLarge and media_probe.UnknownMedia, and whatever the stream raises; nothing is left then."""
        path = self._folder / _INCOMING / new_id("part")
        digest, size_bytes, held = hashlib.sha256(), 0, bytearray()
        try:
            async for chunk in chunks:
                size_bytes += len(chunk)
                if size_bytes > self._limit_bytes:
                    raise TooLarge(f"more than {self._limit_bytes} bytes")
                digest.update(chunk)
                held += chunk
                if len(held) >= _HELD_BYTES:
                    await self._run(_append, path, bytes(held))
                    held.clear()
            return Staged(path, await self._run(_complete, path, bytes(held)), size_bytes, digest.hexdigest())
        except BaseException:
            await self._run(_unlink, path)
            raise

    async def publish(self, staged: Staged, key: str) -> None:
        """Give staged bytes their key. Harmless when the same bytes are there already.

        Other bytes under the key can only be from a collection that was never answered; they are replaced.
        """
        await self._run(_publish, staged, self._folder / key)

    async def discard(self, staged: Staged) -> None:
        """Let go of staged bytes."""
        await self._run(_unlink, staged.path)

    async def sweep(self, retention_s: float) -> int:
        """Remove jobs' folders that are older than `retention_s`; how many."""
        return await self._run(_sweep, self._folder, retention_s)

    async def check(self) -> None:
        """Raises OSError if the folder cannot be written."""
        await self._run(_check_writable, self._folder)

    def close(self) -> None:
        """Let go of the threads."""
        self._disk.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        call = functools.partial(work, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)


def _append(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(content)


def _complete(path: Path, rest: bytes) -> Probe:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(rest)
        file.flush()
        os.fsync(file.fileno())
    return probe(path)


def _publish(staged: Staged, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(staged.path, target)
    except FileExistsError:
        if _sha256(target) != staged.sha256:
            staged.path.replace(target)
    _unlink(staged.path)
    _sync_folder(target.parent)
    _sync_folder(target.parent.parent)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _sweep(folder: Path, retention_s: float) -> int:
    now_s, removed = time.time(), 0
    for entry in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if (
                not entry.name.startswith(".")
                and entry.is_dir()
                and entry.stat().st_mtime < now_s - retention_s
            ):
                shutil.rmtree(entry, ignore_errors=True)
                removed += 1
    for part in (folder / _INCOMING).glob("part_*"):
        with contextlib.suppress(FileNotFoundError):
            if part.stat().st_mtime < now_s - _STALE_S:
                part.unlink()
    return removed


def _check_writable(folder: Path) -> None:
    path = folder / _INCOMING / new_id("check")
    _append(path, b"")
    _unlink(path)
