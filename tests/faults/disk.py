"""Disks that fill up and are emptied again: a real small one, and one that only some processes meet."""

from __future__ import annotations

import errno
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.faults.armed_process import ArmedProcess

_BLOCK_BYTES = 64 * 1024
# Room for a write-ahead log to grow a little and then no further; the journal of passed points, which has to go on
# growing, is counted on top.
_ROOM_BYTES = 256 * 1024
SMALL_DISK = "size=64m"


class Disk(Protocol):
    """Something that can be full."""

    def fill(self) -> None:
        """Nothing can grow any more."""

    def free(self) -> None:
        """There is room again."""


class Ballast:
    """Takes all the room that the file system of `folder` has left."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ballast"

    def fill(self) -> None:
        with self._file.open("wb", buffering=0) as file:
            octets = _BLOCK_BYTES
            while octets:
                try:
                    file.write(bytes(octets))
                except OSError as full:
                    if full.errno != errno.ENOSPC:
                        raise
                    octets //= 2

    def free(self) -> None:
        self._file.unlink()


class FileLimit:
    """No file of these processes may grow: every write beyond fails with EFBIG, as on a disk without room.

    A limit of the kernel on running processes that needs no privilege, so that this works on every machine.
    """

    def __init__(self, *processes: ArmedProcess) -> None:
        self._processes = processes

    def fill(self) -> None:
        for process in self._processes:
            journal = process.folder / f"{process.name}.points"
            _limit(process.pid, journal.stat().st_size + _ROOM_BYTES)

    def free(self) -> None:
        for process in self._processes:
            _limit(process.pid, resource.RLIM_INFINITY)


def _limit(pid: int, octets: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (octets, hard))


def mount_namespace() -> Sequence[str] | None:
    """What to put before a command so that it may mount a disk that nobody else sees; None where no way is allowed.

    Any user may do so on a Debian that was not told otherwise; in a container often nobody may.
    """
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return None
    for ways in (("--user", "--map-root-user", "--mount"), ("--mount",)):
        command = ("unshare", *ways)
        probe = [*command, "mount", "-t", "tmpfs", "none", "/tmp"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return command
    return None
