"""The jobs service as a process: its parts, in the order in which they begin."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path

from services.chassis.clock import SystemClock
from services.chassis.database import Database, migrate
from services.chassis.egress import Egress
from services.chassis.process import Process
from services.chassis.rpc_server import RpcServer
from services.chassis.sealing import SealingKeys
from services.chassis.signed_links import SignedLinks, SigningKeys
from services.jobs.clients import BillingClient, PoolClient
from services.jobs.engine import Engine
from services.jobs.rpc import SERVICE_NAME
from services.jobs.settings import MIGRATIONS, Settings
from services.jobs.steps import Clients
from services.jobs.webhooks.endpoints import has_secrets
from services.jobs.webhooks.sender import Means
from services.jobs.webhooks.telling import Terms

log = logging.getLogger(__name__)

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
        terms = await webhook_terms(settings, database, stack)
        engine = Engine(database, clients, SystemClock(), settings.timing(), settings.grpc_listen, terms)
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


async def webhook_terms(settings: Settings, database: Database, stack: AsyncExitStack) -> Terms:
    """What webhooks take of the settings. Raises SettingsError where only some of it is there."""
    signing = settings.media_signing_keys
    if not settings.means_are_complete() or settings.sealing_keys_file is None or signing is None:
        log.warning("webhooks.off")
        return Terms(settings.policy())
    keys = _sealing_keys(settings.sealing_keys_file, must_exist=await database.read(has_secrets))
    egress = await stack.enter_async_context(Egress(settings.policy(), ca_file=settings.egress_ca_file))
    links = SignedLinks(SigningKeys(signing), settings.public_url)
    means = Means(
        egress, keys, links, timeout_s=settings.webhook_timeout_s, retries_s=settings.webhook_retries_s
    )
    return Terms(settings.policy(), means)


def _sealing_keys(path: Path, *, must_exist: bool) -> SealingKeys:
    # A new ring would open nothing of what was sealed before: then a ring that is missing is a fault.
    if must_exist or path.exists():
        return SealingKeys.load(path)
    return SealingKeys.create(path)
