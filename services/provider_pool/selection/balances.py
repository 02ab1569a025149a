"""What a provider tells of an account, and what the pool believes afterwards. Pure; time comes as an argument.

A balance that is told is right for some moment between the question and its answer, and nobody knows for which. What
attempts take off the balance meanwhile may be in it or not, so it is taken to be not: `booked_millis` only ever counts
what was booked, and what it moved since the question was sent comes off what was told. At worst one cost is taken off
twice until the next question, five minutes later; never is money promised that is gone. What was booked before the
question, the provider had charged before, except for one that charges late: what such a one still owes itself is above
the balance until it has caught up, and the refusal that may follow sends a job to another account. Leases are none of
this: their ceilings stay claimed beside whatever balance is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from services.provider_pool.adapters.interface import AccountStatus
from services.provider_pool.selection.pool import Account

AMOUNT_LIMIT_MILLIS: Final = 10**15
CONCURRENCY_LIMIT: Final = 1_000_000
"""What a provider tells goes into columns: a number beyond these is no number of an account's."""

RECENT_MS: Final = 600_000


def told(account: Account, seen: Account, status: AccountStatus, asked_at_ms: int) -> Account:
    """The account after an answer. `seen` is its record from before the question, which was sent at `asked_at_ms`."""
    after = account
    if status.renews_at_ms is not None:
        after = replace(after, renews_at_ms=_bounded(status.renews_at_ms, 0, AMOUNT_LIMIT_MILLIS))
    if status.concurrency_limit is not None:
        after = replace(after, concurrency_told=_bounded(status.concurrency_limit, 0, CONCURRENCY_LIMIT))
    # Another replica may have asked later, and been answered first.
    if status.balance_millis is None or account.balance_read_at_ms > asked_at_ms:
        return after
    booked_since_millis = account.booked_millis - seen.booked_millis
    told_millis = _bounded(status.balance_millis, -AMOUNT_LIMIT_MILLIS, AMOUNT_LIMIT_MILLIS)
    return replace(after, balance_millis=told_millis - booked_since_millis, balance_read_at_ms=asked_at_ms)


def _bounded(value: int, lowest: int, highest: int) -> int:
    return max(lowest, min(value, highest))


class RecentCeilings:
    """The largest ceiling asked for at each provider in the last ten to twenty minutes."""

    def __init__(self) -> None:
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._turns_at_ms = 0

    def note(self, ceilings_millis: Mapping[str, int], now_ms: int) -> None:
        """A job has asked for these, by provider."""
        if now_ms >= self._turns_at_ms:
            self._before, self._now, self._turns_at_ms = self._now, {}, now_ms + RECENT_MS
        for provider, millis in ceilings_millis.items():
            if millis > self._now.get(provider, 0):
                self._now[provider] = millis

    def largest_millis(self, provider: str) -> int:
        """0 where nobody has asked for anything."""
        return max(self._now.get(provider, 0), self._before.get(provider, 0))
