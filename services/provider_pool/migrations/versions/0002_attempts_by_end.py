"""Attempts by when they ended: the open ones for reconciliation, the oldest to be forgotten."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("ix_attempts_ended_at_ms_attempt_id", "attempts", ["ended_at_ms", "attempt_id"])
