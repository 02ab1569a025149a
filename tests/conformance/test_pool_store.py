from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, select

from services.chassis.database import Database, migrate, schema_drift
from services.chassis.errors import ServiceError
from services.chassis.settings import Secret
from services.provider_pool.accounts.registry import Accounts, Terms
from services.provider_pool.accounts.vault import KeyRing
from services.provider_pool.adapters.interface import Generation, Kind, TaskRef
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.attempts import codec
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.records import Begin, Begun, Change, Signal
from services.provider_pool.attempts.states import (
    Attempt,
    AttemptState,
    Charged,
    Failure,
    FailureReason,
    NextStep,
    Senders,
)
from services.provider_pool.catalog import Catalog
from services.provider_pool.schema import ACCOUNTS, METADATA
from services.provider_pool.selection.capacity import Capacity
from services.provider_pool.selection.health import BreakerState, Fault, FaultKind, state_of
from services.provider_pool.selection.leases import Lease
from services.provider_pool.selection.leasing import Leasing
from services.provider_pool.selection.pool import AccountState, Mode, Policy
from services.provider_pool.settings import MIGRATIONS
from services.provider_pool.store import attempts as attempt_rows
from services.provider_pool.store import leases as lease_rows
from tests.clocks import T0_MS, HandClock

TTL_MS = 30_000
PICTURE = Generation(Kind.IMAGE, "gpt-image-2", "a cat", 1024, 1024, quality="low")
PICTURE_MILLIS = 20_000


class Replica:
    """The storing parts of one pool process."""

    def __init__(self, database: Database, catalog: Catalog, clock: HandClock) -> None:
        self.database, self.clock, self.catalog = database, clock, catalog
        capacity = Capacity(database, catalog, clock)
        ring = KeyRing({"k": b"k" * 32})
        self.accounts = Accounts(database, ring, catalog, clock, capacity)
        self.leasing = Leasing(database, catalog, Policy.SPREAD, clock, capacity)
        self.attempts = AttemptLog(database, clock, capacity)
        self._labels = 0

    async def account(self, **terms: Any) -> str:
        self._labels += 1
        usual: dict[str, Any] = {"concurrency_limit": 2, "balance_millis": 1_000_000, "serves_live": True}
        label = f"{self.attempts.process_id} {self._labels}"
        record = await self.accounts.create(
            "sandbox", label, {"api_key": Secret("canary-4711")}, Terms(**(usual | terms))
        )
        return record.account.account_id

    async def lease(self, attempt_id: str, avoid: frozenset[str] = frozenset()) -> Lease | None:
        return await self.leasing.lease(
            attempt_id,
            attempt_id.partition(":")[0],
            Mode.LIVE,
            PICTURE,
            ttl_ms=TTL_MS,
            behind_others=False,
            avoid=avoid,
        )

    def beginning(self, attempt_id: str, sender_id: str = "") -> Begin:
        return Begin(
            attempt_id,
            attempt_id.partition(":")[0],
            PICTURE.model,
            codec.generation_text(PICTURE),
            codec.fingerprint(PICTURE),
            sender_id or self.attempts.new_sender(),
            self.clock.now_ms(),
        )

    async def begun(self, attempt_id: str) -> Attempt:
        await self.lease(attempt_id)
        return (await self.attempts.begin(self.beginning(attempt_id))).attempt

    def change(self, attempt: Attempt, **what: Any) -> Change:
        return Change(attempt.attempt_id, attempt.account_id, self.clock.now_ms(), **what)

    async def running(self, attempt_id: str, task_id: str) -> Attempt:
        attempt = await self.begun(attempt_id)
        return await self.attempts.change(self.change(attempt, to=AttemptState.RUNNING, task_id=task_id))

    async def close(self) -> None:
        await self.leasing.close()
        await self.attempts.close()


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog([SandboxAdapter(tmp_path / "sandbox", workers=1)])


@pytest.fixture
async def replica(engine_url: str, catalog: Catalog) -> AsyncIterator[Replica]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="conformance")
    replica = Replica(database, catalog, HandClock())
    yield replica
    await replica.close()
    await database.close()


