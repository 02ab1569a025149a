"""One process owns a SQLite file: a second one says so in one sentence and leaves, and the first notices nothing."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from services.chassis.process import EXIT_USAGE
from tests.faults.scene import STORED, Scene, fault_scene
from tests.faults.verdict import judge
from tests.house import ROOT

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

_REFUSED_WITHIN_S = 60.0
_ANY_PORT = "127.0.0.1:0"


async def _second(scene: Scene, service: str, *words: str) -> tuple[int | None, str]:
    """Starts another process on the same file; its exit code and what it said."""
    prefix = "ATELIER_POOL" if service == "provider_pool" else f"ATELIER_{service.upper()}"
    ports = {f"{prefix}_GRPC_LISTEN": _ANY_PORT, f"{prefix}_OPERATIONS_LISTEN": _ANY_PORT}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"services.{service}", *words),
        cwd=ROOT,
        env=scene.environment(service) | ports | {"ATELIER_SUPERVISOR_PID": str(os.getpid())},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), _REFUSED_WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()


async def test_a_second_process_on_a_sqlite_file_is_refused_and_the_first_works_on() -> None:
    async with fault_scene("sqlite") as scene:
        customer = await scene.customer(1000)
        made = await customer.image("before", "a boat [sandbox:pace=2]")
        for service in STORED:
            first = scene.processes[service]
            code, said = await _second(scene, service)
            sentence = (
                f"the database {scene.layout.database(service)} is in use by process {first.pid}: "
                "one process owns a SQLite file; stop it first, or use PostgreSQL to run several\n"
            )
            assert (code, said) == (EXIT_USAGE, sentence)
            assert first.alive
        assert (await customer.ended(made.json["jobId"]))["status"] == "complete"
        after = await customer.image("after", "a boat")
        assert (await customer.ended(after.json["jobId"]))["status"] == "complete"
        # Not one of them had to start again, and nobody was turned away.
        assert {told.status for told in scene.told} <= {200, 202}
        await scene.quiet()
        assert await judge(scene) == []


@pytest.mark.faults_full
async def test_the_file_of_a_killed_process_is_free_at_once() -> None:
    async with fault_scene("sqlite") as scene:
        for service in STORED:
            await scene.processes[service].kill()
        await asyncio.gather(*(scene.processes[service].start() for service in STORED))
        customer = await scene.customer(1000)
        made = await customer.image("key", "a boat")
        assert (await customer.ended(made.json["jobId"]))["status"] == "complete"
        await scene.quiet()
        assert await judge(scene) == []
