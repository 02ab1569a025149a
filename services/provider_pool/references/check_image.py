"""`check-image`: asks why a customer's image is or would be refused, and what a provider would get. Needs no running house."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from services.chassis.errors import ServiceError
from services.provider_pool.references.container import FORMATS, HEAD_BYTES, ImageLimits, ImageRefused, sniff
from services.provider_pool.references.inspector import Inspector

_IMAGE_BYTES: Final = 20 * 1024 * 1024
_WORKERS_LIMIT: Final = 4
_ALL_FORMATS: Final = ImageLimits(FORMATS, _IMAGE_BYTES, first_frame_of_animations=True)

CONTRACTS: Final = {
    "leonardo": ImageLimits(frozenset({"jpeg", "png", "webp"}), _IMAGE_BYTES),
    "seedancee2": _ALL_FORMATS,
    "seedance2pro": _ALL_FORMATS,
    "loova": _ALL_FORMATS,
    "imaginelab": _ALL_FORMATS,
}
"""What each storefront takes. Requests carry it from the gateway to the pool; this command has no request."""


@dataclass(frozen=True, slots=True)
class _Question:
    """One input, by number from 1. Without `path` or `contract`, no question."""

    number: int
    shown: str
    path: Path | None
    contract: str | None


class _UsageError(Exception):
    """A command line, or something that it names, that is of no use; or no place to write to."""


class _Unreadable(Exception):
    """An input that is no readable file."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declares the command."""
    parser = subparsers.add_parser(
        "check-image",
        help="say whether reference images are taken, and why not",
        description="Prints one JSON line an image, in the order of the inputs.",
    )
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument(
        "--contract", choices=CONTRACTS, help="whose limits hold; in a list, where a line names none"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep there what a provider would get")
    parser.add_argument(
        "--jsonl",
        metavar="FILE",
        help='read {"file", "contract"}, one a line, with paths from that file\'s folder; - is standard input',
    )


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Exit codes: 0 every input has its line, 1 no image can be checked here, or the reader of the lines is gone, 2 wrong usage, 130 interrupted."""
    # What it has to say is in the lines.
    logging.getLogger("services").addHandler(logging.NullHandler())
    try:
        _check_usage(arguments)
        with _output_folder(arguments.output) as folder:
            asyncio.run(_answer(arguments, folder))
    except _UsageError as fault:
        print(fault, file=sys.stderr)  # noqa: T201  # for the operator
        return 2
    except ServiceError:
        print("check-image: no process can be started here that decodes images", file=sys.stderr)  # noqa: T201  # for the operator
        return 1
    except BrokenPipeError:
        # `… | head` has read enough. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _check_usage(arguments: argparse.Namespace) -> None:
    if arguments.jsonl is None and not arguments.files:
        raise _UsageError("check-image: name at least one file, or a list with --jsonl")
    if arguments.jsonl is not None and arguments.files:
        raise _UsageError("check-image: --jsonl takes files from its list, not from the command line")
    if arguments.jsonl is None and arguments.contract is None:
        raise _UsageError("check-image: say whose limits hold, with --contract")


@contextlib.contextmanager
def _output_folder(wanted: Path | None) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            if wanted is None:
                temporary = tempfile.TemporaryDirectory(prefix="atelier-check-image-")
                folder = Path(stack.enter_context(temporary))
            else:
                wanted.mkdir(parents=True, exist_ok=True)
                folder = wanted
        except OSError as fault:
            shown = wanted or "a folder for temporary files"
            raise _UsageError(f"check-image: {shown} cannot be made: {fault.strerror}") from None
        yield folder


async def _answer(arguments: argparse.Namespace, folder: Path) -> None:
    # A decoder may take a gigabyte, and a container's share of the processors may be smaller than their number says.
    workers = min(_WORKERS_LIMIT, len(os.sched_getaffinity(0)))
    checks = _Checks(Inspector(workers=workers), folder, keep=arguments.output is not None)
    # Enough to keep every worker busy while the oldest is waited for.
    answers: asyncio.Queue[asyncio.Task[dict[str, Any]] | Exception | None] = asyncio.Queue(4 * workers)
    reader = _Reader(_questions(arguments), checks, answers)
    reader.start()
    try:
        while (answer := await answers.get()) is not None:
            if isinstance(answer, Exception):
                raise answer
            # Flushed, because a program may wait for the answer before it asks again.
            print(json.dumps(await answer), flush=True)  # noqa: T201  # the answer
    finally:
        await reader.stop()
        await checks.close()


class _Reader(threading.Thread):
    """Reads the questions, and has each looked into while the next is read."""

    def __init__(
        self,
        questions: Iterator[_Question],
        checks: _Checks,
        answers: asyncio.Queue[asyncio.Task[dict[str, Any]] | Exception | None],
    ) -> None:
        # A list that is still being typed must not keep the command from ending.
        super().__init__(name="questions", daemon=True)
        self._questions = questions
        self._checks = checks
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._under_way: set[asyncio.Task[dict[str, Any]]] = set()

    async def stop(self) -> None:
        """Give up what is being looked into."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def run(self) -> None:
        try:
            for question in self._questions:
                self._do(self._begin(question))
            self._do(self._answers.put(None))
        except Exception as fault:
            # The other side raises it. If that has ended already, nobody needs to know.
            with contextlib.suppress(RuntimeError):
                self._do(self._answers.put(fault))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except RuntimeError:
            # The loop is closed: the command has ended without waiting for the rest of the list.
            work.close()
            raise

    async def _begin(self, question: _Question) -> None:
        task = asyncio.create_task(self._checks.verdict(question))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        await self._answers.put(task)

    def _done(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._under_way.discard(task)
        # When the command ends early, nobody waits for the answer, and asyncio need not complain.
        if not task.cancelled():
            task.exception()


class _Checks:
    """Looks into images, several at once."""

    def __init__(self, inspector: Inspector, folder: Path, *, keep: bool) -> None:
        self._inspector = inspector
        self._folder = folder
        self._keep = keep

    async def close(self) -> None:
        await self._inspector.close()

    async def verdict(self, question: _Question) -> dict[str, Any]:
        answer = {"input": question.shown, "verdict": "block", "reason": None, "detail": None}
        answer |= {"format": None, "width": None, "height": None}
        if question.path is None or question.contract is None:
            return answer | {
                "reason": "malformed_line",
                "detail": 'The line is not {"file": "…", "contract": "…"}.',
            }
        limits = CONTRACTS.get(question.contract)
        if limits is None:
            return answer | {
                "reason": "unknown_contract",
                "detail": "There are: " + ", ".join(CONTRACTS) + ".",
            }
        try:
            answer["format"] = await asyncio.to_thread(_format, question.path)
            return answer | await self._taken(question, limits)
        except ImageRefused as refused:
            return answer | {"reason": refused.rule, "detail": str(refused).partition(": ")[2] or None}
        except _Unreadable as fault:
            return answer | {"reason": fault.reason, "detail": str(fault)}

    async def _taken(self, question: _Question, limits: ImageLimits) -> dict[str, Any]:
        assert question.path is not None
        target = self._folder / f"{question.number}.part"
        try:
            found = await self._inspector.inspect(question.path, target, limits)
        except OSError as fault:
            # The image has just been read: what is wrong is no fault of its.
            raise _UsageError(f"check-image: {self._folder} cannot be written: {fault.strerror}") from None
        answer = {
            "verdict": "allow",
            "format": found.format,
            "width": found.width,
            "height": found.height,
        }
        if not self._keep:
            await asyncio.to_thread(target.unlink)
            return answer
        kept = target.with_suffix(f".{found.extension}")
        await asyncio.to_thread(target.replace, kept)
        return answer | {"output": str(kept)}


def _format(path: Path) -> str | None:
    """What the first bytes announce. Raises _Unreadable where there is no file that can be read."""
    try:
        # Without waiting: nobody may ever write to a named pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _Unreadable("not_a_file", "it is something else than a file")
            return sniff(os.read(descriptor, HEAD_BYTES))
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise _Unreadable("missing_file", "there is no such file") from None
    except OSError as fault:
        raise _Unreadable("unreadable_file", fault.strerror or "it cannot be read") from None
    except ValueError:
        raise _Unreadable("missing_file", "no file can have such a name") from None


def _questions(arguments: argparse.Namespace) -> Iterator[_Question]:
    if arguments.jsonl is None:
        for number, name in enumerate(arguments.files, 1):
            yield _Question(number, name, Path(name), arguments.contract)
        return
    folder = Path() if arguments.jsonl == "-" else Path(arguments.jsonl).parent
    try:
        with _opened(arguments.jsonl) as file:
            for number, line in enumerate(file, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                yield _read(number, text, folder, arguments.contract)
    except OSError as fault:
        raise _UsageError(f"check-image: {arguments.jsonl} cannot be read: {fault.strerror}") from None


def _opened(path: str) -> IO[bytes]:
    return sys.stdin.buffer if path == "-" else Path(path).open("rb")


def _read(number: int, line: bytes, folder: Path, otherwise: str | None) -> _Question:
    text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    name, contract = (
        (fields.get("file"), fields.get("contract", otherwise)) if isinstance(fields, dict) else (None, None)
    )
    if not isinstance(name, str) or not isinstance(contract, str):
        return _Question(number, text, None, None)
    return _Question(number, name, folder / name, contract)
