"""Webhooks: forms, endpoints with their secrets, deliveries and the log of their attempts."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    """
    CREATE TABLE webhook_forms (
        form_id TEXT NOT NULL,
        storefront TEXT NOT NULL,
        form TEXT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        CONSTRAINT pk_webhook_forms PRIMARY KEY (form_id)
    )
    """,
    """
    CREATE TABLE webhook_endpoints (
        customer_id TEXT NOT NULL,
        url TEXT NOT NULL,
        secret TEXT NOT NULL,
        secret_made_at_ms BIGINT NOT NULL,
        previous_secret TEXT NOT NULL,
        overlap_until_ms BIGINT NOT NULL,
        CONSTRAINT pk_webhook_endpoints PRIMARY KEY (customer_id)
    )
    """,
    """
    CREATE TABLE webhook_deliveries (
        delivery_id TEXT NOT NULL,
        job_id TEXT NOT NULL,
        customer_id TEXT NOT NULL,
        form_id TEXT NOT NULL,
        ending TEXT NOT NULL,
        url TEXT NOT NULL,
        receiver TEXT NOT NULL,
        body TEXT NOT NULL,
        media_expires_at_ms BIGINT NOT NULL,
        links_until_ms BIGINT NOT NULL,
        state TEXT NOT NULL,
        owner TEXT,
        epoch BIGINT NOT NULL,
        attempts BIGINT NOT NULL,
        tries BIGINT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        next_attempt_at_ms BIGINT NOT NULL,
        ended_at_ms BIGINT NOT NULL,
        last_status BIGINT NOT NULL,
        last_error TEXT NOT NULL,
        CONSTRAINT pk_webhook_deliveries PRIMARY KEY (delivery_id),
        CONSTRAINT ck_webhook_deliveries_state CHECK (state IN ('waiting', 'delivered', 'dead')),
        CONSTRAINT ck_webhook_deliveries_ended_has_time CHECK ((state = 'waiting') = (ended_at_ms = 0)),
        CONSTRAINT ck_webhook_deliveries_ended_has_no_owner CHECK (state = 'waiting' OR owner IS NULL)
    )
    """,
    "CREATE INDEX ix_webhook_deliveries_customer_id_delivery_id ON webhook_deliveries (customer_id, delivery_id)",
    "CREATE INDEX ix_webhook_deliveries_job_id ON webhook_deliveries (job_id)",
    """
    CREATE INDEX ix_webhook_deliveries_due
        ON webhook_deliveries (next_attempt_at_ms, receiver, customer_id, delivery_id, owner, ended_at_ms)
        WHERE owner IS NULL AND ended_at_ms = 0
    """,
    "CREATE INDEX ix_webhook_deliveries_owned ON webhook_deliveries (owner) WHERE owner IS NOT NULL",
    "CREATE INDEX ix_webhook_deliveries_ended ON webhook_deliveries (ended_at_ms) WHERE ended_at_ms > 0",
    """
    CREATE TABLE webhook_attempts (
        delivery_id TEXT NOT NULL,
        number BIGINT NOT NULL,
        at_ms BIGINT NOT NULL,
        duration_ms BIGINT NOT NULL,
        status BIGINT NOT NULL,
        error TEXT NOT NULL,
        CONSTRAINT pk_webhook_attempts PRIMARY KEY (delivery_id, number)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
