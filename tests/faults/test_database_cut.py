"""PostgreSQL's connections break where it hurts: at COMMIT, and everywhere at once; the server dies under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.database_faults import end_backends, kill_server
from tests.faults.database_proxy import DatabaseProxy, Loss, ProxiedPostgres
from tests.faults.scene import Scene, fault_scene
from tests.faults.storm_load import load, seeded, settled, soak_s

pytestmark = [pytest.mark.faults, pytest.mark.timeout(2 * 3600)]

# As each service names itself to the server, for its writing connections.
_WRITERS = ("atelier-billing", "jobs", "atelier-provider-pool")
_LOSSES: tuple[Loss, ...] = ("answer", "request")
_LOST_IN_A_ROW = 4
_LOST_WITHIN_S = 40.0
# The outage of a small server that restarts; group commit waits fifteen seconds.
_AWAY_S = 2.0


@asynccontextmanager
async def _proxied() -> AsyncIterator[tuple[Scene, DatabaseProxy, ProxiedPostgres]]:
    async with DatabaseProxy() as proxy:
        with ProxiedPostgres(proxy) as server:
            async with fault_scene("postgresql", server) as scene:
                yield scene, proxy, server


async def _settled(scene: Scene) -> None:
    assert await settled(scene) == []


async def test_a_connection_cut_at_commit_loses_nothing_and_repeats_nothing() -> None:
    """Each service in turn, several times in a row: COMMIT arrived and its answer did not, or COMMIT did not arrive."""
    async with _proxied() as (scene, proxy, _):
        async with load(scene, seeded()) as asked:
            for what in _LOSSES:
                for writer in _WRITERS:
                    proxy.lose(writer, what, times=_LOST_IN_A_ROW)
                    async with asyncio.timeout(_LOST_WITHIN_S):
                        while not proxy.obeyed(writer):
                            await asyncio.sleep(0.02)
        await asked.kept()
        await _settled(scene)
        for writer in _WRITERS:
            assert proxy.lost[writer, "answer"] == _LOST_IN_A_ROW
            assert proxy.lost[writer, "request"] == _LOST_IN_A_ROW


async def test_the_server_and_all_its_backends_killed_under_load_lose_nothing() -> None:
    async with _proxied() as (scene, _, server):
        async with load(scene, seeded()) as asked:
            for _ in range(2):
                await asyncio.sleep(1.5)
                assert await asyncio.to_thread(kill_server, server) > len(_WRITERS)
                await asyncio.sleep(_AWAY_S)
                await asyncio.to_thread(server.start)
        await asked.kept()
        # No process had to be started again: each of them found the server by itself.
        assert all(process.alive and process.deaths == 0 for process in scene.processes.values())
        await _settled(scene)


@pytest.mark.faults_full
async def test_storms_of_ended_backends_lose_nothing() -> None:
    chance = seeded()
    async with _proxied() as (scene, _, server):
        loop = asyncio.get_running_loop()
        until_s = loop.time() + max(soak_s(), 10.0)
        ended = 0
        async with load(scene, chance) as asked:
            while loop.time() < until_s:
                ended += await end_backends(server.direct_url("postgres"), chance.choice((0.2, 0.5, 1.0)))
                await asyncio.sleep(chance.uniform(0.05, 0.6))
        assert ended > 20
        await asked.kept()
        await _settled(scene)


@pytest.mark.faults_full
async def test_the_network_to_the_server_cut_and_refused_again_and_again_loses_nothing() -> None:
    chance = seeded()
    async with _proxied() as (scene, proxy, _):
        async with load(scene, chance) as asked:
            for _ in range(10):
                if chance.random() < 0.3:
                    proxy.refuse()
                proxy.cut()
                await asyncio.sleep(chance.uniform(0.1, 1.5))
                proxy.accept()
                proxy.cut_after(chance.randint(1, 60_000), chance.choice(("up", "down")))
                await asyncio.sleep(chance.uniform(0.1, 1.0))
        await asked.kept()
        await _settled(scene)
