"""`python -m services.billing verify-ledger`, beside a running house and over a stopped one, on both engines."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import asyncpg
import pytest

from tests.integration.billing_process import Billing, capture, command, hold, running

_BROKEN = "UPDATE wallets SET balance_millis = balance_millis + 1500 WHERE reserved_millis > 0"


@pytest.fixture
def pepper(tmp_path: Path) -> Path:
    path = tmp_path / "pepper"
    path.write_text("0123456789abcdef" * 4)
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'billing.db'}"
    return str(request.getfixturevalue("postgres_url"))


async def _execute(url: str, statement: str) -> None:
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
            database.execute(statement)
        database.close()
        return
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def _some_history(billing: Billing) -> str:
    customer_id = await billing.rich_customer()
    for n in range(5):
        await billing.stub.Hold(hold(customer_id, f"{customer_id}.{n}"))
    await billing.stub.Capture(capture(customer_id, f"{customer_id}.0", 20_000))
    return customer_id


async def _sound(url: str, pepper: Path) -> None:
    code, out, err = await command(url, pepper, "verify-ledger")
    assert (code, out.strip().splitlines()[-1]) == (0, "The ledger is sound."), err
    assert "Read 2 wallets, 8 entries and 5 holds." in out
    assert "Open holds: 4, 0 of them past their expiry." in out


async def test_a_ledger_is_verified_beside_the_running_house_and_after_its_death(
    url: str, pepper: Path
) -> None:
    async with running(url, pepper) as billing:
        customer_id = await _some_history(billing)
        await _sound(url, pepper)
        await billing.kill()
    await _sound(url, pepper)
    await _execute(url, _BROKEN)
    code, out, _ = await command(url, pepper, "verify-ledger")
    assert (code, out.strip().splitlines()[-1]) == (1, "The ledger has DRIFTED.")
    assert f"I1 wallet {customer_id} live: the balance is 981500, by journal 980000" in out
    code, out, _ = await command(url, pepper, "verify-ledger", "--json")
    report = json.loads(out)
    assert (code, report["sound"]) == (1, False)
    assert {finding["invariant"] for finding in report["findings"]} == {"I1", "I9"}


async def test_a_database_that_is_not_there_is_said_in_a_sentence(tmp_path: Path, pepper: Path) -> None:
    code, out, err = await command(f"sqlite:///{tmp_path / 'nothing.db'}", pepper, "verify-ledger")
    assert (code, out) == (2, "")
    assert "there is no database" in err.strip().splitlines()[-1]