async def test_migrations_lead_to_the_tables_of_the_code(engine_url: str) -> None:
    assert await schema_drift(engine_url, MIGRATIONS, METADATA) == []


async def test_an_account_is_shown_as_it_was_added_and_its_credentials_are_sealed(replica: Replica) -> None:
    account_id = await replica.account(
        models=frozenset({PICTURE.model}), options={"pace_ms": "5"}, priority=-3
    )
    record = await replica.accounts.get(account_id)
    assert record.account.models == {PICTURE.model}
    assert (record.options, record.account.priority) == ({"pace_ms": "5"}, -3)
    access = await replica.accounts.access(account_id)
    assert access.secrets == {"api_key": Secret("canary-4711")}
    statement = select(ACCOUNTS.c.credentials_sealed)
    sealed = await replica.database.read(lambda connection: connection.execute(statement).scalar_one())
    assert b"canary" not in sealed


async def test_two_accounts_may_not_have_one_label(replica: Replica) -> None:
    terms = Terms(concurrency_limit=1, balance_millis=0)
    await replica.accounts.create("sandbox", "one", {}, terms)
    with pytest.raises(ServiceError) as refusal:
        await replica.accounts.create("sandbox", "one", {}, terms)
    assert refusal.value.reason == "ACCOUNT_EXISTS"
    assert len(await replica.accounts.list()) == 1


async def test_a_lease_and_its_return_move_the_account_s_counters(replica: Replica) -> None:
    account_id = await replica.account()
    lease = await replica.lease("job_1:1")
    assert lease is not None
    assert (lease.account_id, lease.expires_at_ms) == (account_id, T0_MS + TTL_MS)
    account = (await replica.accounts.get(account_id)).account
    assert (account.leases, account.leased_millis, account.last_leased_at_ms) == (1, PICTURE_MILLIS, T0_MS)
    assert await replica.leasing.release("job_1:1") is False
    account = (await replica.accounts.get(account_id)).account
    assert (account.leases, account.leased_millis) == (0, 0)


async def test_leasing_again_repeats_the_answer(replica: Replica) -> None:
    await replica.account()
    first = await replica.lease("job_1:1")
    replica.clock.at_ms += 5_000
    assert await replica.lease("job_1:1") == first


async def test_a_return_of_nothing_refuses_the_lease_that_comes_late(replica: Replica) -> None:
    await replica.account()
    assert await replica.leasing.release("job_1:1") is True
    with pytest.raises(ServiceError) as refusal:
        await replica.lease("job_1:1")
    assert refusal.value.reason == "LEASE_ENDED"


async def test_a_lease_that_nobody_renews_expires_and_a_renewed_one_does_not(replica: Replica) -> None:
    account_id = await replica.account()
    await replica.lease("job_1:1")
    await replica.lease("job_2:1")
    replica.clock.at_ms += TTL_MS - 1
    assert await replica.leasing.renew(["job_2:1", "job_3:1"], TTL_MS) == ("job_3:1",)
    replica.clock.at_ms += 1
    await replica.leasing.sweep()
    assert [lease.attempt_id for lease in await replica.leasing.open_leases(0, "", 10)] == ["job_2:1"]
    assert (await replica.accounts.get(account_id)).account.leases == 1


async def test_ended_leases_are_forgotten_after_a_week(replica: Replica) -> None:
    await replica.account()
    await replica.lease("job_1:1")
    await replica.leasing.release("job_1:1")
    await replica.leasing.release("job_2:1")
    replica.clock.at_ms += 8 * 86_400_000
    await replica.leasing.sweep()
    kept = await replica.database.write(
        lambda connection: lease_rows.lock_leases(connection, ["job_1:1", "job_2:1"])
    )
    assert kept == {}


async def test_a_drained_account_takes_nothing_new_and_keeps_what_it_has(replica: Replica) -> None:
    account_id = await replica.account()
    await replica.lease("job_1:1")
    await replica.accounts.update(account_id, Terms(state=AccountState.DRAINING))
    with pytest.raises(ServiceError) as refusal:
        await replica.lease("job_2:1")
    assert refusal.value.reason == "NO_CAPABLE_ACCOUNT"
    assert (await replica.attempts.begin(replica.beginning("job_1:1"))).fresh


