"""Jobs as values, for tests of rules and of the store."""

from __future__ import annotations

from typing import Any

from services.jobs.job import Generation, Job, Kind

NOW_MS = 1_800_000_000_000


def a_job(job_id: str = "job_1", **given: Any) -> Job:
    """An `admitting` job of cus_a, owned by worker w1."""
    customer_id = given.pop("customer_id", "cus_a")
    fields: dict[str, Any] = {
        "job_id": job_id,
        "customer_id": customer_id,
        "mode": "test",
        "storefront": "leonardo",
        "admission_key": f"{customer_id} test {job_id}",
        "fingerprint": "f1",
        "generation": Generation(Kind.IMAGE, "gpt-image-2", "a\x00 cat 🐈", 64, 64, 0, False, "low", None),
        "sku": "image.low",
        "quantity": 1,
        "running_limit": 10,
        "created_at_ms": NOW_MS,
        "updated_at_ms": NOW_MS,
        "run_at_ms": NOW_MS,
        "queue_deadline_ms": NOW_MS + 1_800_000,
        "owner": "w1",
    }
    return Job(**(fields | given))
