"""Folders whose entries are to outlive a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_REMEMBERED: Final = 1_000
"""Folders that are known to be durable themselves; far more than have something put into them in one day."""


class Folders:
    """Makes folders below `root` durable, and what was put into them; each is synced once a call, however much that is."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._durable: set[Path] = set()

    def make(self, folder: Path) -> None:
        """Make a folder with all above it. It lasts from the next `sync` on."""
        folder.mkdir(parents=True, exist_ok=True)
        self._durable.discard(folder)

    def sync(self, folders: Iterable[Path]) -> dict[Path, OSError]:
        """Make everything in these folders last; by folder, what kept it from that."""
        ways = {folder: self._way(folder) for folder in folders}
        failed: dict[Path, OSError] = {}
        for place in sorted({place for way in ways.values() for place in way}):
            try:
                _sync(place)
            except OSError as error:
                failed[place] = error
        blamed = {folder: _first(failed, way) for folder, way in ways.items()}
        if len(self._durable) > _REMEMBERED:
            self._durable.clear()
        self._durable.update(folder for folder, error in blamed.items() if error is None)
        return {folder: error for folder, error in blamed.items() if error is not None}

    def _way(self, folder: Path) -> list[Path]:
        if folder in self._durable:
            return [folder]
        return [folder, *(parent for parent in folder.parents if parent.is_relative_to(self._root))]


def _first(failed: dict[Path, OSError], way: list[Path]) -> OSError | None:
    return next((failed[place] for place in way if place in failed), None)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
