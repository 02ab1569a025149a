"""The jobs service in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

ADMISSIONS = Counter("atelier_jobs_admissions_total", "Create requests, by how they ended.", ["result"])
FINISHED = Counter(
    "atelier_jobs_finished_total",
    "Jobs that ended, by kind, state and failure.",
    ["kind", "state", "failure"],
)
DURATION_SECONDS = Histogram(
    "atelier_jobs_duration_seconds",
    "Seconds from a job's creation to its end.",
    ["kind"],
    buckets=(1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1200, 1800, 3600),
)
OWNED = Gauge("atelier_jobs_owned", "Unfinished jobs that this process owns, by state.", ["state"])
OLDEST_QUEUED_SECONDS = Gauge("atelier_jobs_oldest_queued_seconds", "Age of the oldest job that waits here.")
POLL_LAG_SECONDS = Histogram(
    "atelier_jobs_poll_lag_seconds",
    "How much later than planned a job was looked at.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
HINTS = Counter(
    "atelier_jobs_hints_total",
    "Attempts that a provider said something about, by whether a job waited for it here.",
    ["outcome"],
)
LEASES_LOST = Counter("atelier_jobs_epoch_losses_total", "Jobs dropped because another worker owns them.")
DECLARED_DEAD = Counter(
    "atelier_jobs_declared_dead_total", "Times this process was declared dead by another."
)
CLAIMED = Counter("atelier_jobs_claimed_total", "Unowned jobs that this process took over.")
WISHES = Counter(
    "atelier_jobs_wishes_total",
    "Jobs that were asked to end (cancel), or to be forgotten too (delete).",
    ["wish"],
)
WISHES_WAITING = Gauge(
    "atelier_jobs_wishes_waiting", "Jobs of all processes that were asked to end and have not ended yet."
)
DELETIONS_WAITING = Gauge(
    "atelier_jobs_deletions_waiting", "Deleted jobs whose media and contents are still to be removed."
)
RECONCILE_FINDINGS = Gauge(
    "atelier_jobs_reconcile_findings", "What the last reconciliation found amiss, by kind.", ["finding"]
)
RECONCILE_FOUND = Counter(
    "atelier_jobs_reconcile_found_total", "What reconciliation has found amiss so far, by kind.", ["finding"]
)
RECONCILE_ROUNDS = Counter(
    "atelier_jobs_reconcile_rounds_total",
    "Reconciliations, complete or interrupted (a service was away).",
    ["result"],
)
CHARGED_DIFFERENCE_MILLIS = Gauge(
    "atelier_jobs_charged_difference_millis",
    "By how much the amounts that jobs were charged differ from billing's, over all customers; must be 0.",
    ["mode"],
)


def note_findings(found: Mapping[str, int]) -> None:
    """What one look found, by kind; 0 for a kind that was looked for in vain."""
    for finding, count in found.items():
        RECONCILE_FINDINGS.labels(finding).set(count)
        RECONCILE_FOUND.labels(finding).inc(count)


# Finding a labelled child costs more than using it.
_admissions = cache(ADMISSIONS.labels)


def admitted(result: str) -> None:
    """Counts one create request."""
    _admissions(result).inc()
