"""What a batch may cost, and who gets into it: numbers that do not depend on how busy the machine is."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection

from services.billing.operations import Operation
from services.billing.store import ledger
from services.chassis.database_metrics import counted_for
from services.chassis.group_commit import LIMIT_ITEMS
from tests.conformance.billing_house import Books
from tests.unit.billing_books import ANN, BEN, capture, hold, release, top_up

# Beside BEGIN and COMMIT: the wallets, what the batch names, and all that it writes.
POSTGRES_STATEMENTS = 3
# Here a statement is no journey: one for each table that is read, and one for each that is written.
SQLITE_STATEMENTS = 7


_COUNTED_AS = "a test's batch"


def _counted_so_far() -> int:
    return int(REGISTRY.get_sample_value("atelier_database_statements_total", {"batch": _COUNTED_AS}) or 0)


async def _statements(books: Books, *batch: Operation) -> int:
    def counting(connection: Connection) -> int:
        raw: Any = connection.connection.driver_connection
        if not isinstance(raw, sqlite3.Connection):
            before = _counted_so_far()
            with counted_for(_COUNTED_AS):
                ledger.commit(connection, batch, books.clock.now_ms)
            return _counted_so_far() - before
        seen: list[str] = []
        raw.set_trace_callback(seen.append)
        ledger.commit(connection, batch, books.clock.now_ms)
        raw.set_trace_callback(None)
        # What a statement's foreign keys do is told as a comment of its own.
        return len([text for text in seen if not text.startswith("--")])

    return await books.database.write(counting)


@pytest.mark.parametrize("size", [1, 32])
async def test_a_batch_costs_the_same_few_statements_whatever_its_size(books: Books, size: int) -> None:
    await books.run(top_up("start", 10_000), *[hold(f"old{n}", 5) for n in range(size)])

    new = [hold(f"new{n}", 5) for n in range(size)]
    ended = [capture(f"old{n}", 3) for n in range(size)]
    counted = await _statements(books, *new, *ended)

    expected = POSTGRES_STATEMENTS if books.database.dialect == "postgresql" else SQLITE_STATEMENTS
    assert counted == expected
    assert await books.findings() == set()


async def test_a_batch_of_repeats_only_reads(books: Books) -> None:
    again: list[Operation] = [hold("j1", 5), release("j2"), capture("j1", 5)]
    await books.run(top_up("start", 100), *again)

    counted = await _statements(books, *again)

    assert counted == (2 if books.database.dialect == "postgresql" else 3)


async def test_one_customer_with_thousands_of_requests_makes_nobody_wait_for_more_than_two_batches(
    books: Books,
) -> None:
    await books.run(top_up("start", 100_000), top_up("start", 1_000, BEN))
    answered = 0

    async def hot(number: int) -> None:
        nonlocal answered
        await books.bookkeeper.submit(hold(f"hot{number}", 5))
        answered += 1

    crowd = [asyncio.create_task(hot(number)) for number in range(8 * LIMIT_ITEMS)]
    while answered == 0:
        await asyncio.sleep(0)
    before = answered

    await books.bookkeeper.submit(hold("cold", 5, BEN))

    assert answered - before <= 2 * LIMIT_ITEMS
    await asyncio.gather(*crowd)
    assert await books.money(ANN) == (100_000, 8 * LIMIT_ITEMS * 5)
    assert await books.findings() == set()
