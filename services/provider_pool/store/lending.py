"""A batch of leases, renewals and returns in the database, and what ended leases leave to be paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace
from sqlalchemy import Connection

from services.chassis.database import write_together
from services.provider_pool.attempts import states as attempt_rules
from services.provider_pool.attempts.states import Attempt
from services.provider_pool.selection import leases as rules
from services.provider_pool.selection.leases import Batch, Lease, LeaseState
from services.provider_pool.selection.market import OPEN_MARKET, Market
from services.provider_pool.selection.pool import Account, Policy
from services.provider_pool.store import accounts, attempts, leases


def apply(
    connection: Connection,
    items: Sequence[rules.Item],
    policy: Policy,
    now_ms: int,
    market: Market = OPEN_MARKET,
) -> list[rules.Answer]:
    """Answer a batch under the locks of all accounts, and write what it changed.

    All accounts, because any of them may be chosen: two replicas take turns, and neither oversubscribes an account.
    """
    named = {attempt_id for item in items for attempt_id in rules.attempts_of(item)}
    held, (rows,) = accounts.lock_accounts_and(connection, None, (leases.LOCK,), attempt_ids=sorted(named))
    lent = leases.by_attempt(rows)
    open_ends = _open_ends(connection, items, lent)
    owed_millis = {one.attempt_id: one.cost_millis for one in open_ends.values()}
    batch = Batch(held, lent, now_ms, owed_millis)
    answers = rules.apply(items, batch, policy, market)
    changed = [batch.leases[name] for name in sorted(batch.changed_leases)]
    loads = accounts.loads_step(batch.accounts[name] for name in batch.changed_accounts)
    write_together(connection, (loads, leases.leases_step(changed)))
    accounts.save_breakers(connection, batch.changed_breakers)
    _book(connection, [open_ends[name] for name in sorted(batch.booked)], batch.accounts)
    return answers


def _open_ends(
    connection: Connection, items: Sequence[rules.Item], lent: Mapping[str, Lease]
) -> dict[str, Attempt]:
    """Attempts whose lease may end now before they do, as they are booked then: at the most that they may cost."""
    # With its lease the claim of an attempt on the balance ends.
    ending = {item.attempt_id for item in items if isinstance(item, rules.GiveBack | rules.Expire)}
    held = {name for name in ending if name in lent and lent[name].state is LeaseState.OPEN}
    if not held:
        return {}
    return {
        name: replace(one, booked=True, cost_millis=one.cost_millis or lent[name].ceiling_millis)
        for name, one in attempts.lock_attempts(connection, held).items()
        if attempt_rules.may_still_cost(one)
    }


def _book(connection: Connection, open_ends: Sequence[Attempt], held: Mapping[str, Account]) -> None:
    charged = {one.account_id for one in open_ends}
    balances = accounts.balances_step([held[name] for name in charged])
    write_together(connection, (attempts.changes_step(open_ends), balances))


def recount(connection: Connection) -> list[str]:
    """Put right what accounts count by model, and name those that were wrong: a release that did not count was running."""
    held = accounts.lock_accounts(connection)
    counts = leases.count_open(connection)
    wrong = [
        replace(account, leases_by_model=counts.get(name, {}))
        for name, account in held.items()
        if account.leases_by_model != counts.get(name, {})
    ]
    write_together(connection, (accounts.loads_step(wrong),))
    return sorted(account.account_id for account in wrong)
