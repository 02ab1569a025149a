"""What must be true of a house at rest, whatever died in it: read from its three databases, its folders and its customers' memory."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, func, select

from services.billing.schema import HOLDS, JOURNAL
from services.billing.verification import verify
from services.jobs.job import ENDED
from services.jobs.schema import CUSTOMER_LOAD, JOB_EVENTS, JOBS, USAGE_DAYS
from services.jobs.store.reads import load_drift
from services.provider_pool.schema import ACCOUNTS, ATTEMPTS, LEASES
from tests.faults.scene import Scene

_ENDED = frozenset(state.value for state in ENDED)
# What a customer may see while a process is down; anything else of the 500s is a bug that was shown.
_EXCUSED = frozenset({502, 503})
# An attempt in one of these may have cost money at its provider.
_PERHAPS_PAID = frozenset({"running", "unknown", "submitting", "succeeded", "abandoned"})

Row = RowMapping


async def judge(scene: Scene) -> list[str]:
    """Everything that is wrong, one sentence each; nothing, in a house that keeps its promises."""
    jobs = await _rows(scene, "jobs", JOBS)
    usage = await _rows(scene, "jobs", USAGE_DAYS)
    events = await _rows(scene, "jobs", JOB_EVENTS)
    loads = await _rows(scene, "jobs", CUSTOMER_LOAD)
    holds = await _rows(scene, "billing", HOLDS)
    captures = await scene.readers["billing"](_captured)
    attempts = await _rows(scene, "provider_pool", ATTEMPTS)
    ledger = (await verify(scene.readers["billing"])).findings
    drift = await scene.readers["jobs"](load_drift)
    wrong = [f"ledger: {one.invariant} {one.subject}: {one.problem}" for one in ledger]
    wrong += [
        f"load of {customer} is {stored}, by jobs {counted}" for customer, (counted, stored) in drift.items()
    ]
    wrong += await under_way(scene)
    wrong += _answers(scene, jobs)
    wrong += _lives(jobs, events)
    wrong += _money(jobs, holds, loads, captures)
    wrong += _usage(jobs, usage)
    wrong += _attempts(jobs, attempts, scene.submissions())
    wrong += _forgotten(attempts, scene.taken())
    wrong += _media(scene, jobs)
    return wrong


async def under_way(scene: Scene) -> list[str]:
    """What has not come to rest yet: jobs, holds, leases, attempts, references."""
    jobs = await scene.readers["jobs"](_unfinished)
    deleted = await scene.readers["jobs"](_unforgotten)
    holds = await scene.readers["billing"](_open_holds)
    leases, attempts, lent = await scene.readers["provider_pool"](_lent)
    kept = await scene.readers["jobs"](partial(_kept_references, scene=scene))
    wrong = [f"job {job_id} is {state}" for job_id, state in jobs]
    wrong += [f"job {job_id} is deleted and not forgotten" for job_id in deleted]
    wrong += [f"the hold of {job_id} is open" for job_id in holds]
    wrong += [f"the lease of {attempt_id} is open" for attempt_id in leases]
    wrong += [f"attempt {attempt_id} is {state}" for attempt_id, state in attempts]
    wrong += [f"account {account_id} counts {count} leases" for account_id, count in lent]
    return wrong + [f"a reference of {job_id} is still kept" for job_id in kept]


def _unfinished(connection: Connection) -> list[tuple[str, str]]:
    query = select(JOBS.c.job_id, JOBS.c.state).where(JOBS.c.state.not_in(_ENDED))
    return [(row[0], row[1]) for row in connection.execute(query)]


def _unforgotten(connection: Connection) -> list[str]:
    waiting = (JOBS.c.deleted_at_ms > 0) & (JOBS.c.scrubbed_at_ms == 0)
    return list(connection.scalars(select(JOBS.c.job_id).where(waiting)))


def _kept_references(connection: Connection, scene: Scene) -> list[str]:
    """Jobs of which a reference lies in the folder. What no job ever owned, because its request was lost, is swept daily."""
    staged = {path.stem for path in scene.layout.references.glob("*.json")}
    if not staged:
        return []
    owners = []
    for job_id, generation in connection.execute(select(JOBS.c.job_id, JOBS.c.generation)):
        named = {one.get("reference_id", "") for one in json.loads(generation).get("references", ())}
        if staged & named or any(name.startswith(f"{job_id}-") for name in staged):
            owners.append(job_id)
    return owners


def _open_holds(connection: Connection) -> list[str]:
    return list(connection.scalars(select(HOLDS.c.job_id).where(HOLDS.c.state == "open")))


def _lent(connection: Connection) -> tuple[list[str], list[tuple[str, str]], list[tuple[str, int]]]:
    leases = list(connection.scalars(select(LEASES.c.attempt_id).where(LEASES.c.state == "open")))
    undecided = ATTEMPTS.c.state.in_(["submitting", "unknown", "running"])
    attempts = connection.execute(select(ATTEMPTS.c.attempt_id, ATTEMPTS.c.state).where(undecided))
    busy = (ACCOUNTS.c.leases != 0) | (ACCOUNTS.c.leased_millis != 0)
    lent = connection.execute(select(ACCOUNTS.c.account_id, ACCOUNTS.c.leases).where(busy))
    return leases, [(row[0], row[1]) for row in attempts], [(row[0], row[1]) for row in lent]


def _captured(connection: Connection) -> dict[tuple[str, str], int]:
    """What the journal charged, by customer and mode."""
    query = (
        select(JOURNAL.c.customer_id, JOURNAL.c.mode, func.sum(JOURNAL.c.amount_millis))
        .where(JOURNAL.c.kind == "capture", JOURNAL.c.applied.is_(True))
        .group_by(JOURNAL.c.customer_id, JOURNAL.c.mode)
    )
    return {(row[0], row[1]): int(row[2]) for row in connection.execute(query)}


async def _rows(scene: Scene, service: str, table: Table) -> list[Row]:
    def read(connection: Connection) -> list[Row]:
        return list(connection.execute(select(table)).mappings())

    return await scene.readers[service](read)


def _answers(scene: Scene, jobs: Iterable[Row]) -> list[str]:
    """What customers were told: no error but the excused, one job a key, and every job they were told of is there."""
    wrong = []
    there = {job["job_id"] for job in jobs}
    by_key: dict[tuple[str, str], set[str]] = defaultdict(set)
    for told in scene.told:
        if told.status is not None and told.status >= 500 and told.status not in _EXCUSED:
            wrong.append(f"{told.method} {told.path} was answered {told.status}: {told.body.decode()[:300]}")
        if told.job_id and told.key:
            by_key[told.customer_id, told.key].add(told.job_id)
            if told.job_id not in there:
                wrong.append(f"{told.job_id} was accepted and does not exist")
    return wrong + [
        f"key {key} got the jobs {sorted(ids)}" for (_, key), ids in by_key.items() if len(ids) > 1
    ]


def _lives(jobs: Iterable[Row], events: Iterable[Row]) -> list[str]:
    """Every job ended, once, and its history is whole."""
    wrong = []
    lives: dict[str, list[Row]] = defaultdict(list)
    for event in events:
        lives[event["job_id"]].append(event)
    for job in jobs:
        life = sorted(lives.pop(job["job_id"], []), key=lambda event: int(event["sequence"]))
        ends = [event["state"] for event in life if event["state"] in _ENDED]
        numbers = [event["sequence"] for event in life]
        if ends != [job["state"]] or life[-1]["state"] not in _ENDED:
            wrong.append(f"{job['job_id']} is {job['state']} and ended as {ends}")
        if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            wrong.append(f"the events of {job['job_id']} are numbered {numbers}")
        epochs = [event["epoch"] for event in life]
        if epochs != sorted(epochs):
            wrong.append(f"an older epoch wrote {job['job_id']} after a younger one: {epochs}")
        if job["owner"] is not None:
            wrong.append(f"{job['job_id']} has ended and belongs to {job['owner']}")
    return wrong + [f"{job_id} has events and no row" for job_id in lives]


def _money(
    jobs: Iterable[Row],
    holds: Iterable[Row],
    loads: Iterable[Row],
    captured: dict[tuple[str, str], int],
) -> list[str]:
    """Every hold is closed as its job ended, and both services count the same money."""
    wrong = []
    by_job = {hold["job_id"]: hold for hold in holds}
    charged: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        charged[job["customer_id"], job["mode"]] += job["charged_millis"]
        wrong += _closed(job, by_job.pop(job["job_id"], None))
    for hold in by_job.values():
        if hold["state"] != "released":
            wrong.append(f"the hold of {hold['job_id']}, which is no job, is {hold['state']}")
    for wallet in charged.keys() | captured.keys():
        if charged[wallet] != captured.get(wallet, 0):
            wrong.append(
                f"{wallet}: jobs charged {charged[wallet]}, billing captured {captured.get(wallet, 0)}"
            )
    for load in loads:
        wallet = (load["customer_id"], load["mode"])
        if load["charged_millis"] != charged[wallet]:
            wrong.append(f"{wallet}: the counter says {load['charged_millis']}, the jobs {charged[wallet]}")
    return wrong


def _usage(jobs: Iterable[Row], usage: Iterable[Row]) -> list[str]:
    """The counters of every day say what the jobs of that day say."""
    said: Counter[tuple[Any, ...]] = Counter()
    for row in usage:
        key = (row["customer_id"], row["mode"], row["day"], row["public_model"])
        said[*key, "jobs"] += row["completed_jobs"] + row["failed_jobs"]
        said[*key, "net"] += row["charged_millis"] - row["refunded_millis"]
    for job in jobs:
        key = (job["customer_id"], job["mode"], job["created_at_ms"] // 86_400_000, job["public_model"])
        said[*key, "jobs"] -= 1
        said[*key, "net"] -= job["charged_millis"]
    return [f"usage of {key} is off by {off}" for key, off in said.items() if off]


def _closed(job: Row, hold: Row | None) -> list[str]:
    name = job["job_id"]
    if hold is None:
        return [f"{name} has no hold"]
    wrong = []
    if job["charged_millis"] + job["refunded_millis"] != job["quoted_millis"]:
        wrong.append(
            f"{name} charged {job['charged_millis']} and refunded {job['refunded_millis']} of {job['quoted_millis']}"
        )
    if hold["amount_millis"] != job["quoted_millis"]:
        wrong.append(f"{name} was quoted {job['quoted_millis']} and held {hold['amount_millis']}")
    expected = ("captured", job["charged_millis"]) if job["state"] == "completed" else ("released", 0)
    if (hold["state"], hold["captured_millis"]) != expected:
        wrong.append(f"{name} is {job['state']}, its hold {hold['state']} with {hold['captured_millis']}")
    if job["state"] == "completed" and job["charged_millis"] == 0:
        wrong.append(f"{name} was done for nothing")
    return wrong


def _attempts(jobs: Iterable[Row], attempts: Iterable[Row], submissions: Counter[str]) -> list[str]:
    """Nothing was sent twice, and no job may have been paid for twice at a provider."""
    wrong = [f"attempt {attempt_id} was sent {n} times" for attempt_id, n in submissions.items() if n > 1]
    by_job: dict[str, list[Row]] = defaultdict(list)
    for attempt in attempts:
        by_job[attempt["job_id"]].append(attempt)
        if attempt["task_id"] and not submissions[attempt["attempt_id"]]:
            wrong.append(f"attempt {attempt['attempt_id']} has a task and was never sent")
    recorded = {attempt["attempt_id"] for own in by_job.values() for attempt in own}
    wrong += [
        f"attempt {attempt_id} was sent without a record" for attempt_id in submissions.keys() - recorded
    ]
    for job in jobs:
        own = by_job.pop(job["job_id"], [])
        paid = [one["attempt_id"] for one in own if one["state"] in _PERHAPS_PAID]
        succeeded = [one["attempt_id"] for one in own if one["state"] == "succeeded"]
        if len(paid) > 1:
            wrong.append(f"{job['job_id']} may have been paid for more than once: {paid}")
        if job["state"] == "completed" and not succeeded:
            wrong.append(f"{job['job_id']} is completed without an attempt that succeeded")
    return wrong + [f"attempts of {job_id}, which is no job" for job_id in by_job]


def _forgotten(attempts: Iterable[Row], taken: Counter[str]) -> list[str]:
    """What a provider took is recorded with its task, or as given up in doubt: never as if it had been refused."""
    return [
        f"attempt {attempt['attempt_id']} was taken by its provider and is {attempt['state']} without a task"
        for attempt in attempts
        if taken[attempt["attempt_id"]] and not attempt["task_id"] and attempt["state"] != "abandoned"
    ]


def _media(scene: Scene, jobs: Iterable[Row]) -> list[str]:
    """What a completed job tells of is there, byte for byte."""
    wrong = []
    for job in jobs:
        outputs: list[dict[str, Any]] = json.loads(job["outputs"])
        if job["scrubbed_at_ms"]:
            left = [str(path) for path in scene.layout.media.rglob(f"*{job['job_id']}*") if path.is_file()]
            wrong += [f"{name} is left of a job that was deleted" for name in left]
            continue
        if job["state"] == "completed" and not outputs:
            wrong.append(f"{job['job_id']} is completed and has no media")
        for output in outputs if job["state"] == "completed" else ():
            path = scene.layout.media / output["object_key"]
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != output["sha256"]:
                wrong.append(f"{output['object_key']} is not what was stored")
    return wrong
