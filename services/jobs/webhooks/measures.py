"""Webhooks in numbers."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ATTEMPTS = Counter(
    "atelier_jobs_webhook_attempts_total",
    "Attempts to deliver a webhook, by how they ended: delivered, or a word for what went wrong.",
    ["outcome"],
)
ATTEMPT_SECONDS = Histogram(
    "atelier_jobs_webhook_attempt_seconds",
    "Seconds that one attempt took.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
FIRST_ATTEMPT_DELAY_SECONDS = Histogram(
    "atelier_jobs_webhook_delay_seconds",
    "Seconds from a job's end until its webhook was first sent.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0),
)
DEAD = Counter("atelier_jobs_webhook_dead_total", "Webhooks that were given up.")
OLDEST_DUE_SECONDS = Gauge(
    "atelier_jobs_webhook_oldest_due_seconds",
    "How long the webhook has been due that waits longest to be sent.",
)
