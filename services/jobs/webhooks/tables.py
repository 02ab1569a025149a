"""The tables of webhooks, beside the jobs' own and in the same database: a delivery is made where a job ends."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Table, Text

from services.jobs.schema import METADATA

FORMS = Table(
    "webhook_forms",
    METADATA,
    # Made of its content, so a row never changes.
    Column("form_id", Text, primary_key=True),
    Column("storefront", Text, nullable=False),
    Column("form", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
)

ENDPOINTS = Table(
    "webhook_endpoints",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    # Empty: the ends of this customer's jobs are told to each job's own address only.
    Column("url", Text, nullable=False),
    # Sealed for this customer; empty until the first delivery or rotation.
    Column("secret", Text, nullable=False),
    Column("secret_made_at_ms", BigInteger, nullable=False),
    Column("previous_secret", Text, nullable=False),
    Column("overlap_until_ms", BigInteger, nullable=False),
)

DELIVERIES = Table(
    "webhook_deliveries",
    METADATA,
    Column("delivery_id", Text, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("form_id", Text, nullable=False),
    Column("ending", Text, nullable=False),
    Column("url", Text, nullable=False),
    # Host and port of `url`: what is slow or dead as a whole.
    Column("receiver", Text, nullable=False),
    # A JSON list: text, object key, text, …; a key stands where a signed link belongs.
    Column("body", Text, nullable=False),
    Column("media_expires_at_ms", BigInteger, nullable=False),
    # Until when the links that were sent last are good; 0 before the first attempt.
    Column("links_until_ms", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    # The worker that is sending it now.
    Column("owner", Text),
    Column("epoch", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    # Attempts on the present schedule, which a resend begins anew.
    Column("tries", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("next_attempt_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger, nullable=False),
    Column("last_status", BigInteger, nullable=False),
    Column("last_error", Text, nullable=False),
    CheckConstraint("state IN ('waiting', 'delivered', 'dead')", name="state"),
    CheckConstraint("(state = 'waiting') = (ended_at_ms = 0)", name="ended_has_time"),
    CheckConstraint("state = 'waiting' OR owner IS NULL", name="ended_has_no_owner"),
    Index(None, "customer_id", "delivery_id"),
    Index(None, "job_id"),
)

_FREE = DELIVERIES.c.owner.is_(None) & (DELIVERIES.c.ended_at_ms == 0)
# Holds all that is asked of what is due, so that a customer's long line before a receiver is passed without reading its rows;
# the last two, always the same in it, because SQLite would read a row to look at them.
Index(
    "ix_webhook_deliveries_due",
    DELIVERIES.c.next_attempt_at_ms,
    DELIVERIES.c.receiver,
    DELIVERIES.c.customer_id,
    DELIVERIES.c.delivery_id,
    DELIVERIES.c.owner,
    DELIVERIES.c.ended_at_ms,
    sqlite_where=_FREE,
    postgresql_where=_FREE,
)
Index(
    "ix_webhook_deliveries_owned",
    DELIVERIES.c.owner,
    sqlite_where=DELIVERIES.c.owner.is_not(None),
    postgresql_where=DELIVERIES.c.owner.is_not(None),
)
Index(
    "ix_webhook_deliveries_ended",
    DELIVERIES.c.ended_at_ms,
    sqlite_where=DELIVERIES.c.ended_at_ms > 0,
    postgresql_where=DELIVERIES.c.ended_at_ms > 0,
)

ATTEMPTS = Table(
    "webhook_attempts",
    METADATA,
    Column("delivery_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    # 0 where there was no answer.
    Column("status", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
)
