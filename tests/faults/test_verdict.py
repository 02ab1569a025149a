"""The judge sees what is wrong: a verdict that could not condemn would acquit every crash."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.faults.client import Told
from tests.faults.scene import Scene, fault_scene
from tests.faults.verdict import judge

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """One job done and one refunded; then the house is stopped, so that only the damage of each test is new."""
    async with fault_scene("sqlite") as built:
        customer = await built.customer(100)
        for key, prompt in (("well", "a boat"), ("badly", "a boat [sandbox:fail]")):
            accepted = await customer.image(key, prompt)
            await customer.ended(accepted.json["jobId"])
        await built.quiet()
        assert await judge(built) == []
        for process in built.processes.values():
            await process.kill()
        yield built


def _sql(scene: Scene, service: str, statement: str) -> None:
    with sqlite3.connect(scene.layout.database(service)) as connection:
        assert connection.execute(statement).rowcount == 1, statement
    connection.close()


ONE = "(SELECT job_id FROM jobs WHERE state = 'completed')"


@pytest.mark.parametrize(
    "service, damage, repair, word",
    [
        pytest.param(
            "jobs",
            "UPDATE jobs SET charged_millis = 0, refunded_millis = quoted_millis WHERE state = 'completed'",
            "UPDATE jobs SET charged_millis = quoted_millis, refunded_millis = 0 WHERE state = 'completed'",
            "billing captured 20000",
            id="a job that was done for nothing",
        ),
        pytest.param(
            "jobs",
            "UPDATE jobs SET state = 'running', ended_at_ms = 0 WHERE state = 'completed'",
            "UPDATE jobs SET state = 'completed', ended_at_ms = 1 WHERE state = 'running'",
            "is running",
            id="a job that does not end",
        ),
        pytest.param(
            "jobs",
            f"INSERT INTO job_events SELECT job_id, 99, 9, 'failed', '', 0 FROM jobs WHERE job_id = {ONE}",
            "DELETE FROM job_events WHERE sequence = 99",
            "ended as ['completed', 'failed']",
            id="a job that ended twice",
        ),
        pytest.param(
            "jobs",
            "UPDATE job_events SET epoch = 7 WHERE sequence = 2 AND state = 'leased' AND job_id = "
            "(SELECT max(job_id) FROM jobs)",
            "UPDATE job_events SET epoch = 1 WHERE epoch = 7",
            "an older epoch wrote",
            id="a job that two owners wrote",
        ),
        pytest.param(
            "billing",
            "UPDATE holds SET state = 'open', closed_at_ms = NULL WHERE state = 'released'",
            "UPDATE holds SET state = 'released', closed_at_ms = 1 WHERE state = 'open'",
            "is open",
            id="a hold that was never closed",
        ),
        pytest.param(
            "billing",
            "UPDATE wallets SET balance_millis = balance_millis + 1 WHERE mode = 'live' AND sequence > 2",
            "UPDATE wallets SET balance_millis = balance_millis - 1 WHERE mode = 'live' AND sequence > 2",
            "ledger: I1",
            id="a wallet that its journal does not explain",
        ),
        pytest.param(
            "provider_pool",
            "UPDATE leases SET state = 'open' WHERE attempt_id = (SELECT max(attempt_id) FROM leases)",
            "UPDATE leases SET state = 'ended' WHERE state = 'open'",
            "the lease of",
            id="a lease that was not given back",
        ),
        pytest.param(
            "provider_pool",
            "UPDATE attempts SET state = 'unknown' WHERE state = 'failed'",
            "UPDATE attempts SET state = 'failed' WHERE state = 'unknown'",
            "is unknown",
            id="an attempt that nobody looks for",
        ),
        pytest.param(
            "provider_pool",
            "UPDATE attempts SET task_id = '' WHERE state = 'failed'",
            "UPDATE attempts SET task_id = 'task_1' WHERE state = 'failed'",
            "was taken by its provider",
            id="an order that was taken and forgotten",
        ),
    ],
)
async def test_the_judge_sees(scene: Scene, service: str, damage: str, repair: str, word: str) -> None:
    _sql(scene, service, damage)
    try:
        wrong = await judge(scene)
        assert any(word in sentence for sentence in wrong), wrong
    finally:
        _sql(scene, service, repair)
    assert await judge(scene) == []


def _told(scene: Scene, status: int, job_id: str) -> None:
    scene.told.append(
        Told("cus", "POST", "/v1/images/generate", "well", status, job_id, b"", time.monotonic())
    )


def _sent_again(scene: Scene) -> None:
    pool = scene.processes["provider_pool"]
    attempt_id = next(iter(scene.submissions()))
    with (pool.folder / "provider_pool.points").open("a", encoding="utf-8") as journal:
        journal.write(f"provider.submit.before {attempt_id}\n")


def _media_lost(scene: Scene) -> None:
    next(path for path in scene.layout.media.rglob("*.png")).write_bytes(b"another picture")


# These cannot be repaired, so they come last, each upon the others.
@pytest.mark.parametrize(
    "damage, word",
    [
        pytest.param(
            lambda scene: _told(scene, 500, ""), "was answered 500", id="an error that excuses nothing"
        ),
        pytest.param(lambda scene: _told(scene, 202, "job_x"), "does not exist", id="a job that was lost"),
        pytest.param(lambda scene: _told(scene, 202, "job_y"), "got the jobs", id="two jobs for one key"),
        pytest.param(_sent_again, "was sent 2 times", id="a submission that was repeated"),
        pytest.param(_media_lost, "is not what was stored", id="media that are not what was stored"),
    ],
)
async def test_the_judge_sees_what_is_not_in_a_database(
    scene: Scene, damage: Callable[[Scene], None], word: str
) -> None:
    damage(scene)
    wrong = await judge(scene)
    assert any(word in sentence for sentence in wrong), wrong
