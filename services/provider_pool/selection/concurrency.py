"""How many tasks at once an account really has: learnt from refusals, and forgotten again when it turns out to be more.

It is kept on the account's row, not with its breakers: every lease reads that row under its lock already, and a ceiling
lasts where a breaker closes.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from services.provider_pool.selection.pool import Account

SUCCESSES_TO_RAISE: Final = 50
"""Submissions taken in a row before one more slot is tried: a refusal costs a job its turn, a slot too few costs a moment."""


def is_at_least(account: Account) -> bool:
    """Whether there is no slot to take off any more: somebody else uses the account, and time alone helps."""
    return account.slots <= 1


def after_refusal(account: Account) -> Account:
    """The provider says that as many tasks as the account may have are running: one of those that it counts was too many."""
    # Where fewer leases are open than were believed possible, the leases are what the provider refused.
    believed = min(account.slots, account.leases or account.slots)
    return replace(account, concurrency_learnt=max(1, believed - 1), successes=0)


def after_success(account: Account) -> Account:
    """A submission was taken. Of an account of which nothing was learnt nothing is counted."""
    if not account.concurrency_learnt:
        return account
    if account.successes + 1 < SUCCESSES_TO_RAISE:
        return replace(account, successes=account.successes + 1)
    raised = account.concurrency_learnt + 1
    return replace(account, concurrency_learnt=0 if raised >= account.limit else raised, successes=0)