async def test_an_attempt_needs_an_open_lease(replica: Replica) -> None:
    await replica.account()
    with pytest.raises(ServiceError, match="ATTEMPT_NOT_FOUND"):
        await replica.attempts.begin(replica.beginning("job_1:1"))
    await replica.lease("job_1:1")
    await replica.leasing.release("job_1:1")
    with pytest.raises(ServiceError, match="LEASE_ENDED"):
        await replica.attempts.begin(replica.beginning("job_1:1"))
    await replica.lease("job_2:1")
    replica.clock.at_ms += TTL_MS
    with pytest.raises(ServiceError, match="LEASE_ENDED"):
        await replica.attempts.begin(replica.beginning("job_2:1"))


async def test_only_one_of_many_calls_may_send_an_attempt(replica: Replica) -> None:
    await replica.account()
    await replica.lease("job_1:1")
    calls = (replica.attempts.begin(replica.beginning("job_1:1")) for _ in range(20))
    answers: list[Begun] = await asyncio.gather(*calls)
    assert [answer.fresh for answer in answers].count(True) == 1
    assert {answer.attempt.sender_id for answer in answers} == {answers[0].attempt.sender_id}


async def test_a_beginning_whose_commit_was_answered_late_may_still_be_sent_by_its_caller(
    replica: Replica,
) -> None:
    await replica.account()
    await replica.lease("job_1:1")
    beginning = replica.beginning("job_1:1")
    assert (await replica.attempts.begin(beginning)).fresh
    assert (await replica.attempts.begin(beginning)).fresh


async def test_an_attempt_that_ended_stays_as_it_ended(replica: Replica) -> None:
    await replica.account()
    attempt = await replica.running("job_1:1", "task_1")
    failure = Failure(FailureReason.GENERATION_FAILED, NextStep.FAIL, detail="it died")
    failed = await replica.attempts.change(replica.change(attempt, to=AttemptState.FAILED, failure=failure))
    late = await replica.attempts.change(replica.change(attempt, to=AttemptState.SUCCEEDED, outputs="[]"))
    assert late == failed
    assert late == await replica.attempts.get("job_1:1", fresh=True)


async def test_what_is_in_the_media_store_is_not_undone(replica: Replica) -> None:
    await replica.account()
    attempt = await replica.running("job_1:1", "task_1")
    await replica.attempts.change(replica.change(attempt, to=AttemptState.SUCCEEDED))
    await replica.attempts.change(replica.change(attempt, collected="[]", cost_millis=0))
    failure = Failure(FailureReason.OUTPUT_UNUSABLE, NextStep.FAIL, charged=Charged.YES)
    after = await replica.attempts.change(replica.change(attempt, to=AttemptState.FAILED, failure=failure))
    assert after.state is AttemptState.SUCCEEDED


async def test_faults_open_a_breaker_that_success_or_an_operator_closes(replica: Replica) -> None:
    account_id = await replica.account()
    attempt = await replica.begun("job_1:1")

    async def told(fault: FaultKind | None, model: str = "") -> dict[str, BreakerState]:
        found = None if fault is None else Fault(fault, "cause", replica.clock.now_ms())
        signal = Signal(account_id, model, replica.clock.now_ms(), found)
        await replica.attempts.change(replica.change(attempt, signals=(signal,)))
        breakers = (await replica.accounts.get(account_id)).account.breakers
        return {name: state_of(breaker, replica.clock.now_ms()) for name, breaker in breakers.items()}

    assert await told(FaultKind.COOL_DOWN, PICTURE.model) == {PICTURE.model: BreakerState.OPEN}
    assert await replica.lease("job_2:1") is None
    replica.clock.at_ms += 5_000
    assert await told(None, PICTURE.model) == {}
    assert await told(FaultKind.OUT) == {"": BreakerState.OPEN}
    with pytest.raises(ServiceError, match="NO_CAPABLE_ACCOUNT"):
        await replica.lease("job_2:1")
    assert (await replica.accounts.reset(account_id)).account.breakers == {}
    assert await replica.lease("job_2:1") is not None


