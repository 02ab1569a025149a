"""Who an account is at its provider, so that it is not added twice. The pool fills it in when it starts."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("ALTER TABLE accounts ADD COLUMN fingerprint TEXT")
    op.create_index("uq_accounts_fingerprint", "accounts", ["fingerprint"], unique=True)
