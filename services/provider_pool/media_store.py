"""The media store on a folder: `<job_id>/<role>.<extension>`, written whole and durable or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from services.chassis.ids import new_id
from services.provider_pool.disk_trips import DiskTrips
from services.provider_pool.media_probe import Probe, probe, probe_bytes

P = ParamSpec("P")
T = TypeVar("T")

_WRITERS: Final = 16
"""Disk writes at once. Most of a write is waiting for the disk to say that it is durable, and such waits share."""

_HELD_BYTES: Final = 1024**2
"""Bytes gathered before they are written: a film is some trips to a thread."""

_SMALL_BYTES: Final = 256 * 1024
"""What is no larger stays in memory until it gets its key: then it is one trip, which it shares."""

_PUBLISHERS: Final = 2
"""Trips at once that publish. While one waits for the disk, the next can write."""

# Not a job's name, because those have no dot: what is being written, and what a crash left half written.
_INCOMING: Final = ".incoming"
_STALE_S: Final = 86_400.0


class TooLarge(Exception):
    """More bytes came than an object may have."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Bytes that have arrived, with what they are; not yet in the store. Give it to `publish` or `discard`.

    `content` is None where they are at `path` already.
    """

    path: Path
    probe: Probe
    size_bytes: int
    sha256: str
    content: bytes | None = field(default=None, repr=False)


class MediaStore:
    """Objects in a folder. Readers may open `folder / key` at any time: what they see there is whole."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._disk = ThreadPoolExecutor(_WRITERS, thread_name_prefix="media")
        self._publishing: DiskTrips[tuple[Staged, Path], None] = DiskTrips(
            _publish, executor=self._disk, at_once=_PUBLISHERS
        )

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Take in a stream. Raises TooLarge and media_probe.UnknownMedia, and whatever the stream raises; nothing is left then."""
        path = self._folder / _INCOMING / new_id("part")
        digest, size_bytes, held = hashlib.sha256(), 0, bytearray()
        written = False
        try:
            async for chunk in chunks:
                size_bytes += len(chunk)
                if size_bytes > self._limit_bytes:
                    raise TooLarge(f"more than {self._limit_bytes} bytes")
                digest.update(chunk)
                held += chunk
                if len(held) >= _HELD_BYTES:
                    written = True
                    await self._run(_append, path, bytes(held))
                    held.clear()
            if size_bytes <= _SMALL_BYTES:
                content = bytes(held)
                return Staged(path, probe_bytes(content), size_bytes, digest.hexdigest(), content)
            written = True
            return Staged(path, await self._run(_complete, path, bytes(held)), size_bytes, digest.hexdigest())
        except BaseException:
            if written:
                await self._run(_unlink, path)
            raise

    async def publish(self, staged: Staged, key: str) -> None:
        """Give staged bytes their key. Harmless when the same bytes are there already.

        Other bytes under the key can only be from a collection that was never answered; they are replaced.
        """
        await self._publishing.run((staged, self._folder / key))

    async def discard(self, staged: Staged) -> None:
        """Let go of staged bytes."""
        if staged.content is None:
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


def _publish(batch: Sequence[tuple[Staged, Path]]) -> list[Exception | None]:
    """The bytes of all, then their names, then the folders: what the disk is asked to sync together, it syncs once."""
    failed: dict[int, Exception] = {}
    for step in (_write_part, _sync_part, _give_name, _sync_place):
        for turn, (staged, target) in enumerate(batch):
            if turn not in failed:
                try:
                    step(staged, target)
                except OSError as error:
                    failed[turn] = error
    for folder in {target.parent.parent for _, target in batch}:
        _sync_folder(folder)
    for turn in failed:
        _unlink(batch[turn][0].path)
    return [failed.get(turn) for turn in range(len(batch))]


def _write_part(staged: Staged, target: Path) -> None:
    if staged.content is None:
        return
    try:
        descriptor = os.open(staged.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileNotFoundError:
        staged.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(staged.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    # Buffered: a bare write may take a part of the bytes, and say nothing, where the disk is nearly full.
    with os.fdopen(descriptor, "wb") as file:
        file.write(staged.content)


def _sync_part(staged: Staged, target: Path) -> None:
    if staged.content is not None:
        _sync(staged.path, os.O_RDWR)


def _give_name(staged: Staged, target: Path) -> None:
    try:
        os.mkdir(target.parent)  # noqa: PTH102 - a fifth of pathlib's time
    except FileExistsError:
        if not target.parent.is_dir():
            raise
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(staged.path, target)  # noqa: PTH105


def _sync_place(staged: Staged, target: Path) -> None:
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    _sync(folder, os.O_RDONLY)


def _sync(path: Path, how: int) -> None:
    descriptor = os.open(path, how)
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
