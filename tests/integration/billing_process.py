"""A billing process for tests, and a client that talks to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from services.chassis.rpc_client import open_channel
from services.gen.billing.v1 import billing_pb2 as pb
from services.gen.billing.v1 import billing_pb2_grpc as rpc

ROOT = Path(__file__).resolve().parent.parent.parent
MINUTE_MS = 60_000
STOP_DEADLINE_S = 30.0


@dataclass
class Billing:
    """A billing process and a stub that talks to it."""

    process: subprocess.Popen[bytes]
    addresses: dict[str, str]
    channel: grpc.aio.Channel
    stub: rpc.BillingServiceAsyncStub

    async def customer(self, name: str = "Ann", **more: Any) -> str:
        request = pb.CreateCustomerRequest(storefront="leonardo", name=name, **more)
        return (await self.stub.CreateCustomer(request)).customer.customer_id

    async def rich_customer(self, amount_millis: int = 1_000_000) -> str:
        customer_id = await self.customer()
        await self.stub.TopUp(
            pb.TopUpRequest(
                customer_id=customer_id,
                mode=pb.MODE_LIVE,
                amount_millis=amount_millis,
                idempotency_key="start",
            )
        )
        return customer_id

    async def key(self, customer_id: str, mode: pb.Mode.ValueType = pb.MODE_LIVE, **more: Any) -> Any:
        return await self.stub.CreateKey(pb.CreateKeyRequest(customer_id=customer_id, mode=mode, **more))

    async def authenticate(self, api_key: str) -> pb.AuthenticateResponse:
        return await self.stub.Authenticate(pb.AuthenticateRequest(api_key=api_key))

    async def balance(self, customer_id: str) -> tuple[int, int, int]:
        request = pb.GetBalanceRequest(customer_id=customer_id, mode=pb.MODE_LIVE)
        balance = (await self.stub.GetBalance(request)).balance
        return balance.balance_millis, balance.reserved_millis, balance.available_millis

    async def kill(self) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.wait)


def hold(
    customer_id: str, job_id: str, sku: str = "image.low", quantity: int = 1, **more: Any
) -> pb.HoldRequest:
    fields: dict[str, Any] = {
        "customer_id": customer_id,
        "mode": pb.MODE_LIVE,
        "job_id": job_id,
        "storefront": "leonardo",
        "sku": sku,
        "quantity": quantity,
        "ttl_ms": MINUTE_MS,
    }
    return pb.HoldRequest(**(fields | more))


def capture(customer_id: str, job_id: str, amount_millis: int) -> pb.CaptureRequest:
    return pb.CaptureRequest(
        customer_id=customer_id, mode=pb.MODE_LIVE, job_id=job_id, amount_millis=amount_millis
    )


def environment(url: str, pepper: Path, **changes: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
    own = {"ATELIER_BILLING_DATABASE_URL": url, "ATELIER_BILLING_KEY_PEPPER_FILE": str(pepper)}
    return inherited | own | changes


def start(
    url: str, pepper: Path, module: str = "services.billing", **changes: str
) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """A process that has announced itself, and its addresses. `module` is what is run."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env=environment(url, pepper, ATELIER_ANNOUNCE_FD=str(write_end), **changes),
        pass_fds=[write_end],
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    # The pipe ends when the process does, so this never waits for one that failed to start.
    with os.fdopen(read_end) as announcements:
        return process, json.loads(announcements.readline())


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        assert process.wait(STOP_DEADLINE_S) in (0, -signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def connected(process: subprocess.Popen[bytes], addresses: dict[str, str]) -> AsyncIterator[Billing]:
    channel = open_channel(addresses["grpc"])
    try:
        yield Billing(process, addresses, channel, rpc.BillingServiceStub(channel))
    finally:
        await channel.close()


@asynccontextmanager
async def running(
    url: str, pepper: Path, module: str = "services.billing", **changes: str
) -> AsyncIterator[Billing]:
    """A process of the test's own."""
    process, addresses = await asyncio.to_thread(start, url, pepper, module, **changes)
    try:
        async with connected(process, addresses) as billing:
            yield billing
    finally:
        await asyncio.to_thread(stop, process)


async def command(url: str, pepper: Path, *words: str, **changes: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.billing",
        *words,
        cwd=ROOT,
        env=environment(url, pepper, **changes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), STOP_DEADLINE_S)
    return process.returncode or 0, out.decode(), err.decode()
