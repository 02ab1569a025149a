"""One process that reference media are decoded in, as the pool sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import msgspec

from services.provider_pool.references import decode_words as words

_MODULE: Final = "services.provider_pool.references.decode_worker"
_ROOT: Final = Path(__file__).resolve().parents[3]
# Nothing of the pool's environment, which may hold secrets.
_ENVIRONMENT: Final = {"PATH": os.defpath, "LANG": "C.UTF-8"}
# It takes 0.15 s where nothing else happens. A machine so busy that this passes has other troubles.
_START_S: Final = 20.0
# The process enforces the deadline. On however busy a machine, this much later something is wrong with it.
_GRACE_S: Final = 10.0
_GOODBYE_S: Final = 5.0


class ProcessDied(Exception):
    """The process ended, or fell silent, before it answered."""


class CannotStart(Exception):
    """No such process, or no fork of one, can be started here; the text says why."""


@dataclass(slots=True)
class Descriptors:
    """The open files of one examination: the medium, the file to write, and both ends of the pipe for its words."""

    opened: list[int] = field(default_factory=list)

    def open(self, source: Path, target: Path) -> None:
        """Raises OSError, also where the source is something else than a file."""
        # Without waiting: a named pipe would hold this thread until somebody writes to it.
        self.opened.append(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        if not stat.S_ISREG(os.fstat(self.opened[0]).st_mode):
            raise OSError(None, "not a file")
        # A new file, never one that is there or that a link leads to.
        target.unlink(missing_ok=True)
        self.opened.append(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self.opened.extend(os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))

    def handed_over(self) -> list[int]:
        """What the other process gets."""
        source, target, _, tell = self.opened
        return [source, target, tell]

    def told(self) -> bytes:
        """What has been said so far."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.opened[2], words.LINE_BYTES)
        return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self.opened:
            os.close(self.opened.pop())


class DecodeProcess:
    """Examines one medium at a time."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._listens = False
        self.missing: tuple[str, ...] = ()

    @classmethod
    async def start(cls, subject: str = words.IMAGES) -> DecodeProcess:
        """For images or for recordings. Raises CannotStart."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", _MODULE, str(theirs.fileno()), subject),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    cwd=_ROOT,
                    env=_ENVIRONMENT,
                    # Ctrl-C in a terminal is for the pool, which then ends its workers.
                    start_new_session=True,
                )
        except OSError as error:
            control.close()
            raise CannotStart(error.strerror) from error
        except BaseException:
            control.close()
            raise
        starting = cls(process, control)
        try:
            await starting._greet()
        except BaseException:
            await starting.kill()
            raise
        return starting

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def examine(self, order: words.AnyOrder, files: Descriptors) -> words.Ended:
        """Have a medium examined; what was said of it is then in the pipe. Raises ProcessDied and CannotStart."""
        try:
            # One message on an empty socket: it never waits.
            socket.send_fds(self._control, [words.encode(order)], files.handed_over())
        except OSError as error:
            raise ProcessDied from error
        notice = await self._notice(order.patience_s + _GRACE_S)
        if isinstance(notice, words.Failed):
            raise CannotStart(notice.reason)
        if not isinstance(notice, words.Ended):
            raise ProcessDied
        return notice

    async def dismiss(self) -> None:
        """Let the process end by itself, or kill it if it does not."""
        self._control.close()
        # Not killed at once: a signal to a process that just died would take its exit status from asyncio.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the process, and with it its fork. Who waits for it to answer learns that it died."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        try:
            await self._process.wait()
        finally:
            # Closed under somebody who listens, it would never wake them.
            if not self._listens:
                self._control.close()

    async def _greet(self) -> None:
        try:
            notice = await self._notice(_START_S)
        except ProcessDied:
            raise CannotStart("it ended, or said nothing") from None
        if isinstance(notice, words.Failed):
            raise CannotStart(notice.reason)
        if isinstance(notice, words.Ready):
            self.missing = notice.missing

    async def _notice(self, timeout_s: float) -> words.Notice:
        loop = asyncio.get_running_loop()
        self._listens = True
        try:
            async with asyncio.timeout(timeout_s):
                line = await loop.sock_recv(self._control, words.LINE_BYTES)
            notice: words.Notice = words.notice.decode(line)
        except (OSError, TimeoutError, msgspec.DecodeError) as error:
            raise ProcessDied from error
        finally:
            self._listens = False
        return notice
