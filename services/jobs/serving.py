"""The jobs service as a process: its parts, in the order in which they begin."""

from __future__ import annotations

from contextlib import AsyncExitStack

from services.chassis.clock import SystemClock
from services.chassis.database import Database, migrate
from services.chassis.process import Process
from services.chassis.rpc_server import RpcServer
from services.jobs.clients import BillingClient, PoolClient
from services.jobs.engine import Engine
from services.jobs.rpc import SERVICE_NAME
from services.jobs.settings import MIGRATIONS, Settings
from services.jobs.steps import Clients

# Jobs are handed over after the last call has ended, and all of it should take no longer than three seconds.
_CALLS_GRACE_S = 1.0


async def serve(settings: Settings) -> None:
    """Serves until the process is asked to stop; then hands its jobs over."""
    url = settings.database_url.reveal()
    await migrate(url, MIGRATIONS)
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(Process("jobs", settings.operations_listen))
        database = await Database.open(url, application_name="jobs")
        stack.push_async_callback(database.close)
        billing = await stack.enter_async_context(BillingClient(settings.billing_address))
        pool = await stack.enter_async_context(PoolClient(settings.pool_address))
        clients = Clients(billing, pool)
        engine = Engine(database, clients, SystemClock(), settings.timing(), settings.grpc_listen)
        await stack.enter_async_context(engine)
        server = RpcServer(
            settings.grpc_listen, [engine.servicer.add_to], [SERVICE_NAME], grace_s=_CALLS_GRACE_S
        )
        await stack.enter_async_context(server)
        process.add_check("engine", engine.check)
        process.add_check("billing", billing.check)
        process.add_check("provider_pool", pool.check)
        process.announce(grpc=server.address)
        await process.until_stopped()
