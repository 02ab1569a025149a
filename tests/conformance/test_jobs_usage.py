"""Usage, on each engine: it equals what the jobs themselves say, at every range, and its net what was captured."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, column, insert, table

from services.chassis.database import Database
from services.chassis.schema_migration import migrate
from services.jobs import job as rules
from services.jobs.job import FailureReason, Job, JobState, Settlement, Stage
from services.jobs.schema import JOBS
from services.jobs.settings import MIGRATIONS
from services.jobs.store import JobStore, Wish, rows
from services.jobs.usage import DAY_MS, Counts, Span, UsageKey, parts_of
from tests.conformance.jobs_shelf import ended, opened_store, queued, running
from tests.jobs_rows import NOW_MS, a_job

_FIRST_DAY_MS = NOW_MS // DAY_MS * DAY_MS
_DAYS = 5
_ALWAYS = Span(0, 10**6 * DAY_MS)
_MODELS = ("pro", "mini")
Figures = tuple[int, int, int, int, int, int]


@pytest.fixture
async def store(engine_url: str) -> AsyncIterator[JobStore]:
    async with opened_store(engine_url) as opened:
        yield opened


def figures(counts: Counts) -> Figures:
    return (
        counts.pending,
        counts.processing,
        counts.completed,
        counts.failed,
        counts.charged_millis,
        counts.refunded_millis,
    )


def counted(jobs: Iterable[Job], span: Span) -> dict[UsageKey, Figures]:
    """What the contract says of these jobs, each looked at by itself."""
    found: dict[UsageKey, list[int]] = defaultdict(lambda: [0] * 6)
    for job in jobs:
        if not span.from_ms <= job.created_at_ms < span.before_ms:
            continue
        row = found[UsageKey(job.created_at_ms // DAY_MS, job.public_model)]
        if job.state is JobState.COMPLETED:
            row[2] += 1
            row[4] += job.charged_millis
        elif job.ended:
            row[3] += 1
            row[4] += job.quoted_millis
            row[5] += job.quoted_millis
        else:
            row[int(job.stage >= Stage.AT_PROVIDER)] += 1
    return {key: (row[0], row[1], row[2], row[3], row[4], row[5]) for key, row in found.items()}


async def used(store: JobStore, span: Span, customer_id: str = "cus_a") -> dict[UsageKey, Figures]:
    found = await store.usage((customer_id, "test"), span)
    return {key: figures(counts) for key, counts in found.items()}


async def a_life(store: JobStore, chance: random.Random, customer_id: str, n: int) -> Job:
    """One job of a random day and model, somewhere on its way or at one of its ends."""
    made: dict[str, Any] = {
        "customer_id": customer_id,
        "public_model": chance.choice(_MODELS),
        "created_at_ms": _FIRST_DAY_MS + chance.randrange(_DAYS * DAY_MS),
    }
    begin = chance.choice((queued, running))
    job = await begin(store, f"job_{customer_id}_{n}", **made)
    end = chance.choice((None, JobState.COMPLETED, JobState.FAILED, JobState.CANCELED))
    if end is None:
        return job
    # Billing charges less than was quoted where a hold had expired.
    job = await ended(store, job, end, chance.choice((500, 500, 300, 0)))
    if chance.random() < 0.2:
        await store.wish(Wish(job.job_id, customer_id, "test", True, NOW_MS))
        await store.scrub([job.job_id], NOW_MS)
    return job


async def test_usage_of_any_history_at_any_range_is_what_its_jobs_say(store: JobStore) -> None:
    for seed in range(4):
        chance, customer_id = random.Random(seed), f"cus_{seed}"
        jobs = await asyncio.gather(*(a_life(store, chance, customer_id, n) for n in range(40)))
        for _ in range(12):
            ends = sorted(_FIRST_DAY_MS + chance.randrange(-DAY_MS, (_DAYS + 1) * DAY_MS) for _ in range(2))
            span = Span(max(0, ends[0]), ends[1])
            assert await used(store, span, customer_id) == counted(jobs, span)
        everything = await used(store, _ALWAYS, customer_id)
        assert everything == counted(jobs, _ALWAYS)
        captured = sum(job.charged_millis for job in jobs if job.settlement is Settlement.CAPTURE)
        assert sum(row[4] - row[5] for row in everything.values()) == captured


async def test_a_job_is_counted_by_the_day_of_its_creation_to_the_millisecond(store: JobStore) -> None:
    for n, at_ms in enumerate((_FIRST_DAY_MS - 1, _FIRST_DAY_MS, _FIRST_DAY_MS + DAY_MS - 1)):
        job = await queued(store, f"job_{n}", public_model="pro", created_at_ms=at_ms)
        await ended(store, job, JobState.COMPLETED)
    first = _FIRST_DAY_MS // DAY_MS
    whole = {UsageKey(first - 1, "pro"): (0, 0, 1, 0, 500, 0), UsageKey(first, "pro"): (0, 0, 2, 0, 1000, 0)}
    assert await used(store, _ALWAYS) == whole
    assert await used(store, Span(_FIRST_DAY_MS - 1, _FIRST_DAY_MS)) == {
        UsageKey(first - 1, "pro"): (0, 0, 1, 0, 500, 0)
    }
    assert await used(store, Span(_FIRST_DAY_MS + 1, _FIRST_DAY_MS + DAY_MS)) == {
        UsageKey(first, "pro"): (0, 0, 1, 0, 500, 0)
    }
    assert await used(store, Span(_FIRST_DAY_MS, _FIRST_DAY_MS)) == {}


async def test_a_repeated_end_is_counted_once(store: JobStore) -> None:
    job = await queued(store, public_model="pro")
    settling = await store.commit(job, rules.failing(job, FailureReason.TIMED_OUT, "", NOW_MS))
    done = rules.released(rules.finished(settling, 0, NOW_MS))
    await store.commit(settling, done)
    await store.commit(settling, done)
    assert list((await used(store, _ALWAYS)).values()) == [(0, 0, 0, 1, 500, 500)]


async def test_usage_of_another_customer_or_mode_is_not_ones_own(store: JobStore) -> None:
    await ended(store, await queued(store, customer_id="cus_b"), JobState.COMPLETED)
    await ended(store, await queued(store, "job_2", mode="live", admission_key="live"), JobState.COMPLETED)
    assert await used(store, _ALWAYS) == {}


@pytest.mark.parametrize(
    "span, whole, ends",
    [
        (Span(0, DAY_MS), Span(0, DAY_MS), []),
        (Span(1, DAY_MS), None, [Span(1, DAY_MS)]),
        (Span(0, 2 * DAY_MS + 5), Span(0, 2 * DAY_MS), [Span(2 * DAY_MS, 2 * DAY_MS + 5)]),
        (Span(5, DAY_MS + 5), None, [Span(5, DAY_MS), Span(DAY_MS, DAY_MS + 5)]),
        (Span(5, 7), None, [Span(5, 7)]),
        (Span(7, 5), None, []),
    ],
)
def test_a_range_is_whole_days_and_pieces_that_each_lie_in_one(
    span: Span, whole: Span | None, ends: list[Span]
) -> None:
    assert parts_of(span) == (whole, ends)


# ---- what was there before there was usage by day ----

_NEW = {
    "public_number",
    "public_model",
    "echo",
    "project_id",
    "callback_url",
    "webhook_form_id",
    "cancel_asked_at_ms",
    "deleted_at_ms",
    "scrubbed_at_ms",
}


def _old_jobs() -> list[Job]:
    job = a_job(state=JobState.QUEUED, quoted_millis=500)
    done = {"owner": None, "ended_at_ms": NOW_MS}
    well = {"state": JobState.COMPLETED, "stage": Stage.ENDED_WELL, "charged_millis": 500}
    badly = {"state": JobState.FAILED, "stage": Stage.ENDED_BADLY, "refunded_millis": 500}
    changes: list[dict[str, Any]] = [{}, done | well, done | well, done | badly]
    names = (f"job_{n}" for n in range(len(changes)))
    return [
        replace(job, job_id=name, admission_key=name, **one) for name, one in zip(names, changes, strict=True)
    ]


async def test_jobs_from_before_are_counted_listed_and_read(engine_url: str, tmp_path: Path) -> None:
    first = tmp_path / "before" / "versions"
    first.mkdir(parents=True)
    shutil.copy(MIGRATIONS / "versions" / "0001_first_schema.py", first)
    await migrate(engine_url, first.parent)
    old = [{k: v for k, v in rows.all_columns(job).items() if k not in _NEW} for job in _old_jobs()]
    before = table("jobs", *(column(name, JOBS.c[name].type) for name in old[0]))

    def write(connection: Connection) -> None:
        connection.execute(insert(before), old)

    database = await Database.open(engine_url, application_name="before")
    await database.write(write)
    await database.close()
    async with opened_store(engine_url) as store:
        key = UsageKey(NOW_MS // DAY_MS, "gpt-image-2")
        assert await used(store, _ALWAYS) == {key: (1, 0, 2, 1, 1500, 500)}
        found = await store.jobs(["job_0", "job_1"])
        assert {job.public_model for job in found.values()} == {"gpt-image-2"}
        assert (found["job_1"].echo, found["job_1"].public_number, found["job_1"].deleted_at_ms) == ("", 0, 0)
