"""Attempts whose job has ended are ended, once and at their cost; those that ended long ago are forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from services.chassis.database import Database, migrate
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Cancellation,
    Context,
    Generation,
    ProviderError,
    ReferenceFile,
    Submission,
    TaskRef,
)
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.attempts import codec
from services.provider_pool.attempts.cancelling import Cancelling
from services.provider_pool.attempts.closing import CANCEL_WITHIN_S, Closing
from services.provider_pool.attempts.states import Attempt, AttemptState, Charged, FailureReason
from services.provider_pool.attempts.submission import Submissions
from services.provider_pool.catalog import Catalog
from services.provider_pool.settings import MIGRATIONS
from services.provider_pool.store import open_attempts
from services.provider_pool.upkeep import FORGET_LIMIT, FORGET_PAUSE_S, FORGET_SWEEP_S, forget_attempts
from tests.clocks import T0_MS, HandClock
from tests.conformance.test_pool_store import PICTURE, PICTURE_MILLIS, Replica

DAY_S = 86_400


async def no_files(job_id: str, generation: Generation) -> Sequence[ReferenceFile | None]:
    return []


@pytest.fixture
async def replica(engine_url: str, tmp_path: Path) -> AsyncIterator[Replica]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="conformance")
    replica = Replica(database, Catalog([SandboxAdapter(tmp_path / "sandbox", workers=1)]), HandClock())
    await replica.account(concurrency_limit=1000, balance_millis=10**9)
    yield replica
    await replica.close()
    await database.close()


def cancelling(replica: Replica) -> Cancelling:
    return Cancelling(replica.accounts, replica.catalog, replica.clock)


@pytest.fixture
def closing(replica: Replica) -> Closing:
    submissions = Submissions(replica.attempts, replica.accounts, replica.catalog, no_files, replica.clock)
    return Closing(
        replica.database, replica.attempts, submissions, cancelling(replica), replica.catalog, replica.clock
    )


async def balance_spent(replica: Replica) -> int:
    (account,) = (await replica.accounts.load()).values()
    return 10**9 - account.balance_millis


async def ended(replica: Replica, number: int, ended_at_ms: int) -> Attempt:
    attempt = await replica.running(f"job_{number:04}:1", f"task_{number}")
    replica.clock.at_ms = ended_at_ms
    after = await replica.attempts.change(replica.change(attempt, to=AttemptState.FAILED, cost_millis=0))
    replica.clock.at_ms = T0_MS
    return after


async def test_a_running_attempt_is_closed_as_perhaps_paid_for_and_keeps_its_task(
    replica: Replica, closing: Closing
) -> None:
    await replica.running("job_1:1", "task_1")
    assert await closing.close_attempts(["job_1:1"]) == []
    closed = await replica.attempts.get("job_1:1", fresh=True)
    assert (closed.state, closed.task_id, closed.ended_at_ms) == (AttemptState.FAILED, "task_1", T0_MS)
    assert closed.failure is not None
    assert (closed.failure.reason, closed.failure.charged) == (FailureReason.TIMED_OUT, Charged.MAYBE)
    assert (closed.cost_millis, await balance_spent(replica)) == (PICTURE_MILLIS, PICTURE_MILLIS)


async def test_an_attempt_in_doubt_is_closed_as_abandoned_and_its_prompt_is_gone(
    replica: Replica, closing: Closing
) -> None:
    attempt = await replica.begun("job_1:1")
    await replica.attempts.change(replica.change(attempt, to=AttemptState.UNKNOWN))
    assert "a cat" in (await replica.attempts.get("job_1:1", fresh=True)).generation
    assert await closing.close_attempts(["job_1:1"]) == []
    closed = await replica.attempts.get("job_1:1", fresh=True)
    assert closed.state is AttemptState.ABANDONED
    assert "a cat" not in closed.generation


async def test_what_the_end_of_the_lease_booked_is_not_booked_again(
    replica: Replica, closing: Closing
) -> None:
    await replica.running("job_1:1", "task_1")
    await replica.leasing.release("job_1:1")
    spent = await balance_spent(replica)
    for _ in range(3):
        assert await closing.close_attempts(["job_1:1", "job_1:1"]) == []
    assert await balance_spent(replica) == spent > 0


async def test_an_attempt_that_has_ended_stays_as_it_ended_and_an_unknown_one_is_passed_over(
    replica: Replica, closing: Closing
) -> None:
    attempt = await replica.running("job_1:1", "task_1")
    await replica.attempts.change(replica.change(attempt, to=AttemptState.SUCCEEDED))
    before = await replica.attempts.get("job_1:1", fresh=True)
    assert await closing.close_attempts(["job_1:1", "job_2:1"]) == []
    assert await replica.attempts.get("job_1:1", fresh=True) == before


async def test_an_attempt_that_another_process_is_sending_stays_open_until_it_cannot_be_any_more(
    replica: Replica, closing: Closing
) -> None:
    await replica.lease("job_1:1")
    await replica.attempts.begin(replica.beginning("job_1:1", "sender_other/1"))
    # Whoever has a database alone knows that there is no other process any more.
    if not replica.database.sole_owner:
        assert await closing.close_attempts(["job_1:1"]) == ["job_1:1"]
        assert (await replica.attempts.get("job_1:1", fresh=True)).state is AttemptState.SUBMITTING
        replica.clock.at_ms += closing._submissions.answer_by_ms("sandbox")
    assert await closing.close_attempts(["job_1:1"]) == []
    assert (await replica.attempts.get("job_1:1", fresh=True)).state is AttemptState.ABANDONED


async def test_open_attempts_are_listed_by_page_and_age_without_those_that_ended(
    replica: Replica, closing: Closing
) -> None:
    for number in range(5):
        await replica.running(f"job_{number}:1", f"task_{number}")
    await closing.close_attempts(["job_2:1"])
    replica.clock.at_ms += 1
    await replica.begun("job_9:1")
    first = [one.attempt_id for one in await closing.list_open(0, "", 3)]
    assert first == ["job_0:1", "job_1:1", "job_3:1"]
    assert [one.attempt_id for one in await closing.list_open(0, first[-1], 3)] == ["job_4:1", "job_9:1"]
    assert await closing.list_open(T0_MS + 1, "job_3:1", 3) == [("job_4:1", "job_4")]


async def test_attempts_are_forgotten_when_their_retention_is_over_and_open_ones_never(
    replica: Replica,
) -> None:
    await ended(replica, 1, T0_MS)
    await ended(replica, 2, T0_MS + 5_000)
    await replica.running("job_0003:1", "task_3")
    replica.clock.at_ms = T0_MS + 90 * DAY_S * 1000 + 1_000
    assert await forget_attempts(replica.database, replica.clock, 90 * DAY_S) == FORGET_SWEEP_S
    left = await replica.attempts.list("", None, "", 10)
    assert [one.attempt_id for one in left] == ["job_0002:1", "job_0003:1"]


async def test_a_full_batch_is_followed_by_the_next_one_soon(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.provider_pool.upkeep.FORGET_LIMIT", 2)
    for number in range(3):
        await ended(replica, number, T0_MS)
    replica.clock.at_ms = T0_MS + 90 * DAY_S * 1000 + 1
    pauses = [await forget_attempts(replica.database, replica.clock, 90 * DAY_S) for _ in range(2)]
    assert pauses == [FORGET_PAUSE_S, FORGET_SWEEP_S]
    assert await replica.attempts.list("", None, "", 10) == []
    assert FORGET_LIMIT > 2


async def test_a_submission_repeated_after_its_attempt_was_forgotten_sends_nothing(replica: Replica) -> None:
    await ended(replica, 1, T0_MS)
    await replica.leasing.release("job_0001:1")
    replica.clock.at_ms = T0_MS + 90 * DAY_S * 1000 + 1
    await forget_attempts(replica.database, replica.clock, 90 * DAY_S)
    with pytest.raises(Exception, match=r"LEASE_ENDED|ATTEMPT_NOT_FOUND"):
        await replica.attempts.begin(replica.beginning("job_0001:1"))


async def test_neither_list_nor_retention_reads_the_whole_table(replica: Replica) -> None:
    for number in range(30):
        await ended(replica, number, T0_MS)
    said: list[str] = []

    def plans(connection: Connection) -> None:
        statements: list[tuple[str, object]] = []

        def noted(_c: object, _cursor: object, statement: str, parameters: object, *_rest: object) -> None:
            statements.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", noted)
        open_attempts.load_open(connection, T0_MS, "job_0005:1", 500)
        open_attempts.forget_ended(connection, T0_MS - 1, 500)
        event.remove(connection, "before_cursor_execute", noted)
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        prefix = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        for statement, parameters in statements:
            rows = connection.exec_driver_sql(prefix + statement, parameters)  # type: ignore[arg-type]
            said.append(" ".join(str(row) for row in rows))

    await replica.database.write(plans)
    assert len(said) == 2
    assert all("ix_attempts_ended_at_ms" in plan for plan in said)


class Telling(SandboxAdapter):
    """A provider that can be told to stop, and answers what the test wants, once it wants to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, workers=1)
        self.answer: Cancellation | Exception = Cancellation("no", 0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.told: list[str] = []

    async def cancel(self, context: Context, account: AccountAccess, task: TaskRef) -> Cancellation:
        self.told.append(task.task_id)
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def at_work(replica: Replica, attempt_id: str, task_id: str) -> None:
    attempt = await replica.begun(attempt_id)
    task = codec.task_text(TaskRef(task_id, T0_MS))
    await replica.attempts.change(
        replica.change(attempt, to=AttemptState.RUNNING, task_id=task_id, task=task)
    )


@pytest.fixture
async def telling(engine_url: str, tmp_path: Path) -> AsyncIterator[tuple[Replica, Closing, Telling]]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="conformance")
    provider = Telling(tmp_path / "sandbox")
    replica = Replica(database, Catalog([provider]), HandClock())
    await replica.account(concurrency_limit=1000, balance_millis=10**9)
    submissions = Submissions(replica.attempts, replica.accounts, replica.catalog, no_files, replica.clock)
    yield (
        replica,
        Closing(database, replica.attempts, submissions, cancelling(replica), replica.catalog, replica.clock),
        provider,
    )
    await replica.close()
    await database.close()


