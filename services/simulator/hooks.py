"""What providers send by themselves: callbacks, to loopback addresses only."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from services.chassis.clock import Clock
from services.chassis.egress import Egress, EgressFailed
from services.chassis.egress_policy import Address, EgressPolicy, EgressRefused

log = logging.getLogger(__name__)

# Sent at the same time; what comes above it is not sent, as from a provider that is behind.
_UNDER_WAY_LIMIT: Final = 500
_RECORDED: Final = 2_000

# Headers and body of an attempt, counted from 1; made anew for each, because signatures hold the time.
Sent = Callable[[int], tuple[bytes, Mapping[str, str]]]


@dataclass(frozen=True)
class LoopbackOnly(EgressPolicy):
    """The simulator talks to its own machine, to any port and in plain text, and to nobody else."""

    def check_address(self, address: Address, port: int, scheme: str = "https") -> None:
        if not address.is_loopback:
            raise EgressRefused("denied", f"{address} is not this machine; the simulator calls nobody else.")

    def allows_some(self, port: int) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt, and the status that it met; 0 if nobody answered."""

    provider: str
    url: str
    attempt: int
    status: int
    at_ms: int

    def as_json(self) -> dict[str, Any]:
        return {
            "provider": self.provider,
            "url": self.url,
            "attempt": self.attempt,
            "status": self.status,
            "at_ms": self.at_ms,
        }


class Hooks:
    """Sends callbacks in the background. Enter it first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._egress = Egress(LoopbackOnly())
        # Opened for the first callback: reading the machine's certificates takes longer than starting all else.
        self._is_open = False
        self._opening = asyncio.Lock()
        self._under_way: set[asyncio.Task[None]] = set()
        self.deliveries: deque[Delivery] = deque(maxlen=_RECORDED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *trouble: object) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._is_open:
            await self._egress.__aexit__(None, None, None)

    def send(
        self, provider: str, url: str, sent: Sent, *, waits_s: Sequence[float], timeout_s: float
    ) -> None:
        """Posts until a 2xx answers: once, and again after each of `waits_s`."""
        if len(self._under_way) >= _UNDER_WAY_LIMIT:
            log.warning("hook.dropped", extra={"provider": provider})
            return
        task = asyncio.create_task(self._deliver(provider, url, sent, waits_s, timeout_s))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _deliver(
        self, provider: str, url: str, sent: Sent, waits_s: Sequence[float], timeout_s: float
    ) -> None:
        for attempt, wait_s in enumerate((0.0, *waits_s), start=1):
            await self._clock.sleep(wait_s)
            status = await self._post(url, *sent(attempt), timeout_s)
            self.deliveries.append(Delivery(provider, url, attempt, status, self._clock.now_ms()))
            if 200 <= status < 300:
                return

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
        async with self._opening:
            if not self._is_open:
                await self._egress.__aenter__()
                self._is_open = True
        with suppress(EgressRefused, EgressFailed):
            return (await self._egress.post(url, body, headers, total_s=timeout_s)).status
        return 0
