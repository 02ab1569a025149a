"""What the services do all the time costs the same however many jobs have ended: no statement reads them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest
from sqlalchemy import Connection, Table, text

from services.chassis.database import Database, insert_rows, migrate
from services.jobs import job as job_rules
from services.jobs.job import JobState
from services.jobs.schema import JOB_EVENTS, JOBS, WORKERS
from services.jobs.store import admissions, charges, listing, load, owners, reads, transitions, usage, wishes
from services.jobs.store.rows import all_columns
from services.jobs.usage import DAY_MS, Span
from services.provider_pool.attempts.records import Change
from services.provider_pool.attempts.states import Senders
from services.provider_pool.schema import ACCOUNTS, ATTEMPTS, LEASES
from services.provider_pool.selection.leases import GiveBack, Renew
from services.provider_pool.selection.pool import Policy
from services.provider_pool.store import attempts, leases, lending
from tests.jobs_rows import NOW_MS, a_job

ENDED: Final = 20_000
OPEN: Final = 20
# Far more than any of these needs, far less than one look at all that has ended: rows on PostgreSQL, thousands of
# steps of its machine on SQLite, which needs several for each row.
ROWS_AT_MOST: Final = 2_000
STEPS_AT_MOST: Final = 40
_PAGE: Final = 2_000

Work = Callable[[Connection], object]


def _ended_id(number: int) -> str:
    return f"job_0{number:08d}"


def _open_id(number: int) -> str:
    return f"job_1{number:08d}"


def _running(number: int) -> job_rules.Job:
    return a_job(_open_id(number), state=JobState.RUNNING, attempt_number=1, version=4, event_count=4)


def _fill_jobs(connection: Connection) -> None:
    ended = {
        "state": JobState.COMPLETED,
        "stage": job_rules.Stage.ENDED_WELL,
        "owner": None,
        "ended_at_ms": NOW_MS,
        "event_count": 1,
    }
    rows = [all_columns(a_job(_ended_id(n), created_at_ms=NOW_MS - ENDED + n, **ended)) for n in range(ENDED)]
    rows += [all_columns(_running(n)) for n in range(OPEN)]
    rows += [all_columns(a_job(f"job_2{n}", state=JobState.QUEUED, owner=None)) for n in range(OPEN)]
    event = {"sequence": 1, "epoch": 1, "state": "admitting", "worker_id": "w1", "at_ms": NOW_MS}
    _insert(connection, JOBS, rows)
    _insert(connection, JOB_EVENTS, [event | {"job_id": _ended_id(n)} for n in range(ENDED)])
    worker = {"worker_id": "w1", "address": "here", "seen_at_ms": NOW_MS, "draining": False}
    insert_rows(connection, WORKERS, [worker])


def _fill_pool(connection: Connection) -> None:
    account = {column.name: 0 for column in ACCOUNTS.columns} | {
        "account_id": "acc_1",
        "provider": "sandbox",
        "label": "one",
        "state": "active",
        "models": "[]",
        "serves_live": True,
        "serves_test": True,
        "options": "{}",
        "credentials_sealed": b"",
        "leases": OPEN,
        "leases_by_model": json.dumps({"gpt-image-2": OPEN}),
        "fingerprint": None,
        "concurrency_limit": 1000,
    }
    insert_rows(connection, ACCOUNTS, [account])
    ids = [(_ended_id(n), "ended", "succeeded") for n in range(ENDED)]
    ids += [(_open_id(n), "open", "running") for n in range(OPEN)]
    _insert(connection, LEASES, [_lease(job_id, state) for job_id, state, _ in ids])
    _insert(connection, ATTEMPTS, [_attempt(job_id, state) for job_id, _, state in ids])


def _lease(job_id: str, state: str) -> dict[str, Any]:
    return {
        "attempt_id": f"{job_id}:1",
        "job_id": job_id,
        "account_id": "acc_1",
        "ceiling_millis": 0,
        "state": state,
        "created_at_ms": NOW_MS,
        "expires_at_ms": NOW_MS + 900_000,
        "ended_at_ms": NOW_MS if state == "ended" else 0,
        "model": "gpt-image-2",
    }


def _attempt(job_id: str, state: str) -> dict[str, Any]:
    texts = dict.fromkeys(("generation", "fingerprint", "outputs", "failure", "collected"), "")
    numbers = dict.fromkeys(("submitted_at_ms", "ended_at_ms", "cost_millis"), 0)
    return {
        "attempt_id": f"{job_id}:1",
        "job_id": job_id,
        "account_id": "acc_1",
        "provider": "sandbox",
        "model": "gpt-image-2",
        "state": state,
        "sender_id": "s1",
        "created_at_ms": NOW_MS,
        "task_id": f"task_{job_id}",
        "task": "{}",
        "booked": True,
        **texts,
        **numbers,
    }


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), _PAGE):
        insert_rows(connection, table, rows[start : start + _PAGE])


def _moved(number: int) -> transitions.Transition:
    before = _running(number)
    return transitions.Transition(before, job_rules.moved(before, JobState.COLLECTING, NOW_MS))


_DONE: Final = [
    Change(f"{_open_id(n)}:1", "acc_1", NOW_MS, collected="[]", cost_millis=0) for n in range(OPEN)
]
_NEW: Final = [admissions.Admission(a_job(f"job_3{n}"), 1000, numbered=True) for n in range(OPEN)]
_DAY_BEFORE_MS: Final = (NOW_MS // DAY_MS - 1) * DAY_MS
_WISH: Final = wishes.Wish(_open_id(3), "cus_a", "test", False, NOW_MS)

JOBS_WORK: Final[dict[str, Work]] = {
    "admit": lambda c: admissions.apply_admissions(c, _NEW),
    "move": lambda c: transitions.apply_transitions(c, [_moved(n) for n in range(OPEN)]),
    "read": lambda c: reads.load_jobs(c, [_ended_id(n) for n in range(0, ENDED, ENDED // 50)]),
    "list newest": lambda c: listing.list_jobs(c, listing.JobFilter(customer_id="cus_a", mode="test")),
    "list on": lambda c: listing.list_jobs(
        c, listing.JobFilter(customer_id="cus_a", before_job_id=_ended_id(9_000))
    ),
    "list by a kind that is rare": lambda c: listing.list_jobs(
        c, listing.JobFilter(customer_id="cus_a", mode="test", kind=job_rules.Kind.MUSIC)
    ),
    "list what failed": lambda c: listing.list_jobs(
        c,
        listing.JobFilter(customer_id="cus_a", mode="test", stages=frozenset({job_rules.Stage.ENDED_BADLY})),
    ),
    "list what has not ended": lambda c: listing.list_jobs(
        c, listing.JobFilter(customer_id="cus_a", mode="test", stages=frozenset({job_rules.Stage.WAITING}))
    ),
    "list a project": lambda c: listing.list_jobs(
        c, listing.JobFilter(customer_id="cus_a", mode="test", project_id="mine")
    ),
    "count a kind that is rare": lambda c: listing.count_jobs(
        c, listing.JobFilter(customer_id="cus_a", mode="test", kind=job_rules.Kind.MUSIC)
    ),
    "read by number": lambda c: reads.load_numbered(c, [("leonardo", 7)]),
    "usage": lambda c: usage.read_usage(c, ("cus_a", "test"), Span(0, _DAY_BEFORE_MS + 100 * DAY_MS)),
    "usage of a piece of a day": lambda c: usage.read_usage(
        c, ("cus_a", "test"), Span(_DAY_BEFORE_MS + 5, NOW_MS - 2 * ENDED)
    ),
    "wish": lambda c: wishes.apply_wishes(c, [_WISH]),
    "asked": lambda c: wishes.asked_of(c, "w1"),
    "wishes waiting": wishes.count_waiting,
    "to scrub": lambda c: wishes.to_scrub(c, 100),
    "scrub": lambda c: wishes.scrub(c, [_ended_id(9_000)], NOW_MS),
    "list events": lambda c: reads.list_events(c, _ended_id(9_000)),
    "owned": lambda c: reads.owned_ids(c, "w1"),
    "loads": lambda c: load.read_loads(c, [("cus_a", "test")]),
    "standings": lambda c: reads.load_standings(c, [_ended_id(n) for n in range(0, ENDED, ENDED // 50)]),
    "charged": lambda c: charges.charged(c, ("", ""), 500),
    "charged at most": lambda c: charges.charged_at_most(c, [("cus_a", "test")]),
    "drift": reads.load_drift,
    "mend": lambda c: load.mend_loads(c, [("cus_a", "test")]),
    "beat": lambda c: owners.beat(c, "w1", NOW_MS),
    "reap": lambda c: owners.reap(c, 15_000, NOW_MS + 60_000),
    "take over": lambda c: owners.take_over(c, "w2"),
    "orphans": owners.free_orphans,
    "claim": lambda c: owners.claim(c, "w1", 1000, NOW_MS),
    "hand over": lambda c: owners.hand_over(c, "w1"),
}
POOL_WORK: Final[dict[str, Work]] = {
    "renew": lambda c: lending.apply(
        c, [Renew(tuple(f"{_open_id(n)}:1" for n in range(OPEN)), 900_000)], Policy.SPREAD, NOW_MS
    ),
    "give back": lambda c: lending.apply(
        c, [GiveBack(f"{_open_id(n)}:1") for n in range(OPEN)], Policy.SPREAD, NOW_MS
    ),
    "expired leases": lambda c: leases.load_expired(c, NOW_MS + 1_000_000, 512),
    "open leases": lambda c: leases.load_open(c, NOW_MS + 1, "", 500),
    "no more open leases": lambda c: leases.load_open(c, NOW_MS + 1, f"{_open_id(OPEN)}:1", 500),
    "old leases": lambda c: leases.delete_ended(c, NOW_MS, 512),
    "outcomes": lambda c: attempts.apply(c, _DONE),
    "read": lambda c: attempts.load_named(c, [f"{_ended_id(n)}:1" for n in range(0, ENDED, ENDED // 50)]),
    "orphans": lambda c: attempts.mark_orphans(c, Senders("me"), lambda provider: 1000, NOW_MS),
    "in doubt": attempts.count_in_doubt,
    "of a job": lambda c: attempts.load_attempts(c, _ended_id(9_000), None, "", 100),
    "abandoned of a job": lambda c: attempts.count_abandoned(c, _ended_id(9_000)),
    "owned tasks": lambda c: attempts.owned_tasks(c, "acc_1", [f"task_{_ended_id(9_000)}"]),
}


@pytest.fixture
async def jobs(engine_url: str) -> AsyncIterator[Database]:
    async with _filled(engine_url, "jobs", _fill_jobs) as database:
        yield database


@pytest.fixture
async def pool(engine_url: str) -> AsyncIterator[Database]:
    async with _filled(engine_url, "provider_pool", _fill_pool) as database:
        yield database


@asynccontextmanager
async def _filled(url: str, service: str, fill: Callable[[Connection], None]) -> AsyncIterator[Database]:
    await migrate(url, Path(__file__).parents[2] / "services" / service / "migrations")
    database = await Database.open(url, application_name="conformance")
    await database.write(fill)
    if database.dialect == "postgresql":
        # As autovacuum does before long.
        await database.write(lambda connection: connection.execute(text("ANALYZE")))
    yield database
    await database.close()


class _Undone(Exception):
    """Takes back what was done, so that the next finds everything as it was."""


async def _cost(database: Database, work: Work) -> int:
    """Rows that PostgreSQL touched, or thousands of steps that SQLite made."""
    spent: list[int] = []

    def measured(connection: Connection) -> None:
        before = _touched(connection) if database.dialect == "postgresql" else 0
        if database.dialect == "postgresql":
            work(connection)
            spent.append(_touched(connection) - before)
        else:
            spent.append(_steps(connection, work))
        raise _Undone

    with pytest.raises(_Undone):
        await database.write(measured)
    return spent[-1]


def _touched(connection: Connection) -> int:
    counted = (
        "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
    )
    return int(connection.execute(text(counted)).scalar_one() or 0)


def _steps(connection: Connection, work: Work) -> int:
    thousands = 0

    def count() -> int:
        nonlocal thousands
        thousands += 1
        return 0

    raw: Any = cast("Any", connection.connection.driver_connection)
    raw.set_progress_handler(count, 1_000)
    try:
        work(connection)
    finally:
        raw.set_progress_handler(None, 0)
    return thousands


async def test_no_work_of_the_jobs_reads_what_has_ended(jobs: Database) -> None:
    spent = {name: await _cost(jobs, work) for name, work in JOBS_WORK.items()}
    limit = ROWS_AT_MOST if jobs.dialect == "postgresql" else STEPS_AT_MOST
    assert {name: cost for name, cost in spent.items() if cost > limit} == {}


async def test_no_work_of_the_pool_reads_what_has_ended(pool: Database) -> None:
    spent = {name: await _cost(pool, work) for name, work in POOL_WORK.items()}
    limit = ROWS_AT_MOST if pool.dialect == "postgresql" else STEPS_AT_MOST
    assert {name: cost for name, cost in spent.items() if cost > limit} == {}


async def test_a_look_at_everything_would_be_noticed(jobs: Database) -> None:
    everything = await _cost(
        jobs, lambda c: c.execute(text("SELECT count(failure_detail) FROM jobs")).scalar_one()
    )
    assert everything > (ROWS_AT_MOST if jobs.dialect == "postgresql" else STEPS_AT_MOST)
