"""The media store on a folder: objects under the keys of `object_keys`, written whole and durable or not at all."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import mmap
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from services.chassis.ids import new_id
from services.provider_pool.media import removal as media_removal
from services.provider_pool.media.cleaning import Parts, cleaned
from services.provider_pool.media.disk_folders import Folders
from services.provider_pool.media.disk_trips import DiskTrips
from services.provider_pool.media.object_keys import is_ours
from services.provider_pool.media.probe import Probe, probe, probe_bytes
from services.provider_pool.media.removal import INCOMING

P = ParamSpec("P")
T = TypeVar("T")

_WRITERS: Final = 16
"""Disk writes at once. Most of a write is waiting for the disk to say that it is durable, and such waits share."""

_HELD_BYTES: Final = 1024**2
"""Bytes gathered before they are written: a film is some trips to a thread."""

_SMALL_BYTES: Final = 256 * 1024
"""What is no larger stays in memory until it gets its key: then it is one trip, which it shares."""

_TINY_BYTES: Final = 32 * 1024
"""What is no larger is looked at in less time than it takes to wake a thread."""

_PUBLISHERS: Final = 2
"""Trips at once that publish. While one waits for the disk, the next can write."""


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
            functools.partial(_publish, Folders(folder)), executor=self._disk, at_once=_PUBLISHERS
        )

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Take in a stream. Raises TooLarge and media_probe.UnknownMedia, and whatever the stream raises; nothing is left then."""
        path = self._folder / INCOMING / new_id("part")
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
            if size_bytes <= _TINY_BYTES:
                return _small(path, bytes(held), digest.hexdigest())
            if size_bytes <= _SMALL_BYTES:
                return await self._run(_small, path, bytes(held), digest.hexdigest())
            written = True
            return await self._run(_complete, path, bytes(held), size_bytes, digest.hexdigest())
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

    async def read(self, key: str, limit_bytes: int) -> bytes:
        """The first bytes of an object; none if it is not there (any more)."""
        return await self._run(_read, self._folder / key, limit_bytes)

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove objects for good; how many were there. Raises ValueError for a key that is none of this store's."""
        if not all(map(is_ours, keys)):
            raise ValueError("a key that this store has never given")
        return await self._run(media_removal.delete, self._folder, keys)

    async def sweep(self, retention_s: float) -> int:
        """Remove objects that are older than `retention_s`; how many jobs' folders and other objects."""
        return await self._run(media_removal.sweep, self._folder, retention_s)

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


def _small(path: Path, content: bytes, sha256: str) -> Staged:
    found = probe_bytes(content)
    parts = cleaned(content, found.content_type)
    if parts is not None:
        content = b"".join(parts)
        sha256 = hashlib.sha256(content).hexdigest()
    return Staged(path, found, len(content), sha256, content)


def _complete(path: Path, rest: bytes, size_bytes: int, sha256: str) -> Staged:
    _append(path, rest)
    found = probe(path)
    with path.open("rb") as file:
        # Never closed by hand: a failure's traceback holds on to views of it, and it cannot be closed before they are gone.
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    parts = cleaned(content, found.content_type)
    if parts is not None:
        size_bytes, sha256 = _rewritten(path, parts)
    _sync(path)
    return Staged(path, found, size_bytes, sha256)


def _rewritten(path: Path, parts: Parts) -> tuple[int, str]:
    """Puts the parts in the place of the file that they are views of; its new size and hash."""
    digest, size_bytes = hashlib.sha256(), 0
    beside = path.with_name(path.name + ".clean")
    try:
        with beside.open("wb") as file:
            for part in parts:
                digest.update(part)
                size_bytes += file.write(part)
    except OSError:
        _unlink(beside)
        raise
    beside.replace(path)
    return size_bytes, digest.hexdigest()


def _publish(folders: Folders, batch: Sequence[tuple[Staged, Path]]) -> list[Exception | None]:
    """The bytes of all, then their names, then the folders: what the disk is asked to sync together, it syncs once."""
    failed: dict[int, Exception] = {}
    for step in (_write_part, _sync_part, functools.partial(_give_name, folders)):
        for turn, (staged, target) in enumerate(batch):
            if turn not in failed:
                try:
                    step(staged, target)
                except OSError as error:
                    failed[turn] = error
    places = {target.parent for turn, (_, target) in enumerate(batch) if turn not in failed}
    broken = folders.sync(places)
    failed |= {
        turn: broken[target.parent] for turn, (_, target) in enumerate(batch) if target.parent in broken
    }
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
    if staged.content is None:
        return
    _sync(staged.path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give_name(folders: Folders, staged: Staged, target: Path) -> None:
    try:
        os.replace(staged.path, target)  # noqa: PTH105 - a fifth of pathlib's time
    except FileNotFoundError:
        folders.make(target.parent)
        os.replace(staged.path, target)  # noqa: PTH105


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit_bytes)
    except FileNotFoundError:
        return b""


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _check_writable(folder: Path) -> None:
    path = folder / INCOMING / new_id("check")
    _append(path, b"")
    _unlink(path)
