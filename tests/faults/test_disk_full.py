"""No room on the disk: customers are told 503, nothing that was promised is lost, and room is all it takes to go on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.faults.disk import SMALL_DISK, FileLimit, mount_namespace
from tests.faults.disk_scene import fills_up
from tests.faults.scene import fault_scene
from tests.house import ROOT, environment

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

_PLAYED_WITHIN_S = 400.0


@pytest.mark.faults_full
@pytest.mark.parametrize("service", ["billing", "jobs", "provider_pool"])
async def test_a_service_whose_files_cannot_grow_turns_customers_away_and_loses_nothing(service: str) -> None:
    async with fault_scene("sqlite") as scene:
        assert await fills_up(scene, FileLimit(scene.processes[service])) == []


async def test_a_house_on_a_full_disk_turns_customers_away_and_loses_nothing(tmp_path: Path) -> None:
    """On a real file system without room, where this machine lets a test mount one; else under a limit of the kernel."""
    namespace = mount_namespace()
    if namespace is None:
        async with fault_scene("sqlite") as scene:
            processes = [scene.processes[name] for name in ("billing", "jobs", "provider_pool")]
            assert await fills_up(scene, FileLimit(*processes)) == []
        return
    disk, outside = tmp_path / "disk", tmp_path / "outside"
    disk.mkdir()
    outside.mkdir()
    process = await asyncio.create_subprocess_exec(
        *namespace,
        *("sh", "-c", f'mount -t tmpfs -o {SMALL_DISK} none "$0" && exec "$@"', str(disk)),
        *(sys.executable, "-m", "tests.faults.disk_scene", str(disk), str(outside)),
        cwd=ROOT,
        env=environment(outside),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        told, _ = await asyncio.wait_for(process.communicate(), _PLAYED_WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, told.decode(errors="replace")
