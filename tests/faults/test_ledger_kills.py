"""The billing process alone, killed under load: what was answered is kept, what was repeated is done once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ledger_faulty import FAULTS
from tests.faults.ledger_storm import Storm, crash_server, cut_at_commit, kill
from tests.postgres import Postgres

# `make test-faults` names another one each time, and prints it.
SEED = int(os.environ.get("SEED", "4711"))
SERVICE, FAULTY = "services.billing", "tests.faults.ledger_faulty"


@pytest.fixture
def pepper(tmp_path: Path) -> Path:
    path = tmp_path / "pepper"
    path.write_text("0123456789abcdef" * 4)
    return path


@pytest.fixture
def server() -> Iterator[Postgres]:
    with Postgres() as own:
        yield own


def _sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'billing.db'}"


@pytest.mark.faults
async def test_kills_lose_nothing_on_sqlite(tmp_path: Path, pepper: Path) -> None:
    storm = Storm(_sqlite(tmp_path), pepper, SERVICE, seed=1)
    assert await storm.rage([kill, kill]) == []
    assert storm.branch.repeats > 0


@pytest.mark.faults
async def test_kills_and_cuts_lose_nothing_on_postgresql(server: Postgres, pepper: Path) -> None:
    url = server.create_database()
    storm = Storm(url, pepper, SERVICE, seed=2)
    blows = [kill, crash_server(server, immediate=True), cut_at_commit(url)]
    assert await storm.rage(blows) == []
    assert storm.branch.repeats > 0


@pytest.mark.faults_full
@pytest.mark.timeout(600)
async def test_twenty_kills_lose_nothing_on_sqlite(tmp_path: Path, pepper: Path) -> None:
    storm = Storm(_sqlite(tmp_path), pepper, SERVICE, seed=SEED)
    assert await storm.rage([kill] * 20) == []


@pytest.mark.faults_full
@pytest.mark.timeout(900)
async def test_twenty_kills_and_as_many_cuts_lose_nothing_on_postgresql(
    server: Postgres, pepper: Path
) -> None:
    url = server.create_database()
    storm = Storm(url, pepper, SERVICE, seed=SEED)
    others = [crash_server(server, immediate=True), cut_at_commit(url), crash_server(server, immediate=False)]
    blows = [blow for n in range(20) for blow in (kill, others[n % 3])]
    assert await storm.rage(blows) == []


async def _caught(url: str, pepper: Path, kills: int) -> bool:
    """Whether the judgement sees that this process answers before COMMIT."""
    storm = Storm(url, pepper, FAULTY, seed=5, environment={FAULTS: "early"})
    return any("is not in the journal" in fault for fault in await storm.rage([kill] * kills))


@pytest.mark.faults
async def test_answers_that_leave_before_commit_are_caught_on_sqlite(tmp_path: Path, pepper: Path) -> None:
    assert await _caught(_sqlite(tmp_path), pepper, kills=3)


@pytest.mark.faults_full
@pytest.mark.timeout(300)
async def test_answers_that_leave_before_commit_are_caught_on_postgresql(
    server: Postgres, pepper: Path
) -> None:
    assert await _caught(server.create_database(), pepper, kills=4)
