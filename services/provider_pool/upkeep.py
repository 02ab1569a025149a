"""What the pool does by itself: expiring leases, finding orphans, checking accounts that are out, sweeping, showing gauges."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Final

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.provider_pool import health, meters, pool
from services.provider_pool.accounts import Accounts
from services.provider_pool.adapters.interface import Context, ProviderError
from services.provider_pool.attempt_log import AttemptLog
from services.provider_pool.catalog import Catalog
from services.provider_pool.leasing import Leasing
from services.provider_pool.media_store import MediaStore
from services.provider_pool.pool import Account, AccountState
from services.provider_pool.references.store import ReferenceStore
from services.provider_pool.store import attempts as attempt_rows
from services.provider_pool.store import open_attempts
from services.provider_pool.vault import SealBroken

log = logging.getLogger(__name__)

LEASE_SWEEP_S: Final = 1.0
ORPHAN_SWEEP_S: Final = 2.0
GAUGES_S: Final = 5.0
# A withdrawn key or an empty wallet is mended by a person, who then waits this long.
CHECK_S: Final = 15.0
CHECK_TIMEOUT_S: Final = 10.0
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


async def find_orphans(attempts: AttemptLog, answer_by_ms: int) -> float:
    """Put attempts in doubt whose sender is gone; returns how long to wait, in seconds."""
    for attempt_id in await attempts.mark_orphans(answer_by_ms):
        log.warning("attempt.orphaned", extra={"attempt_id": attempt_id})
    return ORPHAN_SWEEP_S


async def check_accounts(accounts: Accounts, catalog: Catalog, clock: Clock) -> float:
    """Try the accounts that are out, and take those back that pass; returns how long to wait, in seconds."""
    for account in (await accounts.load()).values():
        is_out = any(breaker.is_out for breaker in account.breakers.values())
        if is_out and account.state is not AccountState.DISABLED and account.provider in catalog.adapters:
            await _check(account, accounts, catalog, clock)
    return CHECK_S


async def _check(account: Account, accounts: Accounts, catalog: Catalog, clock: Clock) -> None:
    outcome = "failed"
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            access = await accounts.access(account.account_id)
            status = await catalog.adapter(account.provider).check(Context(clock), access)
        if status.ok:
            await accounts.close_breakers(account.account_id, account, status.balance_millis)
            outcome = "passed"
    except (ProviderError, SealBroken, ServiceError, TimeoutError) as error:
        log.info("account.still_out", extra={"account_id": account.account_id, "cause": str(error)})
    except Exception:
        # A bug of one adapter must not keep the accounts after this one out for ever.
        log.exception("account.check_failed", extra={"account_id": account.account_id})
    meters.CHECKS.labels(account.provider, outcome).inc()


async def sweep_media(store: MediaStore, catalog: Catalog, retention_s: int) -> float:
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
    breakers = [breaker for account in accounts for breaker in account.breakers.values()]
    shown = Counter(health.state_of(breaker, now_ms) for breaker in breakers)
    for name in (health.BreakerState.OPEN, health.BreakerState.HALF_OPEN):
        meters.BREAKERS.labels(name.value).set(shown[name])
    models = {name: catalog.models(name) for name in catalog.adapters}
    for (mode, model), free in pool.rooms(accounts, models, now_ms).items():
        meters.FREE_SLOTS.labels(mode.value, model).set(free)
