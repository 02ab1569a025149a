"""A house on a disk that fills up under load, and is emptied again.

`python -m tests.faults.disk_scene FOLDER OUTSIDE` plays it on the disk that is mounted at FOLDER, in a process of its own
because only that one may see the mount; what must be written whatever happens goes to OUTSIDE.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.disk import Ballast, Disk
from tests.faults.scene import Scene, fault_scene
from tests.faults.storm_load import load, seeded, settled

_BEFORE_S = 1.0
# Group commit waits fifteen seconds for a disk; callers give up before.
_TURNED_AWAY_WITHIN_S = 60.0
_FULL_S = 3.0
_BACK_WITHIN_S = 30.0


async def fills_up(scene: Scene, disk: Disk) -> list[str]:
    """Full under load, until customers are turned away; then there is room again. What is wrong afterwards."""
    async with load(scene, seeded()) as asked:
        await asyncio.sleep(_BEFORE_S)
        disk.fill()
        try:
            await _answered(scene, 503, _TURNED_AWAY_WITHIN_S)
            await asyncio.sleep(_FULL_S)
        finally:
            disk.free()
        await _answered(scene, 202, _BACK_WITHIN_S)
    await asked.kept()
    fallen = [name for name, process in scene.processes.items() if not process.alive]
    return [f"{name} did not live through it" for name in fallen] + await settled(scene)


async def _answered(scene: Scene, status: int, within_s: float) -> None:
    """Waits until somebody who asks for an image from now on is answered so."""
    since_s = time.monotonic()
    async with asyncio.timeout(within_s):
        while not any(
            told.at_s > since_s and told.method == "POST" and told.status == status for told in scene.told
        ):
            await asyncio.sleep(0.05)


async def _on_small_disk(folder: Path, outside: Path) -> list[str]:
    tempfile.tempdir = str(folder)
    async with fault_scene("sqlite") as scene:
        await _log_elsewhere(scene, outside)
        return await fills_up(scene, Ballast(folder))


async def _log_elsewhere(scene: Scene, outside: Path) -> None:
    """The record of what was sent is part of the verdict, so it must not be what the full disk loses."""
    await asyncio.gather(*(process.kill() for process in scene.processes.values()))
    logs = scene.layout.root / "logs"
    shutil.move(logs, outside / "logs")
    logs.symlink_to(outside / "logs")
    await asyncio.gather(*(process.start() for process in scene.processes.values()))


if __name__ == "__main__":
    sys.exit("\n".join(asyncio.run(_on_small_disk(Path(sys.argv[1]), Path(sys.argv[2])))) or 0)
