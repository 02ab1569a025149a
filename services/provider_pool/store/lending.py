"""A batch of leases, renewals and returns in the database, and what ended leases leave to be paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from services.provider_pool import attempts as attempt_rules
from services.provider_pool import leases as rules
from services.provider_pool.leases import Batch, Lease, LeaseState
from services.provider_pool.pool import Account, Policy
from services.provider_pool.store import accounts, attempts, leases


def apply(
    connection: Connection, items: Sequence[rules.Item], policy: Policy, now_ms: int
) -> list[rules.Answer]:
    """Answer a batch under the locks of all accounts, and write what it changed.

    All accounts, because any of them may be chosen: two replicas take turns, and neither oversubscribes an account.
    """
    held = accounts.lock_accounts(connection)
    named = {attempt_id for item in items for attempt_id in rules.attempts_of(item)}
    batch = Batch(held, leases.lock_leases(connection, named), now_ms)
    answers = rules.apply(items, batch, policy)
    changed = [batch.leases[name] for name in sorted(batch.changed_leases)]
    accounts.save_loads(connection, [batch.accounts[name] for name in sorted(batch.changed_accounts)])
    accounts.save_breakers(connection, batch.changed_breakers)
    leases.save_leases(connection, changed)
    _book_open_ends(connection, [lease for lease in changed if lease.state is LeaseState.ENDED], held)
    return answers


def _book_open_ends(connection: Connection, ended: Sequence[Lease], held: Mapping[str, Account]) -> None:
    # With its lease the claim of an attempt on the balance ends; money that may be gone must not be promised again.
    if not ended:
        return
    ceilings = {lease.attempt_id: lease.ceiling_millis for lease in ended}
    open_ends = [
        replace(one, booked=True, cost_millis=one.cost_millis or ceilings[one.attempt_id])
        for one in attempts.lock_attempts(connection, ceilings).values()
        if attempt_rules.may_still_cost(one)
    ]
    balances: dict[str, int] = {}
    for one in open_ends:
        before_millis = balances.get(one.account_id, held[one.account_id].balance_millis)
        balances[one.account_id] = before_millis - one.cost_millis
    attempts.save_attempts(connection, open_ends)
    accounts.save_balances(connection, balances)
