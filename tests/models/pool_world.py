"""Two pool processes on one database, and what their tables must hold, worked out from what happened."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, select

from services.chassis.errors import ServiceError
from services.chassis.settings import Secret
from services.provider_pool.accounts.registry import Accounts, Terms
from services.provider_pool.accounts.vault import KeyRing
from services.provider_pool.adapters.interface import Generation, Kind
from services.provider_pool.attempts import codec
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.records import Begin, Begun
from services.provider_pool.attempts.states import Attempt
from services.provider_pool.catalog import Catalog
from services.provider_pool.schema import LEASES, METADATA
from services.provider_pool.selection.capacity import Capacity, Rooms
from services.provider_pool.selection.leases import Lease
from services.provider_pool.selection.leasing import Leasing
from services.provider_pool.selection.pool import Account, Mode, Policy, rooms
from services.provider_pool.store import accounts as account_rows
from services.provider_pool.store import attempts as attempt_rows
from tests.models.ground import CutDatabase, Ground, HandClock

T0_MS: Final = 1_800_000_000_000
TTL_MS: Final = 30_000
PICTURE: Final = Generation(Kind.IMAGE, "gpt-image-2", "a cat", 1024, 1024, quality="low")
# What the sandbox asks for that picture at most.
CEILING_MILLIS: Final = 20_000
SENDER: Final = "model/1"
NEVER: Final = 2**62

Answer = Lease | None | ServiceError


@dataclass
class Replica:
    """The storing parts of one pool process, and somebody who watches its announcements."""

    database: CutDatabase
    catalog: Catalog
    clock: HandClock
    heard: Rooms = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.capacity = Capacity(self.database, self.catalog, self.clock)
        ring = KeyRing({"k": b"k" * 32})
        self.accounts = Accounts(self.database, ring, self.catalog, self.clock, self.capacity)
        self.leasing = Leasing(self.database, self.catalog, Policy.SPREAD, self.clock, self.capacity)
        self.attempts = AttemptLog(self.database, self.clock, self.capacity)
        self._watching: asyncio.Task[None] | None = None

    async def open_account(self, label: str, **terms: Any) -> str:
        record = await self.accounts.create("sandbox", label, {"api_key": Secret("canary")}, Terms(**terms))
        return record.account.account_id

    async def lease(
        self, attempt_id: str, avoid: frozenset[str] = frozenset(), *, behind_others: bool = False
    ) -> Answer:
        """The lease, None where all are busy, or the refusal."""
        job_id = attempt_id.partition(":")[0]
        try:
            return await self.leasing.lease(
                attempt_id,
                job_id,
                Mode.LIVE,
                PICTURE,
                ttl_ms=TTL_MS,
                behind_others=behind_others,
                avoid=avoid,
            )
        except ServiceError as refusal:
            return refusal

    def beginning(self, attempt_id: str) -> Begin:
        return Begin(
            attempt_id,
            attempt_id.partition(":")[0],
            PICTURE.model,
            codec.generation_text(PICTURE),
            codec.fingerprint(PICTURE),
            SENDER,
            self.clock.now_ms(),
        )

    async def begun(self, attempt_id: str) -> Begun | None:
        """None where the attempt has no lease that lives."""
        try:
            return await self.attempts.begin(self.beginning(attempt_id))
        except ServiceError:
            return None

    async def listens(self) -> None:
        self._watching = asyncio.create_task(self._listen())
        await self.settled()

    async def _listen(self) -> None:
        async for told in self.capacity.watch():
            self.heard = told

    async def settled(self) -> None:
        """Lets the announcer have its turn, and whoever listens hear it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self.capacity.run()
        for _ in range(3):
            await asyncio.sleep(0)

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.leasing.close()
        await self.attempts.close()


@dataclass
class Tables:
    """Everything that is committed."""

    accounts: dict[str, Account]
    leases: dict[str, Any]
    attempts: dict[str, Attempt]

    def open_on(self, account_id: str) -> list[Any]:
        return [
            lease
            for lease in self.leases.values()
            if lease.state == "open" and lease.account_id == account_id
        ]


def read(connection: Connection) -> Tables:
    rows = {row.attempt_id: row for row in connection.execute(select(LEASES)).all()}
    found = attempt_rows.load_attempts(connection, "", None, "", 1000)
    return Tables(account_rows.load_accounts(connection), rows, {one.attempt_id: one for one in found})


class PoolWorld:
    """`balances` and `cooling` are what the model expects; `lowered` are accounts whose balance was set anew."""

    def __init__(self, ground: Ground, catalog: Catalog) -> None:
        ground.clear(METADATA)
        self.ground, self.catalog = ground, catalog
        self.clock = HandClock(T0_MS)
        self.replicas = [Replica(ground.process(n), catalog, self.clock) for n in range(2)]
        self.balances: dict[str, int] = {}
        self.lowered: set[str] = set()
        # Until when an account was told to be left alone; until a call on it succeeds, one job at a time may try.
        self.cooling: dict[str, int] = {}
        # The one job that tries an account that was cooling.
        self.trials: dict[str, str] = {}
        # Leases that may end in this step, and those that must.
        self.ending: set[str] = set()
        self.must_end: set[str] = set()
        self.tables = Tables({}, {}, {})

    def run(self, work: Any) -> Any:
        return self.ground.run(work)

    def begin(self) -> None:
        """Three accounts: one slot, two slots, and one with money for two pictures but slots for more."""
        for label, limit, balance in (("one", 1, 200_000), ("two", 2, 200_000), ("poor", 5, 45_000)):
            account_id = self.run(
                self.replicas[0].open_account(label, concurrency_limit=limit, balance_millis=balance)
            )
            self.balances[account_id] = balance
        for replica in self.replicas:
            self.run(replica.listens())
        self.tables = self.ground.read(read)

    def end(self) -> None:
        for replica in self.replicas:
            self.run(replica.close())

    def models(self) -> dict[str, list[str]]:
        return {name: sorted(self.catalog.models(name)) for name in self.catalog.adapters}

    def free_now(self) -> Rooms:
        return rooms(self.tables.accounts.values(), self.models(), self.clock.now_ms())
