"""Compares what customers were told that they paid with what billing charged them: one counter beside the other.

Billing charges before a job ends, so its sum may be ahead by the jobs that are settling. A customer with nothing in
flight is compared to the thousandth of a credit; one that never rests, up to what it settles while two sums are read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from services.jobs.ports import Billing
from services.jobs.store import Customer, JobStore

log = logging.getLogger(__name__)

# Sums that one call of billing gives.
_PAGE = 500
# Some 20 MB; customers beyond it are compared every time.
_REMEMBERED = 100_000
# Nobody is trusted for longer than so many comparisons, however little happens: an hour or so.
_ROUNDS = 60


class Charges:
    """Compares customers that changed since they were last found to agree, and every other one now and then."""

    def __init__(self, store: JobStore, billing: Billing) -> None:
        self._store = store
        self._billing = billing
        self._agreed: dict[Customer, int] = {}

    async def compare(self) -> dict[Customer, int]:
        """By customer that differs: what billing charged more (or less, below 0) than the jobs say, in millis."""
        self._forget_some()
        differing: dict[Customer, int] = {}
        after: Customer = ("", "")
        while page := await self._store.charged(after, _PAGE):
            changed = {name: told for name, told in page if self._agreed.get(name) != told}
            if changed:
                differing |= await self._compare(changed)
            after = page[-1][0]
        for (customer_id, mode), millis in differing.items():
            log.error(
                "charges.differ",
                extra={"customer_id": customer_id, "mode": mode, "difference_millis": millis},
            )
        return differing

    async def _compare(self, told: dict[Customer, int]) -> dict[Customer, int]:
        billed = await self._billing.charged_totals(list(told))
        suspects: list[Customer] = []
        for name, told_millis in told.items():
            if billed.get(name) == told_millis:
                self._agree(name, told_millis)
            elif name in billed:
                suspects.append(name)
        return await self._unexplained(suspects, told, billed) if suspects else {}

    async def _unexplained(
        self, suspects: Sequence[Customer], told: dict[Customer, int], billed: dict[Customer, int]
    ) -> dict[Customer, int]:
        # What was told before billing was asked is the least that billing may say; what is told now, with all that
        # is settling now, is the most.
        most = await self._store.charged_at_most(suspects)
        differing = {}
        for name in suspects:
            difference = min(0, billed[name] - told[name]) or max(0, billed[name] - most[name])
            if difference:
                differing[name] = difference
        return differing

    def _agree(self, name: Customer, told_millis: int) -> None:
        if len(self._agreed) < _REMEMBERED or name in self._agreed:
            self._agreed[name] = told_millis

    def _forget_some(self) -> None:
        share = max(_PAGE, len(self._agreed) // _ROUNDS)
        for name in list(self._agreed)[:share]:
            del self._agreed[name]
