"""The first schema: jobs, their events, the workers that own them, and what each customer has at once."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE customer_load (
        customer_id TEXT NOT NULL,
        mode TEXT NOT NULL,
        waiting BIGINT NOT NULL,
        running BIGINT NOT NULL,
        completed_jobs BIGINT NOT NULL,
        failed_jobs BIGINT NOT NULL,
        charged_millis BIGINT NOT NULL,
        CONSTRAINT pk_customer_load PRIMARY KEY (customer_id, mode)
    )
    """,
    """
    CREATE TABLE job_events (
        job_id TEXT NOT NULL,
        sequence BIGINT NOT NULL,
        epoch BIGINT NOT NULL,
        state TEXT NOT NULL,
        worker_id TEXT NOT NULL,
        at_ms BIGINT NOT NULL,
        CONSTRAINT pk_job_events PRIMARY KEY (job_id, sequence)
    )
    """,
    """
    CREATE TABLE jobs (
        job_id TEXT NOT NULL,
        customer_id TEXT NOT NULL,
        mode TEXT NOT NULL,
        storefront TEXT NOT NULL,
        admission_key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        kind BIGINT NOT NULL,
        model TEXT NOT NULL,
        generation TEXT NOT NULL,
        sku TEXT NOT NULL,
        quantity BIGINT NOT NULL,
        running_limit BIGINT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        queue_deadline_ms BIGINT NOT NULL,
        state TEXT NOT NULL,
        stage BIGINT NOT NULL,
        version BIGINT NOT NULL,
        event_count BIGINT NOT NULL,
        owner TEXT,
        epoch BIGINT NOT NULL,
        idle_claims BIGINT NOT NULL,
        run_at_ms BIGINT NOT NULL,
        updated_at_ms BIGINT NOT NULL,
        ended_at_ms BIGINT NOT NULL,
        run_deadline_ms BIGINT NOT NULL,
        price_version TEXT NOT NULL,
        quoted_millis BIGINT NOT NULL,
        attempt_number BIGINT NOT NULL,
        account_id TEXT NOT NULL,
        avoid_account_ids TEXT NOT NULL,
        progress BIGINT NOT NULL,
        failure BIGINT NOT NULL,
        failure_detail TEXT NOT NULL,
        settlement TEXT NOT NULL,
        settle_millis BIGINT NOT NULL,
        outputs TEXT NOT NULL,
        charged_millis BIGINT NOT NULL,
        refunded_millis BIGINT NOT NULL,
        media_expires_at_ms BIGINT NOT NULL,
        CONSTRAINT pk_jobs PRIMARY KEY (job_id),
        CONSTRAINT uq_jobs_admission_key UNIQUE (admission_key),
        CONSTRAINT ck_jobs_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_jobs_ended_has_time CHECK ((state IN ('completed', 'failed', 'canceled')) = (ended_at_ms > 0)),
        CONSTRAINT ck_jobs_ended_has_no_owner CHECK (ended_at_ms = 0 OR owner IS NULL),
        CONSTRAINT ck_jobs_amounts_not_negative CHECK (charged_millis >= 0 AND refunded_millis >= 0 AND quoted_millis >= 0)
    )
    """,
    """
    CREATE TABLE workers (
        worker_id TEXT NOT NULL,
        address TEXT NOT NULL,
        seen_at_ms BIGINT NOT NULL,
        draining BOOLEAN NOT NULL,
        CONSTRAINT pk_workers PRIMARY KEY (worker_id)
    )
    """,
    """
    CREATE INDEX ix_jobs_claimable ON jobs (run_at_ms) WHERE owner IS NULL AND ended_at_ms = 0
    """,
    """
    CREATE INDEX ix_jobs_customer_id_job_id ON jobs (customer_id, job_id)
    """,
    """
    CREATE INDEX ix_jobs_owned ON jobs (owner) WHERE owner IS NOT NULL
    """,
)


def upgrade() -> None:
    """From nothing to the first schema."""
    for statement in STATEMENTS:
        op.execute(statement)
