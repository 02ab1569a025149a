"""What the pool does by itself: expiring leases, finding orphans, sweeping, showing gauges."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.provider_pool import meters
from services.provider_pool.accounts.registry import Accounts
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.catalog import Catalog
from services.provider_pool.media.output_store import OutputStore
from services.provider_pool.references.store import ReferenceStore
from services.provider_pool.selection import health, pool
from services.provider_pool.selection.leasing import Leasing
from services.provider_pool.selection.pool import Account, AccountState
from services.provider_pool.store import attempts as attempt_rows
from services.provider_pool.store import open_attempts

log = logging.getLogger(__name__)

LEASE_SWEEP_S: Final = 1.0
ORPHAN_SWEEP_S: Final = 2.0
GAUGES_S: Final = 5.0
MEDIA_SWEEP_S: Final = 3600.0
REFERENCE_SWEEP_S: Final = 3600.0
FORGET_SWEEP_S: Final = 300.0
# A batch keeps the one writer of SQLite for some milliseconds; between two of them others have their turn.
FORGET_LIMIT: Final = 500
FORGET_PAUSE_S: Final = 0.2
# Files are older than the job that tells its customer how long they stay: the rest of an hour covers a slow settlement.
MEDIA_GRACE_S: Final = 3600


async def sweep_leases(leasing: Leasing) -> float:
    """End leases that nobody renews; returns how long to wait, in seconds."""
    await leasing.sweep()
    return LEASE_SWEEP_S


async def find_orphans(attempts: AttemptLog, answer_by_ms: Callable[[str], int]) -> float:
    """Put attempts in doubt whose sender is gone; returns how long to wait, in seconds."""
    for attempt_id in await attempts.mark_orphans(answer_by_ms):
        log.warning("attempt.orphaned", extra={"attempt_id": attempt_id})
    return ORPHAN_SWEEP_S


async def sweep_media(store: OutputStore, catalog: Catalog, retention_s: int) -> float:
    """Remove outputs that are kept no longer; returns how long to wait, in seconds."""
    removed = await store.sweep(retention_s + MEDIA_GRACE_S)
    if removed:
        log.info("media.swept", extra={"jobs": removed})
    for adapter in catalog.adapters.values():
        await adapter.tidy()
    return MEDIA_SWEEP_S


async def forget_attempts(database: Database, clock: Clock, retention_s: int) -> float:
    """Delete attempts that ended long ago, a batch at a time; returns how long to wait, in seconds."""
    before_ms = clock.now_ms() - retention_s * 1000
    forgotten = await database.write(
        lambda connection: open_attempts.forget_ended(connection, before_ms, FORGET_LIMIT)
    )
    if forgotten:
        meters.FORGOTTEN.inc(forgotten)
        log.info("attempts.forgotten", extra={"attempts": forgotten})
    return FORGET_PAUSE_S if forgotten == FORGET_LIMIT else FORGET_SWEEP_S


async def sweep_references(references: ReferenceStore) -> float:
    """Remove references that nobody dropped; returns how long to wait, in seconds."""
    removed, kept = await references.sweep()
    meters.REFERENCES_KEPT.set(kept)
    if removed:
        log.info("references.swept", extra={"files": removed})
    return REFERENCE_SWEEP_S


async def show_gauges(database: Database, accounts: Accounts, catalog: Catalog, clock: Clock) -> float:
    """Read what the gauges show; returns how long to wait, in seconds."""
    meters.IN_DOUBT.set(await database.read(attempt_rows.count_in_doubt))
    _show_accounts(list((await accounts.load()).values()), catalog, clock.now_ms())
    return GAUGES_S


def _show_accounts(accounts: list[Account], catalog: Catalog, now_ms: int) -> None:
    states = Counter((account.provider, account.state) for account in accounts)
    for provider in catalog.adapters:
        own = [account for account in accounts if account.provider == provider]
        active = [account for account in own if account.state is AccountState.ACTIVE]
        for state in AccountState:
            meters.ACCOUNTS.labels(provider, state.value).set(states[provider, state])
        meters.LEASES.labels(provider).set(sum(account.leases for account in own))
        meters.HEADROOM.labels(provider).set(sum(account.available_millis for account in active) / 1000)
        read_at_ms = [account.balance_read_at_ms for account in active if account.balance_read_at_ms]
        meters.BALANCE_AGE.labels(provider).set((now_ms - min(read_at_ms, default=now_ms)) / 1000)
    breakers = [breaker for account in accounts for breaker in account.breakers.values()]
    shown = Counter(health.state_of(breaker, now_ms) for breaker in breakers)
    for name in (health.BreakerState.OPEN, health.BreakerState.HALF_OPEN):
        meters.BREAKERS.labels(name.value).set(shown[name])
    for (mode, model), free in pool.rooms(accounts, catalog.on_offer(now_ms), now_ms, catalog.market).items():
        meters.FREE_SLOTS.labels(mode.value, model).set(free)
