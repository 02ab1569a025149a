"""The jail of a process that decodes what a customer sent: limits, an unprivileged user, and next to no system calls.

`settle` is called once, by the process that is forked from and that never sees an image; `enter` by each fork, which sees
one image and ends. What `enter` takes away is gone for good: the kernel gives none of it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from functools import cache
from pathlib import Path
from typing import Final

MEMORY_BYTES: Final = 1024**3
"""Of address space. The hungriest that the limits let through, a WebP of 50 megapixels with alpha, was measured at 850 MiB."""

CPU_S: Final = 5
"""Processor time for one image. The deadline is shorter; this holds even if nobody is left to enforce that."""

NOBODY: Final = 65_534
"""The user and group that own nothing on any system that we know."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2

# What a decoder needs that has its input and its memory: on x86-64 and on 64-bit ARM.
# Whatever is not named here fails with EPERM: files, sockets, processes, programs, signals, everything that is yet to come.
_CALLS: Final = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "getpid": (39, 172),
    # Pillow asks, and uses the answer for nothing.
    "getcwd": (79, 17),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
}
# These are how memory becomes executable, and allowed for every other use.
_MEMORY_CALLS: Final = {"mmap": (9, 222), "mprotect": (10, 226)}
# The machine as the kernel's audit names it, and the column above.
_MACHINES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# Classic BPF: load a word of the call's description, compare, answer.
_LOAD, _EQUAL, _ANY_BIT, _ANSWER = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _PROTECTION_AT = 0, 4, 32
_PROT_EXEC: Final = 4
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_KILL: Final = 0x80000000

# Loaded now: a process in the jail cannot load anything any more.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]  # as ctypes wants it


def settle() -> tuple[str, ...]:
    """Give up what every fork can do without. The walls that this system does not have: "user", "system_calls".

    Raises OSError where a wall should stand and does not.
    """
    missing = []
    os.chdir("/")
    # Whoever takes the machine's last memory, this is who ends, and not a service.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0 and not _become_nobody():
        missing.append("user")
    if sys.platform == "linux":
        # After the change of user, which undoes both.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(_PR_SET_DUMPABLE, 0)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # Both are remembered, and forks need not find out for themselves.
    if not _filters_calls() or not _filter():
        missing.append("system_calls")
    return tuple(missing)


def enter(*, file_bytes: int, parent_pid: int) -> None:
    """Shut this process, a fork of one that has settled, in. It can write files it has open, up to `file_bytes`, and open none.

    Raises OSError where a wall should stand and does not, and ProcessLookupError if the parent is gone already.
    """
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_FSIZE: file_bytes,
        # No number is left for a new file or socket; those that are open stay.
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for what, most in limits.items():
        _, hard = resource.getrlimit(what)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Had it ended before that call, nobody would ever tell.
        if os.getppid() != parent_pid:
            raise ProcessLookupError
    if _filters_calls():
        program = _filter()
        filled = _Program(len(program) // 8, program)
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filled))


def _become_nobody() -> bool:
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:
        # A container whose root may not, or that has no such user.
        return False
    return True


def _prctl(option: int, *values: int) -> None:
    words = (ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4])
    if _LIBC.prctl(option, *words) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


@cache
def _filters_calls() -> bool:
    """Whether the kernel takes filters, and we have one for this machine."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES or sys.maxsize < 2**32:
        return False
    # A filter at no address: a kernel that has filters complains of the address, any other of the option.
    none = (ctypes.c_ulong(word) for word in (_SECCOMP_MODE_FILTER, 0, 0, 0))
    return _LIBC.prctl(_PR_SET_SECCOMP, *none) != 0 and ctypes.get_errno() == errno.EFAULT


@cache
def _filter() -> bytes:
    machine, column = _MACHINES[platform.machine()]
    free = [numbers[column] for numbers in _CALLS.values()]
    memory = [numbers[column] for numbers in _MEMORY_CALLS.values()]
    # Jumps count the instructions that are skipped. The last four answer: refuse, look at the protection, refuse, allow.
    steps = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, machine),
        (_ANSWER, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    left = len(memory) + len(free)
    for number in memory:
        left -= 1
        steps.append((_EQUAL, left + 1, 0, number))
    for number in free:
        left -= 1
        steps.append((_EQUAL, left + 4, 0, number))
    steps += [
        (_ANSWER, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _PROTECTION_AT),
        (_ANY_BIT, 0, 1, _PROT_EXEC),
        (_ANSWER, 0, 0, _REFUSE),
        (_ANSWER, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
