"""Results that came in the answer to a submission, in files that outlive the process and are shared by replicas.

An attempt has a folder, named by a hash of its id. Its files are found once they are sealed: all of them, or none.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final, ParamSpec, TypeVar

from services.chassis import crash_points
from services.chassis.ids import new_id
from services.provider_pool.adapters.provider_errors import OutputUnavailable

P = ParamSpec("P")
T = TypeVar("T")

KEPT_S: Final = 86_400.0
"""What nobody collected in a day belongs to no job any more."""

SWEEP_S: Final = 3600.0

_WRITERS: Final = 4
_CHUNK_BYTES: Final = 256 * 1024
_SEALED: Final = ".sealed"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}\.[a-z0-9]{1,8}")
_LOCATION: Final = re.compile(rf"([0-9a-f]{{64}})/({_NAME.pattern})")


class ResultFiles:
    """`Results` in `folder`. `limit_bytes` bounds what one attempt may keep."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._disk = ThreadPoolExecutor(_WRITERS, thread_name_prefix="results")

    async def keep(self, reference: str, name: str, content: bytes) -> str:
        """See `Results.keep`. Raises OutputUnavailable beyond the limit, ValueError for a name that is no plain one, and OSError."""
        if not _NAME.fullmatch(name):
            raise ValueError("not a name for a result")
        place = self._place(reference)
        crash_points.reached("results", "keep", "before", subject=reference)
        await self._run(_keep, place, name, content, self._limit_bytes)
        crash_points.reached("results", "keep", "after", subject=reference)
        return f"{place.name}/{name}"

    async def found(self, reference: str) -> Sequence[str]:
        """See `Results.found`."""
        place = self._place(reference)
        return [f"{place.name}/{name}" for name in await self._run(_names, place)]

    async def seal(self, reference: str) -> None:
        """See `Results.seal`."""
        await self._run(_seal, self._place(reference))
        crash_points.reached("results", "seal", "after", subject=reference)

    @asynccontextmanager
    async def open(self, location: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `Results.open`."""
        if not _LOCATION.fullmatch(location):
            raise OutputUnavailable("not a place of a result", charged="yes")
        try:
            file = await self._run((self._folder / location).open, "rb")
        except FileNotFoundError:
            file = None
        if file is None:
            raise OutputUnavailable("the result is not there any more", charged="yes")
        try:
            yield self._chunks(file)
        finally:
            await self._run(file.close)

    async def forget(self, reference: str) -> None:
        """See `Results.forget`."""
        await self._run(_forget, self._folder, self._place(reference))

    async def sweep(self) -> int:
        """Remove what is older than a day; how many attempts' results."""
        return await self._run(_sweep, self._folder, time.time() - KEPT_S)

    async def sweeping(self) -> float:
        """`sweep`, as a round: returns how long to wait, in seconds."""
        await self.sweep()
        return SWEEP_S

    async def check(self) -> None:
        """Raises OSError if the folder cannot be written."""
        await self._run(_check, self._folder)

    def close(self) -> None:
        """Let go of the threads."""
        self._disk.shutdown(wait=False, cancel_futures=True)

    def _place(self, reference: str) -> Path:
        return self._folder / hashlib.sha256(reference.encode()).hexdigest()

    async def _chunks(self, file: IO[bytes]) -> AsyncIterator[bytes]:
        while chunk := await self._run(file.read, _CHUNK_BYTES):
            yield chunk

    async def _run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        call = functools.partial(work, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)


def _keep(place: Path, name: str, content: bytes, limit_bytes: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    _sync(place.parent)
    kept_bytes = sum(path.stat().st_size for path in place.iterdir() if path.name != name)
    if kept_bytes + len(content) > limit_bytes:
        raise OutputUnavailable("the result is larger than allowed", charged="yes")
    part = place / f".{new_id('part')}"
    try:
        _write(part, content)
        part.replace(place / name)
    finally:
        part.unlink(missing_ok=True)
    _sync(place)


def _seal(place: Path) -> None:
    # An attempt whose answer held nothing is sealed, too.
    place.mkdir(parents=True, exist_ok=True)
    _write(place / _SEALED, b"")
    _sync(place)
    _sync(place.parent)


def _names(place: Path) -> list[str]:
    if not (place / _SEALED).exists():
        return []
    return sorted(path.name for path in place.iterdir() if _NAME.fullmatch(path.name))


def _forget(folder: Path, place: Path) -> None:
    # Out of sight in one step: half of it must not be found.
    away = folder / f"{place.name}.{new_id('gone')}"
    with suppress(FileNotFoundError):
        place.rename(away)
        shutil.rmtree(away, ignore_errors=True)


def _sweep(folder: Path, before_s: float) -> int:
    removed = 0
    for place in folder.iterdir() if folder.is_dir() else ():
        # Another replica sweeps the same folder.
        with suppress(FileNotFoundError):
            if place.is_dir() and place.stat().st_mtime < before_s:
                shutil.rmtree(place, ignore_errors=True)
                removed += 1
    return removed


def _check(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{new_id('check')}"
    path.touch()
    path.unlink()


def _write(path: Path, content: bytes) -> None:
    # Results are customers' own.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
