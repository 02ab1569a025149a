"""The tables of jobs, on both engines. Migrations must lead to exactly this; a test compares them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Index,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from services.chassis.schema_migration import CONSTRAINT_NAMES

METADATA = MetaData(naming_convention=CONSTRAINT_NAMES)

# Alembic takes the empty text for no default at all.
_EMPTY = text("''")

JOBS = Table(
    "jobs",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("storefront", Text, nullable=False),
    # Customer, mode and idempotency key in one text, so that a batch looks its keys up with one list.
    Column("admission_key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("kind", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    # What is to be made, as JSON; it never changes.
    Column("generation", Text, nullable=False),
    Column("sku", Text, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("running_limit", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("queue_deadline_ms", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("stage", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("owner", Text),
    Column("epoch", BigInteger, nullable=False),
    Column("idle_claims", BigInteger, nullable=False),
    Column("run_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger, nullable=False),
    Column("run_deadline_ms", BigInteger, nullable=False),
    Column("price_version", Text, nullable=False),
    Column("quoted_millis", BigInteger, nullable=False),
    Column("attempt_number", BigInteger, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("avoid_account_ids", Text, nullable=False),
    Column("progress", BigInteger, nullable=False),
    Column("failure", BigInteger, nullable=False),
    Column("failure_detail", Text, nullable=False),
    Column("settlement", Text, nullable=False),
    Column("settle_millis", BigInteger, nullable=False),
    Column("outputs", Text, nullable=False),
    Column("charged_millis", BigInteger, nullable=False),
    Column("refunded_millis", BigInteger, nullable=False),
    Column("media_expires_at_ms", BigInteger, nullable=False),
    # Random, below 2^53; 0: none.
    Column("public_number", BigInteger, nullable=False, server_default="0"),
    # The model in the storefront's words.
    Column("public_model", Text, nullable=False, server_default=_EMPTY),
    Column("echo", Text, nullable=False, server_default=_EMPTY),
    Column("project_id", Text, nullable=False, server_default=_EMPTY),
    Column("callback_url", Text, nullable=False, server_default=_EMPTY),
    Column("webhook_form_id", Text, nullable=False, server_default=_EMPTY),
    # Wishes: written by whoever hears them, and by no transition.
    Column("cancel_asked_at_ms", BigInteger, nullable=False, server_default="0"),
    Column("deleted_at_ms", BigInteger, nullable=False, server_default="0"),
    # When what was deleted was also forgotten.
    Column("scrubbed_at_ms", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("admission_key"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint(
        "(state IN ('completed', 'failed', 'canceled')) = (ended_at_ms > 0)", name="ended_has_time"
    ),
    CheckConstraint("ended_at_ms = 0 OR owner IS NULL", name="ended_has_no_owner"),
    CheckConstraint(
        "charged_millis >= 0 AND refunded_millis >= 0 AND quoted_millis >= 0", name="amounts_not_negative"
    ),
    Index("ix_jobs_listed", "customer_id", "mode", "created_at_ms", "job_id"),
)


def _partial(name: str, *columns: Column[Any], where: ColumnElement[bool], unique: bool = False) -> None:
    Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


# Only unfinished jobs are in these two, however many have ever been.
_partial("ix_jobs_claimable", JOBS.c.run_at_ms, where=JOBS.c.owner.is_(None) & (JOBS.c.ended_at_ms == 0))
_partial("ix_jobs_owned", JOBS.c.owner, where=JOBS.c.owner.is_not(None))
# A customer's history is what has not ended, and what has by how it ended: entered once, at the end.
_NEWEST = (JOBS.c.created_at_ms, JOBS.c.job_id)
_partial("ix_jobs_unfinished", JOBS.c.customer_id, JOBS.c.mode, *_NEWEST, where=JOBS.c.ended_at_ms == 0)
_partial(
    "ix_jobs_ended",
    JOBS.c.customer_id,
    JOBS.c.mode,
    JOBS.c.stage,
    JOBS.c.kind,
    *_NEWEST,
    # SQLite counts without the rows only where every column that is named lies here.
    JOBS.c.ended_at_ms,
    JOBS.c.deleted_at_ms,
    where=(JOBS.c.ended_at_ms > 0) & (JOBS.c.deleted_at_ms == 0),
)
_partial(
    "ix_jobs_project",
    JOBS.c.customer_id,
    JOBS.c.mode,
    JOBS.c.project_id,
    *_NEWEST,
    where=(JOBS.c.project_id != "") & (JOBS.c.deleted_at_ms == 0),
)
_partial(
    "uq_jobs_public_number",
    JOBS.c.public_number,
    JOBS.c.storefront,
    where=JOBS.c.public_number > 0,
    unique=True,
)
_partial("ix_jobs_wishes", JOBS.c.owner, where=(JOBS.c.cancel_asked_at_ms > 0) & (JOBS.c.ended_at_ms == 0))
_partial(
    "ix_jobs_deletions",
    JOBS.c.deleted_at_ms,
    where=(JOBS.c.deleted_at_ms > 0) & (JOBS.c.scrubbed_at_ms == 0),
)

# One row a process; its absence is the proof that the process may write nothing any more.
WORKERS = Table(
    "workers",
    METADATA,
    Column("worker_id", Text, primary_key=True),
    Column("address", Text, nullable=False),
    # By the database's clock.
    Column("seen_at_ms", BigInteger, nullable=False),
    Column("draining", Boolean, nullable=False),
)

JOB_EVENTS = Table(
    "job_events",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("worker_id", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

# What a customer has at once, and what it has had so far; changed with the jobs, in the same transaction.
CUSTOMER_LOAD = Table(
    "customer_load",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("waiting", BigInteger, nullable=False),
    Column("running", BigInteger, nullable=False),
    Column("completed_jobs", BigInteger, nullable=False),
    Column("failed_jobs", BigInteger, nullable=False),
    Column("charged_millis", BigInteger, nullable=False),
)

# The jobs that ended, by the UTC day of their creation; written with the end of each, in the same transaction.
USAGE_DAYS = Table(
    "usage_days",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("mode", Text, primary_key=True),
    # Days since the epoch.
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("public_model", Text, primary_key=True),
    Column("completed_jobs", BigInteger, nullable=False),
    # Canceled ones among them.
    Column("failed_jobs", BigInteger, nullable=False),
    Column("charged_millis", BigInteger, nullable=False),
    Column("refunded_millis", BigInteger, nullable=False),
)
