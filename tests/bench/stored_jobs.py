"""Millions of finished jobs, written straight into the databases of a house that is stopped.

One job that really went the whole way is the template of all; every table that it left rows in gets theirs, with ids, keys,
times, sequences and balances that fit together, so that the ledger's audit finds nothing wrong with them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from tests.bench.plan import say
from tests.postgres import Postgres

# The jobs are spread over so much time, and the pool keeps ended leases for the last week of it.
_DAYS: Final = 90
_LEASE_DAYS: Final = 7
_DAY_MS: Final = 86_400_000
# Ids in the order of their numbers, all of them older than any id made today.
_JOB: Final = "('job_01a' || substr(CAST(10000000000 + n.i AS TEXT), 2) || '0000000000000')"
_TASK: Final = f"replace({_JOB}, 'job_', 'task_')"
# A customer's own keys come in no order.
_KEYS: Final = {"SQLite": "lower(hex(randomblob(8)))", "PostgreSQL": "md5(random()::text)"}
_SERIES: Final = {
    "SQLite": "(WITH RECURSIVE s(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM s WHERE i < {last}) SELECT i FROM s)",
    "PostgreSQL": "(SELECT generate_series({first}::bigint, {last}::bigint) AS i)",
}


@dataclass(frozen=True)
class Books:
    """Whose jobs, after what: every customer's wallet holds one entry, a top-up of `balance_millis`."""

    template_id: str
    customer_ids: Sequence[str]
    balance_millis: int
    count: int

    @property
    def each(self) -> int:
        """Jobs of one customer; `count` is that many for all."""
        return self.count // len(self.customer_ids)


@dataclass(frozen=True)
class _Copy:
    """The template's rows of one table, copied with these columns changed. first: the number of the first copy."""

    table: str
    changed: Mapping[str, str]
    where: str = "1 = 1"
    first: int = 0


def stored_id(number: int) -> str:
    """The id of the n-th stored job."""
    return f"job_01a{number:010d}0000000000000"


async def load(engine: str, var: Path, server: Postgres | None, books: Books) -> None:
    """Fills the three databases; the house is not running."""
    for service in ("jobs", "provider_pool", "billing"):
        statements = list(_statements(engine, service, books))
        if server is None:
            path = var / service / f"{service}.db"
            columns = await asyncio.to_thread(_sqlite_columns, path)
            for copy in statements:
                say(f"writing {_target(copy)} of {service}")
                await asyncio.to_thread(_on_sqlite, path, _sql(engine, copy, columns, books))
        else:
            await _on_postgres(server.url(f"atelier_{service}"), engine, statements, books)


def _statements(engine: str, service: str, books: Books) -> Iterator[_Copy | str]:
    made = {"job_id": _JOB, "customer_id": "c.customer_id"}
    attempt = {"attempt_id": f"({_JOB} || ':1')", "job_id": _JOB}
    # Sequence and balance of a customer's k-th job, counted from 0; the copies' numbers go round the customers.
    turn, price = f"(n.i / {len(books.customer_ids)})", "t.amount_millis"
    if service == "jobs":
        key = f"c.customer_id || ' live ' || {_KEYS[engine]}"
        outputs = f"replace(t.outputs, t.job_id, {_JOB})"
        yield _Copy("jobs", made | {"admission_key": key, "outputs": outputs})
        yield _Copy("job_events", {"job_id": _JOB})
        yield (
            "INSERT INTO customer_load SELECT c.customer_id, t.mode, 0, 0, "
            f"{books.each}, 0, {books.each} * t.charged_millis FROM {_customers(books)} c, "
            f"(SELECT * FROM customer_load LIMIT 1) t WHERE c.customer_id <> t.customer_id"
        )
    elif service == "provider_pool":
        names = {"task_id": _TASK, "task": f"replace(t.task, t.task_id, {_TASK})"}
        collected = {"collected": f"replace(t.collected, t.job_id, {_JOB})"}
        yield _Copy("attempts", attempt | names | collected)
        yield _Copy("leases", attempt, first=books.count - books.count * _LEASE_DAYS // _DAYS)
    else:
        yield _Copy("holds", made)
        for kind, offset, paid, held in (("hold", 2, turn, price), ("capture", 3, f"({turn} + 1)", "0")):
            accounts = {
                name: f"replace(t.{name}, t.customer_id, c.customer_id)"
                for name in ("debit_account", "credit_account")
            }
            numbers = {
                "sequence": f"2 * {turn} + {offset}",
                "idempotency_key": f"replace(t.idempotency_key, t.job_id, {_JOB})",
                "balance_after_millis": f"{books.balance_millis} - {paid} * {price}",
                "reserved_after_millis": held,
            }
            yield _Copy("journal", made | accounts | numbers, where=f"kind = '{kind}'")
        yield (
            f"UPDATE wallets SET sequence = 1 + 2 * {books.each}, balance_millis = balance_millis - {books.each} * "
            f"(SELECT amount_millis FROM holds WHERE job_id = '{books.template_id}') "
            f"WHERE mode = 'live' AND customer_id IN (SELECT customer_id FROM {_customers(books)} c)"
        )


def _target(copy: _Copy | str) -> str:
    return "the sums" if isinstance(copy, str) else copy.table


def _customers(books: Books) -> str:
    rows = [f"SELECT {k} AS k, '{name}' AS customer_id" for k, name in enumerate(books.customer_ids)]
    return f"({' UNION ALL '.join(rows)})"


def _sql(engine: str, copy: _Copy | str, columns: Mapping[str, Sequence[str]], books: Books) -> str:
    if isinstance(copy, str):
        return copy
    age = f"(({books.count} - n.i) * {_DAYS * _DAY_MS // books.count})"
    times = {
        name: f"t.{name} - {age}"
        for name in columns[copy.table]
        if name == "at_ms" or name.endswith("_at_ms")
    }
    times |= {name: f"t.{name} - {age}" for name in ("queue_deadline_ms", "run_deadline_ms")}
    values = [copy.changed.get(name, times.get(name, f"t.{name}")) for name in columns[copy.table]]
    series = _SERIES[engine].format(first=copy.first, last=books.count - 1)
    return (
        f"INSERT INTO {copy.table} ({', '.join(columns[copy.table])}) SELECT {', '.join(values)} FROM {series} n "
        f"JOIN {_customers(books)} c ON c.k = n.i % {len(books.customer_ids)} CROSS JOIN "
        f"(SELECT * FROM {copy.table} WHERE job_id = '{books.template_id}' AND {copy.where}) t"
    )


def _sqlite_columns(path: Path) -> dict[str, list[str]]:
    connection = sqlite3.connect(path)
    try:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
    finally:
        connection.close()


def _on_sqlite(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # A crash would cost the benchmark a run and nobody anything.
        for pragma in (
            "journal_mode = DELETE",
            "journal_mode = OFF",
            "synchronous = OFF",
            "cache_size = -1000000",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute(statement)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    finally:
        connection.close()


async def _on_postgres(url: str, engine: str, statements: Sequence[_Copy | str], books: Books) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET synchronous_commit = off")
        query = (
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "ORDER BY table_name, ordinal_position"
        )
        columns: dict[str, list[str]] = {}
        for table, column in await connection.fetch(query):
            columns.setdefault(table, []).append(column)
        for copy in statements:
            say(f"writing {_target(copy)}")
            await connection.execute(_sql(engine, copy, columns, books), timeout=3600)
        # As autovacuum would have done long since.
        await connection.execute("VACUUM ANALYZE", timeout=3600)
    finally:
        await connection.close()
