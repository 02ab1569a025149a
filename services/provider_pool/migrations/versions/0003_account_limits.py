"""What an account's provider tells of it, what was learnt of it, its pace, and its leases by model."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

COLUMNS = (
    ("accounts", "balance_read_at_ms", "BIGINT NOT NULL DEFAULT 0"),
    ("accounts", "booked_millis", "BIGINT NOT NULL DEFAULT 0"),
    ("accounts", "concurrency_told", "BIGINT NOT NULL DEFAULT 0"),
    ("accounts", "concurrency_learnt", "BIGINT NOT NULL DEFAULT 0"),
    ("accounts", "successes", "BIGINT NOT NULL DEFAULT 0"),
    ("accounts", "pace_at_ms", "BIGINT NOT NULL DEFAULT 0"),
    ("accounts", "leases_by_model", "TEXT NOT NULL DEFAULT '{}'"),
    # Leases from before are counted for no model, neither when this is added nor when they end.
    ("leases", "model", "TEXT NOT NULL DEFAULT ''"),
)


def upgrade() -> None:
    for table, column, kind in COLUMNS:
        op.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
