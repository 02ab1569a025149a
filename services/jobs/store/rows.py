"""A job as a row: what each field is called and how it is spelled in the database."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
from sqlalchemy import Row

from services.chassis.set_statements import Names
from services.jobs.job import FailureReason, Generation, Job, JobState, Output, Settlement, Stage
from services.jobs.schema import JOBS

# What no transition changes after the job was accepted; everything else is written by every one.
_FIXED: Final = frozenset(
    {
        "job_id",
        "customer_id",
        "mode",
        "storefront",
        "admission_key",
        "fingerprint",
        "kind",
        "model",
        "generation",
        "sku",
        "quantity",
        "running_limit",
        "created_at_ms",
        "queue_deadline_ms",
        "public_number",
        "public_model",
        "echo",
        "project_id",
        "callback_url",
        "webhook_form_id",
        # Wishes change, but not with the job: their writers do not own it.
        "cancel_asked_at_ms",
        "deleted_at_ms",
        "scrubbed_at_ms",
    }
)
_NAMES: Final = tuple(column.name for column in JOBS.columns)
_PLAIN_FIXED: Final = tuple(n for n in _NAMES if n in _FIXED and n not in {"kind", "model", "generation"})
_SPELLED: Final = frozenset({"avoid_account_ids", "outputs", "state", "stage", "failure", "settlement"})
_PLAIN_CHANGING: Final = tuple(n for n in _NAMES if n not in _FIXED and n not in _SPELLED)
# The columns of a Job's own fields: kind and model are inside its generation.
COLUMNS: Final = tuple(column for column in JOBS.columns if column.name not in {"kind", "model"})
_FIELDS: Final = tuple(column.name for column in COLUMNS)

_generation = msgspec.json.Decoder(Generation)
_outputs = msgspec.json.Decoder(tuple[Output, ...])
_account_ids = msgspec.json.Decoder(tuple[str, ...])


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _list(values: Sequence[object]) -> str:
    return _text(values) if values else "[]"


_plain_changing = attrgetter(*_PLAIN_CHANGING)
_plain_fixed = attrgetter(*_PLAIN_FIXED)


def changing_columns(job: Job) -> dict[str, Any]:
    """The columns that a transition writes, with the job's key."""
    row: dict[str, Any] = {"job_id": job.job_id}
    row.update(zip(_PLAIN_CHANGING, _plain_changing(job), strict=True))
    row["state"] = job.state.value
    row["stage"] = int(job.stage)
    row["failure"] = int(job.failure)
    row["settlement"] = job.settlement.value
    row["avoid_account_ids"] = _list(job.avoid_account_ids)
    row["outputs"] = _list(job.outputs)
    return row


def all_columns(job: Job) -> dict[str, Any]:
    """The whole row of a new job."""
    row = changing_columns(job)
    row.update(zip(_PLAIN_FIXED, _plain_fixed(job), strict=True))
    row["kind"] = int(job.generation.kind)
    row["model"] = job.generation.model
    row["generation"] = _text(job.generation)
    return row


def all_rows(jobs: Sequence[Job]) -> tuple[Names, list[tuple[Any, ...]]]:
    """The columns' names and the whole rows of new jobs."""
    rows = [all_columns(job) for job in jobs]
    return tuple(rows[0]) if rows else (), [tuple(row.values()) for row in rows]


def changing_rows(jobs: Sequence[Job]) -> tuple[Names, list[tuple[Any, ...]]]:
    """The columns' names, the key first, and what a transition writes, in the order of the key."""
    rows = [changing_columns(job) for job in sorted(jobs, key=attrgetter("job_id"))]
    return tuple(rows[0]) if rows else (), [tuple(row.values()) for row in rows]


def job_of(row: Row[Any] | Sequence[Any]) -> Job:
    """The job of a row that was selected with COLUMNS."""
    fields = dict(zip(_FIELDS, row, strict=True))
    fields["generation"] = _generation.decode(fields["generation"])
    fields["outputs"] = _outputs.decode(fields["outputs"])
    fields["avoid_account_ids"] = _account_ids.decode(fields["avoid_account_ids"])
    fields["state"] = JobState(fields["state"])
    fields["stage"] = Stage(fields["stage"])
    fields["failure"] = FailureReason(fields["failure"])
    fields["settlement"] = Settlement(fields["settlement"])
    return Job(**fields)
