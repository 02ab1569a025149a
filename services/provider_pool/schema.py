"""The tables of the provider pool, on both engines. Migrations must lead to exactly this; a test compares them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from services.chassis.schema_migration import CONSTRAINT_NAMES

METADATA = MetaData(naming_convention=CONSTRAINT_NAMES)
# Of columns that came later: what the rows from before have.
NO_TEXT, ZERO, NO_COUNTS = text("''"), text("0"), text("'{}'")

# No index names a column that a lease changes, so that PostgreSQL updates an account in its page (HOT).
ACCOUNTS = Table(
    "accounts",
    METADATA,
    Column("account_id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("state", Text, nullable=False),
    # JSON: a sorted list of names, empty for all that the adapter serves.
    Column("models", Text, nullable=False),
    Column("serves_live", Boolean, nullable=False),
    Column("serves_test", Boolean, nullable=False),
    Column("concurrency_limit", BigInteger, nullable=False),
    Column("balance_millis", BigInteger, nullable=False),
    # Counters over the open leases, changed in the transaction that opens or ends one.
    Column("leased_millis", BigInteger, nullable=False),
    Column("leases", BigInteger, nullable=False),
    Column("renews_at_ms", BigInteger, nullable=False),
    Column("priority", BigInteger, nullable=False),
    Column("weight", BigInteger, nullable=False),
    # JSON: the operator's options for the adapter, not secret.
    Column("options", Text, nullable=False),
    # See vault.py; opens for this account_id only.
    Column("credentials_sealed", LargeBinary, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("last_leased_at_ms", BigInteger, nullable=False),
    # When the provider last told the balance, 0 for never; and all that was ever taken off it, see balances.py.
    Column("balance_read_at_ms", BigInteger, nullable=False, server_default=ZERO),
    Column("booked_millis", BigInteger, nullable=False, server_default=ZERO),
    # Tasks at once, as the provider says and as its refusals taught; 0: nothing is known. `successes` since then, in a row.
    Column("concurrency_told", BigInteger, nullable=False, server_default=ZERO),
    Column("concurrency_learnt", BigInteger, nullable=False, server_default=ZERO),
    Column("successes", BigInteger, nullable=False, server_default=ZERO),
    # Until when the pace of its submissions is used up, see pace.py.
    Column("pace_at_ms", BigInteger, nullable=False, server_default=ZERO),
    # JSON: `leases` by model, without zeros.
    Column("leases_by_model", Text, nullable=False, server_default=NO_COUNTS),
    # Of who it is at its provider, see twins.py; null where that is not known, and for one that was added twice before.
    Column("fingerprint", Text),
    UniqueConstraint("label"),
    CheckConstraint("state IN ('active', 'draining', 'disabled')", name="state"),
    CheckConstraint("leases >= 0 AND leased_millis >= 0", name="leased"),
    Index("uq_accounts_fingerprint", "fingerprint", unique=True),
)

# Written only under the lock of the account's row.
BREAKERS = Table(
    "breakers",
    METADATA,
    Column("account_id", Text, primary_key=True),
    # Empty for the whole account.
    Column("model", Text, primary_key=True),
    Column("failures", BigInteger, nullable=False),
    Column("opened_at_ms", BigInteger, nullable=False),
    Column("reopens_at_ms", BigInteger, nullable=False),
    Column("trial_attempt_id", Text, nullable=False),
    Column("cause", Text, nullable=False),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("attempt_id", Text, primary_key=True),
    Column("job_id", Text, nullable=False),
    # Empty in a tombstone: the lease was given back before it was made.
    Column("account_id", Text, nullable=False),
    Column("ceiling_millis", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger, nullable=False),
    # Under which the account counts it; empty in a tombstone.
    Column("model", Text, nullable=False, server_default=NO_TEXT),
    CheckConstraint("state IN ('open', 'ended', 'tombstone')", name="state"),
    Index(
        "ix_leases_open",
        "expires_at_ms",
        sqlite_where=text("state = 'open'"),
        postgresql_where=text("state = 'open'"),
    ),
    Index(
        "ix_leases_ended",
        "ended_at_ms",
        sqlite_where=text("state <> 'open'"),
        postgresql_where=text("state <> 'open'"),
    ),
)

# Spelled in every query as in the index: SQLite does not see that one state is one of two.
IS_UNDECIDED = text("state IN ('submitting', 'unknown')")

ATTEMPTS = Table(
    "attempts",
    METADATA,
    Column("attempt_id", Text, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("state", Text, nullable=False),
    # JSON of what is asked for; the prompt leaves it as soon as the attempt is out of doubt.
    Column("generation", Text, nullable=False),
    # SHA-256 of what is sent, in hex: two attempts with the same one cannot be told apart in a provider's list.
    Column("fingerprint", Text, nullable=False),
    # The process that sends it.
    Column("sender_id", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("submitted_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger, nullable=False),
    Column("task_id", Text, nullable=False),
    # JSON: the adapter's reference, its outputs, a failure, and the objects in the media store.
    Column("task", Text, nullable=False),
    Column("outputs", Text, nullable=False),
    Column("failure", Text, nullable=False),
    Column("collected", Text, nullable=False),
    Column("cost_millis", BigInteger, nullable=False),
    # Whether the cost was taken off the account's balance.
    Column("booked", Boolean, nullable=False),
    CheckConstraint(
        "state IN ('submitting', 'unknown', 'running', 'succeeded', 'failed', 'abandoned')", name="state"
    ),
    Index(None, "job_id"),
    # 0 for the open ones, which reconciliation reads by id.
    Index(None, "ended_at_ms", "attempt_id"),
    Index(
        "ix_attempts_open",
        "state",
        "created_at_ms",
        sqlite_where=IS_UNDECIDED,
        postgresql_where=IS_UNDECIDED,
    ),
    # One task at a provider is never adopted by two attempts.
    Index(
        "uq_attempts_task",
        "account_id",
        "task_id",
        unique=True,
        sqlite_where=text("task_id <> ''"),
        postgresql_where=text("task_id <> ''"),
    ),
)

# What happened to an attempt beside the ordinary road, written with the change that it belongs to.
ATTEMPT_EVENTS = Table(
    "attempt_events",
    METADATA,
    Column("attempt_id", Text, primary_key=True),
    # From 1; the order in which they were written.
    Column("number", BigInteger, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("what", Text, nullable=False),
    # For operators; names no credential and no prompt.
    Column("detail", Text, nullable=False),
)

# References that accounts have taken in, for as long as their providers keep them. What a medium is uploaded as differs.
UPLOADS = Table(
    "uploads",
    METADATA,
    Column("account_id", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("medium", Text, primary_key=True),
    # What the provider calls it, and the adapter's own JSON about it.
    Column("location", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Index(None, "expires_at_ms"),
)

SENDERS = Table(
    "senders",
    METADATA,
    # What the attempts' `sender_id` begins with.
    Column("process_id", Text, primary_key=True),
    # By the database's clock.
    Column("seen_at_ms", BigInteger, nullable=False),
)
