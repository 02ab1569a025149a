from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINES = {"x86_64", "aarch64"}

# Each is done by a process of its own in the jail, with the modules below at hand and `file` open for writing.
DEEDS = {
    "nothing": "pass",
    "open a file": "os.open('/etc/passwd', os.O_RDONLY)",
    "make a file": "os.open('/tmp/atelier-escaped', os.O_WRONLY | os.O_CREAT)",
    "read a folder": "os.listdir('/')",
    "look at a file": "os.stat('/etc/passwd')",
    "remove a file": "os.unlink('/tmp/atelier-escaped')",
    "open a socket": "socket.socket()",
    "open a Unix socket": "socket.socket(socket.AF_UNIX)",
    "open a pair of sockets": "socket.socketpair()",
    "fork": "os.fork()",
    "start a thread": "_thread.start_new_thread(print, ())",
    "run a program": "os.execv('/bin/true', ['true'])",
    "run an open program": "os.execve(program, ['true'], {})",
    "signal its parent": "os.kill(parent, 0)",
    "signal itself": "os.kill(os.getpid(), signal.SIGTERM)",
    "trace its parent": "call('ptrace', 16, parent, 0, 0)",
    "read its parent's memory": "call('process_vm_readv', parent, 0, 0, 0, 0, 0)",
    "map new code": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "make code of memory": "call('mprotect', page, 4096, 5)",
    "copy a descriptor": "os.dup(1)",
    "raise its limits": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "take another user": "os.setuid(0)",
    "change a setting of its own": "call('prctl', 4, 1, 0, 0, 0)",
    "use a new kernel's door": "call('syscall', 425, 1, 0)",
    "take much memory": "bytearray(2 * 1024**3)",
    "write more than it may": "[os.write(file, bytes(600)) for _ in range(3)]",
    "write what it may": "os.write(file, bytes(1000))",
    "take much memory in pieces": "[mmap.mmap(-1, 16 * 1024**2) for _ in range(100)]",
    "never end": "exec('while True: pass')",
    "take in what is there": "bytearray(64 * 1024**2); os.write(file, zlib.compress(bytes(10)))",
}
_SCRIPT = """
import _thread, ctypes, errno, json, mmap, os, resource, signal, socket, sys, tempfile, zlib
from services.provider_pool.references import jail

deeds, filtered = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
calls = {name: libc[name] for name in ("ptrace", "process_vm_readv", "mprotect", "prctl", "syscall")}
page = ctypes.addressof(ctypes.c_char.from_buffer(mmap.mmap(-1, 4096)))
program = os.open("/bin/true", os.O_RDONLY)
file = os.open(sys.argv[1], os.O_WRONLY)
jail.CPU_S = 1
if not filtered:
    jail._filters_calls = lambda: False

def call(name, *values):
    if calls[name](*map(ctypes.c_long, values)) < 0:
        raise OSError(ctypes.get_errno(), name)

def live(deed, tell, parent):
    try:
        jail.enter(file_bytes=1000, parent_pid=parent)
        exec(deed, globals() | {"parent": parent})
        said = "done"
    except OSError as error:
        said = errno.errorcode[error.errno]
    except (MemoryError, RuntimeError, ValueError) as error:
        said = type(error).__name__
    os.write(tell, said.encode())
    os._exit(0)

def outcome(deed):
    told, tell = os.pipe()
    os.ftruncate(file, 0)
    os.lseek(file, 0, 0)
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        live(deed, tell, parent)
    os.close(tell)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = os.read(told, 100).decode()
    os.close(told)
    return said or code

missing = jail.settle()
identity = [os.getuid(), os.getgid(), os.getgroups()]
print(json.dumps([missing, identity, {name: outcome(deed) for name, deed in deeds.items()}]))
"""


