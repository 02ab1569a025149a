"""The store's own road for tests: the bookkeeper over a migrated database with three customers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Executable, func, select

from services.billing.audit import Report
from services.billing.bookkeeper import Bookkeeper
from services.billing.ledger import Receipt
from services.billing.operations import Operation, WalletId
from services.billing.schema import CUSTOMERS, METADATA, WALLETS
from services.billing.settings import MIGRATIONS
from services.billing.store import ledger, wallets
from services.billing.verification import verify
from services.chassis.database import Database, migrate
from services.chassis.errors import ServiceError
from tests.clocks import HandClock
from tests.unit.billing_books import ANN, T0_MS, starting_wallets


@dataclass
class Books:
    """The store's own road: the bookkeeper over a migrated database with three customers."""

    url: str
    database: Database
    clock: HandClock
    bookkeeper: Bookkeeper

    async def run(self, *batch: Operation) -> list[Receipt | ServiceError]:
        """One batch, in one transaction."""
        return await self.database.write(
            lambda connection: ledger.commit(connection, batch, self.clock.now_ms)
        )

    async def execute(self, statement: Executable) -> None:
        await self.database.write(lambda connection: _execute(connection, statement))

    async def money(self, wallet_id: WalletId = ANN) -> tuple[int, int]:
        return await self.database.read(lambda connection: wallets.standing(connection, wallet_id))

    async def count(self, table: str) -> int:
        return await self.database.read(
            lambda connection: connection.execute(
                select(func.count()).select_from(METADATA.tables[table])
            ).scalar_one()
        )

    async def report(self) -> Report:
        return await verify(partial(self.database.read, snapshot=True))

    async def findings(self) -> set[str]:
        return {finding.invariant for finding in (await self.report()).findings}


def _execute(connection: Connection, statement: Executable) -> None:
    connection.execute(statement)


def add_customers(connection: Connection) -> None:
    for row in starting_wallets():
        name = row.id.customer_id
        limits = {"requests_per_minute": 1, "running_jobs": 1, "queued_jobs": 1}
        connection.execute(
            CUSTOMERS.insert().values(
                customer_id=name,
                storefront=row.storefront,
                name=name,
                state="active" if row.active else "suspended",
                fingerprint="",
                created_at_ms=0,
                **limits,
            )
        )
        connection.execute(
            WALLETS.insert().values(
                customer_id=name, mode=row.id.mode, balance_millis=0, reserved_millis=0, sequence=0
            )
        )


@asynccontextmanager
async def opened_books(url: str) -> AsyncIterator[Books]:
    """Books in an empty database."""
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="conformance")
    clock = HandClock(T0_MS)
    bookkeeper = Bookkeeper(database, clock)
    await database.write(add_customers)
    yield Books(url, database, clock, bookkeeper)
    await bookkeeper.close()
    await database.close()
