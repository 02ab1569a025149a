"""The first schema: customers, their keys, wallets, holds, the journal, and what could not be billed."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    """
    CREATE TABLE customers (
        customer_id TEXT NOT NULL,
        storefront TEXT NOT NULL,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        requests_per_minute BIGINT NOT NULL,
        running_jobs BIGINT NOT NULL,
        queued_jobs BIGINT NOT NULL,
        idempotency_key TEXT,
        fingerprint TEXT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        CONSTRAINT pk_customers PRIMARY KEY (customer_id),
        CONSTRAINT uq_customers_idempotency_key UNIQUE (idempotency_key),
        CONSTRAINT ck_customers_state CHECK (state IN ('active', 'suspended'))
    )
    """,
    """
    CREATE TABLE api_keys (
        key_id TEXT NOT NULL,
        customer_id TEXT NOT NULL,
        mode TEXT NOT NULL,
        label TEXT NOT NULL,
        hint TEXT NOT NULL,
        digest TEXT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        expires_at_ms BIGINT NOT NULL,
        revoked_at_ms BIGINT NOT NULL,
        last_used_at_ms BIGINT NOT NULL,
        CONSTRAINT pk_api_keys PRIMARY KEY (key_id),
        CONSTRAINT uq_api_keys_digest UNIQUE (digest),
        CONSTRAINT fk_api_keys_customers FOREIGN KEY(customer_id) REFERENCES customers (customer_id),
        CONSTRAINT ck_api_keys_mode CHECK (mode IN ('live', 'test'))
    )
    """,
    """
    CREATE INDEX ix_api_keys_customer_id ON api_keys (customer_id)
    """,
    """
    CREATE TABLE wallets (
        customer_id TEXT NOT NULL,
        mode TEXT NOT NULL,
        balance_millis BIGINT NOT NULL,
        reserved_millis BIGINT NOT NULL,
        sequence BIGINT NOT NULL,
        CONSTRAINT pk_wallets PRIMARY KEY (customer_id, mode),
        CONSTRAINT fk_wallets_customers FOREIGN KEY(customer_id) REFERENCES customers (customer_id),
        CONSTRAINT ck_wallets_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_wallets_reserved_not_negative CHECK (reserved_millis >= 0),
        CONSTRAINT ck_wallets_no_overdraft CHECK (balance_millis >= reserved_millis)
    )
    """,
    """
    CREATE TABLE holds (
        job_id TEXT NOT NULL,
        customer_id TEXT NOT NULL,
        mode TEXT NOT NULL,
        amount_millis BIGINT NOT NULL,
        captured_millis BIGINT NOT NULL,
        state TEXT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        expires_at_ms BIGINT NOT NULL,
        closed_at_ms BIGINT,
        CONSTRAINT pk_holds PRIMARY KEY (job_id),
        CONSTRAINT fk_holds_wallets FOREIGN KEY(customer_id, mode) REFERENCES wallets (customer_id, mode),
        CONSTRAINT ck_holds_state CHECK (state IN ('open', 'captured', 'released', 'expired')),
        CONSTRAINT ck_holds_amount_not_negative CHECK (amount_millis >= 0),
        CONSTRAINT ck_holds_captured_at_most_held CHECK (captured_millis >= 0 AND captured_millis <= amount_millis),
        CONSTRAINT ck_holds_closed_has_time CHECK ((state = 'open') = (closed_at_ms IS NULL))
    )
    """,
    """
    CREATE INDEX ix_holds_created ON holds (created_at_ms, job_id)
    """,
    """
    CREATE INDEX ix_holds_open_created ON holds (created_at_ms, job_id) WHERE state = 'open'
    """,
    """
    CREATE INDEX ix_holds_open_expires ON holds (expires_at_ms) WHERE state = 'open'
    """,
    """
    CREATE TABLE journal (
        customer_id TEXT NOT NULL,
        mode TEXT NOT NULL,
        sequence BIGINT NOT NULL,
        kind TEXT NOT NULL,
        applied BOOLEAN NOT NULL,
        outcome TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        debit_account TEXT NOT NULL,
        credit_account TEXT NOT NULL,
        amount_millis BIGINT NOT NULL,
        released_millis BIGINT NOT NULL,
        job_id TEXT NOT NULL,
        sku TEXT NOT NULL,
        quantity BIGINT NOT NULL,
        price_version TEXT NOT NULL,
        note TEXT NOT NULL,
        balance_after_millis BIGINT NOT NULL,
        reserved_after_millis BIGINT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        CONSTRAINT pk_journal PRIMARY KEY (customer_id, mode, sequence),
        CONSTRAINT uq_journal_idempotency_key UNIQUE (idempotency_key, customer_id, mode),
        CONSTRAINT fk_journal_wallets FOREIGN KEY(customer_id, mode) REFERENCES wallets (customer_id, mode),
        CONSTRAINT ck_journal_amount_not_negative CHECK (amount_millis >= 0),
        CONSTRAINT ck_journal_released_not_negative CHECK (released_millis >= 0),
        CONSTRAINT ck_journal_sequence_from_one CHECK (sequence >= 1)
    )
    """,
    """
    CREATE TABLE unbilled (
        job_id TEXT NOT NULL,
        customer_id TEXT NOT NULL,
        mode TEXT NOT NULL,
        amount_millis BIGINT NOT NULL,
        reason TEXT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        CONSTRAINT pk_unbilled PRIMARY KEY (job_id),
        CONSTRAINT fk_unbilled_wallets FOREIGN KEY(customer_id, mode) REFERENCES wallets (customer_id, mode),
        CONSTRAINT ck_unbilled_amount_not_negative CHECK (amount_millis >= 0)
    )
    """,
)

SQLITE_ONLY = (
    """
    CREATE TRIGGER journal_refuses_update BEFORE UPDATE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END
    """,
    """
    CREATE TRIGGER journal_refuses_delete BEFORE DELETE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END
    """,
)

POSTGRESQL_ONLY = (
    # Room in each page for the next version of a row, so that busy wallets do not spread over the table.
    "ALTER TABLE wallets SET (fillfactor = 50)",
    """
    CREATE FUNCTION refuse_journal_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$
    """,
    """
    CREATE TRIGGER journal_refuses_change BEFORE UPDATE OR DELETE ON journal
    FOR EACH ROW EXECUTE FUNCTION refuse_journal_change()
    """,
    """
    CREATE TRIGGER journal_refuses_truncate BEFORE TRUNCATE ON journal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_journal_change()
    """,
)


def upgrade() -> None:
    own = POSTGRESQL_ONLY if op.get_bind().dialect.name == "postgresql" else SQLITE_ONLY
    for statement in (*TABLES, *own):
        op.execute(statement)
