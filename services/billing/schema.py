"""The tables of billing, on both engines. Migrations must lead to exactly this; a test compares them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)

from services.chassis.schema_migration import CONSTRAINT_NAMES

METADATA = MetaData(naming_convention=CONSTRAINT_NAMES)
# Of columns that came later: what the rows from before have.
NO_TEXT, ZERO = text("''"), text("0")

CUSTOMERS = Table(
    "customers",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("storefront", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("requests_per_minute", BigInteger, nullable=False),
    Column("running_jobs", BigInteger, nullable=False),
    Column("queued_jobs", BigInteger, nullable=False),
    # Null where the creation carried no key; nulls never collide.
    Column("idempotency_key", Text),
    Column("fingerprint", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    UniqueConstraint("idempotency_key"),
    CheckConstraint("state IN ('active', 'suspended')", name="state"),
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("key_id", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("hint", Text, nullable=False),
    # HMAC-SHA-256 under the pepper, in hex; the key itself is stored nowhere.
    Column("digest", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger, nullable=False),
    Column("last_used_at_ms", BigInteger, nullable=False),
    # JSON of what the key may do, or empty: everything that its customer may.
    Column("rules", Text, nullable=False, server_default=NO_TEXT),
    Column("day_limit_millis", BigInteger, nullable=False, server_default=ZERO),
    Column("month_limit_millis", BigInteger, nullable=False, server_default=ZERO),
    # The first key of its line: rotated keys spend against one limit. Empty: itself.
    Column("line_key_id", Text, nullable=False, server_default=NO_TEXT),
    UniqueConstraint("digest"),
    ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    Index(None, "customer_id"),
)

# No index names a column that changes, so that PostgreSQL updates a wallet in its page (HOT).
WALLETS = Table(
    "wallets",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("balance_millis", BigInteger, nullable=False),
    Column("reserved_millis", BigInteger, nullable=False),
    # The number of journal entries, which is also the sequence of the last one.
    Column("sequence", BigInteger, nullable=False),
    # Of the customer, on each of its wallets: here the lock under which money moves is held anyway. 0: no limit.
    Column("day_limit_millis", BigInteger, nullable=False, server_default=ZERO),
    Column("month_limit_millis", BigInteger, nullable=False, server_default=ZERO),
    ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("reserved_millis >= 0", name="reserved_not_negative"),
    CheckConstraint("balance_millis >= reserved_millis", name="no_overdraft"),
)

HOLDS = Table(
    "holds",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("amount_millis", BigInteger, nullable=False),
    Column("captured_millis", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("closed_at_ms", BigInteger),
    # The line of keys whose spend limit it counts against; empty where the key has none.
    Column("key_id", Text, nullable=False, server_default=NO_TEXT),
    ForeignKeyConstraint(["customer_id", "mode"], ["wallets.customer_id", "wallets.mode"]),
    CheckConstraint("state IN ('open', 'captured', 'released', 'expired')", name="state"),
    CheckConstraint("amount_millis >= 0", name="amount_not_negative"),
    CheckConstraint(
        "captured_millis >= 0 AND captured_millis <= amount_millis", name="captured_at_most_held"
    ),
    CheckConstraint("(state = 'open') = (closed_at_ms IS NULL)", name="closed_has_time"),
    Index("ix_holds_created", "created_at_ms", "job_id"),
)

# Spelled as a literal: SQLite uses a partial index only where it can see that the query's condition is the index's.
IS_OPEN = HOLDS.c.state == literal_column("'open'")

# Open holds are few beside all that ever were; the sweep reads them by expiry, reconciliation by age.
Index("ix_holds_open_expires", HOLDS.c.expires_at_ms, sqlite_where=IS_OPEN, postgresql_where=IS_OPEN)
Index(
    "ix_holds_open_created",
    HOLDS.c.created_at_ms,
    HOLDS.c.job_id,
    sqlite_where=IS_OPEN,
    postgresql_where=IS_OPEN,
)

JOURNAL = Table(
    "journal",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("applied", Boolean, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("debit_account", Text, nullable=False),
    Column("credit_account", Text, nullable=False),
    Column("amount_millis", BigInteger, nullable=False),
    Column("released_millis", BigInteger, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("sku", Text, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("price_version", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("balance_after_millis", BigInteger, nullable=False),
    Column("reserved_after_millis", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    # The key comes first: a batch looks its keys up in one statement.
    UniqueConstraint("idempotency_key", "customer_id", "mode", name="uq_journal_idempotency_key"),
    ForeignKeyConstraint(["customer_id", "mode"], ["wallets.customer_id", "wallets.mode"]),
    CheckConstraint("amount_millis >= 0", name="amount_not_negative"),
    CheckConstraint("released_millis >= 0", name="released_not_negative"),
    CheckConstraint("sequence >= 1", name="sequence_from_one"),
)

# Work that was done after its hold had expired, for wallets that could not pay: for the operator to settle.
UNBILLED = Table(
    "unbilled",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("amount_millis", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    ForeignKeyConstraint(["customer_id", "mode"], ["wallets.customer_id", "wallets.mode"]),
    CheckConstraint("amount_millis >= 0", name="amount_not_negative"),
)

# Sums over the journal up to an entry, so that they need not be made again; derived, and never written on the hot path.
CHARGED_TOTALS = Table(
    "charged_totals",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("captured_millis", BigInteger, nullable=False),
    Column("unbilled_millis", BigInteger, nullable=False),
    Column("topped_up_millis", BigInteger, nullable=False, server_default=ZERO),
    ForeignKeyConstraint(["customer_id", "mode"], ["wallets.customer_id", "wallets.mode"]),
)

# What is spent in a UTC day ("2026-11-21") or month ("2026-11"), only where there is a limit: a sum over holds.
SPENDING = Table(
    "spending",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("mode", Text, primary_key=True),
    # Empty: of the whole wallet.
    Column("key_id", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("spent_millis", BigInteger, nullable=False),
    ForeignKeyConstraint(["customer_id", "mode"], ["wallets.customer_id", "wallets.mode"]),
    CheckConstraint("spent_millis >= 0", name="spent_not_negative"),
)

# People who sign in with a password, each with a customer of their own.
USERS = Table(
    "users",
    METADATA,
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("storefront", Text, nullable=False),
    # As it was typed, for mails; and as it is compared.
    Column("email", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("full_name", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    # Raised by a new password: tokens of an older version are refused.
    Column("token_version", BigInteger, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    UniqueConstraint("storefront", "address"),
    UniqueConstraint("customer_id"),
    ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
)

# SHA-256 of the tokens that were mailed: each is good for one new password.
PASSWORD_RESETS = Table(
    "password_resets",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("user_id", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    ForeignKeyConstraint(["user_id"], ["users.user_id"]),
    Index(None, "user_id"),
)
