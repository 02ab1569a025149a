from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from services.chassis.errors import ServiceError
from services.gen.billing.v1 import billing_pb2 as pb
from services.gen.billing.v1 import billing_pb2_grpc as rpc
from tests.integration.billing_process import ROOT, capture, command, hold, running


@pytest.fixture
def pepper(tmp_path: Path) -> Path:
    path = tmp_path / "pepper"
    path.write_text("0123456789abcdef" * 4)
    return path


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'billing.db'}"


async def test_a_killed_process_comes_back_with_everything_it_answered(url: str, pepper: Path) -> None:
    async with running(url, pepper) as first:
        customer_id = await first.rich_customer()
        api_key = (await first.key(customer_id)).api_key
        answered = await first.stub.Hold(hold(customer_id, f"{customer_id}.1"))
        await first.kill()
    async with running(url, pepper) as second:
        assert (await second.authenticate(api_key)).customer_id == customer_id
        assert await second.balance(customer_id) == (1_000_000, 20_000, 980_000)
        again = await second.stub.Hold(hold(customer_id, f"{customer_id}.1"))
        assert again.replayed
        answered.replayed = True
        assert again == answered


async def test_answers_survive_kills_under_load(url: str, pepper: Path) -> None:
    async with running(url, pepper) as first:
        customer_id = await first.rich_customer(10**9)
    acknowledged: dict[str, int] = {}
    for round_number in range(3):
        async with running(url, pepper) as billing:

            async def work(job_id: str, stub: rpc.BillingServiceAsyncStub = billing.stub) -> None:
                await stub.Hold(hold(customer_id, job_id))
                amount = (await stub.Capture(capture(customer_id, job_id, 7_000))).captured_millis
                acknowledged[job_id] = amount

            # Half of the jobs of a round are those that the kill before left unanswered.
            jobs = [
                f"{customer_id}.{n}"
                for n in range(300 * (round_number + 1))
                if f"{customer_id}.{n}" not in acknowledged
            ]
            tasks = [asyncio.create_task(work(job_id)) for job_id in jobs]
            while len(acknowledged) < 100 * (round_number + 1):
                await asyncio.sleep(0.005)
            await billing.kill()
            await asyncio.gather(*tasks, return_exceptions=True)
    async with running(url, pepper) as last:
        unanswered = [f"{customer_id}.{n}" for n in range(900) if f"{customer_id}.{n}" not in acknowledged]
        for job_id in unanswered:
            await last.stub.Hold(hold(customer_id, job_id))
            acknowledged[job_id] = (
                await last.stub.Capture(capture(customer_id, job_id, 7_000))
            ).captured_millis
        assert set(acknowledged.values()) == {7_000}
        balance_millis, reserved_millis, _ = await last.balance(customer_id)
    assert (balance_millis, reserved_millis) == (10**9 - 900 * 7_000, 0)
    code, out, _ = await command(url, pepper, "verify-ledger")
    assert (code, out.strip().splitlines()[-1]) == (0, "The ledger is sound.")


async def test_no_key_and_no_pepper_is_in_the_database_file(url: str, pepper: Path, tmp_path: Path) -> None:
    async with running(url, pepper) as billing:
        api_key = (await billing.key(await billing.customer())).api_key
        await billing.authenticate(api_key)
    stored = (tmp_path / "billing.db").read_bytes()
    assert api_key[:12].encode() in stored
    assert api_key[12:].encode() not in stored
    assert pepper.read_bytes() not in stored


async def test_drift_is_told_by_the_exit_code(url: str, pepper: Path, tmp_path: Path) -> None:
    async with running(url, pepper) as billing:
        await billing.rich_customer()
    with sqlite3.connect(tmp_path / "billing.db") as database:
        database.execute("UPDATE wallets SET balance_millis = balance_millis + 1 WHERE mode = 'live'")
    database.close()
    code, out, _ = await command(url, pepper, "verify-ledger")
    assert code == 1
    assert "I1 " in out
    assert "by journal" in out
    assert out.strip().endswith("The ledger has DRIFTED.")


async def test_everything_wrong_with_the_settings_is_said_at_once(url: str, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("short")
    code, _, err = await command(
        url, short, ATELIER_BILLING_GRPC_LISTEN="nowhere", ATELIER_BILLING_PRICE_LISTS="/nowhere"
    )
    assert code == 2
    for name in ("KEY_PEPPER_FILE", "GRPC_LISTEN", "PRICE_LISTS"):
        assert f"ATELIER_BILLING_{name}" in err


async def test_an_operators_price_list_takes_the_shipped_ones_place(
    url: str, pepper: Path, tmp_path: Path
) -> None:
    shipped = (ROOT / "services/billing/price_lists/leonardo.toml").read_text()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/leonardo.toml").write_text(shipped.replace("credits = 20\n", "credits = 20.5\n"))
    async with running(url, pepper, ATELIER_BILLING_PRICE_LISTS=str(tmp_path / "lists")) as billing:
        customer_id = await billing.rich_customer()
        assert (await billing.stub.Hold(hold(customer_id, f"{customer_id}.1"))).amount_millis == 20_500


async def test_two_replicas_on_postgresql_are_one_service(postgres_url: str, pepper: Path) -> None:
    async with running(postgres_url, pepper) as one, running(postgres_url, pepper) as other:
        customer_id = await one.rich_customer(100 * 20_000)
        key = await one.key(customer_id)
        assert (await other.authenticate(key.api_key)).customer_id == customer_id
        calls = [
            replica.stub.Hold(hold(customer_id, f"{customer_id}.{n}"))
            for n in range(150)
            for replica in (one, other)
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        made = [answer for answer in answers if isinstance(answer, pb.HoldResponse) and not answer.replayed]
        assert len(made) == 100
        assert await one.balance(customer_id) == await other.balance(customer_id) == (2_000_000, 2_000_000, 0)
        await one.stub.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id))
        with pytest.raises(ServiceError, match="INVALID_API_KEY"):
            await other.authenticate(key.api_key)
        code, out, _ = await command(postgres_url, pepper, "verify-ledger")
        assert (code, out.strip().splitlines()[-1]) == (0, "The ledger is sound.")
