"""A whole house for tests: `python -m services` in a folder of its own, on free ports, stopped at the end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from services.chassis.rpc_client import open_channel
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.billing.v1 import billing_pb2_grpc as billing_rpc
from services.gen.jobs.v1 import jobs_pb2_grpc as jobs_rpc
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as pool_rpc

ROOT = Path(__file__).resolve().parent.parent
_READY_DEADLINE_S = 60.0
_STOP_DEADLINE_S = 30.0


@dataclass
class House:
    """A running house, seen from outside: its addresses, its keys, its output."""

    var: Path
    process: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)
    _listening: asyncio.Task[None] | None = None

    @property
    def demo(self) -> dict[str, Any]:
        described: dict[str, Any] = json.loads((self.var / "demo.json").read_text(encoding="utf-8"))
        return described

    @property
    def base_url(self) -> str:
        return str(self.demo["base_url"])

    def key(self, mode: str = "live", storefront: str = "leonardo") -> str:
        return str(self.demo["storefronts"][storefront][f"{mode}_key"])

    def pid_of(self, service: str) -> int:
        """The newest pid that the house has named for a service."""
        lines = [line for line in self.said if service in line and "(pid " in line]
        return int(lines[-1].rsplit("(pid ", 1)[1].rstrip(")"))

    async def heard(self, words: str, *, times: int = 1, deadline_s: float = 30.0) -> None:
        """Waits until the house has said `words` so many times."""
        async with asyncio.timeout(deadline_s):
            while sum(words in line for line in self.said) < times:
                await asyncio.sleep(0.05)

    async def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(_STOP_DEADLINE_S):
            code = await self.process.wait()
        if self._listening is not None:
            await self._listening
        return code


def environment(var: Path, **changes: str) -> dict[str, str]:
    """This process's environment without any setting of Atelier's or of a make above it, plus the given ones."""
    strangers = ("ATELIER_", "MAKE", "MFLAGS", "ARGS")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(strangers)}
    return inherited | {"ATELIER_VAR": str(var), "ATELIER_PORT": "0"} | changes


async def launch(var: Path, *, module: str = "services", **changes: str) -> House:
    """Starts a house and returns at once; its output is collected."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        cwd=ROOT,
        env=environment(var, **changes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # So that a signal to the test run does not reach it by itself.
        start_new_session=True,
    )
    house = House(var, process)
    house._listening = asyncio.create_task(_listen(house))
    return house


async def _listen(house: House) -> None:
    assert house.process.stdout is not None
    async for line in house.process.stdout:
        house.said.append(line.decode(errors="replace").rstrip())


@asynccontextmanager
async def running_house(var: Path, *, module: str = "services", **changes: str) -> AsyncIterator[House]:
    """A house that is ready; stopped on the way out, whatever happened."""
    # It says so of each of its processes, and of itself.
    ready = 6 if changes.get("ATELIER_PROVIDERS") == "simulated" else 5
    house = await launch(var, module=module, **changes)
    try:
        heard = asyncio.create_task(house.heard("ready after", times=ready, deadline_s=_READY_DEADLINE_S))
        gone = asyncio.create_task(house.process.wait())
        await asyncio.wait({heard, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not heard.done():
            heard.cancel()
            raise AssertionError("the house did not start:\n" + "\n".join(house.said))
        gone.cancel()
        await heard
        yield house
    finally:
        await house.stop()


@dataclass
class Inside:
    """Stubs of a house's services, for what no customer may do."""

    billing: billing_rpc.BillingServiceAsyncStub
    jobs: jobs_rpc.JobsServiceAsyncStub
    pool: pool_rpc.ProviderPoolServiceAsyncStub

    async def set_account_options(self, **options: str) -> None:
        """Gives every provider account these sandbox options."""
        accounts = (await self.pool.ListAccounts(pool.ListAccountsRequest())).accounts
        for account in accounts:
            merged = dict(account.options) | options
            request = pool.UpdateAccountRequest(
                account_id=account.account_id, options=pool.Options(options=merged)
            )
            await self.pool.UpdateAccount(request)

    async def set_concurrency(self, jobs_at_once: int) -> None:
        """Gives every provider account room for so many jobs."""
        accounts = (await self.pool.ListAccounts(pool.ListAccountsRequest())).accounts
        for account in accounts:
            request = pool.UpdateAccountRequest(account_id=account.account_id, concurrency_limit=jobs_at_once)
            await self.pool.UpdateAccount(request)

    async def customer(
        self, credits_live: int, *, limits: Mapping[str, int] | None = None, storefront: str = "leonardo"
    ) -> tuple[str, str, str]:
        """A new customer with so many credits: (customer id, live key, test key)."""
        asked = {
            "requests_per_minute": 60_000,
            "running_jobs": 10_000,
            "queued_jobs": 10_000,
            **(limits or {}),
        }
        made = await self.billing.CreateCustomer(
            billing.CreateCustomerRequest(
                storefront=storefront,
                name="Test",
                limits=billing.Limits(**asked),
                idempotency_key=os.urandom(8).hex(),
            )
        )
        customer_id = made.customer.customer_id
        if credits_live:
            await self.billing.TopUp(
                billing.TopUpRequest(
                    customer_id=customer_id,
                    mode=billing.MODE_LIVE,
                    amount_millis=credits_live * 1000,
                    idempotency_key="first",
                )
            )
        keys = [
            (
                await self.billing.CreateKey(billing.CreateKeyRequest(customer_id=customer_id, mode=mode))
            ).api_key
            for mode in (billing.MODE_LIVE, billing.MODE_TEST)
        ]
        return customer_id, keys[0], keys[1]


@asynccontextmanager
async def inside(house: House) -> AsyncIterator[Inside]:
    """Opens the house's gRPC services."""
    grpc = house.demo["grpc"]
    channels = [open_channel(grpc[name]) for name in ("billing", "jobs", "provider_pool")]
    try:
        yield Inside(
            billing_rpc.BillingServiceStub(channels[0]),
            jobs_rpc.JobsServiceStub(channels[1]),
            pool_rpc.ProviderPoolServiceStub(channels[2]),
        )
    finally:
        for channel in channels:
            await channel.close()


@dataclass
class Answer:
    """An HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class Customer:
    """A customer's client, written from the contract alone."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, key: str) -> None:
        self._session = session
        self._base_url = base_url
        self._key = key

    async def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self._key}", **(headers or {})}
        async with self._session.request(
            method, self._base_url + path, json=body, headers=sent, timeout=aiohttp.ClientTimeout(60)
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def image(self, key: str, prompt: str = "a red boat", **fields: Any) -> Answer:
        body = {"prompt": prompt, **fields}
        return await self.call("POST", "/v1/images/generate", body, {"Idempotency-Key": key})

    async def video(self, key: str, prompt: str = "a red boat", **fields: Any) -> Answer:
        body = {"prompt": prompt, **fields}
        return await self.call("POST", "/v1/videos/generate", body, {"Idempotency-Key": key})

    async def job(self, job_id: str) -> Answer:
        return await self.call("GET", f"/v1/jobs/{job_id}")

    async def ended(self, job_id: str, *, deadline_s: float = 60.0) -> dict[str, Any]:
        """Polls as a customer would until the job has ended; returns its status."""
        async with asyncio.timeout(deadline_s):
            while True:
                answer = await self.job(job_id)
                if answer.status == 200 and answer.json["status"] in {"complete", "failed"}:
                    return answer.json
                await asyncio.sleep(0.2)
