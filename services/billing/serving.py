"""The running service: its parts, built from the settings in the order in which they depend on each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from sqlalchemy import Connection, select

from services.billing import passwords, upkeep
from services.billing import settings as places
from services.billing.access_tokens import AccessTokens
from services.billing.authentication import Authenticator, Secrets
from services.billing.bookkeeper import Bookkeeper
from services.billing.key_making import KeyMaker
from services.billing.mail import Mailer, Outbox, SmtpServer
from services.billing.passwords import Passwords
from services.billing.prices import Storefronts
from services.billing.resets import Resets
from services.billing.rpc import SERVICE_NAME, BillingService
from services.billing.settings import MIGRATIONS, Settings
from services.billing.user_accounts import UserAccounts
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
    places.check_mail(settings)
    async with Process("billing", settings.operations_listen) as process, AsyncExitStack() as stack:
        url = settings.database_url.reveal()
        await migrate(url, MIGRATIONS)
        database = await Database.open(url, application_name="atelier-billing")
        stack.push_async_callback(database.close)
        bookkeeper = Bookkeeper(database, clock)
        stack.push_async_callback(bookkeeper.close)
        secrets = Secrets(
            settings.key_peppers, AccessTokens(settings.token_secrets, settings.token_lifetime_s)
        )
        authenticator = Authenticator(database, storefronts.key_prefixes(), secrets, clock)
        stack.push_async_callback(authenticator.write_uses)
        users = await stack.enter_async_context(
            _users(settings, database, storefronts, secrets.tokens, clock)
        )
        key_maker = KeyMaker(database, storefronts, settings.key_peppers[0], clock)
        service = BillingService(database, bookkeeper, authenticator, storefronts, key_maker, users, clock)
        await stack.enter_async_context(rounds(clock, _rounds(database, bookkeeper, authenticator, clock)))
        server = RpcServer(
            settings.grpc_listen, [partial(rpc.add_BillingServiceServicer_to_server, service)], [SERVICE_NAME]
        )
        await stack.enter_async_context(server)
        process.add_check("database", lambda: database.read(_ping))
        process.announce(grpc=server.address)
        await process.until_stopped()


@asynccontextmanager
async def _users(
    settings: Settings, database: Database, storefronts: Storefronts, tokens: AccessTokens, clock: Clock
) -> AsyncIterator[UserAccounts]:
    async with Resets(database, storefronts, _mailer(settings), clock) as resets:
        hashed = Passwords(passwords.argon2id())
        try:
            yield UserAccounts(database, storefronts, hashed, tokens, resets, clock)
        finally:
            hashed.close()


def _mailer(settings: Settings) -> Mailer:
    if not settings.smtp_host:
        return Outbox(settings.outbox)
    return SmtpServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=settings.smtp_security,
        sender=settings.smtp_from,
        user=settings.smtp_user,
        password=settings.smtp_password,
    )


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
