"""Draws, speaks, plays and writes in worker processes, so that the pool's event loop never waits for a pixel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from services.chassis.errors import Kind, ServiceError
from services.provider_pool.adapters.sandbox.render_order import RenderedFile, RenderedFiles, RenderOrder
from services.provider_pool.idle_workers import IdleWorkers

__all__ = ["RenderFarm", "RenderOrder", "RenderedFile", "RenderedFiles", "default_workers"]

log = logging.getLogger(__name__)

_WORKER_MODULE: Final = "services.provider_pool.adapters.sandbox.render_worker"
_ROOT: Final = Path(__file__).resolve().parents[4]
# A worker holds about 150 MB after a film; a quiet house gives that back.
IDLE_S: Final = 60.0
# One death can be chance (memory ran out, someone killed it); two mean that the order itself kills.
_TRIES: Final = 2
_ANSWER_MAX_BYTES: Final = 64 * 1024
_GOODBYE_S: Final = 5.0
# What a Python needs to start. Nothing else of the pool's environment, which may hold secrets, reaches a worker.
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV")


def default_workers() -> int:
    """One worker less than there are processors, so that the services keep one; at least one."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


class _WorkerDied(Exception):
    """The worker ended before it answered."""


class _Worker:
    """One worker process, which draws one order at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, folder: Path) -> _Worker:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # Numeric libraries would otherwise start a thread for every processor and reserve memory for each.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _WORKER_MODULE,
            str(folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=_ROOT,
            env=environment,
            limit=_ANSWER_MAX_BYTES,
            # Ctrl-C in a terminal is for the pool, which then ends its workers.
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, order: RenderOrder) -> Mapping[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise _WorkerDied
        try:
            stdin.write(json.dumps(asdict(order)).encode() + b"\n")
            await stdin.drain()
            line = await stdout.readline()
            answer: Mapping[str, Any] = json.loads(line)
        except (OSError, ValueError) as error:
            raise _WorkerDied from error
        return answer

    async def dismiss(self) -> None:
        """Let the worker end by itself, or kill it if it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self.gone()

    async def gone(self) -> int:
        """Wait for a worker that is ending, and kill it if it does not."""
        # Not killed at once: a signal to a process that just died would take its exit status from asyncio.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                return await self._process.wait()
        return await self.kill()

    async def kill(self) -> int:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        return await self._process.wait()


