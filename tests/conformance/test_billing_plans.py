from __future__ import annotations

from tests.conformance.billing_plans import grown_by


async def test_no_batch_reads_a_whole_table_also_by_a_plan_made_while_it_was_empty(postgres_url: str) -> None:
    assert (await grown_by(postgres_url, 20_000)).scanned == {}
