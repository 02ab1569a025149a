"""The running service: its parts, built from the settings in the order in which they depend on each other."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from sqlalchemy import Connection, select

from services.billing import settings as places
from services.billing import upkeep
from services.billing.authentication import Authenticator
from services.billing.bookkeeper import Bookkeeper
from services.billing.rpc import SERVICE_NAME, BillingService
from services.billing.settings import MIGRATIONS, Settings
from services.billing.verification import LedgerWatch
from services.chassis.clock import Clock, SystemClock
from services.chassis.database import Database, migrate
from services.chassis.process import Process
from services.chassis.rounds import Round, rounds
from services.chassis.rpc_server import RpcServer
from services.gen.billing.v1 import billing_pb2_grpc as rpc


async def serve(settings: Settings) -> None:
    """Serve until the process is asked to stop. Raises SettingsError or ServiceError if it cannot start."""
    clock = SystemClock()
    storefronts = places.storefronts(settings.price_lists)
    async with Process("billing", settings.operations_listen) as process, AsyncExitStack() as stack:
        url = settings.database_url.reveal()
        await migrate(url, MIGRATIONS)
        database = await Database.open(url, application_name="atelier-billing")
        stack.push_async_callback(database.close)
        bookkeeper = Bookkeeper(database, clock)
        stack.push_async_callback(bookkeeper.close)
        authenticator = Authenticator(database, storefronts.key_prefixes(), settings.key_pepper, clock)
        stack.push_async_callback(authenticator.write_uses)
        service = BillingService(database, bookkeeper, authenticator, storefronts, settings.key_pepper, clock)
        await stack.enter_async_context(rounds(clock, _rounds(database, bookkeeper, authenticator, clock)))
        server = RpcServer(
            settings.grpc_listen, [partial(rpc.add_BillingServiceServicer_to_server, service)], [SERVICE_NAME]
        )
        await stack.enter_async_context(server)
        process.add_check("database", lambda: database.read(_ping))
        process.announce(grpc=server.address)
        await process.until_stopped()


def _rounds(
    database: Database, bookkeeper: Bookkeeper, authenticator: Authenticator, clock: Clock
) -> dict[str, Round]:
    return {
        "expire_holds": partial(upkeep.expire_holds, database, bookkeeper, clock),
        "show_gauges": partial(upkeep.show_gauges, database, clock),
        "write_key_uses": partial(upkeep.write_key_uses, authenticator),
        "watch_ledger": LedgerWatch(partial(database.read, snapshot=True)).step,
    }


def _ping(connection: Connection) -> None:
    connection.execute(select(1))
