"""What Atelier's own services say of a wallet: the journal, the counters of billing and jobs, the lives of its jobs. In credits."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.house import Inside
from tests.integration.usage_buyers import Mode

_BILLING_MODE: Final[dict[Mode, billing.Mode.ValueType]] = {
    "live": billing.MODE_LIVE,
    "test": billing.MODE_TEST,
}
_JOBS_MODE: Final[dict[Mode, jobs.Mode.ValueType]] = {"live": jobs.MODE_LIVE, "test": jobs.MODE_TEST}
_ENDED: Final = frozenset({jobs.JOB_STATE_COMPLETED, jobs.JOB_STATE_FAILED, jobs.JOB_STATE_CANCELED})
_PAGE: Final = 1_000


def credits_of(millis: int) -> Decimal:
    """Exact."""
    return Decimal(millis) / 1_000


@dataclass(frozen=True)
class Journal:
    """A wallet's history. `kinds`: how often each job has an entry of each kind."""

    captured: Decimal
    kinds: dict[str, Counter[str]]

    @property
    def job_ids(self) -> set[str]:
        return set(self.kinds)


@dataclass(frozen=True)
class Books:
    """Of one wallet."""

    inside: Inside
    customer_id: str
    mode: Mode

    async def journal(self) -> Journal:
        """Read whole, page by page."""
        entries: list[billing.JournalEntry] = []
        while not entries or entries[-1].sequence > 1:
            before = entries[-1].sequence if entries else 0
            page = await self.inside.billing.ListJournal(
                billing.ListJournalRequest(
                    customer_id=self.customer_id,
                    mode=_BILLING_MODE[self.mode],
                    before_sequence=before,
                    limit=_PAGE,
                )
            )
            if not page.entries:
                break
            entries += page.entries
        kinds: dict[str, Counter[str]] = {}
        for entry in entries:
            if entry.applied and entry.job_id:
                kinds.setdefault(entry.job_id, Counter())[entry.kind] += 1
        captured = sum(entry.amount_millis for entry in entries if entry.applied and entry.kind == "capture")
        return Journal(credits_of(captured), kinds)

    async def charged_total(self) -> Decimal:
        """Billing's own count beside the journal."""
        wallet = billing.WalletName(customer_id=self.customer_id, mode=_BILLING_MODE[self.mode])
        while True:
            answer = await self.inside.billing.GetChargedTotals(
                billing.GetChargedTotalsRequest(wallets=[wallet])
            )
            if not answer.behind:
                assert all(total.unbilled_millis == 0 for total in answer.totals)
                return credits_of(sum(total.captured_millis for total in answer.totals))

    async def reserved(self) -> Decimal:
        request = billing.GetBalanceRequest(customer_id=self.customer_id, mode=_BILLING_MODE[self.mode])
        return credits_of((await self.inside.billing.GetBalance(request)).balance.reserved_millis)

    async def usage(self) -> list[jobs.UsageRow]:
        """What the jobs service counts, from the first day."""
        request = jobs.GetUsageRequest(customer_id=self.customer_id, mode=_JOBS_MODE[self.mode])
        return list((await self.inside.jobs.GetUsage(request)).rows)

    async def at_rest(self, *, deadline_s: float = 150.0) -> None:
        """Returns when every job has ended and nothing is reserved. Raises TimeoutError."""
        async with asyncio.timeout(deadline_s):
            while any(row.pending_jobs or row.processing_jobs for row in await self.usage()):
                await asyncio.sleep(0.2)
            while await self.reserved():
                await asyncio.sleep(0.2)

    async def cancel(self, job_id: str) -> None:
        """As an internal service does."""
        request = jobs.CancelJobRequest(
            job_id=job_id, customer_id=self.customer_id, mode=_JOBS_MODE[self.mode]
        )
        await self.inside.jobs.CancelJob(request)

    async def ends_of(self, job_id: str) -> list[jobs.JobState.ValueType]:
        """The final states that a job was ever in; of what never was a job, none."""
        events = (await self.inside.jobs.ListJobEvents(jobs.ListJobEventsRequest(job_id=job_id))).events
        return [event.state for event in events if event.state in _ENDED]
