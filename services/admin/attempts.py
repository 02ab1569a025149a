"""`attempts`: every try of a job on a provider account, those in doubt, and what happened to one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from services.admin.command import LIMIT, Command, argument
from services.admin.connection import House
from services.admin.rendering import Table, plain, table
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb

_COLUMNS = ("attempt_id", "account_id", "state", "reason", "next_step", "charged", "cost_millis")
_OF_FAILURE = ("reason", "next_step", "charged", "detail")


def failure_line(failure: Mapping[str, Any] | None) -> str:
    """Why an attempt failed, on one line; empty where it did not."""
    if not failure:
        return ""
    words = [failure["reason"], failure["next_step"], f"charged {failure['charged']}", failure["detail"]]
    return ", ".join(word for word in words if word)


async def list_all(house: House, chosen: Any) -> Table:
    return await _listed(house, chosen, chosen.job, chosen.state or pb.ATTEMPT_STATE_UNSPECIFIED)


async def unknown(house: House, chosen: Any) -> Table:
    return await _listed(house, chosen, "", pb.ATTEMPT_STATE_UNKNOWN)


async def show(house: House, chosen: Any) -> object:
    found = await house.pool.GetAttemptHistory(pb.GetAttemptHistoryRequest(attempt_id=chosen.attempt_id))
    described = plain(found.attempt)
    history = table(found.events, "at_ms", "what", "detail")
    if chosen.json:
        return described | {"history": history.rows}
    return described | {"failure": failure_line(described["failure"]), "history": history}


async def _listed(house: House, chosen: Any, job_id: str, state: pb.AttemptState.ValueType) -> Table:
    request = pb.ListAttemptsRequest(
        job_id=job_id, state=state, after_attempt_id=chosen.after, limit=chosen.limit
    )
    answer = await house.pool.ListAttempts(request)
    rows = [_row(attempt) for attempt in answer.attempts]
    return Table(rows, (*_COLUMNS, "created_at_ms", "submitted_at_ms", "ended_at_ms"))


def _row(attempt: pb.Attempt) -> dict[str, Any]:
    told = plain(attempt)
    failure = told.pop("failure") or {}
    return told | {name: failure.get(name, "") for name in _OF_FAILURE}


def _state(text: str) -> pb.AttemptState.ValueType:
    try:
        return pb.AttemptState.Value(f"ATTEMPT_STATE_{text.upper()}")
    except ValueError:
        names = ", ".join(name.removeprefix("ATTEMPT_STATE_").lower() for name in pb.AttemptState.keys()[1:])
        raise argparse.ArgumentTypeError(f"no such state: {text!r}; one of {names}") from None


_AFTER = argument("--after", default="", metavar="ATTEMPT_ID", help="go on after this one")

COMMANDS = (
    Command(
        "attempts",
        "list",
        "List attempts in the order of their ids, which is that of their jobs' creation.",
        list_all,
        (
            argument("--job", default="", metavar="JOB_ID", help="only this job's"),
            argument("--state", type=_state, help="only in this state: running, unknown, abandoned, …"),
            _AFTER,
            LIMIT,
        ),
        "--state abandoned --limit 20",
    ),
    Command(
        "attempts",
        "unknown",
        "List attempts of which nobody knows whether the provider took them; they are looked for by themselves.",
        unknown,
        (_AFTER, LIMIT),
    ),
    Command(
        "attempts",
        "show",
        "Show an attempt with what happened to it.",
        show,
        (argument("attempt_id", metavar="ATTEMPT_ID"),),
        "job_your_id:1",
    ),
)