def done(folder: Path, *, filtered: bool, deeds: dict[str, str] = DEEDS) -> Any:
    """What a jailed process could do, and what the one that settled had become."""
    (folder / "file").touch()
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder / "file")],
        cwd=ROOT,
        input=json.dumps([deeds, filtered]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = done(tmp_path_factory.mktemp("jail"), filtered=True)[2]
    return found


@pytest.fixture(scope="module")
def unfiltered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = done(tmp_path_factory.mktemp("jail"), filtered=False)[2]
    return found


FREE = {"nothing": "done", "write what it may": "done", "take in what is there": "done"}
BOUNDED = {
    "take much memory": "MemoryError",
    "take much memory in pieces": "ENOMEM",
    "write more than it may": "EFBIG",
}
OTHERWISE = {"never end", "start a thread", "raise its limits"}
FORBIDDEN = sorted(DEEDS.keys() - FREE.keys() - BOUNDED.keys() - OTHERWISE)


@pytest.mark.parametrize("deed", FREE)
def test_in_the_jail_a_decoder_can(deed: str, outcomes: dict[str, Any]) -> None:
    assert outcomes[deed] == FREE[deed]


@pytest.mark.parametrize("deed", BOUNDED)
def test_the_jail_bounds(deed: str, outcomes: dict[str, Any]) -> None:
    assert outcomes[deed] == BOUNDED[deed]


def test_the_jail_ends_who_never_ends(outcomes: dict[str, Any]) -> None:
    assert outcomes["never end"] in {-signal.SIGKILL, -signal.SIGXCPU}


@pytest.mark.parametrize("deed", FORBIDDEN)
def test_in_the_jail_nobody_can(deed: str, outcomes: dict[str, Any]) -> None:
    assert outcomes[deed] == "EPERM"


def test_in_the_jail_there_are_no_threads_and_no_higher_limits(outcomes: dict[str, Any]) -> None:
    assert outcomes["start a thread"] == "RuntimeError"
    assert outcomes["raise its limits"] in {"ValueError", "EPERM"}


@pytest.mark.parametrize(
    ("deed", "outcome"),
    {
        "open a file": "EMFILE",
        "make a file": "EMFILE",
        "read a folder": "EMFILE",
        "open a socket": "EMFILE",
        "open a pair of sockets": "EMFILE",
        "copy a descriptor": "EINVAL",
        "fork": "EAGAIN",
        **BOUNDED,
    }.items(),
)
def test_where_system_calls_are_not_filtered_the_limits_still_hold(
    deed: str, outcome: str, unfiltered: dict[str, Any]
) -> None:
    assert unfiltered[deed] == outcome


def test_a_process_that_has_settled_owns_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    missing, identity, _ = done(tmp_path, filtered=True, deeds={})
    expected = [65_534, 65_534, []] if os.geteuid() == 0 else [os.getuid(), os.getgid(), os.getgroups()]
    assert (missing, identity) == ([], expected)
    assert platform.machine() in MACHINES


def test_a_system_without_filters_is_told_apart(tmp_path: Path) -> None:
    assert done(tmp_path, filtered=False, deeds={})[0] == ["system_calls"]


def test_a_call_in_the_numbers_of_another_machine_kills(tmp_path: Path) -> None:
    # getpid as a 32-bit program asks for it; where this machine has no such way in, the instruction itself is fatal.
    asks = {"x86_64": b"\xb8\x14\0\0\0\xcd\x80\xc3", "aarch64": b"\0\0\0\0"}[platform.machine()]
    script = f"""
import ctypes, mmap, os
from services.provider_pool.references import jail
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write({asks!r})
ask = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
jail.settle()
parent = os.getpid()
if os.fork() == 0:
    jail.enter(file_bytes=0, parent_pid=parent)
    ask()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert int(result.stdout) in {-signal.SIGSYS, -signal.SIGSEGV, -signal.SIGILL}


def test_nobody_enters_whose_parent_is_gone() -> None:
    script = """
import os
from services.provider_pool.references import jail
try:
    jail.enter(file_bytes=0, parent_pid=os.getppid() + 1)
except ProcessLookupError:
    os._exit(3)
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False)
    assert result.returncode == 3
