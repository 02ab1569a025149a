"""What is owed to another service after the fact: asked again in the background until it is acknowledged."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import schedule
from services.jobs.steps import TRANSIENT

log = logging.getLogger(__name__)

D = TypeVar("D", bound=Hashable)

_LONGEST_PAUSE_S = 5.0


class Debts(Generic[D]):
    """Debts of one kind, kept in memory and paid in order.

    pay: the call, which may be repeated; a refusal that repeating cannot change ends the debt.
    at_once: calls under way together, so that a service that comes back is not met by everything at once.
    """

    def __init__(self, pay: Callable[[D], Awaitable[None]], clock: Clock, *, name: str, at_once: int) -> None:
        self._pay = pay
        self._clock = clock
        self._name = name
        self._at_once = at_once
        self._owed: dict[D, None] = {}
        self._runner: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._owed)

    def add(self, debt: D) -> None:
        """Repeats until acknowledged; the caller does not wait."""
        self._owed[debt] = None
        if self._runner is None:
            # An empty context: the deadline of whoever ran up the debt is not that of its paying.
            self._runner = asyncio.create_task(self._run(), name=self._name, context=contextvars.Context())

    async def close(self, patience_s: float) -> None:
        """Gives what is owed so long to be acknowledged, and stops trying."""
        runner = self._runner
        if runner is not None:
            await asyncio.wait([runner], timeout=patience_s)
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        try:
            while self._owed:
                part = list(self._owed)[: self._at_once]
                done = await asyncio.gather(*map(self._paid, part))
                # One that is never acknowledged must not hold up those behind it.
                if any(done):
                    failures = 0
                    continue
                await self._clock.sleep(schedule.backoff_s(failures, random.random(), _LONGEST_PAUSE_S))  # noqa: S311 - jitter
                failures += 1
        finally:
            self._runner = None

    async def _paid(self, debt: D) -> bool:
        try:
            await self._pay(debt)
        except ServiceError as error:
            if error.kind in TRANSIENT:
                self._owed[debt] = self._owed.pop(debt, None)
                return False
            log.warning("debt.refused", extra={"debt": self._name, "id": str(debt), "reason": error.reason})
        self._owed.pop(debt, None)
        return True
