"""Jobs in lists: newest first, without those that were deleted, and fast however many a customer has had.

What has ended lies in one range of an index for each way to end and each kind; a list takes as many from the head of each
as it may need. What has not ended is little. So nothing that does not match is read, but within one project.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)

from services.chassis.set_statements import member_of
from services.jobs.job import Job, JobState, Kind, Stage
from services.jobs.schema import JOBS
from services.jobs.store.rows import COLUMNS, job_of

_ENDED_STAGES: Final = frozenset({Stage.ENDED_WELL, Stage.ENDED_BADLY})
_STAGES: Final = frozenset(Stage) - {Stage.UNSPECIFIED}
# Written out, so that every plan may use the indexes of what has ended, has not, and is shown.
_ZERO: Final = literal_column("0", BigInteger)
_SHOWN = and_(JOBS.c.deleted_at_ms == _ZERO, JOBS.c.state != JobState.ADMITTING.value)
Condition = ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; empty fields do not restrict."""

    customer_id: str = ""
    mode: str = ""
    state: JobState | None = None
    job_ids: tuple[str, ...] = ()
    before_job_id: str = ""
    limit: int = 100
    stages: frozenset[Stage] = frozenset()
    kind: Kind | None = None
    project_id: str = ""
    skip: int = 0


def list_jobs(connection: Connection, wanted: JobFilter) -> list[Job]:
    """Accepted jobs, newest first."""
    if not wanted.customer_id or wanted.job_ids:
        return _all_customers(connection, wanted)
    before = _before(connection, wanted)
    if before is None:
        return []
    needed = wanted.skip + wanted.limit
    heads = [
        select(JOBS.c.created_at_ms, JOBS.c.job_id)
        .where(*part, *before)
        .order_by(JOBS.c.created_at_ms.desc(), JOBS.c.job_id.desc())
        .limit(needed)
        for part in _parts(wanted)
    ]
    if not heads:
        return []
    names = union_all(*(select(head.subquery()) for head in heads)).subquery()
    order = (names.c.created_at_ms.desc(), names.c.job_id.desc())
    page = select(names.c.job_id).order_by(*order).offset(wanted.skip).limit(wanted.limit)
    return _loaded(connection, connection.scalars(page).all())


def count_jobs(connection: Connection, wanted: JobFilter) -> int:
    """How many match, whatever the page."""
    if not wanted.customer_id or wanted.job_ids:
        return connection.scalar(_selected(wanted, func.count())) or 0
    counts = [select(func.count().label("jobs")).where(*part) for part in _parts(wanted)]
    if not counts:
        return 0
    return int(connection.scalar(select(func.sum(union_all(*counts).subquery().c.jobs))) or 0)


def _loaded(connection: Connection, job_ids: Sequence[str]) -> list[Job]:
    rows = connection.execute(select(*COLUMNS).where(member_of(JOBS.c.job_id, list(job_ids))))
    jobs = {job.job_id: job for job in map(job_of, rows)}
    return [jobs[job_id] for job_id in job_ids if job_id in jobs]


def _before(connection: Connection, wanted: JobFilter) -> list[Condition] | None:
    """What restricts the list to what comes after its cursor; None where the cursor is no job of this customer."""
    if not wanted.before_job_id:
        return []
    query = select(JOBS.c.created_at_ms).where(
        JOBS.c.job_id == wanted.before_job_id, JOBS.c.customer_id == wanted.customer_id
    )
    at_ms = connection.scalar(query)
    if at_ms is None:
        return None
    return [tuple_(JOBS.c.created_at_ms, JOBS.c.job_id) < tuple_(at_ms, wanted.before_job_id)]


def _parts(wanted: JobFilter) -> Iterable[list[Condition]]:
    """Conditions that together cover what matches, each of which lies in one range of an index."""
    for mode in [wanted.mode] if wanted.mode else ["live", "test"]:
        mine = [JOBS.c.customer_id == wanted.customer_id, JOBS.c.mode == mode]
        if wanted.project_id:
            yield [*mine, _SHOWN, *_in_project(wanted)]
        else:
            yield from ([*mine, *part] for part in _by_end(wanted))


def _in_project(wanted: JobFilter) -> list[Condition]:
    # The second says again what the index of projects is of.
    found = [JOBS.c.project_id == wanted.project_id, JOBS.c.project_id != literal_column("''")]
    if wanted.kind is not None:
        found.append(JOBS.c.kind == int(wanted.kind))
    if wanted.stages:
        found.append(member_of(JOBS.c.stage, sorted(wanted.stages)))
    return found + _in_state(wanted)


def _in_state(wanted: JobFilter) -> list[Condition]:
    return [] if wanted.state is None else [JOBS.c.state == wanted.state.value]


def _by_end(wanted: JobFilter) -> Iterable[list[Condition]]:
    stages = wanted.stages or _STAGES
    open_stages = sorted(stages - _ENDED_STAGES)
    if open_stages:
        part = [_SHOWN, JOBS.c.ended_at_ms == _ZERO, member_of(JOBS.c.stage, open_stages)]
        part += _in_state(wanted)
        yield part if wanted.kind is None else [*part, JOBS.c.kind == int(wanted.kind)]
    for stage in sorted(stages & _ENDED_STAGES):
        for kind in Kind if wanted.kind is None else [wanted.kind]:
            # Nothing but what is in the index: it can be counted without the rows.
            ended = [JOBS.c.ended_at_ms > _ZERO, JOBS.c.deleted_at_ms == _ZERO]
            ended += [JOBS.c.stage == int(stage), JOBS.c.kind == int(kind)]
            yield ended + _in_state(wanted)


def _all_customers(connection: Connection, wanted: JobFilter) -> list[Job]:
    query = _selected(wanted, *COLUMNS)
    if wanted.before_job_id:
        query = query.where(JOBS.c.job_id < wanted.before_job_id)
    query = query.order_by(JOBS.c.job_id.desc()).offset(wanted.skip).limit(wanted.limit)
    return [job_of(row) for row in connection.execute(query)]


def _selected(wanted: JobFilter, *what: Any) -> Select[Any]:
    query = select(*what).where(_SHOWN, *_in_state(wanted))
    if wanted.customer_id:
        query = query.where(JOBS.c.customer_id == wanted.customer_id)
    if wanted.mode:
        query = query.where(JOBS.c.mode == wanted.mode)
    if wanted.job_ids:
        query = query.where(member_of(JOBS.c.job_id, wanted.job_ids))
    if wanted.stages:
        query = query.where(member_of(JOBS.c.stage, sorted(wanted.stages)))
    if wanted.kind is not None:
        query = query.where(JOBS.c.kind == int(wanted.kind))
    if wanted.project_id:
        query = query.where(JOBS.c.project_id == wanted.project_id)
    return query