@pytest.mark.parametrize(
    ("answer", "charged", "millis"),
    [
        (Cancellation("no", 0), Charged.NO, 0),
        (Cancellation("yes"), Charged.YES, PICTURE_MILLIS),
        (Cancellation("yes", 7_000), Charged.YES, 7_000),
        (ProviderError("gone"), Charged.MAYBE, PICTURE_MILLIS),
        (ValueError("a bug"), Charged.MAYBE, PICTURE_MILLIS),
    ],
    ids=repr,
)
@pytest.mark.parametrize("lease_ended_before", [False, True], ids=["leased", "released"])
async def test_a_closed_attempt_costs_what_its_provider_says(
    telling: tuple[Replica, Closing, Telling],
    answer: Cancellation | Exception,
    charged: Charged,
    millis: int,
    lease_ended_before: bool,
) -> None:
    replica, closing, provider = telling
    provider.answer = answer
    await at_work(replica, "job_1:1", "task_1")
    if lease_ended_before:
        await replica.leasing.release("job_1:1")
    assert await closing.close_attempts(["job_1:1"]) == []
    closed = await replica.attempts.get("job_1:1", fresh=True)
    assert closed.failure is not None
    assert (closed.state, closed.failure.charged) == (AttemptState.FAILED, charged)
    assert await balance_spent(replica) == millis
    assert provider.told == ["task_1"]
    await closing.close_attempts(["job_1:1"])
    assert provider.told == ["task_1"]