async def test_a_half_open_account_takes_one_job_until_that_is_over(replica: Replica) -> None:
    account_id = await replica.account(concurrency_limit=5)
    attempt = await replica.begun("job_1:1")
    signal = Signal(account_id, "", T0_MS, Fault(FaultKind.TRANSIENT, "cause", T0_MS))
    await replica.attempts.change(replica.change(attempt, signals=(signal,)))
    replica.clock.at_ms += 1_000
    answers = await asyncio.gather(*(replica.lease(f"job_{turn}:1") for turn in range(2, 6)))
    granted = [lease for lease in answers if lease is not None]
    assert len(granted) == 1
    await replica.leasing.release(granted[0].attempt_id)
    assert await replica.lease("job_9:1") is not None


async def in_doubt(replica: Replica, attempt_id: str) -> Attempt:
    attempt = await replica.begun(attempt_id)
    return await replica.attempts.change(replica.change(attempt, to=AttemptState.UNKNOWN))


async def test_an_attempt_in_doubt_adopts_the_oldest_task_that_no_attempt_has(replica: Replica) -> None:
    await replica.account(concurrency_limit=5)
    await replica.running("job_1:1", "task_1")
    attempt = await in_doubt(replica, "job_2:1")
    tasks = [TaskRef("task_3", T0_MS + 3), TaskRef("task_1", T0_MS + 1), TaskRef("task_2", T0_MS + 2)]
    adopted = await replica.attempts.adopt(attempt, tasks)
    assert adopted is not None
    assert (adopted.state, adopted.task_id) == (AttemptState.RUNNING, "task_2")
    assert "a cat" not in adopted.generation
    assert await replica.attempts.get("job_2:1", fresh=True) == adopted


async def test_two_twins_in_doubt_adopt_a_task_each(replica: Replica) -> None:
    await replica.account(concurrency_limit=5)
    twins = [await in_doubt(replica, f"job_{turn}:1") for turn in range(4)]
    tasks = [TaskRef(f"task_{turn}", T0_MS + turn) for turn in range(4)]
    adopted = await asyncio.gather(*(replica.attempts.adopt(twin, tasks) for twin in twins))
    assert {one.task_id for one in adopted if one is not None} == {task.task_id for task in tasks}


async def test_nothing_is_adopted_while_the_same_content_is_being_sent(replica: Replica) -> None:
    await replica.account(concurrency_limit=5)
    attempt = await in_doubt(replica, "job_1:1")
    twin = await replica.begun("job_2:1")
    tasks = [TaskRef("task_1", T0_MS)]
    waiting = await replica.attempts.adopt(attempt, tasks)
    assert waiting is not None
    assert waiting.state is AttemptState.UNKNOWN
    await replica.attempts.change(replica.change(twin, to=AttemptState.RUNNING, task_id="task_1"))
    assert await replica.attempts.adopt(attempt, tasks) is None
    adopted = await replica.attempts.adopt(attempt, [*tasks, TaskRef("task_2", T0_MS)])
    assert adopted is not None
    assert adopted.task_id == "task_2"


async def test_attempts_of_a_dead_sender_are_put_in_doubt_and_those_of_a_living_one_are_not(
    replica: Replica,
) -> None:
    await replica.account(concurrency_limit=5)
    mine = await replica.begun("job_1:1")
    await replica.lease("job_2:1")
    await replica.attempts.begin(replica.beginning("job_2:1", "sender_gone/1"))
    found = await replica.attempts.mark_orphans(lambda provider: 45_000)
    # The owner of a file knows that every other is dead; beside replicas only time tells.
    assert found == (["job_2:1"] if replica.database.sole_owner else [])
    replica.clock.at_ms += 45_000
    await replica.attempts.mark_orphans(lambda provider: 45_000)
    assert (await replica.attempts.get("job_2:1", fresh=True)).state is AttemptState.UNKNOWN
    assert (await replica.attempts.get(mine.attempt_id, fresh=True)).state is AttemptState.SUBMITTING


