"""How long a house waits for a process that it has asked to stop."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from services.house import child
from services.house.child import Child


@pytest.fixture(autouse=True)
def _leaver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "module_of", lambda service: "tests.unit.slow_leaver")


async def started(folder: Path, drain_s: float, takes_s: float) -> Child:
    environ = dict(os.environ) | {"DRAIN_S": str(drain_s), "TAKES_S": str(takes_s)}
    process = Child("leaver", environ, folder / "log")
    await process.start()
    return process


async def test_a_process_has_the_time_to_drain_that_it_has_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_STOP_DEADLINE_S", 1.0)
    process = await started(tmp_path, drain_s=60, takes_s=2)
    await process.stop()
    assert await process.exited() == 0


async def test_a_process_goes_on_draining_whoever_else_asks_it_to_stop(tmp_path: Path) -> None:
    process = await started(tmp_path, drain_s=60, takes_s=1.5)
    os.kill(process.pid, 15)
    await asyncio.sleep(0.2)
    began_s = time.monotonic()
    await process.stop()
    assert time.monotonic() - began_s > 1
    assert await process.exited() == 0


async def test_what_outlasts_its_own_bound_is_not_waited_for(tmp_path: Path) -> None:
    process = await started(tmp_path, drain_s=0.2, takes_s=600)
    await process.stop()
    assert await process.exited() == 0
