"""A process's outer life: the operations port, signals, readiness, and how it starts and stops."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, NoReturn, Self

import uvloop
from aiohttp import web

from services.chassis import metrics
from services.chassis.errors import ServiceError
from services.chassis.settings import SettingsError

log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[None]]

# A probe that takes longer than this tells an orchestrator nothing that it can use.
_CHECK_DEADLINE_S = 2.0
# Where a supervisor wants to read the announcement: the number of an inherited pipe.
_ANNOUNCE_FD = "ATELIER_ANNOUNCE_FD"
# Who started the process and wants it to end with it.
_SUPERVISOR_PID = "ATELIER_SUPERVISOR_PID"
# In an announcement: for how many seconds the process may go on with what it has begun when it is asked to stop.
DRAIN_S = "drain_s"
# prctl's option number for "signal me when my parent dies" (linux/prctl.h).
_PR_SET_PDEATHSIG = 1
# gRPC's fork handlers run in the child between fork and exec and, while a call is under way, crash it now and then. This is
# how gRPC is told that forks are only made to start programs. It is read when gRPC is imported: a service that starts
# programs imports it after `run` has begun.
_NO_FORK_HANDLERS = ("GRPC_ENABLE_FORK_SUPPORT", "0")
# Objects made and not yet gone before the garbage collector looks at the young ones; the interpreter's own is 700.
_GC_THRESHOLD = 20_000
# An operator's mistake, not a crash: a supervisor does not start it again.
EXIT_USAGE = 2


class Process:
    """Owns the operations port, the stop signals and the ready announcement of one process.

    `/healthz` answers while the loop turns, `/readyz` asks every check, `/metrics` shows
    Prometheus' text. None of them is served on a public port.

    drain_s: how long `finish` may take; a supervisor hears of it, and waits so much longer before it kills.
    """

    def __init__(self, name: str, operations_listen: str, *, drain_s: float = 0.0) -> None:
        self.name = name
        self._listen = operations_listen
        self._drain_s = drain_s
        # A supervisor kills when it has waited enough. Where the machine stops everything at once, the first signal is
        # the machine's and the second the supervisor's own, and nobody is in a hurry.
        self._is_supervised = bool(os.environ.pop(_SUPERVISOR_PID, ""))
        self._checks: dict[str, Check] = {}
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stack = AsyncExitStack()
        self.operations_url = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        await self._stack.enter_async_context(metrics.LoopLagProbe())
        self.operations_url = await self._serve_operations()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        log.info("process.stopped")

    def add_check(self, name: str, check: Check) -> None:
        """`/readyz` is 200 only while `check` returns; what it raises is what is wrong."""
        self._checks[name] = check

    def announce(self, **addresses: str) -> None:
        """Says that the process is ready, and where it listens, to the log and to a supervisor."""
        announcement = {"name": self.name, "operations": self.operations_url, **addresses}
        if self._drain_s:
            announcement[DRAIN_S] = str(self._drain_s)
        log.info("process.ready", extra={"addresses": announcement})
        _collect_less_often()
        pipe = os.environ.pop(_ANNOUNCE_FD, "")
        if pipe:
            with os.fdopen(int(pipe), "w", encoding="utf-8") as supervisor:
                supervisor.write(json.dumps(announcement) + "\n")

    def stop(self) -> None:
        """Ends `until_stopped`, as SIGTERM does."""
        self._stop.set()

    async def until_stopped(self) -> None:
        """Returns when the process is asked to stop."""
        await self._stop.wait()
        log.info("process.stopping")

    @property
    def hurried(self) -> bool:
        """Whether the process was asked to stop a second time: then it ends at once."""
        return self._hurry.is_set()

    async def finish(self, work: Awaitable[None]) -> bool:
        """Waits for the end of `work`, `drain_s` at most and not beyond a second signal; whether it came to its end."""
        working = asyncio.ensure_future(work)
        hurrying = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait(
                {working, hurrying}, timeout=self._drain_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not working.done():
                return False
            working.result()
            return True
        finally:
            for task in (working, hurrying):
                task.cancel()
            await asyncio.gather(working, hurrying, return_exceptions=True)

    def _asked_to_stop(self) -> None:
        if self._stop.is_set() and not self._is_supervised:
            self._hurry.set()
        self._stop.set()

    async def _serve_operations(self) -> str:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        host, _, port = self._listen.rpartition(":")
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        return "http://{}:{}".format(*runner.addresses[0][:2])

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        names = list(self._checks)
        outcomes = await asyncio.gather(*(self._outcome(self._checks[name]) for name in names))
        faults = {name: fault for name, fault in zip(names, outcomes, strict=True) if fault}
        if self._stop.is_set():
            faults["process"] = "stopping"
        body = {"status": "not ready" if faults else "ready", "faults": faults}
        return web.json_response(body, status=503 if faults else 200)

    @staticmethod
    async def _outcome(check: Check) -> str:
        try:
            await asyncio.wait_for(check(), _CHECK_DEADLINE_S)
        except Exception as fault:
            return f"{fault.__class__.__name__}: {fault}"
        return ""

    async def _metrics(self, request: web.Request) -> web.Response:
        text = await asyncio.get_running_loop().run_in_executor(None, metrics.exposition)
        return web.Response(body=text, headers={"Content-Type": metrics.CONTENT_TYPE})


def _collect_less_often() -> None:
    # What a process is made of lives as long as it does: looking at all of it again and again took a tenth of the
    # time of a busy one. Cycles are few here (an exception that holds its own frame), so they may wait.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 20)


def _end_with_supervisor() -> None:
    supervisor = os.environ.get(_SUPERVISOR_PID, "")
    if not supervisor:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(supervisor):
        sys.exit(EXIT_USAGE)


def _say_last(sentence: str) -> None:
    # What an operator looks for is the last line, after whatever the log still gathers.
    for handler in logging.getLogger().handlers:
        handler.flush()
    print(sentence, file=sys.stderr)  # noqa: T201 - for the operator


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    """Runs `main` on uvloop to its end and exits: 0 well, 2 unusable settings or place, 1 a crash.

    What an operator can mend is one sentence on standard error; a crash is a traceback in the log.
    """
    _end_with_supervisor()
    os.environ.setdefault(*_NO_FORK_HANDLERS)
    try:
        uvloop.run(main())
    except (SettingsError, ServiceError) as fault:
        _say_last(fault.message if isinstance(fault, ServiceError) else str(fault))
        sys.exit(EXIT_USAGE)
    except OSError as fault:
        _say_last(f"cannot start: {fault.strerror or fault}")
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        log.exception("process.crashed")
        sys.exit(1)
    sys.exit(0)
