"""The folder of references: `<name>.<hash>.<extension>`, and `<name>.json`, which comes last and makes the reference exist."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec

from services.chassis import crash_points
from services.chassis.ids import new_id
from services.provider_pool.adapters.interface import ReferenceFile, ReferenceRole, Strength
from services.provider_pool.references.disk_work import to_its_end

P = ParamSpec("P")
T = TypeVar("T")

KEPT_S: Final = 86_400.0
"""No job that is still to be submitted is as old as this: what is older belongs to nobody."""

_GRACE_S: Final = 3_600.0
"""How much longer a file stays than its record, which was written after it."""

_WRITERS: Final = 8
"""Disk work at once. Uploads and fetches are bounded already, and their writes are short."""

# A name becomes a file's name. Neither kind can be taken for the other: an id has no hyphen.
_NAME: Final = re.compile(r"ref_[0-9a-z]{26}|[A-Za-z0-9_-]{1,100}-[0-9]{1,2}")
_EXTENSION: Final = re.compile(r"[a-z0-9]{1,8}")
_INCOMING: Final = ".incoming"
# Enough to tell apart what two replicas fetched for one place at the same moment.
_HASH_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a kept file: all of it is about the rewritten bytes, but for `received_bytes` and `source`.

    `received_bytes` is how many arrived. `source` is a hash of where they came from and under which limits, empty for an upload.
    """

    content_type: str
    extension: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    received_bytes: int
    source: str = ""
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A reference that is there."""

    path: Path
    record: Record

    def file(self, strength: Strength, role: ReferenceRole = ReferenceRole.IMAGE) -> ReferenceFile:
        """As an adapter gets it."""
        found = self.record
        return ReferenceFile(
            self.path,
            found.content_type,
            found.size_bytes,
            found.sha256,
            found.width,
            found.height,
            strength,
            role,
            found.duration_ms,
        )


class ReferenceStore:
    """References in a folder, which replicas share. What can be found is whole and durable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._disk = ThreadPoolExecutor(_WRITERS, thread_name_prefix="references")

    def new_part(self) -> Path:
        """A path for bytes that are not a reference yet; what a crash leaves there is swept."""
        return self._folder / _INCOMING / new_id("part")

    async def discard(self, parts: Iterable[Path]) -> None:
        """Let go of parts, whether they are there or not."""
        await self.run(_discard, tuple(parts))

    async def publish(self, name: str, part: Path, record: Record) -> Kept:
        """Make a part the reference of that name, in the place of one that is there."""
        crash_points.reached("references", "publish", "before", subject=name)
        kept = await self.run(_publish, self._folder, _checked(name), part, record)
        crash_points.reached("references", "publish", "after", subject=name)
        return kept

    async def find(self, name: str) -> Kept | None:
        """The reference of that name, if it is there with its file."""
        return await self.run(_find, self._folder, _checked(name))

    async def drop(self, names: Iterable[str]) -> int:
        """Let go of references, whether they are there or not; how many were."""
        crash_points.reached("references", "drop", "before")
        dropped = await self.run(_drop, self._folder, tuple(map(_checked, names)))
        crash_points.reached("references", "drop", "after")
        return dropped

    async def sweep(self) -> tuple[int, int]:
        """Remove what is older than a day; how many files went, and how many references are there still."""
        return await self.run(_sweep, self._folder, time.time())

    async def check(self) -> None:
        """Raises OSError if the folder cannot be written."""
        part = self.new_part()
        await self.run(_touch, part)
        await self.discard([part])

    def close(self) -> None:
        """Let go of the threads."""
        self._disk.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do disk work in one of the threads; it is done, or was never begun, when this returns or raises."""
        call = functools.partial(work, *arguments, **named)
        return await to_its_end(asyncio.get_running_loop().run_in_executor(self._disk, call))


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("not a reference's name")
    return name


def _touch(part: Path) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()


def _discard(parts: tuple[Path, ...]) -> None:
    for part in parts:
        part.unlink(missing_ok=True)


def _publish(folder: Path, name: str, part: Path, record: Record) -> Kept:
    before = _find(folder, name)
    path = _path(folder, name, record)
    _sync(part)
    part.replace(path)
    draft = folder / _INCOMING / new_id("part")
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / f"{name}.json")
    _sync(folder)
    if before is not None and before.path != path:
        before.path.unlink(missing_ok=True)
    return Kept(path, record)


def _find(folder: Path, name: str) -> Kept | None:
    record = _read(folder, name)
    if record is None:
        return None
    path = _path(folder, name, record)
    try:
        return Kept(path, record) if path.stat().st_size == record.size_bytes else None
    except FileNotFoundError:
        return None


def _read(folder: Path, name: str) -> Record | None:
    try:
        record = msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    # It becomes part of a path.
    return record if _EXTENSION.fullmatch(record.extension) and record.sha256.isalnum() else None


def _path(folder: Path, name: str, record: Record) -> Path:
    return folder / f"{name}.{record.sha256[:_HASH_CHARACTERS]}.{record.extension}"


def _drop(folder: Path, names: tuple[str, ...]) -> int:
    dropped = 0
    for name in names:
        record = _read(folder, name)
        (folder / f"{name}.json").unlink(missing_ok=True)
        if record is not None:
            _path(folder, name, record).unlink(missing_ok=True)
            dropped += 1
    return dropped


def _sweep(folder: Path, now_s: float) -> tuple[int, int]:
    records = set(folder.glob("*.json"))
    removed = _remove_older(records, now_s - KEPT_S)
    removed |= _remove_older(_files(folder) - records, now_s - KEPT_S - _GRACE_S)
    removed |= _remove_older(_files(folder / _INCOMING), now_s - KEPT_S)
    return len(removed), len(records - removed)


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()


def _remove_older(paths: Iterable[Path], before_s: float) -> set[Path]:
    removed = set()
    for path in paths:
        # Another replica sweeps the same folder.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before_s:
                path.unlink()
                removed.add(path)
    return removed


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
