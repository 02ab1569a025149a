"""What attempts cost, added up."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from services.provider_pool.schema import ATTEMPTS


def booked_since(connection: Connection, since_ms: int) -> dict[tuple[str, str], int]:
    """What attempts that ended since then took off balances, by provider and model, in thousandths of the provider's unit."""
    statement = (
        select(ATTEMPTS.c.provider, ATTEMPTS.c.model, func.sum(ATTEMPTS.c.cost_millis))
        .where(ATTEMPTS.c.ended_at_ms >= since_ms, ATTEMPTS.c.booked)
        .group_by(ATTEMPTS.c.provider, ATTEMPTS.c.model)
    )
    return {(provider, model): int(millis) for provider, model, millis in connection.execute(statement)}
