"""The ledger against SQLAlchemy Core with one transaction a request.

Each slice is N clients that hold and capture in a closed loop, on one wallet or on a random one of a thousand;
after each the whole journal is verified, so that every number is of a run whose books agree.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import uvloop
from sqlalchemy import Connection

from services.billing.bookkeeper import Bookkeeper
from services.billing.operations import Capture, Grant, Hold, Quote, WalletId
from services.billing.schema import CUSTOMERS, WALLETS
from services.billing.settings import MIGRATIONS
from services.billing.verification import verify
from services.chassis.clock import SystemClock
from services.chassis.database import Database, insert_rows, migrate
from tests.bench.ledger_baseline import Baseline
from tests.postgres import Postgres

CLIENTS = 64
WALLETS_SPREAD = 1_000
WARM_S = 0.5
SLICE_S = 2.0
HELD_MILLIS, CAPTURED_MILLIS = 10, 7
FUNDS_MILLIS = 10**12

Submit = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True)
class Slice:
    """What one slice measured. CPU is of this process and, on PostgreSQL, of the server's."""

    operations_per_s: float
    operations_per_cpu_s: float
    p50_ms: float
    p99_ms: float


@dataclass
class Row:
    """The slices of one case."""

    engine: str
    design: str
    wallets: int
    slices: list[Slice] = field(default_factory=list)

    def median(self, what: str) -> float:
        return float(statistics.median(getattr(slice_, what) for slice_ in self.slices))


