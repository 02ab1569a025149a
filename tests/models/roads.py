"""The roads of a job, written down a second time, from the protocol and not from the code that is tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest
from msgspec.structs import replace

from services.jobs import job as rules
from services.jobs.job import FailureReason, Job, JobState


@dataclass
class Step:
    """A step under way. `landed`: its commit went through, and its worker was not told."""

    before: Job
    after: Job | None
    landed: bool = False


_SETTLE: Final = {"settling"}

# docs/JOB_PROTOCOL.md: the road, `unknown`'s branch, another account after a failure, and a failure from anywhere.
ROADS: Final[dict[str, set[str]]] = {
    "admitting": {"queued", "leased"},
    "queued": {"leased"} | _SETTLE,
    "leased": {"submitting", "queued"} | _SETTLE,
    "submitting": {"running", "unknown", "collecting", "queued"} | _SETTLE,
    "unknown": {"running", "collecting", "queued"} | _SETTLE,
    "running": {"collecting", "unknown", "queued"} | _SETTLE,
    "collecting": _SETTLE,
    "settling": {"completed", "failed", "canceled"},
    "completed": set(),
    "failed": set(),
    "canceled": set(),
}
ENDS: Final = {"completed", "failed", "canceled"}
# Beyond the time after which a wait is nobody's.
PARKED_MS: Final = 90_000
# Of eight ways.
_UNDO: Final = 6
_ASTRAY: Final = 7


def proposed(job: Job, to: JobState, now_ms: int, *, well: bool, parks: bool) -> Job:
    """The job as a step would commit it. Raises IllegalTransitionError where no road leads."""
    if to is JobState.LEASED:
        return rules.leased(job, "acc_1", 60_000, now_ms)
    if to is JobState.SETTLING:
        if well:
            return rules.succeeding(job, (), 60_000, now_ms)
        return rules.failing(job, FailureReason.TIMED_OUT, "", now_ms)
    if to in (JobState.COMPLETED, JobState.FAILED):
        return rules.released(rules.finished(job, 0, now_ms))
    if to is JobState.CANCELED:
        return rules.released(rules.moved(job, to, now_ms, ended_at_ms=now_ms))
    if to is JobState.QUEUED and job.state is not JobState.ADMITTING:
        again_ms = now_ms + (PARKED_MS if parks else 0)
        after = rules.requeued(job, now_ms, not_before_ms=again_ms, avoid="", reason=FailureReason.NONE)
        return replace(after, owner=None, run_at_ms=again_ms) if parks else after
    return rules.moved(job, to, now_ms)


def step_from(job: Job, way: int, now_ms: int, *, well: bool) -> Step | None:
    """A step along one of the ways on: each road, one that parks the job, the undoing of an admission.

    The last way is one where no road leads, and the rules must refuse it.
    """
    roads = sorted(ROADS[job.state.value])
    assert sorted(rules.ALLOWED[job.state]) == roads
    if way == _ASTRAY:
        nowhere = sorted(set(JobState) - set(roads))
        with pytest.raises(rules.IllegalTransitionError):
            proposed(job, JobState(nowhere[now_ms % len(nowhere)]), now_ms, well=well, parks=False)
        return None
    if job.state is JobState.ADMITTING and way == _UNDO:
        return Step(job, None)
    to = JobState(roads[way % len(roads)])
    return Step(job, proposed(job, to, now_ms, well=well, parks=well))
