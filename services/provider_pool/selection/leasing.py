"""Leases as they are served: one group commit for all that changes what is free."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.group_commit import GroupCommit
from services.provider_pool import errors, meters
from services.provider_pool.adapters.interface import Generation
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection import leases as rules
from services.provider_pool.selection import pool
from services.provider_pool.selection.balances import RecentCeilings
from services.provider_pool.selection.capacity import Capacity
from services.provider_pool.selection.leases import Lease, LeaseState
from services.provider_pool.selection.pool import Mode, Policy, Refusal
from services.provider_pool.store import leases as store
from services.provider_pool.store import lending

log = logging.getLogger(__name__)

SWEEP_LIMIT = 512
"""Leases that one sweep ends: a batch."""

KEPT_MS = 7 * 86_400_000
"""Ended leases and tombstones are kept for longer than any caller repeats a call."""


class Leasing:
    """Takes, renews, gives back and expires leases."""

    def __init__(
        self, database: Database, catalog: Catalog, policy: Policy, clock: Clock, capacity: Capacity
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._policy = policy
        self._clock = clock
        self._capacity = capacity
        self.ceilings = RecentCeilings()
        self._draining = False
        self._commits: GroupCommit[rules.Item, rules.Answer] = GroupCommit(
            database, self._apply, name="leases", lane=_lane, kind=rules.kind_of
        )

    async def lease(
        self,
        attempt_id: str,
        job_id: str,
        mode: Mode,
        generation: Generation,
        *,
        ttl_ms: int,
        behind_others: bool,
        avoid: frozenset[str],
    ) -> Lease | None:
        """An account for the attempt, or None while all that could take it are busy or cooling.

        Raises NO_CAPABLE_ACCOUNT and LEASE_ENDED.
        """
        now_ms = self._clock.now_ms()
        costs = self._catalog.estimates(generation, now_ms)
        ceilings = {provider: cost.ceiling_millis for provider, cost in costs.items()}
        prices = {provider: cost.expected_millis for provider, cost in costs.items()}
        self.ceilings.note(ceilings, now_ms)
        waits = behind_others or self._draining
        request = pool.Request(attempt_id, mode, generation.model, ceilings, avoid, waits, prices)
        try:
            answer = await self._commits.submit(rules.Take(request, job_id, ttl_ms))
        except Exception:
            meters.LEASE_ANSWERS.labels("refused").inc()
            raise
        granted = answer if isinstance(answer, Lease) else None
        outcome = Refusal.BUSY.value if granted is None else "granted"
        meters.LEASE_ANSWERS.labels(outcome).inc()
        # Not a line for each: the jobs service writes one for every job, and the lease itself is a row.
        if log.isEnabledFor(logging.DEBUG):
            log.debug("lease.answered", extra={"attempt_id": attempt_id, "outcome": outcome})
        return granted

    def take_no_more(self) -> None:
        """Everybody who is not refused waits from now on: what would be leased here could not be submitted here."""
        self._draining = True

    async def renew(self, attempt_ids: Sequence[str], ttl_ms: int) -> tuple[str, ...]:
        """Move the expiry of these leases; the attempts whose lease is not open."""
        return cast("tuple[str, ...]", await self._commits.submit(rules.Renew(tuple(attempt_ids), ttl_ms)))

    async def provider_of(self, attempt_id: str) -> str:
        """The provider of the account that the attempt holds. Raises ATTEMPT_NOT_FOUND and LEASE_ENDED."""
        found = await self._database.read(lambda connection: store.load_held(connection, attempt_id))
        if found is None:
            raise errors.attempt_not_found(attempt_id)
        lease, provider = found
        if lease.state is not LeaseState.OPEN or self._clock.now_ms() >= lease.expires_at_ms:
            raise errors.lease_ended(attempt_id)
        return provider

    async def release(self, attempt_id: str) -> bool:
        """Give a lease back; True if there was none and a tombstone stands there."""
        tombstone = cast("bool", await self._commits.submit(rules.GiveBack(attempt_id)))
        if not tombstone:
            self._capacity.improved()
        return tombstone

    async def sweep(self) -> None:
        """End the leases whose time is over and forget those that ended long ago."""
        now_ms = self._clock.now_ms()
        expired = await self._database.read(
            lambda connection: store.load_expired(connection, now_ms, SWEEP_LIMIT)
        )
        for attempt_id in expired:
            if await self._commits.submit(rules.Expire(attempt_id)):
                meters.EXPIRED_LEASES.inc()
                self._capacity.improved()
        await self._database.write(
            lambda connection: store.delete_ended(connection, now_ms - KEPT_MS, SWEEP_LIMIT)
        )

    async def recount(self) -> None:
        """At a start: put right what accounts count by model, should another release have left it wrong."""
        for account_id in await self._database.write(lending.recount):
            log.warning("account.recounted", extra={"account_id": account_id})

    async def open_leases(self, created_before_ms: int, after_attempt_id: str, limit: int) -> list[Lease]:
        """Open leases, oldest first."""
        return await self._database.read(
            lambda connection: store.load_open(connection, created_before_ms, after_attempt_id, limit)
        )

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._commits.close()

    def _apply(self, connection: Connection, items: Sequence[rules.Item]) -> Sequence[rules.Answer]:
        return lending.apply(connection, items, self._policy, self._clock.now_ms(), self._catalog.market)


def _lane(item: rules.Item) -> str:
    # Each model has its own queue, so that a flood for one does not delay the others, nor anything given back.
    return f"{item.request.mode} {item.request.model}" if isinstance(item, rules.Take) else ""
