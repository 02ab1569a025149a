"""How long tasks ran, and which run on: what patience is learnt from and what it is applied to."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, select

from services.provider_pool.attempts.states import STILL_RUNNING, Failure, FailureReason
from services.provider_pool.schema import ATTEMPTS, IS_UNDECIDED

_LATELY = 20_000
"""Attempts that ended last, read by the index of their ends: a pair that is rare among them keeps what was seen before."""


class OpenTask(NamedTuple):
    """An attempt that has not ended, and since when."""

    attempt_id: str
    provider: str
    model: str
    since_ms: int


def load_durations(connection: Connection) -> dict[tuple[str, str], list[int]]:
    """By provider and model, in milliseconds and oldest first: how long the tasks took that succeeded lately.

    Those that were given up while they ran took at least as long as they were given.
    """
    lately = (
        select(
            ATTEMPTS.c.provider,
            ATTEMPTS.c.model,
            ATTEMPTS.c.state,
            ATTEMPTS.c.created_at_ms,
            ATTEMPTS.c.submitted_at_ms,
            ATTEMPTS.c.ended_at_ms,
            ATTEMPTS.c.failure,
        )
        .where(ATTEMPTS.c.ended_at_ms > 0)
        .order_by(ATTEMPTS.c.ended_at_ms.desc(), ATTEMPTS.c.attempt_id.desc())
        .limit(_LATELY)
    )
    found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row in connection.execute(lately):
        if row.state == "succeeded" or _was_given_up(row.failure):
            since_ms = max(row.submitted_at_ms, row.created_at_ms)
            found[row.provider, row.model].append(row.ended_at_ms - since_ms)
    return {pair: durations_ms[::-1] for pair, durations_ms in found.items()}


def _was_given_up(failure: str) -> bool:
    # Few are: the others need not be read whole.
    if STILL_RUNNING not in failure:
        return False
    told = msgspec.json.decode(failure, type=Failure)
    return told.reason is FailureReason.TIMED_OUT and told.detail.startswith(STILL_RUNNING)


def load_running(connection: Connection, before_ms: int, after_attempt_id: str, limit: int) -> list[OpenTask]:
    """Running attempts that were begun before this time, in the order of their ids."""
    columns = (
        ATTEMPTS.c.attempt_id,
        ATTEMPTS.c.provider,
        ATTEMPTS.c.model,
        ATTEMPTS.c.submitted_at_ms,
        ATTEMPTS.c.created_at_ms,
    )
    statement = (
        select(*columns)
        .where(
            ATTEMPTS.c.ended_at_ms == 0,
            ATTEMPTS.c.attempt_id > after_attempt_id,
            ATTEMPTS.c.state == "running",
            ATTEMPTS.c.created_at_ms < before_ms,
        )
        .order_by(ATTEMPTS.c.attempt_id)
        .limit(limit)
    )
    return [OpenTask(*row[:3], max(row[3:])) for row in connection.execute(statement)]


def load_in_doubt(connection: Connection, before_ms: int, limit: int) -> list[OpenTask]:
    """Attempts in doubt that began before this time, the oldest first."""
    columns = (ATTEMPTS.c.attempt_id, ATTEMPTS.c.provider, ATTEMPTS.c.model, ATTEMPTS.c.created_at_ms)
    statement = (
        select(*columns)
        .where(IS_UNDECIDED, ATTEMPTS.c.state == "unknown", ATTEMPTS.c.created_at_ms < before_ms)
        .order_by(ATTEMPTS.c.created_at_ms)
        .limit(limit)
    )
    return [OpenTask(*row) for row in connection.execute(statement)]
