"""Several pools on one PostgreSQL: who is not heard of is dead, and what it was sending is in doubt at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from services.chassis.database import Database, migrate
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.attempts.heartbeat import TTL_S
from services.provider_pool.attempts.states import AttemptState
from services.provider_pool.attempts.submission import SEND_BY_S
from services.provider_pool.catalog import Catalog
from services.provider_pool.schema import SENDERS
from services.provider_pool.settings import MIGRATIONS
from tests.clocks import HandClock
from tests.conformance.test_pool_store import Replica

BEAT_S = TTL_S / 5


@pytest.fixture
async def replicas(postgres_url: str, tmp_path: Path) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two of them; each is heard of when a test says so."""
    await migrate(postgres_url, MIGRATIONS)
    catalog = Catalog([SandboxAdapter(tmp_path / "sandbox", workers=1)])
    databases = [await Database.open(postgres_url, application_name="heartbeat") for _ in range(2)]
    clock = HandClock()
    pair = (Replica(databases[0], catalog, clock), Replica(databases[1], catalog, clock))
    yield pair
    for replica, database in zip(pair, databases, strict=True):
        await replica.close()
        await database.close()


async def heard_of(replica: Replica, beats: int) -> None:
    for _ in range(beats):
        await replica.attempts.heartbeat.beat()
        replica.clock.at_ms += round(BEAT_S * 1000)


async def last_heard_of(replica: Replica, ago_s: float) -> None:
    mine = SENDERS.c.process_id == replica.attempts.process_id
    statement = update(SENDERS).where(mine).values(seen_at_ms=SENDERS.c.seen_at_ms - round(ago_s * 1000))
    await replica.database.write(lambda connection: connection.execute(statement))


async def state_after_a_look(finder: Replica) -> AttemptState:
    await finder.attempts.mark_orphans(lambda provider: 315_000)
    return (await finder.attempts.get("job_1:1", fresh=True)).state


async def test_what_a_process_was_sending_that_is_not_heard_of_any_more_is_in_doubt_at_once(
    replicas: tuple[Replica, Replica],
) -> None:
    dying, heir = replicas
    await dying.account()
    await dying.begun("job_1:1")
    await heard_of(dying, 1)
    await heard_of(heir, 6)
    assert await state_after_a_look(heir) is AttemptState.SUBMITTING
    await last_heard_of(dying, TTL_S + 1)
    await heard_of(heir, 1)
    assert await state_after_a_look(heir) is AttemptState.UNKNOWN


async def test_a_process_that_was_held_up_and_is_heard_of_again_is_alive(
    replicas: tuple[Replica, Replica],
) -> None:
    late, other = replicas
    await late.account()
    await late.begun("job_1:1")
    await heard_of(late, 1)
    await heard_of(other, 6)
    await last_heard_of(late, TTL_S + 1)
    await heard_of(other, 1)
    assert other.attempts.heartbeat.senders.dead == {late.attempts.process_id}
    await heard_of(late, 1)
    await heard_of(other, 1)
    assert await state_after_a_look(other) is AttemptState.SUBMITTING


async def test_a_process_that_was_without_the_database_itself_calls_nobody_dead_until_all_had_their_time(
    replicas: tuple[Replica, Replica],
) -> None:
    silent, judge = replicas
    await heard_of(silent, 1)
    await heard_of(judge, 6)
    await last_heard_of(silent, TTL_S + 1)
    judge.clock.at_ms += round(2 * BEAT_S * 1000)
    await heard_of(judge, 5)
    assert judge.attempts.heartbeat.senders.dead == frozenset()
    await heard_of(judge, 1)
    assert judge.attempts.heartbeat.senders.dead == {silent.attempts.process_id}


async def test_a_process_that_was_never_heard_of_is_not_called_dead(
    replicas: tuple[Replica, Replica],
) -> None:
    old, heir = replicas
    await old.account()
    await old.begun("job_1:1")
    await heard_of(heir, 8)
    assert await state_after_a_look(heir) is AttemptState.SUBMITTING


async def test_who_is_dead_for_a_day_is_forgotten(replicas: tuple[Replica, Replica]) -> None:
    gone, heir = replicas
    await heard_of(gone, 1)
    await last_heard_of(gone, 24 * 3600 + 60)
    await heard_of(heir, 8)
    assert heir.attempts.heartbeat.senders.dead == frozenset()


def test_a_request_that_did_not_leave_in_time_stays_before_its_sender_can_be_called_dead() -> None:
    assert 2 * SEND_BY_S < TTL_S
