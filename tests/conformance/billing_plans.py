"""How batches fare on PostgreSQL while its tables grow, over connections that made their plans on empty ones."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any, NamedTuple

import asyncpg

from services.billing.bookkeeper import Bookkeeper
from services.billing.operations import Operation
from services.billing.settings import MIGRATIONS
from services.chassis.database import Database, migrate
from services.chassis.group_commit import LIMIT_ITEMS
from tests.clocks import HandClock
from tests.conformance.billing_house import add_customers
from tests.unit.billing_books import ANN, BEN, T0_MS, capture, hold, release, top_up

TABLES = ["customers", "wallets", "holds", "journal", "unbilled"]
BATCHES = 5

# What was really executed, by whatever plan a connection had cached; a backend tells its counts when it ends.
_SCANS = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname = ANY($1)"
_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)
# As if one customer had a long past: jobs that were released before they were held.
_PAST_HOLDS = (
    "INSERT INTO holds (job_id, customer_id, mode, amount_millis, captured_millis, state, created_at_ms, "
    "expires_at_ms, closed_at_ms) SELECT 'past.' || n, 'eve', 'live', 0, 0, 'released', n, n, n "
    "FROM generate_series({first}, {last}) n"
)
_PAST_JOURNAL = (
    "INSERT INTO journal (customer_id, mode, sequence, kind, applied, outcome, idempotency_key, fingerprint, "
    "debit_account, credit_account, amount_millis, released_millis, job_id, sku, quantity, price_version, note, "
    "balance_after_millis, reserved_after_millis, created_at_ms) SELECT 'eve', 'live', n, 'release', true, "
    "'TOMBSTONE', 'release:past.' || n, '', 'reserved:eve:live', 'wallet:eve:live', 0, 0, 'past.' || n, '', 0, "
    "'', '', 0, 0, n FROM generate_series({first}, {last}) n"
)
_PAST = (
    "SET session_replication_role = replica",
    "SET enable_seqscan = off",
    _PAST_HOLDS,
    _PAST_JOURNAL,
    "UPDATE wallets SET sequence = {last} WHERE customer_id = 'eve' AND mode = 'live'",
)


async def _execute(url: str, *statements: str, **values: int) -> None:
    admin = await asyncpg.connect(url)
    try:
        for statement in statements:
            await admin.execute(statement.format(**values))
    finally:
        await admin.close()


async def _scans(url: str) -> dict[str, int]:
    """How often each table was read from end to end, by all whose connections have ended."""
    admin: Any = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(20):
            while await admin.fetchval(_OTHERS):
                await asyncio.sleep(0.05)
        return {row["relname"]: row["seq_scan"] for row in await admin.fetch(_SCANS, TABLES)}
    finally:
        await admin.close()


async def _batch_s(keeper: Bookkeeper, mark: str) -> float:
    """How long a whole batch of holds and a batch of their ends take, in two wallets."""
    jobs = [(f"{mark}.{n}", (ANN, BEN)[n % 2]) for n in range(LIMIT_ITEMS)]
    started_s = time.monotonic()
    await asyncio.gather(*(keeper.submit(hold(job, 1, owner)) for job, owner in jobs))
    ends: list[Operation] = [
        capture(job, 1, owner) if n % 3 else release(job, owner) for n, (job, owner) in enumerate(jobs)
    ]
    await asyncio.gather(*(keeper.submit(op) for op in ends))
    return time.monotonic() - started_s


class Growth(NamedTuple):
    """How often which table was read from end to end, and how many times as long a batch takes afterwards."""

    scanned: dict[str, int]
    slower: float


async def grown_by(url: str, rows: int) -> Growth:
    """Run batches before and after the tables have grown by so many rows."""
    await migrate(url, MIGRATIONS)
    before = await _scans(url)
    database = await Database.open(url, application_name="atelier-plans")
    keeper = Bookkeeper(database, HandClock(T0_MS))
    try:
        # Everything is asked once while all tables are empty: these are the plans that are kept.
        empty: list[Operation] = [hold("x", 1), capture("x", 1), release("x"), top_up("x", 1)]
        await asyncio.gather(*(keeper.submit(op) for op in empty), return_exceptions=True)
        await database.write(add_customers)
        await asyncio.gather(keeper.submit(top_up("a", 10**9)), keeper.submit(top_up("b", 10**9, BEN)))
        small = [await _batch_s(keeper, f"small.{n}") for n in range(BATCHES)]
        await _execute(url, *_PAST, first=1, last=rows)
        grown = [await _batch_s(keeper, f"grown.{n}") for n in range(BATCHES)]
    finally:
        await keeper.close()
        await database.close()
    after = await _scans(url)
    scanned = {name: times for name in TABLES if (times := after[name] - before[name])}
    return Growth(scanned, statistics.median(grown) / statistics.median(small))
