"""A billing process that is killed again and again under load, alone, on either engine."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.gen.billing.v1 import billing_pb2 as pb
from tests.faults.ledger_gates import PostgresGate
from tests.faults.ledger_judgement import judge
from tests.faults.ledger_tellers import PRICE_MILLIS, TOP_UP, Branch, Teller
from tests.integration.billing_process import Billing, connected, start, stop
from tests.postgres import Postgres

TELLERS = 24
# The hot wallet is everybody's, the poor one pays for a few jobs only: it is refused again and again.
RICH_MILLIS, POOR_MILLIS = 10**10, 12 * PRICE_MILLIS
# Between two blows so many answers must have been given: a storm in which nobody works proves nothing.
ANSWERS_BETWEEN = 60
PROGRESS_DEADLINE_S = 60.0
# The sweep closes what has expired within this after the last blow.
SETTLE_S = 3.0


@dataclass
class Storm:
    """The process, its customers and the blows. `module` is what is started each time."""

    url: str
    pepper: Path
    module: str
    seed: int
    environment: dict[str, str] = field(default_factory=dict)
    branch: Branch = field(default_factory=Branch)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Billing]:
        """A process that serves the tellers; it is killed at the end, or was before."""
        process, addresses = await asyncio.to_thread(
            start, self.url, self.pepper, self.module, **self.environment
        )
        try:
            async with connected(process, addresses) as billing:
                self.branch.billing = billing
                yield billing
                self.branch.billing = None
                await billing.kill()
        finally:
            await asyncio.to_thread(stop, process)

    async def rage(self, blows: Sequence[Callable[[Billing], Awaitable[None]]]) -> list[str]:
        """Let every blow fall under load, each on a process of its own, and say what is wrong afterwards."""
        chance = random.Random(self.seed)
        async with self.up() as billing:
            wallets = await self._wallets(billing)
            working = asyncio.gather(*(teller.work() for teller in self._tellers(wallets)))
            await self._progress(chance)
        for blow in blows:
            async with self.up() as billing:
                await self._progress(chance)
                await blow(billing)
        async with self.up():
            await self._progress(chance)
            self.closing.set()
            await asyncio.wait_for(working, PROGRESS_DEADLINE_S)
            await asyncio.sleep(SETTLE_S)
        return await judge(self.url, self.branch, time.time_ns() // 1_000_000)

    async def _wallets(self, billing: Billing) -> list[str]:
        wallets = [await billing.customer() for _ in range(6)]
        for wallet in wallets:
            amount = POOR_MILLIS if wallet == wallets[1] else RICH_MILLIS
            fields: dict[str, Any] = {"customer_id": wallet, "mode": pb.MODE_LIVE, "idempotency_key": "start"}
            await self.branch.ask(TOP_UP, pb.TopUpRequest(amount_millis=amount, **fields))
        return wallets

    def _tellers(self, wallets: Sequence[str]) -> list[Teller]:
        hot, poor, *others = wallets
        return [
            Teller(
                self.branch, [hot, hot, poor, others[n % len(others)]], f"t{n}", self.seed + n, self.closing
            )
            for n in range(TELLERS)
        ]

    async def _progress(self, chance: random.Random) -> None:
        wanted = len(self.branch.log) + ANSWERS_BETWEEN
        async with asyncio.timeout(PROGRESS_DEADLINE_S):
            while len(self.branch.log) < wanted:
                await asyncio.sleep(0.01)
        await asyncio.sleep(chance.random() * 0.2)


async def kill(billing: Billing) -> None:
    """SIGKILL the process itself."""
    await billing.kill()


def crash_server(server: Postgres, *, immediate: bool) -> Callable[[Billing], Awaitable[None]]:
    """Take the database away under the process, and give it back."""

    async def blow(billing: Billing) -> None:
        await asyncio.to_thread(server.stop_immediately if immediate else server.kill9)
        await asyncio.to_thread(server.start)

    return blow


def cut_at_commit(url: str) -> Callable[[Billing], Awaitable[None]]:
    """Cut the connection of a COMMIT that went through, so that its outcome is unknown to the process."""

    async def blow(billing: Billing) -> None:
        gate = PostgresGate(url)
        await gate.close()
        try:
            await gate.until_somebody_waits()
            assert await gate.cut_who_waits() >= 1
        finally:
            await gate.open()

    return blow
