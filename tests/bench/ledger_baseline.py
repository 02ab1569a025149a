"""What the ledger is measured against: the same tables and rules, written as most services are.

SQLAlchemy Core on its async engines, one transaction a request: lock the wallet, look the key up, check, write the
journal, the hold and the wallet, commit. It is not slowed down on purpose: statements are built once and cached by
SQLAlchemy, SQLite has its one write connection in WAL with full sync, PostgreSQL a pool of sixteen.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sqlalchemy import bindparam, event, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from services.billing.ledger import reserved_account, system_account, wallet_account
from services.billing.operations import Capture, Hold, WalletId, fingerprint
from services.billing.schema import HOLDS, JOURNAL, WALLETS

POSTGRES_CONNECTIONS = 16

_SEEN = select(JOURNAL.c.applied, JOURNAL.c.fingerprint).where(
    JOURNAL.c.idempotency_key == bindparam("key"),
    JOURNAL.c.customer_id == bindparam("customer"),
    JOURNAL.c.mode == bindparam("in_mode"),
)
_WALLET = (
    select(WALLETS.c.balance_millis, WALLETS.c.reserved_millis, WALLETS.c.sequence)
    .where(WALLETS.c.customer_id == bindparam("customer"), WALLETS.c.mode == bindparam("in_mode"))
    .with_for_update(key_share=True)
)
_HOLD = select(HOLDS.c.amount_millis, HOLDS.c.state).where(HOLDS.c.job_id == bindparam("job"))
_CLOSE = update(HOLDS).where(HOLDS.c.job_id == bindparam("job"))
_MOVE = update(WALLETS).where(
    WALLETS.c.customer_id == bindparam("customer"), WALLETS.c.mode == bindparam("in_mode")
)


class Baseline:
    """Holds and captures, each in a transaction of its own."""

    def __init__(self, url: str) -> None:
        self._engine = _sqlite(url) if url.startswith("sqlite") else _postgres(url)
        # Sixty-four clients that fight for one SQLite connection wait in the pool's queue, first come first served.
        self._turn = asyncio.Semaphore(1 if url.startswith("sqlite") else POSTGRES_CONNECTIONS)

    async def submit(self, operation: Hold | Capture) -> None:
        """Raises RuntimeError where the rules would refuse; the measurement never makes them."""
        async with self._turn, self._engine.begin() as connection:
            wallet = (await connection.execute(_WALLET, _named(operation.wallet))).one()
            seen = await connection.execute(_SEEN, _named(operation.wallet) | {"key": operation.key})
            if seen.first() is not None:
                raise RuntimeError("a key of the measurement came twice")
            if isinstance(operation, Hold):
                await self._hold(connection, operation, wallet)
            else:
                await self._capture(connection, operation, wallet)

    async def close(self) -> None:
        await self._engine.dispose()

    async def _hold(self, connection: AsyncConnection, operation: Hold, wallet: Any) -> None:
        assert operation.quote is not None
        amount_millis, now_ms = operation.quote.amount_millis, int(time.time() * 1000)
        if wallet.balance_millis - wallet.reserved_millis < amount_millis:
            raise RuntimeError("a wallet of the measurement ran dry")
        await connection.execute(
            insert(HOLDS),
            {
                "job_id": operation.job_id,
                "customer_id": operation.wallet.customer_id,
                "mode": operation.wallet.mode,
                "amount_millis": amount_millis,
                "captured_millis": 0,
                "state": "open",
                "created_at_ms": now_ms,
                "expires_at_ms": now_ms + operation.ttl_ms,
                "closed_at_ms": None,
            },
        )
        accounts = (wallet_account(operation.wallet), reserved_account(operation.wallet))
        await _post(connection, operation, wallet, accounts, amount_millis, 0, now_ms)

    async def _capture(self, connection: AsyncConnection, operation: Capture, wallet: Any) -> None:
        hold = (await connection.execute(_HOLD, {"job": operation.job_id})).one()
        now_ms = int(time.time() * 1000)
        if hold.state != "open" or hold.amount_millis < operation.amount_millis:
            raise RuntimeError("a hold of the measurement cannot be captured")
        closed = {
            "job": operation.job_id,
            "state": "captured",
            "captured_millis": operation.amount_millis,
            "closed_at_ms": now_ms,
        }
        await connection.execute(_CLOSE, closed)
        accounts = (reserved_account(operation.wallet), system_account("sales", operation.wallet.mode))
        released_millis = hold.amount_millis - operation.amount_millis
        await _post(connection, operation, wallet, accounts, operation.amount_millis, released_millis, now_ms)


def _named(wallet: WalletId) -> dict[str, str]:
    return {"customer": wallet.customer_id, "in_mode": wallet.mode}


async def _post(
    connection: AsyncConnection,
    operation: Hold | Capture,
    wallet: Any,
    accounts: tuple[str, str],
    amount_millis: int,
    released_millis: int,
    now_ms: int,
) -> None:
    holding = isinstance(operation, Hold)
    after = {
        "balance_millis": wallet.balance_millis - (0 if holding else amount_millis),
        "reserved_millis": wallet.reserved_millis
        + (amount_millis if holding else -amount_millis - released_millis),
        "sequence": wallet.sequence + 1,
    }
    entry: dict[str, Any] = {
        "customer_id": operation.wallet.customer_id,
        "mode": operation.wallet.mode,
        "sequence": wallet.sequence + 1,
        "kind": "hold" if holding else "capture",
        "applied": True,
        "outcome": "",
        "idempotency_key": operation.key,
        "fingerprint": fingerprint(operation),
        "debit_account": accounts[0],
        "credit_account": accounts[1],
        "amount_millis": amount_millis,
        "released_millis": released_millis,
        "job_id": operation.job_id,
        "sku": operation.sku if isinstance(operation, Hold) else "",
        "quantity": operation.quantity if isinstance(operation, Hold) else 0,
        "price_version": "1" if holding else "",
        "note": "",
        "balance_after_millis": after["balance_millis"],
        "reserved_after_millis": after["reserved_millis"],
        "created_at_ms": now_ms,
    }
    await connection.execute(insert(JOURNAL), entry)
    await connection.execute(_MOVE, _named(operation.wallet) | after)


def _sqlite(url: str) -> AsyncEngine:
    engine = create_async_engine(
        url.replace("sqlite://", "sqlite+aiosqlite://", 1),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
        connect_args={"isolation_level": None},
    )

    def prepare(connection: Any, _record: Any) -> None:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "busy_timeout = 5000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(
        engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE")
    )
    return engine


def _postgres(url: str) -> AsyncEngine:
    return create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://", 1),
        pool_size=POSTGRES_CONNECTIONS,
        max_overflow=0,
    )