@dataclass
class Books:
    """A migrated database with a thousand and one rich wallets, made for one slice."""

    url: str
    server_cpu_s: Callable[[], float]
    jobs: count[int] = field(default_factory=lambda: count(1))

    async def slice(self, row: Row, submit: Submit) -> None:
        """One slice of the case, and the audit of everything that is stored."""
        times: list[float] = []
        started = time.perf_counter()
        begun_s, until_s = started + WARM_S, started + WARM_S + SLICE_S
        clients = [self._client(row.wallets, submit, begun_s, until_s, times) for _ in range(CLIENTS)]
        cpu_s = asyncio.create_task(self._cpu_between(begun_s, until_s))
        await asyncio.gather(*clients)
        times.sort()
        row.slices.append(
            Slice(
                len(times) / SLICE_S,
                len(times) / await cpu_s,
                times[len(times) // 2] * 1000,
                times[len(times) * 99 // 100] * 1000,
            )
        )

    async def audit(self) -> None:
        """Raises RuntimeError where the books disagree."""
        database = await Database.open(self.url, application_name="bench-audit")
        report = await verify(partial(database.read, snapshot=True))
        await database.close()
        if report.findings:
            raise RuntimeError(f"the books do not agree after a slice: {report.findings[:3]}")

    async def _client(
        self, wallets: int, submit: Submit, begun_s: float, until_s: float, times: list[float]
    ) -> None:
        chance = random.Random()
        while True:
            wallet = wallet_id(0 if wallets == 1 else chance.randint(1, WALLETS_SPREAD))
            job_id = f"job_{next(self.jobs):026d}"
            quote = Quote(HELD_MILLIS, "1")
            for operation in (
                Hold(wallet, job_id, "shop", "image", 1, quote, 3_600_000),
                Capture(wallet, job_id, CAPTURED_MILLIS),
            ):
                asked_s = time.perf_counter()
                await submit(operation)
                now_s = time.perf_counter()
                if now_s >= until_s:
                    return
                if now_s >= begun_s:
                    times.append(now_s - asked_s)

    async def _cpu_between(self, begun_s: float, until_s: float) -> float:
        await asyncio.sleep(max(0.0, begun_s - time.perf_counter()))
        before_s = time.process_time() + self.server_cpu_s()
        await asyncio.sleep(until_s - time.perf_counter())
        return time.process_time() + self.server_cpu_s() - before_s


def wallet_id(number: int) -> WalletId:
    return WalletId(f"cus_{number:026d}", "live")


async def rows(folder: Path, slices: int, engines: Sequence[str] = ("sqlite", "postgresql")) -> list[Row]:
    """Every in-process case, its slices alternated forward and backward with the others'.

    Runs on the services' own event loop, in a thread, since the caller has another one.
    """
    return await asyncio.to_thread(uvloop.run, _rows(folder, slices, engines))


async def _rows(folder: Path, slices: int, engines: Sequence[str]) -> list[Row]:
    done: list[Row] = []
    for engine in engines:
        cases = [
            Row(engine, design, wallets)
            for design in ("ledger", "baseline")
            for wallets in (1, WALLETS_SPREAD)
        ]
        async with _shelf(engine, folder) as new_books:
            for number in range(slices):
                for row in cases if number % 2 == 0 else reversed(cases):
                    books = new_books()
                    async with _submitting(row, books) as submit:
                        await books.slice(row, submit)
                    await books.audit()
        done += cases
    return done


def as_markdown(done: Sequence[Row]) -> str:
    """A table of medians, and their ratios to the baseline and to one wallet."""
    by_case = {(row.engine, row.design, row.wallets): row for row in done}
    lines = [
        "## The ledger: hold and capture, 64 clients, every commit synced",
        "",
        "| engine | wallets | design | operations/s | × baseline | per CPU second | × baseline | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in done:
        base = by_case[row.engine, "baseline", row.wallets]
        rate, per_cpu = row.median("operations_per_s"), row.median("operations_per_cpu_s")
        lines.append(
            f"| {row.engine} | {row.wallets} | {row.design} | {rate:,.0f} | {rate / base.median('operations_per_s'):.1f}"
            f" | {per_cpu:,.0f} | {per_cpu / base.median('operations_per_cpu_s'):.1f}"
            f" | {row.median('p50_ms'):.2f} | {row.median('p99_ms'):.2f} |"
        )
    for engine in dict.fromkeys(row.engine for row in done):
        hot, spread = by_case[engine, "ledger", 1], by_case[engine, "ledger", WALLETS_SPREAD]
        ratio = hot.median("operations_per_s") / spread.median("operations_per_s")
        lines.append(f"\n{engine}: one wallet ÷ {WALLETS_SPREAD:,} wallets = {ratio:.2f}")
    return "\n".join(lines)


@asynccontextmanager
async def _submitting(row: Row, books: Books) -> AsyncIterator[Submit]:
    if row.design == "baseline":
        baseline = Baseline(books.url)
        try:
            yield baseline.submit
        finally:
            await baseline.close()
        return
    database = await Database.open(books.url, application_name="bench")
    bookkeeper = Bookkeeper(database, SystemClock())
    try:
        yield bookkeeper.submit
    finally:
        await bookkeeper.close()
        await database.close()


@asynccontextmanager
async def _shelf(engine: str, folder: Path) -> AsyncIterator[Callable[[], Books]]:
    """Makes new books for every slice, by copying what was filled once: no case inherits another's rows."""
    if engine == "sqlite":
        filled, numbers = folder / "filled.db", count(1)
        await _fill(f"sqlite:///{filled}")

        def copied() -> Books:
            path = folder / f"slice-{next(numbers)}.db"
            shutil.copyfile(filled, path)
            return Books(f"sqlite:///{path}", lambda: 0.0)

        yield copied
        return
    with Postgres(durable=True) as server:
        template = server.create_database()
        await _fill(template)
        cpu_s = partial(_processes_cpu_s, f"--port={server.port}")
        yield lambda: Books(server.create_database(template.rsplit("/", 1)[1]), cpu_s)


async def _fill(url: str) -> None:
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="bench")
    await database.write(_add_wallets)
    bookkeeper = Bookkeeper(database, SystemClock())
    numbers = range(WALLETS_SPREAD + 1)
    grants = [Grant(wallet_id(n), "top_up", FUNDS_MILLIS, f"start-{n}", "") for n in numbers]
    await asyncio.gather(*map(bookkeeper.submit, grants))
    await bookkeeper.close()
    await database.close()


def _add_wallets(connection: Connection) -> None:
    ids = [wallet_id(number) for number in range(WALLETS_SPREAD + 1)]
    customer = {"storefront": "shop", "name": "x", "state": "active", "fingerprint": "", "created_at_ms": 0}
    limits = {"requests_per_minute": 0, "running_jobs": 0, "queued_jobs": 0}
    insert_rows(connection, CUSTOMERS, [{"customer_id": i.customer_id, **customer, **limits} for i in ids])
    empty = {"balance_millis": 0, "reserved_millis": 0, "sequence": 0}
    insert_rows(connection, WALLETS, [{**i._asdict(), **empty} for i in ids])


def _processes_cpu_s(port_option: str) -> float:
    """CPU seconds of the PostgreSQL server that listens on this port, and of its children."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    stats = {path.parent.name: path for path in Path("/proc").glob("[0-9]*/stat")}
    fields = {pid: _fields(path) for pid, path in stats.items()}
    servers = {pid for pid in fields if port_option.encode() in _command(stats[pid])}
    family = [f for pid, f in fields.items() if f and (pid in servers or f[1] in servers)]
    return sum(int(f[11]) + int(f[12]) + int(f[13]) + int(f[14]) for f in family) * tick_s


def _fields(stat: Path) -> list[str]:
    try:
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _command(stat: Path) -> bytes:
    try:
        return stat.with_name("cmdline").read_bytes()
    except OSError:
        return b""
