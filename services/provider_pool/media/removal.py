"""What leaves the media store: objects that somebody deletes, and those that are kept no longer."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from services.provider_pool.media.disk_folders import Folders
from services.provider_pool.media.object_keys import SHELVES, day_of

INCOMING: Final = ".incoming"
"""The folder of what is being written, and of what a crash left half written. No job's name: those have no dot."""

_STALE_S: Final = 86_400.0


def delete(folder: Path, keys: Sequence[str]) -> int:
    """Remove objects for good; how many were there. The keys must be the store's own."""
    removed = []
    for key in keys:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (folder / key).unlink()
            removed.append(folder / key)
    failed = Folders(folder).sync({path.parent for path in removed})
    for path in removed:
        # A job's own folder, of the first release, is of no use without a file.
        if path.parent.parent == folder:
            with contextlib.suppress(OSError):
                path.parent.rmdir()
    if failed:
        raise next(iter(failed.values()))
    return len(removed)


def sweep(folder: Path, retention_s: float) -> int:
    """Remove objects and jobs' folders that are older than `retention_s`, and what was never finished; how many."""
    before_s, removed = time.time() - retention_s, 0
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name in SHELVES:
            removed += _sweep_shelf(entry, before_s)
        elif not entry.name.startswith("."):
            removed += _sweep_job(entry, before_s)
    for part in (folder / INCOMING).glob("part_*"):
        _remove_older(part, time.time() - _STALE_S)
    return removed


def _sweep_job(entry: Path, before_s: float) -> int:
    with contextlib.suppress(FileNotFoundError):
        if entry.is_dir() and entry.stat().st_mtime < before_s:
            shutil.rmtree(entry, ignore_errors=True)
            return 1
    return 0


def _sweep_shelf(shelf: Path, before_s: float) -> int:
    last = datetime.fromtimestamp(before_s, UTC).date()
    removed = 0
    for day, folder in _days(shelf):
        # An object is never older than the day it lies under, so that most days need not be opened.
        if day <= last:
            removed += sum(_remove_older(path, before_s) for path in folder.iterdir())
            for empty in (folder, folder.parent, folder.parent.parent):
                with contextlib.suppress(OSError):
                    empty.rmdir()
    return removed


def _days(shelf: Path) -> Iterator[tuple[date, Path]]:
    for folder in sorted(shelf.glob("*/*/*")):
        day = day_of(*folder.relative_to(shelf).parts)
        if day is not None and folder.is_dir():
            yield day, folder


def _remove_older(path: Path, before_s: float) -> bool:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        if path.stat().st_mtime < before_s:
            path.unlink()
            return True
    return False
