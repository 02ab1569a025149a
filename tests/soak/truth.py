"""What providers really did and charged, held against what the pool wrote down and what customers paid."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Table, select

from services.gen.jobs.v1 import jobs_pb2 as jobs_pb
from services.jobs.schema import JOBS
from services.provider_pool.schema import ATTEMPTS
from tests.faults.scene import Scene
from tests.soak.accounts import Known
from tests.soak.buyers import NAME
from tests.soak.simulator import Simulator
from tests.soak.weather import Death

Row = RowMapping | Mapping[str, Any]

# What a customer may be told of a job that was paid for nothing or in vain. That no provider would have it, or that it took
# too long, is what the pool is there to prevent.
_FAIR: Final = frozenset(
    {
        jobs_pb.FAILURE_REASON_CONTENT_REFUSED,
        jobs_pb.FAILURE_REASON_GENERATION_FAILED,
        jobs_pb.FAILURE_REASON_SUBMISSION_UNKNOWN,
        jobs_pb.FAILURE_REASON_OUTPUT_UNUSABLE,
        jobs_pb.FAILURE_REASON_TIMED_OUT,
    }
)
_PERHAPS_PAID: Final = frozenset({"running", "unknown", "submitting", "succeeded", "abandoned"})


@dataclass
class Findings:
    """wrong: one sentence for everything that must not be. The rest is told, and asked of nobody."""

    wrong: list[str] = field(default_factory=list)
    jobs: int = 0
    completed: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    charged_tasks: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    leaving_ms: list[int] = field(default_factory=list)
    returning_ms: list[int] = field(default_factory=list)

    @property
    def paid_per_finished_job(self) -> float:
        """Charged tasks at the providers for each completed job, with those that are written down as paid in vain."""
        return self.charged_tasks / self.completed if self.completed else 0.0

    @property
    def paid_less_explained(self) -> float:
        """The same without those: 1 where nothing was paid for twice in silence."""
        paid = self.charged_tasks - self.explained.total()
        return paid / self.completed if self.completed else 0.0

    @property
    def unexplained(self) -> int:
        """Charged tasks beyond one a completed job and those written down as paid in vain or perhaps."""
        return self.charged_tasks - self.completed - self.explained.total()

    def as_json(self) -> dict[str, Any]:
        return {
            "jobs": self.jobs,
            "completed": self.completed,
            "failed": dict(self.failed),
            "attempts": dict(self.attempts),
            "charged_tasks": self.charged_tasks,
            "paid_per_finished_job": round(self.paid_per_finished_job, 5),
            "explained": dict(self.explained),
            "unexplained": self.unexplained,
            "paid_per_finished_job_less_explained": round(self.paid_less_explained, 5),
            "late": dict(self.late),
            "leaving_ms": _spread(self.leaving_ms),
            "returning_ms": _spread(self.returning_ms),
            "wrong": self.wrong[:50],
        }


def _spread(values: Sequence[int]) -> dict[str, float]:
    if not values:
        return {}
    return {"median": median(values), "highest": max(values), "of": len(values)}


async def compared(
    scene: Scene, simulator: Simulator, accounts: Sequence[Known], deaths: Sequence[Death]
) -> Findings:
    """Reads both sides of a house at rest."""
    jobs = await _rows(scene, "jobs", JOBS)
    attempts = await _rows(scene, "provider_pool", ATTEMPTS)
    found = judged(jobs, attempts, await simulator.tasks())
    found.wrong += overdrawn(await simulator.accounts(), accounts)
    for death in deaths:
        _time(found, death, [one for one in attempts if one["account_id"] == death.account_id])
    return found


def judged(jobs: Sequence[Row], attempts: Sequence[Row], tasks: Sequence[Mapping[str, Any]]) -> Findings:
    """Jobs and attempts as they are stored, and tasks as the simulator tells of them."""
    found = Findings(jobs=len(jobs))
    found.completed = sum(job["state"] == "completed" for job in jobs)
    found.attempts.update(attempt["state"] for attempt in attempts)
    _judge_failures(found, jobs)
    _judge_payment(found, jobs, attempts, tasks)
    return found


async def _rows(scene: Scene, service: str, table: Table) -> list[Row]:
    def read(connection: Connection) -> list[Row]:
        return list(connection.execute(select(table)).mappings())

    return await scene.readers[service](read)


def _judge_failures(found: Findings, jobs: Iterable[Row]) -> None:
    for job in jobs:
        if job["state"] != "failed":
            continue
        reason = jobs_pb.FailureReason.Name(job["failure"]).removeprefix("FAILURE_REASON_").lower()
        found.failed[reason] += 1
        if job["failure"] not in _FAIR:
            found.wrong.append(
                f"{job['job_id']} failed though another could serve: {reason}: {job['failure_detail']}"
            )


def _judge_payment(
    found: Findings, jobs: Iterable[Row], attempts: Iterable[Row], tasks: Iterable[Mapping[str, Any]]
) -> None:
    """Each charged task belongs to a job, and is its one success or written down as paid in vain."""
    charged: Counter[str] = Counter()
    for task in tasks:
        if task["is_charged"]:
            found.charged_tasks += 1
            name = NAME.search(task["prompt"])
            charged[name.group() if name else f"unknown prompt of {task['provider']}"] += 1
    by_job: dict[str, list[Row]] = defaultdict(list)
    for attempt in attempts:
        by_job[attempt["job_id"]].append(attempt)
    for job in jobs:
        name = NAME.search(job["generation"])
        paid = charged.pop(name.group(), 0) if name else 0
        _judge_job(found, job, by_job[job["job_id"]], paid)
        if job["failure"] == jobs_pb.FAILURE_REASON_TIMED_OUT:
            found.late.update({_ways(by_job[job["job_id"]])})
    found.wrong += [f"{count} charged tasks of no job: {name}" for name, count in charged.items()]


def _judge_job(found: Findings, job: Row, attempts: Sequence[Row], paid: int) -> None:
    is_done = job["state"] == "completed"
    if is_done and paid == 0:
        found.wrong.append(f"{job['job_id']} is completed, and no provider was paid for it")
    in_vain = Counter(_kind_of(one) for one in attempts if _may_have_cost(one))
    extra = paid - is_done
    if extra > in_vain.total():
        states = [(one["provider"], one["state"], one["failure"]) for one in attempts]
        found.wrong.append(
            f"{job['job_id']} is {job['state']} and was paid for {paid} times, known are {states}"
        )
    for kind in sorted(in_vain.elements())[: max(0, extra)]:
        found.explained[kind] += 1


def _ways(attempts: Sequence[Row]) -> str:
    """What was tried for a job that took too long."""
    tried = (f"{one['provider']} {one['state']} ({_failure_of(one).get('detail', '')})" for one in attempts)
    return ", then ".join(tried) or "nothing: no account had room"


def _failure_of(attempt: Row) -> Mapping[str, Any]:
    failure: Mapping[str, Any] = json.loads(attempt["failure"]) if attempt["failure"] else {}
    return failure


def _may_have_cost(attempt: Row) -> bool:
    """Whether the pool says of an attempt without success that it was paid for, or may have been."""
    if attempt["state"] == "failed":
        return bool(_failure_of(attempt).get("charged", "no") != "no")
    return attempt["state"] in _PERHAPS_PAID - {"succeeded"}


def _kind_of(attempt: Row) -> str:
    failure = _failure_of(attempt)
    return f"{attempt['state']}, {failure.get('reason', 'no reason')}, charged: {failure.get('charged', '?')}"


def overdrawn(upstream: Sequence[Mapping[str, Any]], accounts: Sequence[Known]) -> list[str]:
    """Accounts that were ever below nothing, or had more under way than they may; one sentence each."""
    wrong = []
    seen = {(one["provider"], one["key"]): one for one in upstream}
    for account in accounts:
        there = seen[account.provider, account.key]
        name = f"{account.provider} {account.account_id}"
        if there["least_balance"] is not None and there["least_balance"] < 0:
            wrong.append(f"{name} was at {there['least_balance']}")
        if there["most_unfinished"] > account.concurrency:
            wrong.append(
                f"{name} had {there['most_unfinished']} tasks under way and may have {account.concurrency}"
            )
    return wrong


def _time(found: Findings, death: Death, attempts: Sequence[Row]) -> None:
    """How long a dead account was still used, and how long after its healing it was used again."""
    sent = [one["created_at_ms"] for one in attempts]
    during = [at_ms for at_ms in sent if death.died_at_ms <= at_ms < death.healed_at_ms]
    if during:
        found.leaving_ms.append(max(during) - min(during))
    after = [
        one["created_at_ms"]
        for one in attempts
        if one["task_id"] and one["created_at_ms"] >= death.healed_at_ms
    ]
    if during and after:
        found.returning_ms.append(min(after) - death.healed_at_ms)
