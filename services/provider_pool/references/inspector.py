"""Has images examined and rewritten in processes that can do nothing else."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Histogram

from services.provider_pool.references import decode_words as words
from services.provider_pool.references.container import ImageLimits, ImageRefused, Rule
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

__all__ = ["Inspected", "Inspector", "default_workers"]

log = logging.getLogger(__name__)

DEADLINE_S: Final = 3.0
"""Of processor time for one image. The largest that the limits let through take about half of it."""

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
REFUSALS: Final = Counter(
    "atelier_pool_reference_refusals_total",
    "Reference media whose content was not taken, by rule.",
    ["rule"],
)


def default_workers() -> int:
    """One worker less than there are processors, so that the services keep one; at least one, at most eight."""
    return max(1, min(_WORKERS_LIMIT, len(os.sched_getaffinity(0)) - 1))


@dataclass(frozen=True, slots=True)
class Inspected:
    """A medium that is taken. `format` is that of what came; the rest describes the rewritten file."""

    format: str
    content_type: str
    extension: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    duration_ms: int = 0


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
        self._deadline_s = deadline_s
        self._pool = DecodePool(words.IMAGES, workers=workers, queue_limit=queue_limit, idle_s=idle_s)

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The processes that live now, busy ones first."""
        return self._pool.worker_pids

    async def inspect(self, source: Path, target: Path, limits: ImageLimits) -> Inspected:
        """Write what may be kept of `source` to `target`, which is there afterwards only if the image is taken.

        Raises ImageRefused; OSError where a file cannot be opened or written; ServiceError: RESOURCE_EXHAUSTED (the queue is
        full), UNAVAILABLE (no process can be started, or this one closes).
        """
        try:
            async with self._pool.turn():
                return await self._inspect(source, target, limits)
        except ImageRefused as refused:
            REFUSALS.labels(refused.rule).inc()
            raise

    async def close(self) -> None:
        """End all processes at once; images that wait or are being examined end with UNAVAILABLE."""
        await self._pool.close()

    async def _inspect(self, source: Path, target: Path, limits: ImageLimits) -> Inspected:
        drawing = target.with_name(target.name + ".drawing")
        try:
            with _SECONDS.labels("all").time():
                found = await self._examined(source, target, limits)
                if found.sha256 is not None:
                    return _inspected(found.format, found)
                # A decoder drew it. As any other image of unknown origin, it is now walked and rewritten itself.
                await in_a_thread(target.replace, drawing)
                drawn = ImageLimits(frozenset({"png"}), _DRAWN_TIMES * limits.bytes)
                rewritten = await self._examined(drawing, target, drawn)
                if rewritten.sha256 is None:
                    raise ImageRefused(Rule.UNDECODABLE, "a drawing of a drawing")
                await in_a_thread(remove, drawing)
                return _inspected(found.format, rewritten)
        except BaseException:
            await in_a_thread(remove, target, drawing)
            raise

    async def _examined(self, source: Path, target: Path, limits: ImageLimits) -> words.Rewritten:
        order = self._order(limits)
        try:
            told = await self._pool.examined(order, source, target)
        except TwiceDead:
            raise ImageRefused(Rule.UNDECODABLE, "two processes died of it") from None
        except ForkDied as died:
            raise ImageRefused(Rule.UNDECODABLE, str(died)) from None
        found = _judged(told, order.patience_s)
        if found.sha256 is not None and not await in_a_thread(is_as_told, target, found):
            log.error("reference.changed_after_rewriting")
            raise ImageRefused(Rule.UNDECODABLE, "the rewritten file was changed")
        return found

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


def _judged(told: Told, longest_s: float) -> words.Rewritten:
    """What a fork found. Raises ImageRefused, and OSError if it could not write the file."""
    found, verdict = told.found, told.verdict
    if isinstance(verdict, words.Refused):
        # A decoder that was taken over may say anything: it gets no words of its own into a metric.
        raise ImageRefused(verdict.rule if verdict.rule in _RULES else Rule.UNDECODABLE, verdict.detail[:200])
    failure = not_written(told)
    if failure is not None:
        raise failure
    if found is None or not isinstance(verdict, words.Decoded):
        raise ImageRefused(Rule.UNDECODABLE, "the decoder said nothing")
    if found.sha256 is not None and found.format not in _TYPES:
        raise ImageRefused(Rule.UNDECODABLE, "the decoder wrote another format than it was to write")
    _SECONDS.labels("walk").observe(found.spent_s)
    _SECONDS.labels("decode").observe(min(max(verdict.spent_s, 0.0), longest_s))
    return found


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


def is_as_told(target: Path, found: words.Rewritten) -> bool:
    """Whether the file is the one that a fork told of."""
    with target.open("rb") as file:
        same_size = os.fstat(file.fileno()).st_size == found.size_bytes
        return same_size and hashlib.file_digest(file, "sha256").hexdigest() == found.sha256


def remove(*paths: Path) -> None:
    """Whether they are there or not."""
    for path in paths:
        path.unlink(missing_ok=True)
