"""A real house whose processes may die at any point, with customers who write down what they were answered.

`async with fault_scene("sqlite") as scene:` starts it; `scene.processes["jobs"]` may be armed, killed, frozen and started
again; `await scene.quiet()` waits until everything has come to rest, and `tests.faults.verdict.judge` says what is wrong.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
from sqlalchemy.exc import SQLAlchemyError

from services.billing.offline import reader
from services.billing.verification import Reader
from services.chassis.errors import ServiceError
from services.chassis.rpc_client import open_channel
from services.gen.billing.v1 import billing_pb2_grpc as billing_rpc
from services.gen.jobs.v1 import jobs_pb2_grpc as jobs_rpc
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as pool_rpc
from services.house import demo, wiring
from services.house.databases import create_missing_databases
from services.house.layout import Layout, take_possession
from services.house.settings import Settings
from tests.faults.armed_process import ArmedProcess
from tests.faults.client import Client, Told
from tests.house import Inside, environment
from tests.postgres import Postgres

Engine = Literal["sqlite", "postgresql"]

STORED = ("billing", "jobs", "provider_pool")

# Production's waits, shortened until one death costs seconds: none of them changes what happens, only when.
TIMES = {
    "ATELIER_JOBS_WORKER_TTL_MS": "1500",
    "ATELIER_JOBS_POLL_INTERVAL_MS": "50",
    "ATELIER_JOBS_SYNC_INTERVAL_S": "0.2",
    "ATELIER_JOBS_RENEWAL_S": "0.5",
    "ATELIER_JOBS_RECONCILE_S": "0.4",
    "ATELIER_JOBS_RECONCILE_AGE_S": "1",
    "ATELIER_JOBS_DISPATCH_S": "0.3",
    "ATELIER_JOBS_WEBHOOK_RETRIES_S": "0.2,0.2,0.2",
    "ATELIER_POOL_UNKNOWN_WINDOW_S": "1.5",
    "ATELIER_POOL_SANDBOX_WORKERS": "1",
    "ATELIER_POOL_REFERENCE_WORKERS": "1",
    "ATELIER_LOG_LEVEL": "warning",
}
_QUIET_DEADLINE_S = 60.0
_LOOK_S = 0.1


@dataclass
class Scene:
    """The house, its processes, its customers' memory, and readers of its three databases."""

    engine: Engine
    layout: Layout
    settings: Settings
    ports: wiring.Ports
    environ: Mapping[str, str]
    server: Postgres | None
    session: aiohttp.ClientSession
    processes: dict[str, ArmedProcess] = field(default_factory=dict)
    readers: dict[str, Reader] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    inside: Inside = field(init=False)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.public}"

    def url(self, service: str) -> str:
        """The address of a service's database."""
        return wiring.database_url(self.settings, self.layout, service)

    def environment(self, service: str) -> dict[str, str]:
        """What a process of this service is started with."""
        return wiring.environment(service, self.settings, self.layout, self.ports) | dict(self.environ)

    async def add(self, name: str, service: str, **changes: str) -> ArmedProcess:
        """Starts one more process; give a second of a kind other ports: ATELIER_JOBS_GRPC_LISTEN="127.0.0.1:0"."""
        process = ArmedProcess(name, service, self.environment(service) | changes, self.layout.root / "logs")
        self.processes[name] = process
        await process.start()
        return process

    async def customer(self, credits_live: int, *, limits: Mapping[str, int] | None = None) -> Client:
        """A new customer with so many credits, and its client."""
        customer_id, key, _ = await self.inside.customer(credits_live, limits=limits)
        return Client(self.session, self.base_url, key, customer_id, self.told)

    async def quiet(self, *, deadline_s: float = _QUIET_DEADLINE_S) -> None:
        """Returns when nothing is under way any more. Raises AssertionError with what still is."""
        # Not at the top: the verdict reads scenes.
        from tests.faults.verdict import under_way

        loop = asyncio.get_running_loop()
        until_s = loop.time() + deadline_s
        rest = "the databases could not be read"
        while True:
            try:
                rest = ", ".join(await under_way(self))
            except (ServiceError, SQLAlchemyError) as away:
                rest = f"a database is away: {away}"
            if not rest:
                return
            if loop.time() > until_s:
                raise AssertionError(f"not at rest after {deadline_s:.0f} s: {rest}")
            await asyncio.sleep(_LOOK_S)

    def submissions(self) -> Counter[str]:
        """How often each attempt left for its provider, as counted at the call itself, over all lives of the pool."""
        return self._subjects("provider.submit.before")

    def taken(self) -> Counter[str]:
        """How often the provider's answer to an attempt was that it takes it."""
        return self._subjects("provider.submit.after")

    def _subjects(self, point: str) -> Counter[str]:
        pools = [process for process in self.processes.values() if process.service == "provider_pool"]
        return sum((pool.subjects(point) for pool in pools), Counter[str]())


@asynccontextmanager
async def fault_scene(
    engine: Engine, server: Postgres | None = None, /, **settings: str
) -> AsyncIterator[Scene]:
    """A house on this engine. `settings` win over TIMES; a PostgreSQL of its own is started where none is given."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atelier-scene-")))
        if engine == "postgresql" and server is None:
            server = stack.enter_context(Postgres())
        scene = _scene(stack, engine, folder, server, settings)
        stack.push_async_callback(_close_all, scene.processes)
        async with scene.session:
            await create_missing_databases(scene.settings, scene.layout)
            services = ("billing", "provider_pool", "jobs", "gateway")
            await asyncio.gather(*(scene.add(name, name) for name in services))
            await _furnish(stack, scene)
            yield scene


def _scene(
    stack: AsyncExitStack,
    engine: Engine,
    folder: Path,
    server: Postgres | None,
    settings: Mapping[str, str],
) -> Scene:
    layout, lock = take_possession(folder)
    stack.enter_context(lock)
    address = "" if server is None or engine == "sqlite" else server.url(f"scene_{os.urandom(4).hex()}")
    times = TIMES | dict(settings)
    kept = Settings(
        port=0,
        var=folder,
        database_url=address,
        log_level=times["ATELIER_LOG_LEVEL"],
        providers=times.get("ATELIER_PROVIDERS", "sandbox"),
    )
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    inherited = environment(folder)
    return Scene(engine, layout, kept, wiring.choose_ports(0), inherited | times, server, session)


async def _furnish(stack: AsyncExitStack, scene: Scene) -> None:
    addresses = {name: process.addresses for name, process in scene.processes.items()}
    await demo.furnish(scene.layout, scene.ports, addresses)
    channels = {name: open_channel(addresses[name]["grpc"]) for name in STORED}
    for channel in channels.values():
        stack.push_async_callback(channel.close)
    scene.inside = Inside(
        billing_rpc.BillingServiceStub(channels["billing"]),
        jobs_rpc.JobsServiceStub(channels["jobs"]),
        pool_rpc.ProviderPoolServiceStub(channels["provider_pool"]),
    )
    await scene.inside.set_account_options(render="instant", pace_ms="100")
    for name in STORED:
        scene.readers[name] = await stack.enter_async_context(reader(scene.url(name)))


async def _close_all(processes: Mapping[str, ArmedProcess]) -> None:
    await asyncio.gather(*(process.close() for process in processes.values()))


def said(scene: Scene) -> dict[str, Any]:
    """The last words of every process, for a message of failure."""
    return {
        name: process.log.read_text(errors="replace").splitlines()[-5:]
        for name, process in scene.processes.items()
    }
