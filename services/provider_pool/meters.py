"""What this service counts and measures."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

ACCOUNTS: Final = Gauge("atelier_pool_accounts", "Provider accounts.", ["provider", "state"])
BREAKERS: Final = Gauge("atelier_pool_breakers", "Breakers that are not closed.", ["state"])
LEASES: Final = Gauge("atelier_pool_leases", "Open leases.", ["provider"])
FREE_SLOTS: Final = Gauge(
    "atelier_pool_free_slots", "Slots free on accounts that serve a model.", ["mode", "model"]
)
HEADROOM: Final = Gauge(
    "atelier_pool_headroom_credits",
    "Balance that no lease has a claim on, in the provider's own unit, on active accounts.",
    ["provider"],
)
HEADROOM_HOURS: Final = Gauge(
    "atelier_pool_headroom_hours",
    "How long the accounts of a model last at the pace of the last hour; infinite where nothing was spent.",
    ["model"],
)
BALANCE_AGE: Final = Gauge(
    "atelier_pool_balance_age_seconds",
    "Seconds since the provider told the balance, of its account that waits longest for it.",
    ["provider"],
)
FAULTS: Final = Counter(
    "atelier_pool_account_faults_total", "Calls that said something bad of an account.", ["provider", "cause"]
)
LEASE_ANSWERS: Final = Counter("atelier_pool_lease_answers_total", "Answers to Lease.", ["outcome"])
EXPIRED_LEASES: Final = Counter(
    "atelier_pool_expired_leases_total", "Leases that nobody renewed or gave back."
)
OUTCOMES: Final = Counter(
    "atelier_pool_attempts_total", "Attempts by what became of them.", ["provider", "state", "reason"]
)
IN_DOUBT: Final = Gauge(
    "atelier_pool_unknown_attempts", "Attempts of which nobody knows whether they were accepted."
)
RESOLVED: Final = Counter(
    "atelier_pool_resolved_unknown_total",
    "Attempts in doubt by how they were resolved.",
    ["provider", "outcome"],
)
RESUBMITTED: Final = Counter(
    "atelier_pool_resubmitted_total",
    "Jobs sent once more after an attempt was given up in doubt, possibly paid twice.",
    ["provider"],
)
DOUBTFUL_COST: Final = Counter(
    "atelier_pool_doubtful_cost_credits_total",
    "What attempts given up in doubt may have cost, in the provider's own unit.",
    ["provider"],
)
CLOSED: Final = Counter(
    "atelier_pool_closed_attempts_total",
    "Attempts that were ended because their job had, by the state they were in.",
    ["provider", "state"],
)
CANCELLED: Final = Counter(
    "atelier_pool_cancelled_tasks_total",
    "Tasks that a provider was told to stop, by whether it charges for them.",
    ["provider", "outcome"],
)
OVERDUE: Final = Counter(
    "atelier_pool_overdue_tasks_total",
    "Tasks given up because they ran for longer than such tasks do, by whether they were charged.",
    ["provider", "charged"],
)
LOOSE_ENDS: Final = Counter(
    "atelier_pool_loose_ends_total", "Attempts that nobody asked about any more.", ["provider", "was"]
)
HINTS: Final = Counter("atelier_pool_hints_total", "Hints of providers, by what they were.", ["outcome"])
DELETED_MEDIA: Final = Counter(
    "atelier_pool_deleted_media_total", "Outputs deleted from the media store because they were to be."
)
FORGOTTEN: Final = Counter("atelier_pool_forgotten_attempts_total", "Attempts deleted after their retention.")
SUBMIT_SECONDS: Final = Histogram(
    "atelier_pool_submit_seconds", "Seconds a provider took to answer a submission.", ["provider"]
)
POLL_SECONDS: Final = Histogram(
    "atelier_pool_poll_seconds", "Seconds a provider took to answer a poll.", ["provider"]
)
POLLED: Final = Counter(
    "atelier_pool_polled_attempts_total", "Attempts that a provider was asked about.", ["provider"]
)
POLL_FAILURES: Final = Counter(
    "atelier_pool_poll_failures_total", "Polls that were not answered.", ["provider", "cause"]
)
UPLOADS: Final = Counter(
    "atelier_pool_provider_uploads_total",
    "References that an account was to have, by whether they were there, uploaded, or could not be.",
    ["provider", "outcome"],
)
UPLOAD_SECONDS: Final = Histogram(
    "atelier_pool_provider_upload_seconds", "Seconds a provider took to take in a reference.", ["provider"]
)
COLLECTED_BYTES: Final = Counter(
    "atelier_pool_collected_bytes_total", "Bytes copied to the media store.", ["provider"]
)
REFERENCE_FETCHES: Final = Counter(
    "atelier_pool_reference_fetches_total", "References fetched from URLs, by how that ended.", ["outcome"]
)
REFERENCE_UPLOADS: Final = Counter(
    "atelier_pool_reference_uploads_total", "Inline references, by what became of them.", ["outcome"]
)
REFERENCE_BYTES: Final = Counter(
    "atelier_pool_reference_bytes_total", "Bytes of references that were taken, as they came.", ["source"]
)
REFERENCES_KEPT: Final = Gauge(
    "atelier_pool_references_kept", "References in the folder after the last sweep."
)
CHECKS: Final = Counter(
    "atelier_pool_account_checks_total",
    "Questions about accounts that providers were asked.",
    ["provider", "outcome"],
)
