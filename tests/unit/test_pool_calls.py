from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from services.chassis.clock import SystemClock
from services.chassis.database import Database, migrate
from services.chassis.errors import Kind as ErrorKind
from services.chassis.errors import ServiceError
from services.provider_pool.accounts.registry import Accounts, Terms
from services.provider_pool.accounts.vault import KeyRing, SealBroken
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.costs import PerImage
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountStatus,
    Adapter,
    Capability,
    Context,
    Feature,
    Generation,
    Kind,
    ModelSpec,
    OutputRef,
    Prepared,
    Range,
    ReferenceCapability,
    ReferenceFile,
    Snapshot,
    Submission,
    TaskRef,
    TaskState,
)
from services.provider_pool.attempts import codec
from services.provider_pool.attempts.cancelling import Cancelling
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.overdue import Overdue
from services.provider_pool.attempts.patience import Patience
from services.provider_pool.attempts.poll_budget import PollBudget
from services.provider_pool.attempts.polling import NEW_TASK_MS, Polling
from services.provider_pool.attempts.records import Begin
from services.provider_pool.attempts.resolution import Resolution
from services.provider_pool.attempts.states import AttemptState, Charged, NextStep
from services.provider_pool.attempts.submission import SEND_BY_S, Files, Submissions
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection.capacity import Capacity
from services.provider_pool.selection.health import Breaker
from services.provider_pool.selection.leasing import Leasing
from services.provider_pool.selection.pool import Mode, Policy
from services.provider_pool.settings import MIGRATIONS
from services.provider_pool.store.accounts import save_breakers

PICTURE = Generation(Kind.IMAGE, "picture", "a cat")
QUICK = interface.Terms(submit_timeout_s=0.3, poll_timeout_s=0.3, list_timeout_s=0.3)


class ToyAdapter(Adapter):
    """A provider whose every answer a test decides."""

    name: ClassVar[str] = "toy"
    terms: ClassVar[interface.Terms] = QUICK

    def __init__(self) -> None:
        self.submitting: Callable[[str], Awaitable[Submission]] = self.accepts
        self.polling: Callable[[TaskRef], Awaitable[Snapshot]] = self.goes_on
        self.submitted: list[str] = []
        self.prepared: list[Prepared] = []
        self.polled: list[str] = []
        self.passes_checks = True

    async def accepts(self, reference: str) -> Submission:
        return Submission(TaskRef(f"task of {reference}", 1))

    async def goes_on(self, task: TaskRef) -> Snapshot:
        return Snapshot(TaskState.RUNNING, progress=30)

    def models(self) -> Sequence[ModelSpec]:
        takes = Capability(Range(1, 100), references=ReferenceCapability(images=9, sides_px=Range(8, 4_000)))
        return [ModelSpec("picture", "p", Kind.IMAGE, takes, PerImage({"": 100}))]

    def prepare(
        self, generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile] = ()
    ) -> Prepared:
        self.prepared.append(Prepared(generation, spec, {}, tuple(references)))
        return self.prepared[-1]

    async def submit(
        self, context: Context, account: AccountAccess, prepared: Prepared, reference: str
    ) -> Submission:
        self.submitted.append(reference)
        return await self.submitting(reference)

    async def poll(self, context: Context, account: AccountAccess, task: TaskRef) -> Snapshot:
        self.polled.append(task.task_id)
        return await self.polling(task)

    async def check(self, context: Context, account: AccountAccess) -> AccountStatus:
        return AccountStatus(ok=self.passes_checks, balance_millis=7_000)

    def open_output(
        self, context: Context, account: AccountAccess, task: TaskRef, output: OutputRef
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise NotImplementedError


class ListingAdapter(ToyAdapter):
    """One that can be asked about many tasks at once, and lists them."""

    features: ClassVar[frozenset[Feature]] = frozenset({Feature.POLL_MANY, Feature.LIST})

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[int] = []
        self.listing: Callable[[], Awaitable[Sequence[TaskRef]]] = self.lists_nothing

    async def lists_nothing(self) -> Sequence[TaskRef]:
        return []

    async def poll_many(
        self, context: Context, account: AccountAccess, tasks: Sequence[TaskRef]
    ) -> Mapping[str, Snapshot]:
        self.questions.append(len(tasks))
        await asyncio.sleep(0.05)
        return {task.task_id: await self.polling(task) for task in tasks}

    async def list_tasks(
        self, context: Context, account: AccountAccess, prepared: Prepared, since_ms: int, reference: str
    ) -> Sequence[TaskRef]:
        return await self.listing()


async def no_files(job_id: str, generation: Generation) -> Sequence[ReferenceFile | None]:
    return []


class Parts:
    """The calling parts of a pool with one account at one provider."""

    def __init__(self, database: Database, adapter: ToyAdapter, files: Files = no_files) -> None:
        clock = SystemClock()
        self.adapter = adapter
        self.catalog = Catalog([adapter], unknown_window_s=0)
        self.clock = clock
        self.capacity = capacity = Capacity(database, self.catalog, clock)
        self.accounts = Accounts(database, KeyRing({"k": b"k" * 32}), self.catalog, clock, capacity)
        self.attempts = AttemptLog(database, clock, capacity)
        self.leasing = Leasing(database, self.catalog, Policy.SPREAD, clock, capacity)
        self.submissions = Submissions(self.attempts, self.accounts, self.catalog, files, clock)
        cancelling = Cancelling(self.accounts, self.catalog, clock)
        self.patience = Patience(self.catalog.longest_s, 1800)
        self.overdue = Overdue(database, self.patience, cancelling, clock)
        self.polling = Polling(self.attempts, self.accounts, self.catalog, self.overdue, clock)
        self.resolution = Resolution(
            self.attempts, self.submissions, self.accounts, self.catalog, files, clock
        )

    async def account(self, label: str = "one") -> str:
        terms = Terms(concurrency_limit=100, balance_millis=1_000_000, serves_live=True)
        return (await self.accounts.create("toy", label, {}, terms)).account.account_id

    async def lease(self, attempt_id: str, generation: Generation = PICTURE) -> str:
        job_id = attempt_id.partition(":")[0]
        await self.leasing.lease(
            attempt_id, job_id, Mode.LIVE, generation, ttl_ms=60_000, behind_others=False, avoid=frozenset()
        )
        return job_id

    async def submit(self, attempt_id: str, generation: Generation = PICTURE) -> AttemptState:
        job_id = await self.lease(attempt_id, generation)
        return (await self.submissions.submit(attempt_id, job_id, generation)).state

    async def causes(self) -> dict[str, str]:
        (account,) = (await self.accounts.load()).values()
        return {model: breaker.cause for model, breaker in account.breakers.items()}

    async def close(self) -> None:
        for part in (self.submissions, self.resolution, self.polling, self.leasing, self.attempts):
            await part.close()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="test")
    yield database
    await database.close()