@pytest.mark.parametrize("lease_ended_before", [False, True], ids=["leased", "released"])
async def test_a_closed_attempt_costs_what_its_provider_said_when_it_took_it(
    telling: tuple[Replica, Closing, Telling], monkeypatch: pytest.MonkeyPatch, lease_ended_before: bool
) -> None:
    replica, closing, provider = telling
    provider.answer = ProviderError("cannot cancel")

    async def told(*_: object) -> Submission:
        return Submission(TaskRef("task_1", T0_MS), cost_millis=7_000)

    monkeypatch.setattr(provider, "submit", told)
    await replica.lease("job_1:1")
    await closing._submissions.submit("job_1:1", "job_1", PICTURE)
    if lease_ended_before:
        await replica.leasing.release("job_1:1")
    assert await closing.close_attempts(["job_1:1"]) == []
    assert (await replica.attempts.get("job_1:1", fresh=True)).cost_millis == 7_000
    assert await balance_spent(replica) == 7_000


async def test_a_provider_that_does_not_answer_keeps_nobody_waiting(
    telling: tuple[Replica, Closing, Telling], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.provider_pool.attempts.closing.CANCEL_WITHIN_S", 0.2)
    replica, closing, provider = telling
    provider.gate.clear()
    for number in range(30):
        await at_work(replica, f"job_{number}:1", f"task_{number}")
    async with asyncio.timeout(10):
        assert await closing.close_attempts([f"job_{number}:1" for number in range(30)]) == []
    states = {(await replica.attempts.get(f"job_{n}:1", fresh=True)).state for n in range(30)}
    assert states == {AttemptState.FAILED}
    assert CANCEL_WITHIN_S <= 5


async def test_an_attempt_in_doubt_is_closed_without_a_word_to_the_provider(
    telling: tuple[Replica, Closing, Telling],
) -> None:
    replica, closing, provider = telling
    attempt = await replica.begun("job_1:1")
    await replica.attempts.change(replica.change(attempt, to=AttemptState.UNKNOWN))
    await closing.close_attempts(["job_1:1"])
    assert provider.told == []
