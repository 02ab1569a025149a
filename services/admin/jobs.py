"""`jobs`: what was asked for and what became of it."""

from __future__ import annotations

import argparse
from typing import Any

from services.admin.attempts import failure_line
from services.admin.command import LIMIT, Command, argument
from services.admin.connection import House
from services.admin.rendering import Table, plain, table
from services.chassis.errors import Kind, ServiceError
from services.gen.jobs.v1 import jobs_pb2 as pb
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool

_MODES = {"live": pb.MODE_LIVE, "test": pb.MODE_TEST}
_COLUMNS = ("job_id", "customer_id", "mode", "model", "state", "progress", "quoted_millis", "charged_millis")


async def list_all(house: House, chosen: Any) -> Table:
    request = pb.ListJobsRequest(
        customer_id=chosen.customer,
        mode=_MODES.get(chosen.mode, pb.MODE_UNSPECIFIED),
        state=chosen.state or pb.JOB_STATE_UNSPECIFIED,
        before_job_id=chosen.before,
        limit=chosen.limit,
    )
    answer = await house.jobs.ListJobs(request)
    return table(answer.jobs, *_COLUMNS, "failure", "created_at_ms")


async def show(house: House, chosen: Any) -> object:
    found = await house.jobs.ListJobs(pb.ListJobsRequest(job_ids=[chosen.job_id]))
    if not found.jobs:
        raise ServiceError(Kind.NOT_FOUND, "JOB_NOT_FOUND", f"no job {chosen.job_id}")
    events = await house.jobs.ListJobEvents(pb.ListJobEventsRequest(job_id=chosen.job_id))
    attempts = await house.pool.ListAttempts(pool.ListAttemptsRequest(job_id=chosen.job_id))
    described = _described(found.jobs[0])
    described["history"] = table(events.events, "sequence", "at_ms", "state", "epoch", "worker_id")
    columns = (
        "attempt_id",
        "account_id",
        "state",
        "cost_millis",
        "submitted_at_ms",
        "ended_at_ms",
        "failure",
    )
    tries = table(attempts.attempts, *columns)
    if chosen.json:
        return described | {"history": described["history"].rows, "tries": tries.rows}
    rows = [{**row, "failure": failure_line(row["failure"])} for row in tries.rows]
    return described | {"tries": Table(rows, columns)}


async def cancel(house: House, chosen: Any) -> object:
    # No customer: an operator's wish is about anybody's job.
    answer = await house.jobs.CancelJob(pb.CancelJobRequest(job_id=chosen.job_id))
    return _described(answer.job)


def _described(job: pb.Job) -> dict[str, Any]:
    # What a storefront wants back is its own, and may be long.
    return {name: value for name, value in plain(job).items() if name != "echo"}


def _state(text: str) -> pb.JobState.ValueType:
    try:
        return pb.JobState.Value(f"JOB_STATE_{text.upper()}")
    except ValueError:
        names = ", ".join(name.removeprefix("JOB_STATE_").lower() for name in pb.JobState.keys()[1:])
        raise argparse.ArgumentTypeError(f"no such state: {text!r}; one of {names}") from None


COMMANDS = (
    Command(
        "jobs",
        "list",
        "List jobs, newest first.",
        list_all,
        (
            argument("--customer", default="", metavar="CUSTOMER_ID", help="only this customer's"),
            argument("--mode", choices=("live", "test"), help="only of this mode"),
            argument("--state", type=_state, help="only in this state: queued, running, failed, …"),
            argument("--before", default="", metavar="JOB_ID", help="go on before this one"),
            LIMIT,
        ),
        "--state failed --limit 20",
    ),
    Command(
        "jobs",
        "show",
        "Show a job with its history and every attempt made on a provider account.",
        show,
        (argument("job_id", metavar="JOB_ID"),),
        "job_your_id",
    ),
    Command(
        "jobs",
        "cancel",
        "Ask for a job to end and give back what is held for it; one that has ended stays as it is.",
        cancel,
        (argument("job_id", metavar="JOB_ID"),),
        "job_your_id",
    ),
)
