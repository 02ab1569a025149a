"""Webhooks, assembled: what the engine begins and ends with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.egress_policy import EgressPolicy
from services.jobs.ownership import Ownership
from services.jobs.webhooks.outbox import Outbox
from services.jobs.webhooks.sender import Means, Sender
from services.jobs.webhooks.store import WebhookStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """Which addresses may be named, and what sending takes; without means everything is stored and nothing sent."""

    policy: EgressPolicy = field(default_factory=EgressPolicy)
    means: Means | None = None


class Telling:
    """Tells customers that their jobs have ended."""

    def __init__(
        self, database: Database, outbox: Outbox, terms: Terms, ownership: Ownership, clock: Clock
    ) -> None:
        self.store = WebhookStore(database)
        self.terms = terms
        self._sender = Sender(self.store, terms.means, ownership, clock) if terms.means is not None else None
        if self._sender is not None:
            outbox.tells(self._sender)

    def wake(self) -> None:
        """There may be something to send."""
        if self._sender is not None:
            self._sender.wake()

    def forever(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """What runs as long as the engine does."""
        sender = self._sender
        return () if sender is None else (sender.run, sender.recall, sender.sweep)

    async def close(self, patience_s: float) -> None:
        """Lets what is being sent end for so long, and what came of it be written for so long again."""
        if self._sender is not None:
            await self._sender.stop(patience_s)
        try:
            async with asyncio.timeout(patience_s):
                await self.store.close()
        except TimeoutError:
            # Whoever is next sends it again; this worker's jobs are handed over all the same.
            log.warning("webhook.left_unwritten")