@pytest.fixture
async def toy(database: Database) -> AsyncIterator[Parts]:
    parts = Parts(database, ToyAdapter())
    await parts.account()
    yield parts
    await parts.close()


@pytest.fixture
async def listing(database: Database) -> AsyncIterator[Parts]:
    parts = Parts(database, ListingAdapter())
    await parts.account()
    yield parts
    await parts.close()


async def never(*_: object) -> Submission:
    await asyncio.sleep(60)
    raise AssertionError("nobody waits that long")


async def breaks(*_: object) -> Submission:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("behaviour", [never, breaks])
async def test_a_submission_without_an_answer_is_in_doubt_and_never_sent_again(
    toy: Parts, behaviour: Callable[[str], Awaitable[Submission]]
) -> None:
    toy.adapter.submitting = behaviour
    assert await toy.submit("job_1:1") is AttemptState.UNKNOWN
    assert await toy.submit("job_1:1") is AttemptState.UNKNOWN
    assert toy.adapter.submitted == ["job_1:1"]
    assert await toy.causes() == {"picture": "submission_unknown"}


async def test_a_submission_goes_on_when_its_callers_leave(toy: Parts) -> None:
    answer: asyncio.Future[Submission] = asyncio.get_running_loop().create_future()

    async def later(reference: str) -> Submission:
        return await answer

    toy.adapter.submitting = later
    caller = asyncio.create_task(toy.submit("job_1:1"))
    while not toy.adapter.submitted:
        await asyncio.sleep(0.01)
    caller.cancel()
    answer.set_result(Submission(TaskRef("task_1", 1)))
    assert await toy.submit("job_1:1") is AttemptState.RUNNING
    assert toy.adapter.submitted == ["job_1:1"]


async def test_doubt_without_a_list_call_is_given_up_at_once(toy: Parts) -> None:
    toy.adapter.submitting = breaks
    await toy.submit("job_1:1")
    assert (await toy.resolution.resolve("job_1:1")).attempt.state is AttemptState.ABANDONED


