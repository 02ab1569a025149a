"""Tasks that run for longer than such tasks do are given up, at their price, and never only because a clock was set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ClassVar

import pytest

from services.chassis.clock import SystemClock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Cancellation,
    Context,
    Feature,
    OutputRef,
    Role,
    Snapshot,
    TaskRef,
    TaskState,
)
from services.provider_pool.attempts.loose_ends import DOUBT_GRACE_MS, TASK_GRACE_MS, UNHEARD_S, LooseEnds
from services.provider_pool.attempts.patience import SEEN_NEEDED
from services.provider_pool.attempts.resolution import DOUBT_LIMIT_S
from services.provider_pool.attempts.states import Attempt, AttemptState, Charged, FailureReason, NextStep
from services.provider_pool.catalog import Catalog
from tests.unit.test_pool_calls import PICTURE, ListingAdapter, Parts, ToyAdapter, breaks, database

__all__ = ["database"]

PATIENCE_S = 1800
LONGEST_S = {("toy", "picture"): 3600}
DONE = Snapshot(TaskState.SUCCEEDED, outputs=[OutputRef(Role.PRIMARY, "somewhere")])


class CancellingAdapter(ToyAdapter):
    """One that can be told to stop a task."""

    features: ClassVar[frozenset[Feature]] = frozenset({Feature.CANCEL})

    def __init__(self) -> None:
        super().__init__()
        self.cancelled: list[str] = []
        self.cancelling: Callable[[], Awaitable[Cancellation]] = self.stops_for_nothing

    async def stops_for_nothing(self) -> Cancellation:
        return Cancellation("no")

    async def cancel(self, context: Context, account: AccountAccess, task: TaskRef) -> Cancellation:
        self.cancelled.append(task.task_id)
        return await self.cancelling()


class Passing:
    """Lets time pass for the parts of a pool, on both of its clocks or on one."""

    def __init__(self, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_s = self.steady_s = 0.0
        true = SystemClock()
        monkeypatch.setattr(parts.clock, "now_ms", lambda: true.now_ms() + round(self.wall_s * 1000))
        monkeypatch.setattr(parts.clock, "monotonic_s", lambda: true.monotonic_s() + self.steady_s)

    def by(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds


@pytest.fixture
async def toy(database: Database) -> AsyncIterator[Parts]:
    parts = Parts(database, CancellingAdapter())
    await parts.account()
    yield parts
    await parts.close()


@pytest.fixture
async def listing(database: Database) -> AsyncIterator[Parts]:
    parts = Parts(database, ListingAdapter())
    await parts.account()
    yield parts
    await parts.close()


def loose_ends(parts: Parts, database: Database) -> LooseEnds:
    return LooseEnds(
        database,
        parts.attempts,
        parts.resolution,
        parts.polling,
        parts.overdue,
        parts.catalog,
        parts.clock,
    )


def adapter_of(parts: Parts) -> CancellingAdapter:
    assert isinstance(parts.adapter, CancellingAdapter)
    return parts.adapter


async def polled(parts: Parts, attempt_id: str = "job_1:1") -> Attempt:
    return (await parts.polling.poll(attempt_id, 0)).attempt


async def history(parts: Parts, attempt_id: str = "job_1:1") -> list[str]:
    return [event.what for event in (await parts.attempts.history(attempt_id))[1]]


async def test_a_task_that_was_stopped_for_nothing_goes_to_another_account(
    toy: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await toy.submit("job_1:1")
    passing = Passing(toy, monkeypatch)
    passing.by(PATIENCE_S - 60)
    assert (await polled(toy)).state is AttemptState.RUNNING
    passing.by(61)
    attempt = await polled(toy)
    assert adapter_of(toy).cancelled == ["task of job_1:1"]
    assert attempt.failure is not None
    assert (attempt.state, attempt.failure.reason) == (AttemptState.FAILED, FailureReason.TIMED_OUT)
    assert (attempt.failure.next_step, attempt.failure.charged) == (NextStep.ROTATE, Charged.NO)
    assert attempt.cost_millis == 0
    assert await history(toy) == ["begun", "submitted", "overdue", "cancelled", "moved", "ended"]


async def silent() -> Cancellation:
    raise interface.TransientFailure("503")


async def at_full_price() -> Cancellation:
    return Cancellation("yes", 70)


@pytest.mark.parametrize(
    ("cancelling", "charged", "cost_millis"), [(silent, Charged.MAYBE, 100), (at_full_price, Charged.YES, 70)]
)
async def test_a_task_that_may_be_paid_for_is_not_made_again_elsewhere(
    toy: Parts,
    monkeypatch: pytest.MonkeyPatch,
    cancelling: Callable[[], Awaitable[Cancellation]],
    charged: Charged,
    cost_millis: int,
) -> None:
    adapter_of(toy).cancelling = cancelling
    await toy.submit("job_1:1")
    Passing(toy, monkeypatch).by(PATIENCE_S + 1)
    attempt = await polled(toy)
    assert attempt.failure is not None
    assert (attempt.failure.next_step, attempt.failure.charged) == (NextStep.FAIL, charged)
    assert attempt.cost_millis == cost_millis
    assert "moved" not in await history(toy)
    # What ran for so long says that the next may need longer.
    assert toy.patience.seen("toy", "picture") == 1


async def test_a_task_that_ended_well_while_it_was_to_be_stopped_is_what_the_customer_gets(
    toy: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([Snapshot(TaskState.RUNNING), DONE])

    async def in_turn(task: TaskRef) -> Snapshot:
        return next(answers)

    toy.adapter.polling = in_turn
    adapter_of(toy).cancelling = at_full_price
    await toy.submit("job_1:1")
    Passing(toy, monkeypatch).by(PATIENCE_S + 1)
    assert (await polled(toy)).state is AttemptState.SUCCEEDED


async def test_a_task_that_has_ended_well_is_never_too_late(
    toy: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def done(task: TaskRef) -> Snapshot:
        return DONE

    await toy.submit("job_1:1")
    toy.adapter.polling = done
    Passing(toy, monkeypatch).by(PATIENCE_S * 10)
    assert (await polled(toy)).state is AttemptState.SUCCEEDED
    assert adapter_of(toy).cancelled == []


@pytest.mark.parametrize("step_s", [86_400, -86_400])
async def test_a_clock_that_is_set_ends_no_task(
    toy: Parts, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    await toy.submit("job_1:1")
    passing = Passing(toy, monkeypatch)
    passing.wall_s += step_s
    assert (await polled(toy)).state is AttemptState.RUNNING
    passing.by(60)
    assert (await polled(toy)).state is AttemptState.RUNNING


async def test_what_succeeds_teaches_how_long_the_next_may_run(
    toy: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"job_{turn}:1" for turn in range(SEEN_NEEDED)]
    for name in names:
        await toy.submit(name)
    toy.patience._longest_s = LONGEST_S
    passing = Passing(toy, monkeypatch)
    passing.by(100)

    async def done(task: TaskRef) -> Snapshot:
        return DONE

    toy.adapter.polling = done
    await toy.polling.poll_many(names, 0, 10.0)
    assert toy.patience.seen("toy", "picture") == SEEN_NEEDED
    assert 290_000 <= toy.patience.allowed_ms("toy", "picture") <= 330_000
    # And another process learns the same from the database.
    again = Parts(toy.overdue._database, ToyAdapter())
    again.patience._longest_s = LONGEST_S
    await again.overdue.learn()
    assert again.patience.seen("toy", "picture") == SEEN_NEEDED
    assert again.patience.allowed_ms("toy", "picture") == toy.patience.allowed_ms("toy", "picture")
    await again.close()


async def test_a_success_that_a_later_poll_contradicts_stays(toy: Parts, database: Database) -> None:
    await toy.submit("job_1:1")
    # Another replica, which still takes the task for a running one.
    other = Parts(database, toy.adapter)
    assert (await polled(other)).state is AttemptState.RUNNING

    async def done(task: TaskRef) -> Snapshot:
        return DONE

    async def failed(task: TaskRef) -> Snapshot:
        return Snapshot(TaskState.FAILED)

    toy.adapter.polling = done
    assert (await polled(toy)).state is AttemptState.SUCCEEDED
    toy.adapter.polling = failed
    assert (await polled(toy)).state is AttemptState.SUCCEEDED
    assert (await polled(other)).state is AttemptState.SUCCEEDED
    await other.close()


async def test_tasks_that_nobody_asks_about_end_by_themselves(
    toy: Parts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("job_1:1", "job_2:1"):
        await toy.submit(name)
    ends, passing = loose_ends(toy, database), Passing(toy, monkeypatch)
    passing.by(PATIENCE_S + TASK_GRACE_MS / 1000 - 5)
    await ends.end_tasks()
    assert toy.adapter.polled == []
    passing.by(10)
    await ends.end_tasks()
    for name in ("job_1:1", "job_2:1"):
        assert (await toy.attempts.get(name, fresh=True)).state is AttemptState.FAILED


async def test_a_task_whose_provider_is_not_heard_of_any_more_ends_as_perhaps_paid_for(
    toy: Parts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(task: TaskRef) -> Snapshot:
        raise interface.TransientFailure("503")

    await toy.submit("job_1:1")
    toy.adapter.polling = unreachable
    ends, passing = loose_ends(toy, database), Passing(toy, monkeypatch)
    passing.by(PATIENCE_S + TASK_GRACE_MS / 1000 + 5)
    await ends.end_tasks()
    passing.by(UNHEARD_S - 5)
    await ends.end_tasks()
    assert (await toy.attempts.get("job_1:1", fresh=True)).state is AttemptState.RUNNING
    passing.by(10)
    await ends.end_tasks()
    attempt = await toy.attempts.get("job_1:1", fresh=True)
    assert attempt.failure is not None
    assert (attempt.state, attempt.failure.charged) == (AttemptState.FAILED, Charged.MAYBE)
    assert attempt.failure.next_step is NextStep.FAIL


async def test_a_pool_that_was_away_for_hours_does_not_take_its_tasks_for_lost_at_its_first_look(
    toy: Parts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(task: TaskRef) -> Snapshot:
        raise interface.TransientFailure("503")

    async def done(task: TaskRef) -> Snapshot:
        return DONE

    await toy.submit("job_1:1")
    toy.adapter.polling = unreachable
    ends, passing = loose_ends(toy, database), Passing(toy, monkeypatch)
    passing.by(PATIENCE_S + 6 * 3600)
    await ends.end_tasks()
    toy.adapter.polling = done
    passing.by(60)
    await ends.end_tasks()
    assert (await toy.attempts.get("job_1:1", fresh=True)).state is AttemptState.SUCCEEDED


async def test_what_a_provider_said_before_it_fell_silent_keeps_no_task_alive(
    toy: Parts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(task: TaskRef) -> Snapshot:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    monkeypatch.setattr("services.provider_pool.attempts.loose_ends._POLL_WITHIN_S", 0.05)
    await toy.submit("job_1:1")
    assert (await polled(toy)).state is AttemptState.RUNNING
    toy.adapter.polling = hangs
    ends, passing = loose_ends(toy, database), Passing(toy, monkeypatch)
    for passed_s in (PATIENCE_S + TASK_GRACE_MS / 1000 + 5, UNHEARD_S + 5):
        passing.by(passed_s)
        await ends.end_tasks()
    assert (await toy.attempts.get("job_1:1", fresh=True)).state is AttemptState.FAILED


async def test_doubts_that_nobody_asks_about_are_resolved_when_their_window_is_over(
    listing: Parts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing.adapter.submitting = breaks
    await listing.submit("job_1:1")
    ends, passing = loose_ends(listing, database), Passing(listing, monkeypatch)
    passing.by(DOUBT_GRACE_MS / 1000 - 5)
    await ends.resolve_doubts()
    assert (await listing.attempts.get("job_1:1", fresh=True)).state is AttemptState.UNKNOWN
    passing.by(10)
    await ends.resolve_doubts()
    assert (await listing.attempts.get("job_1:1", fresh=True)).state is AttemptState.ABANDONED


async def test_nothing_is_in_doubt_for_ever_however_little_the_provider_says(
    listing: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable() -> list[TaskRef]:
        raise interface.AuthFailed("401")

    assert isinstance(listing.adapter, ListingAdapter)
    listing.adapter.submitting = breaks
    listing.adapter.listing = unavailable
    await listing.submit("job_1:1")
    passing = Passing(listing, monkeypatch)
    passing.by(DOUBT_LIMIT_S - 5)
    assert (await listing.resolution.resolve("job_1:1")).attempt.state is AttemptState.UNKNOWN
    passing.by(10)
    attempt = (await listing.resolution.resolve("job_1:1")).attempt
    assert attempt.state is AttemptState.ABANDONED
    assert attempt.failure is not None
    assert (attempt.failure.charged, attempt.cost_millis) == (Charged.MAYBE, 100)


async def test_a_doubt_about_a_provider_that_is_gone_ends_too(
    listing: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing.adapter.submitting = breaks
    await listing.submit("job_1:1")
    monkeypatch.setattr(listing.resolution, "_catalog", Catalog([]))
    passing = Passing(listing, monkeypatch)
    assert (await listing.resolution.resolve("job_1:1")).attempt.state is AttemptState.UNKNOWN
    passing.by(DOUBT_LIMIT_S + 200)
    assert (await listing.resolution.resolve("job_1:1")).attempt.state is AttemptState.ABANDONED


async def test_the_way_out_of_doubt_is_written_down(listing: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(listing.adapter, ListingAdapter)
    listing.adapter.submitting = breaks
    listing.catalog._terms["toy"] = interface.Terms(unknown_window_s=60)
    await listing.submit("job_1:1")
    for _ in range(3):
        await listing.resolution.resolve("job_1:1")

    async def found() -> list[TaskRef]:
        return [TaskRef("task_9", listing.clock.now_ms())]

    # What is only noted yet is shown, too.
    assert await history(listing) == ["begun", "in_doubt", "looked_for", "looked_for"]
    listing.adapter.listing = found
    assert (await listing.resolution.resolve("job_1:1")).attempt.state is AttemptState.RUNNING
    attempt, events = await listing.attempts.history("job_1:1")
    assert sorted(event.what for event in events) == sorted(
        ["begun", "in_doubt", "looked_for", "looked_for", "found", "submitted"]
    )
    assert any("the last of 3" in event.detail for event in events)
    assert not any(PICTURE.prompt in event.detail for event in events)
    assert attempt.task_id == "task_9"


@pytest.mark.parametrize("resubmits", [True, False])
async def test_one_job_is_sent_once_more_where_the_operator_allows_it_and_that_is_written_down(
    toy: Parts, resubmits: bool
) -> None:
    toy.adapter.submitting = breaks
    toy.catalog._terms["toy"] = interface.Terms(resubmit_once=resubmits)
    steps = []
    (account_id,) = await toy.accounts.load()
    for name in ("job_1:1", "job_1:2"):
        await toy.accounts.reset(account_id)
        await toy.submit(name)
        attempt = (await toy.resolution.resolve(name)).attempt
        assert attempt.failure is not None
        steps.append(attempt.failure.next_step)
    assert steps == [NextStep.RETRY if resubmits else NextStep.FAIL, NextStep.FAIL]
    events = (await toy.attempts.history("job_1:1"))[1]
    told = next(event.detail for event in events if event.what == "abandoned")
    assert ("it is sent once more" in told) is resubmits
    assert "up to 100 thousandths may be paid in vain" in told


async def test_a_poll_of_an_unknown_attempt_is_refused_as_before(toy: Parts) -> None:
    with pytest.raises(ServiceError, match="ATTEMPT_NOT_FOUND"):
        await toy.attempts.history("job_9:1")


async def test_what_is_not_found_is_looked_for_less_and_less_often_and_once_more_at_the_end(
    listing: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing.adapter.submitting = breaks
    listing.catalog._terms["toy"] = interface.Terms(unknown_window_s=120)
    await listing.submit("job_1:1")
    passing, looks = Passing(listing, monkeypatch), 0
    while (resolved := await listing.resolution.resolve("job_1:1")).poll_after_ms:
        looks += 1
        assert 2_000 <= resolved.poll_after_ms <= 15_000
        passing.by(resolved.poll_after_ms / 1000)
    assert resolved.attempt.state is AttemptState.ABANDONED
    assert looks < 25
    assert passing.wall_s < 125
