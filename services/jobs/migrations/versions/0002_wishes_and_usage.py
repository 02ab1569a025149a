"""Public numbers and models, what a contract has echoed, projects, webhooks' addresses, wishes, and usage by day."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS = (
    "public_number BIGINT NOT NULL DEFAULT 0",
    "public_model TEXT NOT NULL DEFAULT ''",
    "echo TEXT NOT NULL DEFAULT ''",
    "project_id TEXT NOT NULL DEFAULT ''",
    "callback_url TEXT NOT NULL DEFAULT ''",
    "webhook_form_id TEXT NOT NULL DEFAULT ''",
    "cancel_asked_at_ms BIGINT NOT NULL DEFAULT 0",
    "deleted_at_ms BIGINT NOT NULL DEFAULT 0",
    "scrubbed_at_ms BIGINT NOT NULL DEFAULT 0",
)

STATEMENTS = (
    *(f"ALTER TABLE jobs ADD COLUMN {column}" for column in _COLUMNS),
    # Until now every storefront's words were Atelier's own.
    "UPDATE jobs SET public_model = model",
    """
    CREATE TABLE usage_days (
        customer_id TEXT NOT NULL,
        mode TEXT NOT NULL,
        day BIGINT NOT NULL,
        public_model TEXT NOT NULL,
        completed_jobs BIGINT NOT NULL,
        failed_jobs BIGINT NOT NULL,
        charged_millis BIGINT NOT NULL,
        refunded_millis BIGINT NOT NULL,
        CONSTRAINT pk_usage_days PRIMARY KEY (customer_id, mode, day, public_model)
    )
    """,
    # A job that failed was charged and had it back: both count, and their difference is what it cost.
    """
    INSERT INTO usage_days
    SELECT customer_id, mode, created_at_ms / 86400000, public_model,
        SUM(CASE WHEN state = 'completed' THEN 1 ELSE 0 END),
        SUM(CASE WHEN state = 'completed' THEN 0 ELSE 1 END),
        SUM(charged_millis + CASE WHEN state = 'completed' THEN 0 ELSE refunded_millis END),
        SUM(CASE WHEN state = 'completed' THEN 0 ELSE refunded_millis END)
    FROM jobs
    WHERE ended_at_ms > 0
    GROUP BY customer_id, mode, created_at_ms / 86400000, public_model
    """,
    "DROP INDEX ix_jobs_customer_id_job_id",
    "CREATE INDEX ix_jobs_listed ON jobs (customer_id, mode, created_at_ms, job_id)",
    """
    CREATE INDEX ix_jobs_unfinished ON jobs (customer_id, mode, created_at_ms, job_id) WHERE ended_at_ms = 0
    """,
    """
    CREATE INDEX ix_jobs_ended ON jobs (
        customer_id, mode, stage, kind, created_at_ms, job_id, ended_at_ms, deleted_at_ms
    )
    WHERE ended_at_ms > 0 AND deleted_at_ms = 0
    """,
    """
    CREATE INDEX ix_jobs_project ON jobs (customer_id, mode, project_id, created_at_ms, job_id)
    WHERE project_id != '' AND deleted_at_ms = 0
    """,
    """
    CREATE UNIQUE INDEX uq_jobs_public_number ON jobs (public_number, storefront) WHERE public_number > 0
    """,
    """
    CREATE INDEX ix_jobs_wishes ON jobs (owner) WHERE cancel_asked_at_ms > 0 AND ended_at_ms = 0
    """,
    """
    CREATE INDEX ix_jobs_deletions ON jobs (deleted_at_ms) WHERE deleted_at_ms > 0 AND scrubbed_at_ms = 0
    """,
)


def upgrade() -> None:
    """From the first schema to this one."""
    for statement in STATEMENTS:
        op.execute(statement)
