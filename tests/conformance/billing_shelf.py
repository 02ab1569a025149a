"""Ledgers that keep their rows in a database, for the machine of tests/unit: no coroutines, a shelf owns its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Connection, select, update

from services.billing.audit import Finding
from services.billing.ledger import Result, Wallet
from services.billing.operations import Expire, Grant, Hold, Operation, WalletId
from services.billing.schema import API_KEYS, CUSTOMERS, HOLDS, JOURNAL, SPENDING, UNBILLED, WALLETS
from services.billing.settings import MIGRATIONS
from services.billing.spending import SpendId, SpendLimits
from services.billing.store import holds, ledger, spending
from services.billing.verification import verify
from services.chassis.database import Database, migrate
from tests.postgres import Postgres
from tests.unit.billing_books import LINES, STOREFRONT, starting_wallets
from tests.unit.billing_machine import InPieces, Ledger, LedgerMachine, Rows

T = TypeVar("T")
# More than a sweep of one test can find.
EVERY = 10_000


class Shelf(AbstractContextManager["Shelf"]):
    """A migrated database, driven step by step from outside its loop."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(migrate(url, MIGRATIONS))
        self._database = self._runner.run(Database.open(url, application_name="atelier-shelf"))

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._database.close())
        self._runner.close()

    def write(self, work: Callable[[Connection], T]) -> T:
        return self._runner.run(self._write(work))

    def read(self, work: Callable[[Connection], T]) -> T:
        return self._runner.run(self._read(work))

    def findings(self) -> list[Finding]:
        """What an audit of everything finds."""
        report = self._runner.run(verify(partial(self._database.read, snapshot=True)))
        return report.findings

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._database.write(work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._database.read(work, snapshot=True)


class StoredLedger:
    """One run's own customers and jobs: their names carry the run's mark, because a shelf is never emptied."""

    def __init__(self, shelf: Shelf, mark: str) -> None:
        self._shelf = shelf
        self._wallets = [
            row._replace(id=WalletId(f"{row.id.customer_id}.{mark}", row.id.mode))
            for row in starting_wallets()
        ]
        self._customers = [row.id.customer_id for row in self._wallets]
        shelf.write(lambda connection: _add(connection, self._wallets, mark))

    def run(self, batch: Sequence[Operation], now_ms: int) -> list[Result]:
        return self._shelf.write(lambda connection: list(ledger.commit(connection, batch, lambda: now_ms)))

    def extend(self, job_ids: Sequence[str], until_ms: int) -> list[str]:
        return self._shelf.write(lambda connection: holds.extend(connection, job_ids, until_ms))

    def due(self, now_ms: int) -> list[Expire]:
        found, _ = self._shelf.read(lambda connection: holds.due(connection, now_ms, EVERY))
        return [operation for operation in found if operation.wallet.customer_id in self._customers]

    def set_active(self, customer_id: str, active: bool) -> None:
        state = "active" if active else "suspended"
        change = update(CUSTOMERS).where(CUSTOMERS.c.customer_id == customer_id).values(state=state)
        self._shelf.write(lambda connection: connection.execute(change).rowcount)

    def set_limits(self, wallet: WalletId, limits: SpendLimits, now_ms: int) -> None:
        self._shelf.write(lambda connection: spending.limit(connection, wallet.customer_id, limits, now_ms))

    def rows(self) -> Rows:
        return self._shelf.read(self._rows)

    def _rows(self, connection: Connection) -> Rows:
        own = self._customers
        held = connection.execute(select(*ledger.HOLD_COLUMNS).where(HOLDS.c.customer_id.in_(own)))
        journal = connection.execute(select(*ledger.ENTRY_COLUMNS).where(JOURNAL.c.customer_id.in_(own)))
        owed = select(UNBILLED.c.job_id, UNBILLED.c.amount_millis).where(UNBILLED.c.customer_id.in_(own))
        counted = connection.execute(select(SPENDING).where(SPENDING.c.customer_id.in_(own)))
        return Rows(
            sorted(map(_wallet, connection.execute(_WALLETS.where(WALLETS.c.customer_id.in_(own))))),
            sorted(map(ledger.hold_of, held), key=lambda hold: hold.job_id),
            sorted(map(ledger.entry_of, journal), key=lambda entry: (entry.wallet, entry.sequence)),
            {row.job_id: row.amount_millis for row in connection.execute(owed)},
            {SpendId(WalletId(*row[:2]), *row[2:4]): row[4] for row in counted if row[4]},
        )


_WALLETS = select(
    WALLETS.c.customer_id,
    WALLETS.c.mode,
    CUSTOMERS.c.storefront,
    CUSTOMERS.c.state,
    WALLETS.c.balance_millis,
    WALLETS.c.reserved_millis,
    WALLETS.c.sequence,
    WALLETS.c.day_limit_millis,
    WALLETS.c.month_limit_millis,
).join_from(WALLETS, CUSTOMERS, CUSTOMERS.c.customer_id == WALLETS.c.customer_id)


def _wallet(row: Any) -> Wallet:
    customer_id, mode, storefront, state, balance, reserved, sequence, *limits = row
    name = WalletId(customer_id, mode)
    return Wallet(name, storefront, state == "active", balance, reserved, sequence, SpendLimits(*limits))


def _add(connection: Connection, wallets: Sequence[Wallet], mark: str) -> None:
    for row in wallets:
        name, state = row.id.customer_id, "active" if row.active else "suspended"
        limits = {"requests_per_minute": 1, "running_jobs": 1, "queued_jobs": 1}
        told = {"customer_id": name, "name": name, "storefront": STOREFRONT, "state": state}
        connection.execute(CUSTOMERS.insert().values(**told, **limits, fingerprint="", created_at_ms=0))
        money = {"balance_millis": 0, "reserved_millis": 0, "sequence": 0}
        connection.execute(WALLETS.insert().values(customer_id=name, mode=row.id.mode, **money))
    for key_id, line in LINES.items():
        times = dict.fromkeys(("created_at_ms", "expires_at_ms", "revoked_at_ms", "last_used_at_ms"), 0)
        key = {
            "key_id": f"{key_id}.{mark}",
            "customer_id": f"{line.wallet.customer_id}.{mark}",
            "mode": line.wallet.mode,
            "label": "",
            "hint": "",
            "digest": f"{key_id}.{mark}",
            "day_limit_millis": line.limits.day_millis,
            "month_limit_millis": line.limits.month_millis,
            "line_key_id": f"{line.key_id}.{mark}" if line.key_id != key_id else "",
        }
        connection.execute(API_KEYS.insert().values(**key, **times))


class StoredMachine(LedgerMachine):
    """A run under names of its own, on shelves that keep the runs before it."""

    shelves: Sequence[Shelf] = ()
    marks = count()

    def __init__(self) -> None:
        super().__init__()
        self.mark = f"r{next(self.marks)}"

    def made(self, sizes: Sequence[int]) -> list[Ledger]:
        whole, pieces, postgres_whole, postgres_pieces = (
            StoredLedger(shelf, self.mark) for shelf in self.shelves
        )
        return [whole, InPieces(pieces, [1]), postgres_whole, InPieces(postgres_pieces, sizes)]

    def named(self, operation: Operation) -> Operation:
        wallet = self.named_wallet(operation.wallet)
        if isinstance(operation, Grant):
            return replace(operation, wallet=wallet)
        if isinstance(operation, Hold) and operation.key_id:
            operation = replace(operation, key_id=self.named_key(operation.key_id))
        return replace(operation, wallet=wallet, job_id=self.named_job(operation.job_id))

    def named_wallet(self, wallet: WalletId) -> WalletId:
        return WalletId(f"{wallet.customer_id}.{self.mark}", wallet.mode)

    def named_job(self, job_id: str) -> str:
        return f"{job_id}.{self.mark}"

    def named_key(self, key_id: str) -> str:
        return f"{key_id}.{self.mark}"


def run_on_every_engine(folder: Path, postgres: Postgres, depth: settings) -> None:
    """Run the machine on two databases of each engine, SQLite first, and audit all four."""
    urls = [f"sqlite:///{folder / f'{name}.db'}" for name in ("whole", "pieces")]
    made = [postgres.create_database() for _ in range(2)]
    with ExitStack() as stack:
        for url in made:
            stack.callback(postgres.drop_database, url)
        shelves = [stack.enter_context(Shelf(url)) for url in urls + made]

        class Machine(StoredMachine):
            pass

        Machine.shelves, Machine.marks = shelves, count()
        run_state_machine_as_test(Machine, settings=depth)
        assert [shelf.findings() for shelf in shelves] == [[], [], [], []]
