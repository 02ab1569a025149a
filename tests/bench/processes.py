"""What processes cost, read from /proc: CPU seconds and memory, of one, of a tree, of the whole machine."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
CORES: Final = os.cpu_count() or 1
# Of a line of /proc/stat: user, nice, system, irq, softirq, and what a virtual machine's host gave to others while
# somebody here had work. Waiting for a disk and being idle are no work.
_BUSY: Final = (1, 2, 3, 6, 7, 8)


def cpu_s(pid: int) -> float:
    """User and system seconds of a process with its threads; 0 when it is gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def context_switches(pid: int) -> int:
    """Voluntary and not, of all threads of a process; 0 when it is gone."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    total += int(line.split()[1])
    except OSError:
        return total
    return total


def tree(root: int) -> list[int]:
    """A process and all that come from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def tree_cpu_s(root: int) -> float:
    """CPU seconds of a process, of all that come from it, and of those of them that have ended."""
    total = 0
    for pid in tree(root):
        fields = _stat(pid)
        total += sum(int(fields[place]) for place in (11, 12, 13, 14)) if fields else 0
    return total / _TICKS


def machine_cpu_s() -> float:
    """Seconds that all cores together have worked since the machine started, or were wanted for work and not given."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(fields[place]) for place in _BUSY) / _TICKS


def pss_bytes(pid: int) -> int:
    """Memory of a process, with its share of what it has in common with others; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def tree_pss_bytes(root: int) -> int:
    return sum(pss_bytes(pid) for pid in tree(root))


class Foreign:
    """How much of the machine others use: its work minus that of this process and of all it has started."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._machine_s = machine_cpu_s()
        self._own_s = tree_cpu_s(os.getpid())

    def share(self) -> float:
        """Since this was made, as a share of all cores: 0 is a machine of one's own."""
        passed_s = max(time.monotonic() - self._began_s, 1e-3)
        machine_s = machine_cpu_s() - self._machine_s
        own_s = tree_cpu_s(os.getpid()) - self._own_s
        return min(1.0, max(0.0, machine_s - own_s) / (passed_s * CORES))


def sync_ms(folder: Path, times: int = 200) -> float:
    """The median of a 4 KiB append and its fdatasync in `folder`: what a commit cannot be faster than."""
    path = folder / "sync-probe"
    spent = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            began_s = time.perf_counter()
            file.write(b"\0" * 4096)
            os.fdatasync(file.fileno())
            spent.append(1_000 * (time.perf_counter() - began_s))
    path.unlink()
    return statistics.median(spent)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name (which may hold spaces); empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
