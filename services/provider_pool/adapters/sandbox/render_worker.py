"""The process that draws, speaks, plays and writes: orders as JSON lines on stdin, for each a JSON line on stdout.

Started by the render farm as `python -m services.provider_pool.adapters.sandbox.render_worker FOLDER`. It alone imports
numpy, Pillow, PyAV and the speech library. It runs at the lowest priority, within limits of memory and time, and ends with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from services.provider_pool.adapters.sandbox.process_limits import (
    allow_processor_time,
    die_with_parent,
    limit_memory,
    lower_priority,
)
from services.provider_pool.adapters.sandbox.render_order import (
    ReferenceUnusable,
    RenderOrder,
    RenderReference,
    Role,
)

_EXTRA: Final = frozenset({"numpy", "PIL", "av", "espeakng_loader"})
EXTRA_MISSING: Final = "the sandbox extra is not installed"


def partial_path(folder: Path, name: str, pid: int) -> Path:
    """Where worker `pid` writes a file until it is whole."""
    return folder / f".{name}.{pid}.part"


@dataclass(frozen=True)
class _File:
    """One file of an order: what for, what of, and how its name ends."""

    role: Role
    content_type: str
    ending: str


_PICTURE: Final = _File("primary", "image/png", "png")
_FILM: Final = _File("primary", "video/mp4", "mp4")
_POSTER: Final = _File("preview", "image/jpeg", "poster.jpg")
_LAST_FRAME: Final = _File("last_frame", "image/jpeg", "last.jpg")
_TEXT: Final = _File("primary", "text/plain", "txt")
_SOUNDS: Final = {
    "mp3": _File("primary", "audio/mpeg", "mp3"),
    "wav": _File("primary", "audio/wav", "wav"),
}


def _files(order: RenderOrder) -> list[_File]:
    match order.kind:
        case "image" | "infographic":
            return [_PICTURE]
        case "video":
            return [_FILM, _POSTER, *([_LAST_FRAME] if order.last_frame else [])]
        case "voice" | "music":
            return [_SOUNDS[order.format or "mp3"]]
        case "text":
            return [_TEXT]


def render(order: RenderOrder, folder: Path) -> list[dict[str, Any]]:
    """Make what an order asks for in `folder`; the files appear whole or not at all."""
    files = _files(order)
    names = [f"{order.order_id}.{file.ending}" for file in files]
    parts = [partial_path(folder, name, os.getpid()) for name in names]
    try:
        duration_s = _make(order, parts)
        for name, part in zip(names, parts, strict=True):
            part.replace(folder / name)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return [_described(order, file, name, duration_s) for file, name in zip(files, names, strict=True)]


def _make(order: RenderOrder, paths: list[Path]) -> float | None:
    """Write the files of an order; how long the primary one is, in seconds, if it has a length."""
    # Imported with the first order of the kind: a worker of pictures never loads the libraries of films.
    match order.kind:
        case "image":
            from services.provider_pool.adapters.sandbox.picture import write_picture

            write_picture(order, paths[0])
        case "video":
            from services.provider_pool.adapters.sandbox.film import write_film

            write_film(order, *paths)
            return float(order.duration_s)
        case "voice":
            from services.provider_pool.adapters.sandbox.speech import write_speech

            return write_speech(order, paths[0])
        case "music":
            from services.provider_pool.adapters.sandbox.music import write_music

            write_music(order, paths[0])
            return float(order.duration_s)
        case "infographic":
            from services.provider_pool.adapters.sandbox.chart import write_chart

            write_chart(order, paths[0])
        case "text":
            from services.provider_pool.adapters.sandbox.prose import write_prose

            write_prose(order, paths[0])
    return None


def _described(order: RenderOrder, file: _File, name: str, duration_s: float | None) -> dict[str, Any]:
    seen = order.kind in ("image", "video", "infographic")
    return {
        "role": file.role,
        "name": name,
        "content_type": file.content_type,
        "width": order.width if seen else 0,
        "height": order.height if seen else 0,
        "duration_s": duration_s if file.role == "primary" else None,
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
        missing = (error.name or "").partition(".")[0] in _EXTRA
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