class RenderFarm:
    """Renders orders into files in `folder`, at most `workers` at once, in the order in which they came.

    Workers start on demand and end after IDLE_S without work. Files carry the order's id and appear whole or not
    at all; the same order gives the same bytes. `deadline_s` is the time one order may be with a worker.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        queue_limit: int = 1000,
        deadline_s: float,
        idle_s: float = IDLE_S,
    ) -> None:
        self._folder = folder.resolve()
        self._limit = workers + queue_limit
        self._deadline_s = deadline_s
        self._slots = asyncio.Semaphore(workers)
        self._orders: dict[str, tuple[RenderOrder, asyncio.Task[RenderedFiles]]] = {}
        self._idle = IdleWorkers[_Worker](idle_s)
        self._busy: set[_Worker] = set()
        self._closed = False

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The worker processes that live now, busy ones first."""
        return (*(worker.pid for worker in self._busy), *self._idle.pids)

    @property
    def pending(self) -> int:
        """Orders that wait or are being drawn."""
        return len(self._orders)

    async def render(self, order: RenderOrder) -> RenderedFiles:
        """Draw an order and give its files, the primary one first.

        Calls with the id of an order that is being drawn share its result. Drawing goes on when a caller is
        cancelled. Raises ServiceError: INVALID_ARGUMENT (the order cannot be drawn), ALREADY_EXISTS (another order
        with this id is being drawn), RESOURCE_EXHAUSTED (queue full), DEADLINE_EXCEEDED, FAILED_PRECONDITION (the
        sandbox extra is not installed), UNAVAILABLE (the farm closes or cannot start workers), INTERNAL.
        """
        complaint = order.complaint()
        if complaint is not None:
            raise _refusal(Kind.INVALID_ARGUMENT, complaint)
        known = self._orders.get(order.order_id)
        if known is not None and known[0] != order:
            raise _refusal(Kind.ALREADY_EXISTS, "another order with this id is being drawn")
        task = known[1] if known is not None else self._begin(order)
        return await asyncio.shield(task)

    def cancel(self, order_id: str) -> None:
        """Stop drawing an order, if it waits or is being drawn; whoever waits for it gets UNAVAILABLE."""
        known = self._orders.get(order_id)
        if known is not None:
            known[1].cancel()

    async def close(self) -> None:
        """End all workers at once; orders that wait or are being drawn end with UNAVAILABLE."""
        self._closed = True
        tasks = [task for _, task in self._orders.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._idle.close()

    def _begin(self, order: RenderOrder) -> asyncio.Task[RenderedFiles]:
        if self._closed:
            raise _failure(Kind.UNAVAILABLE, "the render farm is closed")
        if len(self._orders) >= self._limit:
            raise _failure(Kind.RESOURCE_EXHAUSTED, "too many orders are waiting to be drawn")
        task = asyncio.create_task(self._run(order), name=f"render {order.order_id}")
        self._orders[order.order_id] = order, task
        task.add_done_callback(lambda done: self._forget(order.order_id, done))
        return task

    def _forget(self, order_id: str, task: asyncio.Task[RenderedFiles]) -> None:
        del self._orders[order_id]
        # Every caller may have been cancelled; the error is then nobody's, and asyncio need not complain.
        if not task.cancelled():
            task.exception()

    async def _run(self, order: RenderOrder) -> RenderedFiles:
        try:
            async with self._slots:
                return self._files(await self._draw(order))
        except asyncio.CancelledError:
            # Callers must not mistake that for their own cancellation.
            raise _failure(Kind.UNAVAILABLE, "the drawing was stopped") from None

    async def _draw(self, order: RenderOrder) -> Mapping[str, Any]:
        for _ in range(_TRIES):
            worker = await self._take_worker()
            try:
                async with asyncio.timeout(self._deadline_s):
                    answer = await worker.ask(order)
            except _WorkerDied:
                self._bury(worker, order, await worker.gone())
            except TimeoutError:
                self._bury(worker, order, await worker.kill())
                raise _failure(Kind.DEADLINE_EXCEEDED, "drawing took longer than its deadline") from None
            except asyncio.CancelledError:
                self._bury(worker, order, await worker.kill())
                raise
            else:
                self._put_back(worker)
                return answer
        raise _failure(Kind.INTERNAL, "the renderer died twice while drawing this order")

    async def _take_worker(self) -> _Worker:
        idle = self._idle.take()
        if idle is not None:
            self._busy.add(idle)
            return idle
        try:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
            worker = await _Worker.start(self._folder)
        except OSError as error:
            raise _failure(Kind.UNAVAILABLE, "a renderer could not be started") from error
        self._busy.add(worker)
        return worker

    def _put_back(self, worker: _Worker) -> None:
        self._busy.discard(worker)
        self._idle.put_back(worker)

    def _bury(self, worker: _Worker, order: RenderOrder, returncode: int) -> None:
        """Forget a worker that is gone, and remove what it had half written."""
        for part in self._folder.glob(f".{order.order_id}.*.{worker.pid}.part"):
            part.unlink(missing_ok=True)
        self._busy.discard(worker)
        log.warning("render.worker_ended", extra={"order_id": order.order_id, "returncode": returncode})

    def _files(self, answer: Mapping[str, Any]) -> RenderedFiles:
        error = answer.get("error")
        if error is None:
            return tuple(self._file(described) for described in answer["files"])
        log.error("render.failed", extra={"kind": error["kind"], "detail": error["detail"]})
        raise _failure(Kind(error["kind"]), error["message"])

    def _file(self, described: Mapping[str, Any]) -> RenderedFile:
        return RenderedFile(
            role=described["role"],
            path=self._folder / described["name"],
            content_type=described["content_type"],
            width=described["width"],
            height=described["height"],
            duration_s=described["duration_s"],
        )


def _refusal(kind: Kind, message: str) -> ServiceError:
    return ServiceError(kind, "INVALID_REQUEST", message)


def _failure(kind: Kind, message: str) -> ServiceError:
    return ServiceError(kind, "PROVIDER_UNREACHABLE", message)
