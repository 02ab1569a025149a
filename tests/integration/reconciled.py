"""The jobs service in the test's own process beside a real billing and a real provider pool, to be damaged and mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
from sqlalchemy import Executable

from services.chassis.clock import SystemClock
from services.chassis.database import Database, migrate
from services.chassis.rpc_client import open_channel
from services.chassis.rpc_server import RpcServer
from services.gen.billing.v1 import billing_pb2 as billing_pb
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.jobs.v1 import jobs_pb2_grpc as jobs_rpc
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool_pb
from services.jobs.clients import BillingClient, PoolClient
from services.jobs.engine import Engine
from services.jobs.rpc import SERVICE_NAME
from services.jobs.schedule import Timing
from services.jobs.settings import MIGRATIONS
from services.jobs.steps import Clients
from tests.integration import billing_process, pool_process
from tests.jobs_fakes import create_request
from tests.jobs_house import ended

AGE_S = 0.6
TIMING = Timing(
    worker_ttl_s=10.0,
    poll_interval_s=0.05,
    dispatch_s=0.3,
    # Far above what any drawing here takes beside much else, for those that are to run into it.
    image_deadline_s=12.0,
    reconcile_s=3600.0,
    reconcile_age_s=AGE_S,
    recall_s=0.3,
)


@dataclass
class Scene:
    """What the tests of one engine share; each of them leaves it as it found it."""

    billing: billing_process.Billing
    pool: pool_process.Pool
    engine: Engine
    database: Database
    stub: jobs_rpc.JobsServiceAsyncStub

    async def customer(self) -> str:
        return await self.billing.customer()

    async def create(self, customer: str, key: str = "k1", marks: str = "") -> jobs.Job:
        """Marks are the sandbox's: `[sandbox:stuck]`."""
        request = create_request(key, customer=customer, prompt=f"a cat {marks}")
        request.generation.MergeFrom(jobs.Generation(width=320, height=256, quality="low"))
        return (await self.stub.CreateJob(request, timeout=20)).job

    async def ended(self, job_id: str, customer: str) -> jobs.Job:
        return await ended(self.stub, job_id, customer=customer, within_s=30)

    async def running(self, job_id: str, customer: str) -> None:
        request = jobs.GetJobRequest(job_id=job_id, customer_id=customer, mode=jobs.MODE_TEST)
        async with asyncio.timeout(10):
            while (await self.stub.GetJob(request)).job.state != jobs.JOB_STATE_RUNNING:
                await asyncio.sleep(0.02)

    async def hold(self, customer: str, job_id: str) -> int:
        """Made by nobody's job; what it holds, in millis."""
        request = billing_process.hold(customer, job_id, mode=billing_pb.MODE_TEST, ttl_ms=600_000)
        return (await self.billing.stub.Hold(request)).amount_millis

    async def release(self, customer: str, job_id: str) -> None:
        request = billing_pb.ReleaseRequest(job_id=job_id, customer_id=customer, mode=billing_pb.MODE_TEST)
        await self.billing.stub.Release(request)

    async def holds(self, job_id: str) -> list[billing_pb.HoldRecord]:
        return list((await self.billing.stub.ListHolds(billing_pb.ListHoldsRequest(job_ids=[job_id]))).holds)

    async def attempt(self, attempt_id: str) -> pool_pb.Attempt:
        request = pool_pb.ListAttemptsRequest(job_id=attempt_id.partition(":")[0])
        found = (await self.pool.stub.ListAttempts(request)).attempts
        return next(one for one in found if one.attempt_id == attempt_id)

    async def open_attempts(self) -> list[str]:
        found = await self.pool.stub.ListOpenAttempts(pool_pb.ListOpenAttemptsRequest(limit=1000))
        return [one.attempt_id for one in found.attempts]

    async def change(self, statement: Executable) -> None:
        """Changes rows of the jobs database by hand."""
        await self.database.write(lambda connection: connection.execute(statement).close())

    async def grown_old(self) -> None:
        """Until what is there now is old enough to be compared."""
        await asyncio.sleep(AGE_S + 0.2)

    async def found(self) -> dict[str, int]:
        """What one comparison finds amiss; every look of it must have succeeded, and say the same as a metric."""
        found = await self.engine.reconciler.reconcile()
        assert len(found) == 8
        shown = {name: gauge("atelier_jobs_reconcile_findings", finding=name) for name in found}
        assert shown == found
        return {name: count for name, count in found.items() if count}


def gauge(name: str, **labels: str) -> float:
    """A metric of this process, that is of the jobs service."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def scene(folder: Path, urls: dict[str, str]) -> AsyncIterator[Scene]:
    """`urls`: the database of each service by its name."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        pepper = folder / "pepper"
        pepper.write_text("0" * 64)
        pepper.chmod(0o600)
        banker = await enter(billing_process.running(urls["billing"], pepper))
        lender = await enter(pool_process.running(folder, ATELIER_POOL_DATABASE_URL=urls["pool"]))
        await lender.account(concurrency_limit=5_000, balance_millis=10**12)
        await migrate(urls["jobs"], MIGRATIONS)
        database = await Database.open(urls["jobs"], application_name="jobs")
        stack.push_async_callback(database.close)
        clients = Clients(
            await enter(BillingClient(banker.addresses["grpc"])),
            await enter(PoolClient(lender.addresses["grpc"])),
        )
        engine = await enter(Engine(database, clients, SystemClock(), TIMING, "here"))
        server = await enter(RpcServer("127.0.0.1:0", [engine.servicer.add_to], [SERVICE_NAME], grace_s=0.2))
        channel = open_channel(server.address)
        stack.push_async_callback(channel.close)
        stub: Any = jobs_rpc.JobsServiceStub(channel)
        yield Scene(banker, lender, engine, database, stub)
