"""Keeps a house: starts its processes, starts again what crashes, stops them in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from services.chassis.errors import ServiceError
from services.house import demo, wiring
from services.house.child import Child
from services.house.databases import create_missing_databases
from services.house.layout import Layout, take_possession
from services.house.settings import Settings

# A process that dies at once again and again is started less and less often.
_RESTART_BACKOFF_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
# A process that ran this long had recovered; its next crash counts as the first.
_STEADY_S = 30.0
_LOG_CHECK_INTERVAL_S = 60.0
# Most processes end sooner; who waits longer is told why.
_QUIET_STOP_S = 3.0
# One file a process, cut when it grows past this; nobody reads further back on one machine.
_LOG_LIMIT_BYTES = 64 * 1024 * 1024


async def keep_house(settings: Settings, environ: Mapping[str, str]) -> None:
    """Runs until Ctrl-C or SIGTERM. Raises ServiceError with one sentence where it cannot start."""
    stop = asyncio.Event()
    children: list[Child] = []
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _asked_to_stop, stop, children)
    layout, lock = take_possession(settings.folder)
    with lock:
        ports = wiring.choose_ports(settings.port)
        await create_missing_databases(settings, layout)
        children += [
            Child(name, wiring.environment(name, settings, layout, ports) | dict(environ), layout.log(name))
            for name in wiring.services_of(settings)
        ]
        try:
            await _until_stopped(stop, _run(children, layout, ports))
        finally:
            _say("stopping …")
            for child in children:
                await _stop(child)
            _say("stopped")


def _asked_to_stop(stop: asyncio.Event, children: list[Child]) -> None:
    # Whoever asks twice does not want to wait: for a customer's slow download, or for a picture that is being paid for.
    if stop.is_set():
        for child in children:
            child.kill()
    stop.set()


async def _until_stopped(stop: asyncio.Event, house: Coroutine[Any, Any, None]) -> None:
    running = asyncio.create_task(house)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        for task in (running, stopping):
            task.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)


async def _run(children: list[Child], layout: Layout, ports: wiring.Ports) -> None:
    began_s = time.monotonic()
    _say(f"starting in {layout.root}")
    await asyncio.gather(*(_start(child, began_s) for child in children))
    description = await demo.furnish(layout, ports, {child.name: child.addresses for child in children})
    _say(f"ready after {time.monotonic() - began_s:.1f} s\n")
    (mails,) = (wiring.mails_of(child.environ) for child in children if child.name == "billing")
    print(demo.welcome(description, layout, mails), flush=True)  # noqa: T201 - what the person asked for
    await asyncio.gather(*(_keep(child) for child in children), _limit_logs(children))


async def _start(child: Child, began_s: float) -> None:
    await child.start()
    _say(f"  {child.name:<14} ready after {time.monotonic() - began_s:.1f} s (pid {child.pid})")


async def _stop(child: Child) -> None:
    stopping = asyncio.create_task(child.stop())
    await asyncio.wait({stopping}, timeout=_QUIET_STOP_S)
    if not stopping.done():
        _say(
            f"{child.name} ends what it has begun, which may take minutes where a provider is drawing; "
            "Ctrl-C again ends everything at once"
        )
    await stopping


async def _keep(child: Child) -> None:
    crashes = 0
    while True:
        began_s = time.monotonic()
        code = await child.exited()
        crashes = 0 if time.monotonic() - began_s > _STEADY_S else crashes
        delay_s = _RESTART_BACKOFF_S[min(crashes, len(_RESTART_BACKOFF_S) - 1)]
        crashes += 1
        _say(
            f"{child.name} ended by itself ({_reason(code)}); starting it again, its log is {child.log_path}"
        )
        await asyncio.sleep(delay_s)
        try:
            await child.start()
            _say(f"{child.name} is ready again (pid {child.pid})")
        except ServiceError as fault:
            _say(f"{child.name} did not come back: {fault.message}")


def _reason(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


async def _limit_logs(children: list[Child]) -> None:
    while True:
        await asyncio.sleep(_LOG_CHECK_INTERVAL_S)
        for child in children:
            # Opened for appending by the process itself, so cutting it here loses nothing but the old lines.
            if child.log_path.stat().st_size > _LOG_LIMIT_BYTES:
                os.truncate(child.log_path, 0)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201 - the person at the terminal reads this
