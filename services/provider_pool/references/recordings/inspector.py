"""Has films and sounds examined and copied in processes that can do nothing else."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import Histogram

from services.provider_pool.references import decode_words as words
from services.provider_pool.references.decode_pool import (
    IDLE_S,
    QUEUE_LIMIT,
    DecodePool,
    ForkDied,
    Told,
    TwiceDead,
    in_a_thread,
    not_written,
)
from services.provider_pool.references.inspector import REFUSALS, Inspected, is_as_told, remove
from services.provider_pool.references.recordings.judgement import (
    RecordingLimits,
    RecordingRefused,
    Rule,
    check_duration,
    check_sides,
)

__all__ = ["RecordingInspector", "RecordingsUnread", "default_workers"]

log = logging.getLogger(__name__)

DEADLINE_S: Final = 4.0
"""Of processor time for one recording. The largest that the limits let through take about a tenth of it."""

# A recording waits for a processor and for the disk where others want them too.
_PATIENCE_TIMES: Final = 5
# What a copy may have more than what came: tables of its own, for a file whose samples needed none.
_TABLES_BYTES: Final = 4 * 1024 * 1024
# A film is seldom, and its copy costs a disk more than a processor.
_WORKERS_LIMIT: Final = 2

_RULES: Final = frozenset(Rule)
_TYPES: Final = {
    "mp4": ("video/mp4", "mp4"),
    "mov": ("video/quicktime", "mov"),
    "webm": ("video/webm", "webm"),
    "m4a": ("audio/mp4", "m4a"),
    "mp3": ("audio/mpeg", "mp3"),
    "wav": ("audio/wav", "wav"),
    "ogg": ("audio/ogg", "ogg"),
}

_SECONDS: Final = Histogram(
    "atelier_pool_recording_copy_seconds",
    "Seconds spent on one reference film or sound: both walks, the copy, and all in all without waiting.",
    ["stage"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0),
)


class RecordingsUnread(Exception):
    """The library that opens films and sounds is not installed."""


def default_workers(image_workers: int) -> int:
    """Beside so many for images."""
    return max(1, min(_WORKERS_LIMIT, image_workers // 2))


def is_installed() -> bool:
    """Whether the library that opens films and sounds is there. It is not loaded for that."""
    return importlib.util.find_spec("av") is not None


@dataclass(frozen=True, slots=True)
class _Work:
    source: Path
    target: Path
    limits: RecordingLimits


class RecordingInspector:
    """Examines films and sounds, `workers` at once, in the order in which they came. Costs nothing until it is first used."""

    def __init__(
        self,
        *,
        workers: int,
        deadline_s: float = DEADLINE_S,
        queue_limit: int = QUEUE_LIMIT,
        idle_s: float = IDLE_S,
        installed: Callable[[], bool] = is_installed,
    ) -> None:
        self._deadline_s = deadline_s
        self._installed = installed
        self._pool = DecodePool(words.RECORDINGS, workers=workers, queue_limit=queue_limit, idle_s=idle_s)

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The processes that live now, busy ones first."""
        return self._pool.worker_pids

    def check(self) -> None:
        """Raises RecordingsUnread where nothing could be examined."""
        if not self._installed():
            log.error("recordings.unread", extra={"reason": "the package av is not installed"})
            raise RecordingsUnread

    async def inspect(self, source: Path, target: Path, limits: RecordingLimits) -> Inspected:
        """Write a copy of what may be kept of `source` to `target`, which is there afterwards only if the recording is taken.

        Raises RecordingRefused; OSError where a file cannot be opened or written; ServiceError: RESOURCE_EXHAUSTED (the queue
        is full), UNAVAILABLE (no process can be started, or this one closes).
        """
        try:
            async with self._pool.turn():
                return await self._inspect(_Work(source, target, limits))
        except RecordingRefused as refused:
            REFUSALS.labels(refused.rule).inc()
            raise

    async def close(self) -> None:
        """End all processes at once; recordings that wait or are being examined end with UNAVAILABLE."""
        await self._pool.close()

    async def _inspect(self, work: _Work) -> Inspected:
        nothing = work.target.with_name(work.target.name + ".proof")
        try:
            with _SECONDS.labels("all").time():
                await self._examined(work, work.source, work.target, copies=True)
                # Whoever read the original may have been taken over by it: the copy is told of by somebody who did not.
                found = await self._examined(work, work.target, nothing, copies=False)
            if found.sha256 is None or not await in_a_thread(is_as_told, work.target, found):
                log.error("reference.changed_after_rewriting")
                raise RecordingRefused(Rule.UNDECODABLE, "the copy was changed")
            return _inspected(found, work.limits)
        except BaseException:
            await in_a_thread(remove, work.target)
            raise
        finally:
            await in_a_thread(remove, nothing)

    async def _examined(self, work: _Work, source: Path, target: Path, *, copies: bool) -> words.Rewritten:
        most = work.limits.bytes + (0 if copies else _TABLES_BYTES)
        order = words.RecordingOrder(
            work.limits.medium,
            most,
            copies,
            work.limits.bytes + _TABLES_BYTES if copies else 0,
            self._deadline_s,
            _PATIENCE_TIMES * self._deadline_s,
        )
        try:
            told = await self._pool.examined(order, source, target)
        except TwiceDead:
            raise RecordingRefused(Rule.UNDECODABLE, "two processes died of it") from None
        except ForkDied as died:
            raise RecordingRefused(Rule.UNDECODABLE, str(died)) from None
        return _judged(told, order.patience_s)


def _judged(told: Told, longest_s: float) -> words.Rewritten:
    """What a fork found. Raises RecordingRefused, and OSError if it could not write the file."""
    found, verdict = told.found, told.verdict
    if isinstance(verdict, words.Refused):
        rule = verdict.rule if verdict.rule in _RULES else Rule.UNDECODABLE
        raise RecordingRefused(rule, verdict.detail[:200])
    failure = not_written(told)
    if failure is not None:
        raise failure
    if found is None or not isinstance(verdict, words.Decoded):
        raise RecordingRefused(Rule.UNDECODABLE, "the fork said nothing")
    if found.format not in _TYPES:
        raise RecordingRefused(Rule.UNDECODABLE, "the fork told of a format that there is not")
    _SECONDS.labels("walk").observe(min(max(found.spent_s, 0.0), longest_s))
    if verdict.spent_s > 0:
        _SECONDS.labels("copy").observe(min(verdict.spent_s, longest_s))
    return found


def _inspected(found: words.Rewritten, limits: RecordingLimits) -> Inspected:
    content_type, extension = _TYPES[found.format]
    if limits.medium == "video":
        check_sides(found.width, found.height)
    if not check_duration(found.duration_ms, 1000):
        raise RecordingRefused(Rule.EMPTY, "no length")
    return Inspected(
        format=found.format,
        content_type=content_type,
        extension=extension,
        width=found.width,
        height=found.height,
        size_bytes=found.size_bytes,
        sha256=found.sha256 or "",
        duration_ms=found.duration_ms,
    )
