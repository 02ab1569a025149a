"""Group commit: the requests that arrive while one transaction commits are the next transaction.

There is no timer: an idle system commits a lone request at once, a busy one shares each COMMIT between all
who wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import Connection

from services.chassis import crash_points, database_metrics, storage_failures
from services.chassis.database import Database
from services.chassis.errors import Kind, ServiceError, internal_error

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

LIMIT_ITEMS = 512
"""Beyond this a batch gains no more throughput and only makes its first item wait longer."""

CAPACITY_ITEMS = 10_000
"""Some twenty full batches: more waiting items could not be answered before their callers give up."""

SETTLE_S = 15.0
"""How long items wait, since they were submitted, for a database that went away; a failover takes about
that long.
"""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

BATCH_ITEMS = Histogram(
    "atelier_group_commit_batch_items",
    "Items that shared one transaction.",
    ["batch"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
COMMIT_SECONDS = Histogram(
    "atelier_group_commit_seconds",
    "Seconds from the start of a batch until it was durable, with every try.",
    ["batch"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)
WAITING_ITEMS = Gauge("atelier_group_commit_waiting_items", "Items that wait for the next batch.", ["batch"])
RERUNS = Counter(
    "atelier_group_commit_reruns_total", "Transactions that were run again, by cause.", ["batch", "cause"]
)


@dataclass(slots=True, eq=False)
class _Entry(Generic[ItemT, ResultT]):
    item: ItemT
    answer: asyncio.Future[ResultT]
    submitted_s: float
    queued: bool = True


def _one_lane(_item: object) -> str:
    return ""


class GroupCommit(Generic[ItemT, ResultT]):
    """Collects items, runs `apply` on a batch of them in one transaction, and answers each one after
    COMMIT.

    `apply(connection, items)` returns for each item, in order, a result or an Exception instance (that
    item's refusal, with whatever `apply` wrote for it committed). It may run several times for the same
    items, also after a COMMIT that went through but whose answer was lost, so each item must be idempotent
    by a key. If it raises, everything is rolled back, and the item to blame is found by halving, so that
    its neighbours succeed. `kind` names an item where crash points are listened to.
    """

    def __init__(
        self,
        database: Database,
        apply: Callable[[Connection, Sequence[ItemT]], Sequence[ResultT | Exception]],
        *,
        name: str,
        limit: int = LIMIT_ITEMS,
        capacity: int = CAPACITY_ITEMS,
        lane: Callable[[ItemT], str] = _one_lane,
        settle_s: float = SETTLE_S,
        kind: Callable[[ItemT], str] = crash_points.kind_of,
    ) -> None:
        self._database = database
        self._apply = apply
        self._name = name
        self._limit = limit
        self._capacity = capacity
        self._lane = lane
        self._settle_s = settle_s
        self._kind = kind
        self._lanes: dict[str, deque[_Entry[ItemT, ResultT]]] = {}
        self._turns: deque[str] = deque()
        self._waiting = 0
        self._closing = False
        self._runner: asyncio.Task[None] | None = None
        self._batch_items = BATCH_ITEMS.labels(name)
        self._commit_seconds = COMMIT_SECONDS.labels(name)
        WAITING_ITEMS.labels(name).set_function(lambda: float(self._waiting))

    async def submit(self, item: ItemT) -> ResultT:
        """The result of `item`, once it is durable.

        Raises the exception that `apply` returned for it; RESOURCE_EXHAUSTED / QUEUE_FULL at once when too
        many wait; UNAVAILABLE when the database stayed away or this is closing; INTERNAL when `apply` fails
        on this item. A cancelled caller's item is dropped only while it waits; in a batch it runs to the
        end.
        """
        if self._closing:
            raise ServiceError(Kind.UNAVAILABLE, "SHUTTING_DOWN", "the service is shutting down, try again")
        if self._waiting >= self._capacity:
            raise ServiceError(
                Kind.RESOURCE_EXHAUSTED, "QUEUE_FULL", "too many requests are waiting, try again later"
            )
        entry: _Entry[ItemT, ResultT] = _Entry(
            item, asyncio.get_running_loop().create_future(), time.monotonic()
        )
        self._enqueue(entry)
        try:
            return await entry.answer
        except asyncio.CancelledError:
            if entry.queued:
                entry.queued = False
                self._waiting -= 1
            raise

    async def close(self) -> None:
        """Refuse new items, finish those that wait, and return. Harmless when done twice."""
        self._closing = True
        while self._runner is not None:
            await asyncio.shield(self._runner)

    def _enqueue(self, entry: _Entry[ItemT, ResultT]) -> None:
        lane = self._lane(entry.item)
        entries = self._lanes.get(lane)
        if entries is None:
            entries = self._lanes[lane] = deque()
            self._turns.append(lane)
        entries.append(entry)
        self._waiting += 1
        if self._runner is None:
            # An empty context: the batch belongs to no one request, so it must not log under the first
            # one's id.
            self._runner = asyncio.create_task(
                self._run(), name=f"group-commit-{self._name}", context=contextvars.Context()
            )

    def _take(self) -> list[_Entry[ItemT, ResultT]]:
        batch: list[_Entry[ItemT, ResultT]] = []
        while self._turns and len(batch) < self._limit:
            lane = self._turns.popleft()
            entries = self._lanes[lane]
            entry = entries.popleft()
            if entries:
                self._turns.append(lane)
            else:
                del self._lanes[lane]
            if entry.queued:
                entry.queued = False
                self._waiting -= 1
                if not entry.answer.cancelled():
                    batch.append(entry)
        return batch

    async def _run(self) -> None:
        try:
            while self._turns:
                batch = self._take()
                if batch:
                    await self._settle(batch)
        finally:
            self._runner = None

    async def _settle(self, batch: list[_Entry[ItemT, ResultT]]) -> None:
        started_s = time.monotonic()
        self._batch_items.observe(len(batch))
        try:
            await self._commit(batch)
        except Exception as error:
            if storage_failures.is_transient(error):
                _fail(batch, error)
            else:
                log.warning(
                    "group_commit.rerun", extra={"batch": self._name, "items": len(batch)}, exc_info=error
                )
                RERUNS.labels(self._name, "exception").inc()
                await self._halve(batch)
        self._commit_seconds.observe(time.monotonic() - started_s)

    async def _halve(self, batch: list[_Entry[ItemT, ResultT]]) -> None:
        try:
            await self._commit(batch)
        except Exception as error:
            if storage_failures.is_transient(error):
                _fail(batch, error)
            elif len(batch) == 1:
                self._blame(batch[0], error)
            else:
                RERUNS.labels(self._name, "halved").inc()
                middle = len(batch) // 2
                await self._halve(batch[:middle])
                await self._halve(batch[middle:])

    def _blame(self, entry: _Entry[ItemT, ResultT], error: Exception) -> None:
        if isinstance(error, ServiceError):
            _fail([entry], error)
            return
        log.error("group_commit.item_failed", extra={"batch": self._name}, exc_info=error)
        _fail([entry], internal_error())

    async def _commit(self, batch: list[_Entry[ItemT, ResultT]]) -> None:
        items = [entry.item for entry in batch]
        give_up_s = batch[0].submitted_s + self._settle_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                results = await self._database.write(lambda connection: self._applied(connection, items))
                crash_points.reached_by(items, self._kind, "after")
            except ServiceError as error:
                if not storage_failures.is_transient(error) or time.monotonic() + pause_s > give_up_s:
                    raise
                log.warning("group_commit.database_away", extra={"batch": self._name, "reason": error.reason})
                RERUNS.labels(self._name, error.reason.lower()).inc()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            else:
                _answer(batch, results)
                return

    def _applied(self, connection: Connection, items: Sequence[ItemT]) -> Sequence[ResultT | Exception]:
        with database_metrics.counted_for(self._name):
            results = self._apply(connection, items)
        if len(results) != len(items):
            raise RuntimeError(
                f"{self._name}: {len(items)} items were applied and {len(results)} results came back"
            )
        crash_points.reached_by(items, self._kind, "before")
        return results


def _answer(batch: Sequence[_Entry[ItemT, ResultT]], results: Sequence[ResultT | Exception]) -> None:
    for entry, result in zip(batch, results, strict=True):
        if entry.answer.done():
            continue
        if isinstance(result, Exception):
            entry.answer.set_exception(result)
        else:
            entry.answer.set_result(result)


def _fail(batch: Sequence[_Entry[ItemT, ResultT]], error: Exception) -> None:
    for entry in batch:
        if not entry.answer.done():
            entry.answer.set_exception(_copied(error))


def _copied(error: Exception) -> Exception:
    # Raised to many callers, one exception object would gather all their tracebacks.
    if isinstance(error, ServiceError):
        return ServiceError(error.kind, error.reason, error.message, error.metadata)
    return error
