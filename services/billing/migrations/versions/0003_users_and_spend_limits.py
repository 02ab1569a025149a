"""Users who sign in, what keys may do, spend limits with what is counted against them, and what was ever topped up."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

COLUMNS = (
    ("api_keys", "rules", "TEXT NOT NULL DEFAULT ''"),
    ("api_keys", "day_limit_millis", "BIGINT NOT NULL DEFAULT 0"),
    ("api_keys", "month_limit_millis", "BIGINT NOT NULL DEFAULT 0"),
    ("api_keys", "line_key_id", "TEXT NOT NULL DEFAULT ''"),
    ("wallets", "day_limit_millis", "BIGINT NOT NULL DEFAULT 0"),
    ("wallets", "month_limit_millis", "BIGINT NOT NULL DEFAULT 0"),
    ("holds", "key_id", "TEXT NOT NULL DEFAULT ''"),
    ("charged_totals", "topped_up_millis", "BIGINT NOT NULL DEFAULT 0"),
)

# Remembered sums know nothing of what was topped up before: they are made again, from the journal.
FORGET_TOTALS = "DELETE FROM charged_totals"

TABLES = (
    """
    CREATE TABLE spending (
        customer_id TEXT NOT NULL,
        mode TEXT NOT NULL,
        key_id TEXT NOT NULL,
        period TEXT NOT NULL,
        spent_millis BIGINT NOT NULL,
        CONSTRAINT pk_spending PRIMARY KEY (customer_id, mode, key_id, period),
        CONSTRAINT fk_spending_wallets FOREIGN KEY(customer_id, mode) REFERENCES wallets (customer_id, mode),
        CONSTRAINT ck_spending_spent_not_negative CHECK (spent_millis >= 0)
    )
    """,
    """
    CREATE TABLE users (
        user_id BIGINT NOT NULL,
        storefront TEXT NOT NULL,
        email TEXT NOT NULL,
        address TEXT NOT NULL,
        full_name TEXT NOT NULL,
        password_hash TEXT NOT NULL,
        token_version BIGINT NOT NULL,
        customer_id TEXT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        CONSTRAINT pk_users PRIMARY KEY (user_id),
        CONSTRAINT uq_users_storefront_address UNIQUE (storefront, address),
        CONSTRAINT uq_users_customer_id UNIQUE (customer_id),
        CONSTRAINT fk_users_customers FOREIGN KEY(customer_id) REFERENCES customers (customer_id)
    )
    """,
    """
    CREATE TABLE password_resets (
        digest TEXT NOT NULL,
        user_id BIGINT NOT NULL,
        expires_at_ms BIGINT NOT NULL,
        CONSTRAINT pk_password_resets PRIMARY KEY (digest),
        CONSTRAINT fk_password_resets_users FOREIGN KEY(user_id) REFERENCES users (user_id)
    )
    """,
    """
    CREATE INDEX ix_password_resets_user_id ON password_resets (user_id)
    """,
)


def upgrade() -> None:
    op.execute(FORGET_TOTALS)
    for table, column, kind in COLUMNS:
        op.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    for statement in TABLES:
        op.execute(statement)