async def test_a_task_that_was_found_after_its_sender_s_death_costs_what_was_expected(
    listing: Parts, database: Database
) -> None:
    adapter = listing.adapter
    assert isinstance(adapter, ListingAdapter)
    job_id = await listing.lease("job_1:1")
    generation = codec.generation_text(PICTURE)
    begin = Begin("job_1:1", job_id, "picture", generation, "print", "dead/1", listing.clock.now_ms())
    await listing.attempts.begin(begin)
    assert await listing.attempts.mark_orphans(lambda provider: 0) == ["job_1:1"]

    async def lists_it() -> Sequence[TaskRef]:
        return [TaskRef("task_1", listing.clock.now_ms())]

    async def succeeds(task: TaskRef) -> Snapshot:
        return Snapshot(TaskState.SUCCEEDED, outputs=[OutputRef(interface.Role.PRIMARY, "somewhere")])

    adapter.listing, adapter.polling = lists_it, succeeds
    assert (await listing.resolution.resolve("job_1:1")).attempt.state is AttemptState.RUNNING
    # What it costs, this provider never tells.
    assert (await listing.polling.poll("job_1:1", 0)).attempt.cost_millis == 100


async def test_doubt_stays_while_the_list_cannot_be_had(listing: Parts) -> None:
    adapter = listing.adapter
    assert isinstance(adapter, ListingAdapter)
    adapter.submitting = breaks
    await listing.submit("job_1:1")

    async def unavailable() -> Sequence[TaskRef]:
        raise interface.TransientFailure("503")

    adapter.listing = unavailable
    assert (await listing.resolution.resolve("job_1:1")).attempt.state is AttemptState.UNKNOWN
    adapter.listing = adapter.lists_nothing
    assert (await listing.resolution.resolve("job_1:1")).attempt.state is AttemptState.ABANDONED


async def unreadable(account_id: str) -> AccountAccess:
    raise ServiceError(ErrorKind.UNAVAILABLE, "DATABASE_UNAVAILABLE", "away")


async def unopened(account_id: str) -> AccountAccess:
    raise SealBroken("sealed under a key that is not in the ring")


async def test_what_never_left_is_not_in_doubt(toy: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy.accounts, "access", unreadable)
    assert await toy.submit("job_1:1") is AttemptState.FAILED
    attempt = await toy.attempts.get("job_1:1", fresh=True)
    assert attempt.failure is not None
    assert (attempt.failure.next_step, attempt.failure.charged) == (NextStep.ROTATE, Charged.NO)
    assert toy.adapter.submitted == []
    assert await toy.causes() == {}


