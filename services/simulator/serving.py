"""The running simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from services.chassis.clock import Clock, SystemClock
from services.chassis.process import Process
from services.simulator import state
from services.simulator.app import application, turn
from services.simulator.providers import all_providers
from services.simulator.settings import Settings
from services.simulator.world import World


@asynccontextmanager
async def serving(world: World, listen: str) -> AsyncIterator[str]:
    """Serves `world` while entered, at the address that it yields."""
    app = application(world, all_providers(world))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = listen.rpartition(":")
    await web.TCPSite(runner, host.strip("[]"), int(port), backlog=1024).start()
    async with world.hooks:
        turning = asyncio.create_task(turn(world), name="simulator-turn")
        try:
            yield "http://{}:{}".format(*runner.addresses[0][:2])
        finally:
            turning.cancel()
            with suppress(asyncio.CancelledError):
                await turning
            await runner.cleanup()


async def serve(settings: Settings, clock: Clock | None = None) -> None:
    """Serve until the process is asked to stop. Raises SettingsError if it cannot start."""
    world = World(clock or SystemClock(), seed=settings.seed, pace=settings.pace)
    async with Process("simulator", settings.operations_listen) as process:
        kept = state.Kept(settings.state_file)
        await kept.load(world)
        async with serving(world, settings.listen) as address, kept.saving(world):
            process.announce(http=address)
            await process.until_stopped()
