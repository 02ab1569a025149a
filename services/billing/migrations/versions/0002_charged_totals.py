"""What each wallet was charged up to some entry of its journal: a sum that need not be made again."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

TABLE = """
    CREATE TABLE charged_totals (
        customer_id TEXT NOT NULL,
        mode TEXT NOT NULL,
        sequence BIGINT NOT NULL,
        captured_millis BIGINT NOT NULL,
        unbilled_millis BIGINT NOT NULL,
        CONSTRAINT pk_charged_totals PRIMARY KEY (customer_id, mode),
        CONSTRAINT fk_charged_totals_wallets FOREIGN KEY(customer_id, mode) REFERENCES wallets (customer_id, mode)
    )
    """


def upgrade() -> None:
    op.execute(TABLE)
