"""Has images examined and rewritten in processes that can do nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec
from prometheus_client import Counter, Histogram

from services.chassis.errors import ServiceError
from services.provider_pool import errors
from services.provider_pool.idle_workers import IdleWorkers
from services.provider_pool.references import decode_words as words
from services.provider_pool.references.container import ImageLimits, ImageRefused, Rule
from services.provider_pool.references.decode_process import (
    CannotStart,
    DecodeProcess,
    Descriptors,
    ProcessDied,
)
from services.provider_pool.references.disk_work import to_its_end

__all__ = ["Inspected", "Inspector", "default_workers"]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

DEADLINE_S: Final = 3.0
"""Of processor time for one image. The largest that the limits let through take about half of it."""

QUEUE_LIMIT: Final = 100
"""Images that wait. At 25 ms each a caller waits seconds at worst; more would wait longer than anybody does."""

IDLE_S: Final = 60.0
"""How long a process without work is kept. It holds about 25 MB."""

# One death of such a process can be chance (memory ran out, someone killed it); two mean that the image itself kills.
_TRIES: Final = 2
# A rewritten image has what came and at most an orientation more, which is 36 bytes.
_TAG_BYTES: Final = 4096
# A PNG of a frame that was coded with loss can be many times as large as what came. Four times what may come is more than
# any provider takes.
_DRAWN_TIMES: Final = 4

# An image waits for a processor where others want it too: seven processes on two cores were measured to take four times as
# long as one. More than this is more than a caller waits.
_PATIENCE_TIMES: Final = 4
# More at once would need more memory than a small machine has: a decoder may take a gigabyte.
_WORKERS_LIMIT: Final = 8

_RULES: Final = frozenset(Rule)
_TYPES: Final = {
    "jpeg": ("image/jpeg", "jpg"),
    "png": ("image/png", "png"),
    "webp": ("image/webp", "webp"),
}

_SECONDS: Final = Histogram(
    "atelier_pool_reference_decode_seconds",
    "Seconds spent on one reference image: walk and rewriting, decoding, and all in all without waiting.",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0),
)
_REFUSALS: Final = Counter(
    "atelier_pool_reference_refusals_total",
    "Reference images whose content was not taken, by rule.",
    ["rule"],
)
_DEATHS: Final = Counter(
    "atelier_pool_decode_worker_deaths_total",
    "Processes that died or were ended while they decoded an image: fork (by itself), deadline, worker (what forks).",
    ["cause"],
)
_WAITING: Final = Histogram(
    "atelier_pool_reference_decode_wait_seconds", "Seconds a reference image waited for a process to be free."
)


def default_workers() -> int:
    """One worker less than there are processors, so that the services keep one; at least one, at most eight."""
    return max(1, min(_WORKERS_LIMIT, len(os.sched_getaffinity(0)) - 1))


@dataclass(frozen=True, slots=True)
class Inspected:
    """An image that is taken. `format` is that of what came; the rest describes the rewritten file."""

    format: str
    content_type: str
    extension: str
    width: int
    height: int
    size_bytes: int
    sha256: str


class Inspector:
    """Examines images, `workers` at once, in the order in which they came. Costs nothing until it is first used."""

    def __init__(
        self,
        *,
        workers: int,
        deadline_s: float = DEADLINE_S,
        queue_limit: int = QUEUE_LIMIT,
        idle_s: float = IDLE_S,
    ) -> None:
        self._limit = workers + queue_limit
        self._deadline_s = deadline_s
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

    async def inspect(self, source: Path, target: Path, limits: ImageLimits) -> Inspected:
        """Write what may be kept of `source` to `target`, which is there afterwards only if the image is taken.

        Raises ImageRefused; OSError where a file cannot be opened or written; ServiceError: RESOURCE_EXHAUSTED (the queue is
        full), UNAVAILABLE (no process can be started, or this one closes).
        """
        if self._pending >= self._limit:
            raise errors.too_busy()
        self._pending += 1
        try:
            with _WAITING.time():
                await self._slots.acquire()
            try:
                return await self._inspect(source, target, limits)
            finally:
                self._slots.release()
        except ImageRefused as refused:
            _REFUSALS.labels(refused.rule).inc()
            raise
        finally:
            self._pending -= 1

    async def close(self) -> None:
        """End all processes at once; images that wait or are being examined end with UNAVAILABLE."""
        self._closed = True
        await asyncio.gather(*(worker.kill() for worker in self._busy), self._idle.close())

    async def _inspect(self, source: Path, target: Path, limits: ImageLimits) -> Inspected:
        drawing = target.with_name(target.name + ".drawing")
        try:
            with _SECONDS.labels("all").time():
                found = await self._examined(source, target, limits)
                if found.sha256 is not None:
                    return _inspected(found.format, found)
                # A decoder drew it. As any other image of unknown origin, it is now walked and rewritten itself.
                await _in_a_thread(target.replace, drawing)
                drawn = ImageLimits(frozenset({"png"}), _DRAWN_TIMES * limits.bytes)
                rewritten = await self._examined(drawing, target, drawn)
                if rewritten.sha256 is None:
                    raise ImageRefused(Rule.UNDECODABLE, "a drawing of a drawing")
                await _in_a_thread(_remove, drawing)
                return _inspected(found.format, rewritten)
        except BaseException:
            await _in_a_thread(_remove, target, drawing)
            raise

    async def _examined(self, source: Path, target: Path, limits: ImageLimits) -> words.Rewritten:
        order = self._order(limits)
        for _ in range(_TRIES):
            with Descriptors() as files:
                await _in_a_thread(files.open, source, target)
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
                found = _judged(files.told(), ended, order.patience_s)
            if found.sha256 is not None and not await _in_a_thread(_is_as_told, target, found):
                log.error("reference.changed_after_rewriting")
                raise ImageRefused(Rule.UNDECODABLE, "the rewritten file was changed")
            return found
        raise ImageRefused(Rule.UNDECODABLE, "two processes died of it")

    def _order(self, limits: ImageLimits) -> words.Order:
        may_be_drawn = limits.first_frame_of_animations or not limits.formats <= _TYPES.keys()
        most = _DRAWN_TIMES * limits.bytes if may_be_drawn else limits.bytes
        return words.Order(
            limits.formats,
            limits.bytes,
            limits.first_frame_of_animations,
            most + _TAG_BYTES,
            self._deadline_s,
            _PATIENCE_TIMES * self._deadline_s,
        )

    async def _take_worker(self) -> DecodeProcess:
        idle = self._idle.take()
        if idle is not None:
            self._busy.add(idle)
            return idle
        self._check_open()
        try:
            worker = await DecodeProcess.start()
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


def _judged(said: bytes, ended: words.Ended, longest_s: float) -> words.Rewritten:
    """What a fork found. Raises ImageRefused, and OSError if it could not write the file."""
    if ended.code != 0:
        _DEATHS.labels("deadline" if ended.late else "fork").inc()
        log.warning("reference.decoder_died", extra={"returncode": ended.code, "late": ended.late})
        raise ImageRefused(Rule.UNDECODABLE, "it took too long" if ended.late else "the decoder died of it")
    found, verdict = _read(said)
    if isinstance(verdict, words.Refused):
        # A decoder that was taken over may say anything: it gets no words of its own into a metric.
        raise ImageRefused(verdict.rule if verdict.rule in _RULES else Rule.UNDECODABLE, verdict.detail[:200])
    if isinstance(verdict, words.NotWritten) and (found is None or found.sha256 is None):
        raise OSError(verdict.errno, os.strerror(verdict.errno))
    if found is None or not isinstance(verdict, words.Decoded):
        raise ImageRefused(Rule.UNDECODABLE, "the decoder said nothing")
    _SECONDS.labels("walk").observe(found.spent_s)
    _SECONDS.labels("decode").observe(min(max(verdict.spent_s, 0.0), longest_s))
    return found


def _read(said: bytes) -> tuple[words.Rewritten | None, words.Word | None]:
    """The first word, if that is what was written; and what came last."""
    try:
        told = [words.words.decode(line) for line in said.splitlines()]
    except msgspec.DecodeError:
        return None, None
    found = told[0] if told and isinstance(told[0], words.Rewritten) else None
    verdict = told[-1] if told and not isinstance(told[-1], words.Rewritten) else None
    return found, verdict


def _inspected(came_as: str, found: words.Rewritten) -> Inspected:
    content_type, extension = _TYPES[found.format]
    return Inspected(
        format=came_as,
        content_type=content_type,
        extension=extension,
        width=found.width,
        height=found.height,
        size_bytes=found.size_bytes,
        sha256=found.sha256 or "",
    )


def _is_as_told(target: Path, found: words.Rewritten) -> bool:
    with target.open("rb") as file:
        same_size = os.fstat(file.fileno()).st_size == found.size_bytes
        return same_size and hashlib.file_digest(file, "sha256").hexdigest() == found.sha256


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


async def _in_a_thread(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    return await to_its_end(asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named)))