async def test_attempts_are_listed_by_job_and_state(replica: Replica) -> None:
    await replica.account(concurrency_limit=5)
    await replica.running("job_1:1", "task_1")
    await in_doubt(replica, "job_1:2")
    await in_doubt(replica, "job_2:1")

    async def listed(job_id: str, state: AttemptState | None, after: str = "") -> list[str]:
        return [found.attempt_id for found in await replica.attempts.list(job_id, state, after, 10)]

    assert await listed("", None) == ["job_1:1", "job_1:2", "job_2:1"]
    assert await listed("job_1", None) == ["job_1:1", "job_1:2"]
    assert await listed("", AttemptState.UNKNOWN, "job_1:2") == ["job_2:1"]


def undecided_queries(attempt: Attempt) -> list[Callable[[Connection], object]]:
    return [
        lambda connection: attempt_rows.mark_orphans(connection, Senders("me"), lambda provider: 1, T0_MS),
        attempt_rows.count_in_doubt,
        lambda connection: attempt_rows.sending_since_ms(connection, attempt),
    ]


async def test_sqlite_finds_undecided_attempts_without_reading_all_others(
    tmp_path: Path, catalog: Catalog
) -> None:
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="conformance")
    replica = Replica(database, catalog, HandClock())
    await replica.account()
    attempt = await replica.begun("job_1:1")
    plans: list[str] = []

    def explained(connection: Connection, work: Callable[[Connection], object]) -> None:
        def explain(_: object, cursor: Any, statement: str, parameters: Any, *__: object) -> None:
            if "FROM attempts" in statement:
                rows = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans.append(" ".join(row[3] for row in rows))

        event.listen(connection, "before_cursor_execute", explain)
        try:
            work(connection)
        finally:
            event.remove(connection, "before_cursor_execute", explain)

    for work in undecided_queries(attempt):
        await database.write(partial(explained, work=work))
    assert len(plans) == 3
    assert all("INDEX ix_attempts_open" in plan for plan in plans), plans
    await replica.close()
    await database.close()


async def test_fifty_simultaneous_leases_get_exactly_the_slots_there_are(replica: Replica) -> None:
    accounts = [await replica.account() for _ in range(3)]
    answers = await asyncio.gather(*(replica.lease(f"job_{turn}:1") for turn in range(50)))
    assert sum(lease is not None for lease in answers) == 6
    for account_id in accounts:
        assert (await replica.accounts.get(account_id)).account.leases == 2


async def test_two_replicas_never_oversubscribe_an_account(postgres_url: str, catalog: Catalog) -> None:
    await migrate(postgres_url, MIGRATIONS)
    databases = [await Database.open(postgres_url, application_name=f"replica-{turn}") for turn in range(2)]
    replicas = [Replica(database, catalog, HandClock()) for database in databases]
    accounts = [
        await replicas[0].account(concurrency_limit=limit, balance_millis=limit * PICTURE_MILLIS - 1)
        for limit in (2, 4, 6, 8, 10)
    ]

    async def customer(number: int) -> list[str]:
        """Leases and gives back, through both replicas; ends with at most one lease."""
        held = []
        for turn in range(6):
            one = replicas[(number + turn) % 2]
            attempt_id = f"job_{number}x{turn}:1"
            if await one.lease(attempt_id) is not None:
                held.append(attempt_id)
            for account in (await one.accounts.load()).values():
                assert account.leases < account.concurrency_limit
                assert account.leased_millis <= account.balance_millis
            if len(held) > 1:
                await replicas[number % 2].leasing.release(held.pop(0))
        return held

    held = sorted(
        attempt_id for found in await asyncio.gather(*map(customer, range(40))) for attempt_id in found
    )
    # One slot of each account is out of reach, because its ceiling is one thousandth more than the balance has left.
    assert len(held) <= 25
    listed = await replicas[0].leasing.open_leases(0, "", 1000)
    assert sorted(lease.attempt_id for lease in listed) == held
    shown = await replicas[1].accounts.load()
    assert sum(shown[account_id].leases for account_id in accounts) == len(held)
    for one, database in zip(replicas, databases, strict=True):
        await one.close()
        await database.close()
