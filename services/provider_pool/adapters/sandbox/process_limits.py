"""What keeps the processes that draw from being a burden: low priority, limits of memory and time, an end with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import sys
from typing import Final

# The largest scene needs a few hundred megabytes of address space; more is a fault, and must not take the machine.
MEMORY_MAX_BYTES: Final = 2 * 1024**3
# Processor seconds for one order: many times what the longest film needs on a slow machine.
ORDER_CPU_MAX_S: Final = 300
NICENESS: Final = 15
_PR_SET_PDEATHSIG: Final = 1
# ioprio_set: who = process, value = class "idle" in the upper bits. The call has no wrapper in the C library.
_IOPRIO_SYSCALL: Final = {"x86_64": 251, "aarch64": 30}
_IOPRIO_IDLE: Final = 3 << 13


def lower_priority() -> None:
    """Give way to every other process in processor and disk; whatever the system refuses is left out."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = _IOPRIO_SYSCALL.get(platform.machine())
    if number is not None and sys.platform == "linux":
        ctypes.CDLL(None).syscall(number, 1, 0, _IOPRIO_IDLE)


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends, even in the middle of a film."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_memory() -> None:
    """Bound the address space, so that a fault ends in an error here and not in a machine without memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = MEMORY_MAX_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_MAX_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_processor_time() -> None:
    """Move the limit of processor time so that the next order has ORDER_CPU_MAX_S."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    bound = int(used.ru_utime + used.ru_stime) + ORDER_CPU_MAX_S
    resource.setrlimit(
        resource.RLIMIT_CPU, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard)
    )
