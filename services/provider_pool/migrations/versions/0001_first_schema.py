"""The first schema: accounts, their breakers, leases, and attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _switch(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def upgrade() -> None:
    _create_accounts()
    _create_leases()
    _create_attempts()


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        _text("account_id"),
        _text("provider"),
        _text("label"),
        _text("state"),
        _text("models"),
        _switch("serves_live"),
        _switch("serves_test"),
        _number("concurrency_limit"),
        _number("balance_millis"),
        _number("leased_millis"),
        _number("leases"),
        _number("renews_at_ms"),
        _number("priority"),
        _number("weight"),
        _text("options"),
        sa.Column("credentials_sealed", sa.LargeBinary(), nullable=False),
        _number("created_at_ms"),
        _number("last_leased_at_ms"),
        sa.PrimaryKeyConstraint("account_id", name="pk_accounts"),
        sa.UniqueConstraint("label", name="uq_accounts_label"),
        sa.CheckConstraint("state IN ('active', 'draining', 'disabled')", name="ck_accounts_state"),
        sa.CheckConstraint("leases >= 0 AND leased_millis >= 0", name="ck_accounts_leased"),
    )
    op.create_table(
        "breakers",
        _text("account_id"),
        _text("model"),
        _number("failures"),
        _number("opened_at_ms"),
        _number("reopens_at_ms"),
        _text("trial_attempt_id"),
        _text("cause"),
        sa.PrimaryKeyConstraint("account_id", "model", name="pk_breakers"),
    )


def _create_leases() -> None:
    op.create_table(
        "leases",
        _text("attempt_id"),
        _text("job_id"),
        _text("account_id"),
        _number("ceiling_millis"),
        _text("state"),
        _number("created_at_ms"),
        _number("expires_at_ms"),
        _number("ended_at_ms"),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_leases"),
        sa.CheckConstraint("state IN ('open', 'ended', 'tombstone')", name="ck_leases_state"),
    )
    _create_partial_index("ix_leases_open", "leases", ["expires_at_ms"], "state = 'open'")
    _create_partial_index("ix_leases_ended", "leases", ["ended_at_ms"], "state <> 'open'")


def _create_attempts() -> None:
    states = "'submitting', 'unknown', 'running', 'succeeded', 'failed', 'abandoned'"
    op.create_table(
        "attempts",
        _text("attempt_id"),
        _text("job_id"),
        _text("account_id"),
        _text("provider"),
        _text("model"),
        _text("state"),
        _text("generation"),
        _text("fingerprint"),
        _text("sender_id"),
        _number("created_at_ms"),
        _number("submitted_at_ms"),
        _number("ended_at_ms"),
        _text("task_id"),
        _text("task"),
        _text("outputs"),
        _text("failure"),
        _text("collected"),
        _number("cost_millis"),
        _switch("booked"),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_attempts"),
        sa.CheckConstraint(f"state IN ({states})", name="ck_attempts_state"),
    )
    op.create_index("ix_attempts_job_id", "attempts", ["job_id"])
    doubtful = "state IN ('submitting', 'unknown')"
    _create_partial_index("ix_attempts_open", "attempts", ["state", "created_at_ms"], doubtful)
    _create_partial_index(
        "uq_attempts_task", "attempts", ["account_id", "task_id"], "task_id <> ''", unique=True
    )


def _create_partial_index(
    name: str, table: str, columns: list[str], where: str, *, unique: bool = False
) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
