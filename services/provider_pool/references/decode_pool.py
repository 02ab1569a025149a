"""The processes that reference media are decoded in: how many there are, who waits for one, and what becomes of the dead."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec
from prometheus_client import Counter, Histogram

from services.chassis.errors import ServiceError
from services.provider_pool import errors
from services.provider_pool.idle_workers import IdleWorkers
from services.provider_pool.references import decode_words as words
from services.provider_pool.references.decode_process import (
    CannotStart,
    DecodeProcess,
    Descriptors,
    ProcessDied,
)
from services.provider_pool.references.disk_work import to_its_end

__all__ = [
    "IDLE_S",
    "QUEUE_LIMIT",
    "DecodePool",
    "ForkDied",
    "Told",
    "TwiceDead",
    "in_a_thread",
    "not_written",
]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

QUEUE_LIMIT: Final = 100
"""Media that wait. At 25 ms for an image a caller waits seconds at worst; more would wait longer than anybody does."""

IDLE_S: Final = 60.0
"""How long a process without work is kept. It holds about 25 MB, and one for films and sounds twice as much."""

# One death of such a process can be chance (memory ran out, someone killed it); two mean that the medium itself kills.
_TRIES: Final = 2

_DEATHS: Final = Counter(
    "atelier_pool_decode_worker_deaths_total",
    "Processes that died or were ended while they decoded a medium: fork (by itself), deadline, worker (what forks).",
    ["cause"],
)
_WAITING: Final = Histogram(
    "atelier_pool_reference_decode_wait_seconds",
    "Seconds a reference medium waited for a process to be free.",
)


class TwiceDead(Exception):
    """Two processes died of one medium."""


class ForkDied(Exception):
    """The fork that looked at the medium died, or was ended for its lateness; the text says which."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a fork said: its first word, if that is what was found, and its last."""

    found: words.Rewritten | None
    verdict: words.Word | None


class DecodePool:
    """`workers` media at once, in the order in which they came. Costs nothing until it is first used."""

    def __init__(self, subject: str, *, workers: int, queue_limit: int, idle_s: float) -> None:
        self._subject = subject
        self._limit = workers + queue_limit
        self._slots = asyncio.Semaphore(workers)
        self._pending = 0
        self._idle = IdleWorkers[DecodeProcess](idle_s)
        self._busy: set[DecodeProcess] = set()
        self._told_missing = False
        self._closed = False

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The processes that live now, busy ones first."""
        return (*(worker.pid for worker in self._busy), *self._idle.pids)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place among those that are examined now. Raises RESOURCE_EXHAUSTED when too many wait for one."""
        if self._pending >= self._limit:
            raise errors.too_busy()
        self._pending += 1
        try:
            with _WAITING.time():
                await self._slots.acquire()
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._pending -= 1

    async def close(self) -> None:
        """End all processes at once; what waits or is being examined ends with UNAVAILABLE."""
        self._closed = True
        await asyncio.gather(*(worker.kill() for worker in self._busy), self._idle.close())

    async def examined(self, order: words.AnyOrder, source: Path, target: Path) -> Told:
        """What a fork says of `source`; it may have written `target`.

        Raises TwiceDead, ForkDied, OSError where a file cannot be opened, and UNAVAILABLE.
        """
        for _ in range(_TRIES):
            with Descriptors() as files:
                await in_a_thread(files.open, source, target)
                worker = await self._take_worker()
                try:
                    ended = await worker.examine(order, files)
                except ProcessDied:
                    await self._bury(worker)
                    if not self._closed:
                        _DEATHS.labels("worker").inc()
                        log.warning("decode_worker.died")
                    continue
                except CannotStart as error:
                    self._put_back(worker)
                    raise _unusable(error) from None
                except BaseException:
                    await self._bury(worker)
                    raise
                self._put_back(worker)
                return _told(files.told(), ended)
        raise TwiceDead

    async def _take_worker(self) -> DecodeProcess:
        idle = self._idle.take()
        if idle is not None:
            self._busy.add(idle)
            return idle
        self._check_open()
        try:
            worker = await DecodeProcess.start(self._subject)
        except CannotStart as error:
            raise _unusable(error) from None
        self._busy.add(worker)
        try:
            self._check_open()
        except ServiceError:
            await self._bury(worker)
            raise
        if worker.missing and not self._told_missing:
            self._told_missing = True
            log.warning("decode_worker.walls_missing", extra={"missing": worker.missing})
        return worker

    def _check_open(self) -> None:
        if self._closed:
            raise errors.references_unusable()

    def _put_back(self, worker: DecodeProcess) -> None:
        self._busy.discard(worker)
        if self._closed:
            self._idle.dismiss(worker)
        else:
            self._idle.put_back(worker)

    async def _bury(self, worker: DecodeProcess) -> None:
        try:
            await worker.kill()
        finally:
            self._busy.discard(worker)


def _unusable(error: CannotStart) -> ServiceError:
    log.error("decode_worker.cannot_start", extra={"reason": str(error)})
    return errors.references_unusable()


def _told(said: bytes, ended: words.Ended) -> Told:
    if ended.code != 0:
        _DEATHS.labels("deadline" if ended.late else "fork").inc()
        log.warning("reference.decoder_died", extra={"returncode": ended.code, "late": ended.late})
        raise ForkDied("it took too long" if ended.late else "the decoder died of it")
    return _read(said)


def _read(said: bytes) -> Told:
    # A fork that was taken over may have said anything.
    try:
        told = [words.words.decode(line) for line in said.splitlines()]
    except msgspec.DecodeError:
        return Told(None, None)
    found = told[0] if told and isinstance(told[0], words.Rewritten) else None
    verdict = told[-1] if told and not isinstance(told[-1], words.Rewritten) else None
    return Told(found, verdict)


def not_written(told: Told) -> OSError | None:
    """What kept the file from being written, if that is how it ended."""
    if isinstance(told.verdict, words.NotWritten) and (told.found is None or told.found.sha256 is None):
        return OSError(told.verdict.errno, os.strerror(told.verdict.errno))
    return None


async def in_a_thread(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Disk work, done or never begun when this returns or raises."""
    return await to_its_end(asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named)))
