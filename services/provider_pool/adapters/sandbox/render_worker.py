"""The process that draws: reads render orders as JSON lines on stdin, answers each with one JSON line on stdout.

Started by the render farm as `python -m services.provider_pool.adapters.sandbox.render_worker FOLDER`. It alone imports
numpy, Pillow and PyAV. It runs at the lowest priority, within limits of memory and time, and ends with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO, Final

from services.provider_pool.adapters.sandbox.render_order import (
    ReferenceUnusable,
    RenderOrder,
    RenderReference,
)

# The largest scene needs a few hundred megabytes of address space; more is a fault, and must not take the machine.
MEMORY_MAX_BYTES: Final = 2 * 1024**3
# Processor seconds for one order: many times what the longest film needs on a slow machine.
ORDER_CPU_MAX_S: Final = 300
NICENESS: Final = 15
EXTRA_MISSING: Final = "the sandbox extra is not installed"
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


def partial_path(folder: Path, name: str, pid: int) -> Path:
    """Where worker `pid` writes a file until it is whole."""
    return folder / f".{name}.{pid}.part"


def render(order: RenderOrder, folder: Path) -> list[dict[str, Any]]:
    """Draw an order into `folder`; the files appear whole or not at all."""
    names = {
        "image": [f"{order.order_id}.png"],
        "video": [f"{order.order_id}.mp4", f"{order.order_id}.poster.png"],
    }
    parts = {name: partial_path(folder, name, os.getpid()) for name in names[order.kind]}
    try:
        _draw(order, list(parts.values()))
        for name, part in parts.items():
            part.replace(folder / name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return [_described(order, role, name) for role, name in zip(("primary", "preview"), parts, strict=False)]


def _draw(order: RenderOrder, paths: list[Path]) -> None:
    # Imported with the first order only: a worker of pictures never loads the film libraries.
    if order.kind == "image":
        from services.provider_pool.adapters.sandbox.picture import write_picture

        write_picture(order, paths[0])
    else:
        from services.provider_pool.adapters.sandbox.film import write_film

        write_film(order, paths[0], paths[1])


def _described(order: RenderOrder, role: str, name: str) -> dict[str, Any]:
    film = name.endswith(".mp4")
    return {
        "role": role,
        "name": name,
        "content_type": "video/mp4" if film else "image/png",
        "width": order.width,
        "height": order.height,
        "duration_s": float(order.duration_s) if film else None,
    }


def read_order(line: bytes) -> RenderOrder:
    """The order that a line stands for."""
    told = json.loads(line)
    references = tuple(RenderReference(**reference) for reference in told.pop("references", ()))
    return RenderOrder(**told, references=references)


def answer(line: bytes, folder: Path) -> dict[str, Any]:
    """The answer to one line; every failure is an answer too, with its kind named as in gRPC."""
    try:
        order = read_order(line)
        complaint = order.complaint()
        if complaint is not None:
            return _failure("INVALID_ARGUMENT", complaint)
        return {"files": render(order, folder)}
    except ImportError as error:
        missing = (error.name or "").partition(".")[0] in ("numpy", "PIL", "av")
        if missing:
            return _failure("FAILED_PRECONDITION", EXTRA_MISSING)
        return _failure("INTERNAL", "import failed")
    except ReferenceUnusable as error:
        return _failure("FAILED_PRECONDITION", str(error))
    except Exception:
        return _failure("INTERNAL", "drawing failed")


def _failure(kind: str, message: str) -> dict[str, Any]:
    # Only where it happened, never the values: a prompt must not reach a log.
    frames = traceback.extract_tb(sys.exc_info()[2])
    place = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))
    error = sys.exc_info()[0]
    return {
        "error": {"kind": kind, "message": message, "detail": f"{error.__name__ if error else ''} at {place}"}
    }


def serve(orders: BinaryIO, answers: BinaryIO, folder: Path) -> None:
    """Answer orders until their stream ends."""
    for line in iter(orders.readline, b""):
        allow_processor_time()
        answers.write(json.dumps(answer(line, folder)).encode() + b"\n")
        answers.flush()


def main() -> None:
    """Set priority and limits, then serve stdin."""
    die_with_parent()
    lower_priority()
    limit_memory()
    # A terminal's Ctrl-C reaches the whole group; the farm decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
