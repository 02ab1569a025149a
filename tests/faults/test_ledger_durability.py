"""No answer leaves before its commit is durable: commits are held up, and then nobody may be answered.

A kill alone cannot show this, because what a process has written survives it in the page cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from services.chassis.errors import ServiceError
from services.gen.billing.v1 import billing_pb2 as pb
from tests.faults.ledger_faulty import FAULTS
from tests.faults.ledger_gates import PATIENCE_S, Gate, PostgresGate, SqliteGate
from tests.integration.billing_process import Billing, hold, running
from tests.postgres import Postgres

# So long an answer has time to leave, which takes some milliseconds; where one must come, a busy machine may take longer.
LOOK_S = 0.5
LONG_LOOK_S = 5.0


class BeforeAGate(Protocol):
    """Starts billing before a gate of its own, with more faults or none."""

    def __call__(self, pepper: Path, *faults: str) -> AbstractAsyncContextManager[tuple[Billing, Gate]]: ...


@pytest.fixture
def pepper(tmp_path: Path) -> Path:
    path = tmp_path / "pepper"
    path.write_text("0123456789abcdef" * 4)
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def gated(request: pytest.FixtureRequest, tmp_path: Path) -> BeforeAGate:
    @asynccontextmanager
    async def before_a_gate(pepper: Path, *faults: str) -> AsyncIterator[tuple[Billing, Gate]]:
        module = "tests.faults.ledger_faulty"
        if request.param == "sqlite":
            path = tmp_path / "gate"
            url, gate = f"sqlite:///{tmp_path / 'billing.db'}", SqliteGate(path)
            told = {FAULTS: ",".join([f"gate={path}", *faults])}
            async with running(url, pepper, module, **told) as billing:
                yield billing, gate
            return
        module = module if faults else "services.billing"
        with Postgres() as server:
            url = server.create_database()
            async with running(url, pepper, module, **{FAULTS: ",".join(faults)}) as billing:
                yield billing, PostgresGate(url)

    return before_a_gate


async def _until_reserved(billing: Billing, customer_id: str, reserved_millis: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await billing.balance(customer_id))[:2] != (1_000_000, reserved_millis):
            await asyncio.sleep(0.01)


async def _rich_customer(billing: Billing) -> str:
    """Where answers leave early, a customer may be told of before it can be found."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await billing.rich_customer()
            except ServiceError as error:
                if error.reason != "CUSTOMER_NOT_FOUND":
                    raise


async def _answered_at_a_closed_gate(billing: Billing, gate: Gate, look_s: float) -> bool:
    """Whether a hold is answered while its commit is held up; it is answered when it is not."""
    customer_id = await _rich_customer(billing)
    # An early answer's commit may be on its way still, and would stand before the gate in place of the hold's.
    await _until_reserved(billing, customer_id, 0)
    await gate.close()
    try:
        call = asyncio.ensure_future(billing.stub.Hold(hold(customer_id, f"{customer_id}.1")))
        await gate.until_somebody_waits()
        done, _ = await asyncio.wait([call], timeout=look_s)
    finally:
        await gate.open()
    assert isinstance(await call, pb.HoldResponse)
    await _until_reserved(billing, customer_id, 20_000)
    return bool(done)


@pytest.mark.faults
async def test_no_answer_leaves_before_its_commit_is_durable(gated: BeforeAGate, pepper: Path) -> None:
    async with gated(pepper) as (billing, gate):
        assert not await _answered_at_a_closed_gate(billing, gate, LOOK_S)


@pytest.mark.faults
async def test_an_answer_that_leaves_before_commit_is_seen(gated: BeforeAGate, pepper: Path) -> None:
    async with gated(pepper, "early") as (billing, gate):
        assert await _answered_at_a_closed_gate(billing, gate, LONG_LOOK_S)
