"""The jobs service in the test's own process, over gRPC, beside the fakes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services.chassis.clock import SystemClock
from services.chassis.database import Database, migrate
from services.chassis.rpc_client import open_channel
from services.chassis.rpc_server import RpcServer
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.jobs.v1 import jobs_pb2_grpc as jobs_rpc
from services.jobs import measures
from services.jobs.clients import BillingClient, PoolClient
from services.jobs.engine import Engine
from services.jobs.rpc import SERVICE_NAME
from services.jobs.schedule import Timing
from services.jobs.settings import MIGRATIONS
from services.jobs.steps import Clients
from services.jobs.webhooks.telling import Terms
from tests.jobs_fakes import FakeServers, create_request

FAST = Timing(
    worker_ttl_s=4.0,
    poll_interval_s=0.03,
    sync_interval_s=0.2,
    dispatch_s=0.3,
    progress_s=0.05,
    reconcile_s=3600.0,
    reconcile_age_s=0.2,
)


class JobsHouse:
    """The jobs service in this process, over gRPC, beside the fakes."""

    def __init__(
        self, url: str, slots: int = 1000, timing: Timing = FAST, terms: Terms | None = None
    ) -> None:
        self.fakes = FakeServers(slots)
        self.billing = self.fakes.billing
        self.pool = self.fakes.pool
        self._url = url
        self._timing = timing
        self._terms = terms
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_async_context
        await enter(self.fakes)
        await migrate(self._url, MIGRATIONS)
        database = await Database.open(self._url, application_name="jobs")
        self._stack.push_async_callback(database.close)
        clients = Clients(
            await enter(BillingClient(self.fakes.billing_address)),
            await enter(PoolClient(self.fakes.pool_address)),
        )
        before = _reconciled()
        self.engine = await enter(Engine(database, clients, SystemClock(), self._timing, "here", self._terms))
        self.store = self.engine.store
        # The round that every start makes would find what a test leaves lying about, and leave nothing for the test's own.
        async with asyncio.timeout(10):
            while _reconciled() == before:
                await asyncio.sleep(0.001)
        server = await enter(
            RpcServer("127.0.0.1:0", [self.engine.servicer.add_to], [SERVICE_NAME], grace_s=0.2)
        )
        self.address = server.address
        channel = open_channel(server.address)
        self._stack.push_async_callback(channel.close)
        self.stub = jobs_rpc.JobsServiceStub(channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def create(self, key: str, **given: Any) -> jobs.Job:
        answer = await self.stub.CreateJob(create_request(key, **given), timeout=20)
        return answer.job

    async def get(self, job_id: str, *, customer: str = "cus_a", sync: bool = False) -> jobs.Job:
        request = jobs.GetJobRequest(job_id=job_id, customer_id=customer, mode=jobs.MODE_TEST, sync=sync)
        return (await self.stub.GetJob(request, timeout=10)).job

    async def ended(self, job_id: str, *, customer: str = "cus_a", within_s: float = 15) -> jobs.Job:
        return await ended(self.stub, job_id, customer=customer, within_s=within_s)

    async def until_state(self, job_id: str, state: int, within_s: float = 10) -> jobs.Job:
        async with asyncio.timeout(within_s):
            while (job := await self.get(job_id)).state != state:
                await asyncio.sleep(0.01)
        return job

    async def all_returned(self, within_s: float = 5) -> None:
        """Waits until no hold is open and no lease is out."""
        async with asyncio.timeout(within_s):
            while self.billing.open_holds() or self.pool.leases:
                await asyncio.sleep(0.01)

    async def states(self, job_id: str) -> list[int]:
        answer = await self.stub.ListJobEvents(jobs.ListJobEventsRequest(job_id=job_id))
        return [event.state for event in answer.events]


def _reconciled() -> float:
    outcomes = ("complete", "interrupted")
    return float(sum(measures.RECONCILE_ROUNDS.labels(outcome)._value.get() for outcome in outcomes))


async def ended(stub: Any, job_id: str, *, customer: str = "cus_a", within_s: float = 15) -> jobs.Job:
    """The job once it has ended."""
    request = jobs.GetJobRequest(job_id=job_id, customer_id=customer, mode=jobs.MODE_TEST)
    async with asyncio.timeout(within_s):
        while True:
            job: jobs.Job = (await stub.GetJob(request, timeout=5)).job
            if job.ended_at_ms:
                return job
            await asyncio.sleep(0.02)


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'jobs.db'}"