async def test_a_request_that_never_left_closes_no_breaker(
    toy: Parts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(generation: Generation, spec: ModelSpec, references: Sequence[ReferenceFile]) -> Prepared:
        raise interface.InvalidRequest("too long")

    (account_id,) = await toy.accounts.load()
    half_open = {(account_id, ""): Breaker(1, 1, 1, "", "transient")}
    await database.write(lambda connection: save_breakers(connection, half_open))
    monkeypatch.setattr(toy.adapter, "prepare", refuses)
    assert await toy.submit("job_1:1") is AttemptState.FAILED
    assert await toy.causes() == {"": "transient"}


async def test_a_sender_that_was_held_up_sends_no_more(toy: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    lend = toy.accounts.access

    async def late(account_id: str) -> AccountAccess:
        found = await lend(account_id)
        monkeypatch.setattr(toy.clock, "now_ms", lambda: SystemClock().now_ms() + round(SEND_BY_S * 1000) + 1)
        return found

    monkeypatch.setattr(toy.accounts, "access", late)
    assert await toy.submit("job_1:1") is AttemptState.FAILED
    assert toy.adapter.submitted == []


@pytest.mark.parametrize("access", [unreadable, unopened])
async def test_polls_of_an_account_that_cannot_be_read_speak_not_against_the_provider(
    toy: Parts, monkeypatch: pytest.MonkeyPatch, access: Callable[[str], Awaitable[AccountAccess]]
) -> None:
    await toy.submit("job_1:1")
    monkeypatch.setattr(toy.accounts, "access", access)
    with pytest.raises(ServiceError, match="PROVIDER_UNREACHABLE"):
        await toy.polling.poll("job_1:1", 0)
    assert await toy.causes() == {}


async def test_doubt_stays_while_the_credentials_do_not_open(
    listing: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing.adapter.submitting = breaks
    await listing.submit("job_1:1")
    monkeypatch.setattr(listing.accounts, "access", unopened)
    assert (await listing.resolution.resolve("job_1:1")).attempt.state is AttemptState.UNKNOWN


async def test_polls_of_an_account_travel_together(listing: Parts) -> None:
    adapter = listing.adapter
    assert isinstance(adapter, ListingAdapter)
    names = [f"job_{turn}:1" for turn in range(20)]
    for name in names:
        await listing.submit(name)
    answers = await asyncio.gather(*(listing.polling.poll(name, 0) for name in names * 3))
    assert {answer.progress for answer in answers} == {30}
    assert sum(adapter.questions) == 20
    assert len(adapter.questions) <= 3


async def test_an_answer_young_enough_is_given_from_memory(toy: Parts) -> None:
    await toy.submit("job_1:1")
    first = await toy.polling.poll("job_1:1", 60_000)
    assert await toy.polling.poll("job_1:1", 60_000) == first
    assert len(toy.adapter.polled) == 1
    await asyncio.sleep(0.01)
    await toy.polling.poll("job_1:1", 1)
    assert len(toy.adapter.polled) == 2


async def test_progress_never_goes_backwards(toy: Parts) -> None:
    await toy.submit("job_1:1")
    told = iter([50, 20, 100])

    async def wavering(task: TaskRef) -> Snapshot:
        return Snapshot(TaskState.RUNNING, progress=next(told))

    toy.adapter.polling = wavering
    shown = []
    for _ in range(3):
        shown.append((await toy.polling.poll("job_1:1", 0)).progress)
        await asyncio.sleep(0.002)
    assert shown == [50, 50, 99]


@pytest.mark.parametrize(
    ("error", "causes"),
    [
        (None, {}),
        (interface.TransientFailure("503"), {"picture": "transient"}),
        (interface.AuthFailed("401"), {"": "auth_failed"}),
        (interface.RateLimited("429", retry_after_s=0.1), {}),
        (RuntimeError("a bug"), {"picture": "provider_error"}),
    ],
    ids=str,
)
async def test_a_poll_that_is_not_answered_says_so_and_leaves_the_attempt_running(
    toy: Parts, error: Exception | None, causes: dict[str, str]
) -> None:
    await toy.submit("job_1:1")

    async def unanswered(task: TaskRef) -> Snapshot:
        if error is None:
            await asyncio.sleep(60)
        raise error or AssertionError

    toy.adapter.polling = unanswered
    with pytest.raises(ServiceError) as refusal:
        await toy.polling.poll("job_1:1", 0)
    assert refusal.value.reason == "PROVIDER_UNREACHABLE"
    assert (await toy.attempts.get("job_1:1", fresh=True)).state is AttemptState.RUNNING
    expected = causes or ({} if error is not None else {"picture": "provider_error"})
    assert await toy.causes() == expected


async def test_a_task_that_the_provider_does_not_know_has_failed_unless_it_is_quite_new(
    toy: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await toy.submit("job_1:1")

    async def unknown(task: TaskRef) -> Snapshot:
        raise interface.TaskNotFound("404")

    toy.adapter.polling = unknown
    with pytest.raises(ServiceError, match="PROVIDER_UNREACHABLE"):
        await toy.polling.poll("job_1:1", 0)
    assert (await toy.attempts.get("job_1:1", fresh=True)).state is AttemptState.RUNNING
    monkeypatch.setattr(toy.clock, "now_ms", lambda: SystemClock().now_ms() + NEW_TASK_MS)
    assert (await toy.polling.poll("job_1:1", 0)).attempt.state is AttemptState.FAILED


class HandClock(SystemClock):
    """A clock that stands still until somebody sleeps."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def monotonic_s(self) -> float:
        return self.at_s

    async def sleep(self, delay_s: float) -> None:
        self.at_s += delay_s


async def test_a_budget_lets_a_burst_through_and_then_its_rate() -> None:
    clock = HandClock()
    budget = PollBudget(2.0, 4, clock)
    for _ in range(10):
        await budget.take()
    assert clock.at_s == pytest.approx(103.0)


async def test_a_budget_pauses_for_as_long_as_the_provider_asks() -> None:
    clock = HandClock()
    budget = PollBudget(2.0, 4, clock)
    budget.pause(6.0)
    await budget.take()
    assert clock.at_s == pytest.approx(106.0)


def test_a_catalog_gives_ceilings_only_for_what_a_model_can_do() -> None:
    catalog = Catalog([ToyAdapter()])
    assert catalog.ceilings(PICTURE, 1) == {"toy": 100}
    assert catalog.ceilings(replace(PICTURE, width=5), 1) == {}
    assert catalog.ceilings(replace(PICTURE, model="film"), 1) == {}
