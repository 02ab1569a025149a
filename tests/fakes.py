"""Small stand-ins for billing, jobs and the provider pool: real gRPC servers on free ports, whose answers a test decides."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from services.chassis.dispatch import Handler, dispatcher
from services.chassis.errors import Kind, ServiceError
from services.chassis.ids import new_id
from services.chassis.rpc_server import RpcServer
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.billing.v1 import billing_pb2_grpc as billing_rpc
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.jobs.v1 import jobs_pb2_grpc as jobs_rpc
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as pool_rpc

if TYPE_CHECKING:
    # The generated classes are abstract for mypy; a fake serves only what the edge calls.
    _Billing = object
    _Jobs = object
    _Pool = object
else:
    _Billing = billing_rpc.BillingServiceServicer
    _Jobs = jobs_rpc.JobsServiceServicer
    _Pool = pool_rpc.ProviderPoolServiceServicer

LIVE_KEY = "ak_live_" + "a" * 38
TEST_KEY = "ak_test_" + "b" * 38
OTHER_KEY = "ak_live_" + "c" * 38
NOW_MS = 1_782_727_200_000  # 2026-06-29T10:00:00.000Z


@dataclass
class FakeBilling(_Billing):
    """Knows two keys of one customer and one of another. `refusal` is raised by every call while it is set."""

    storefront: str = "leonardo"
    requests_per_minute: int = 0
    balance: billing.Balance = field(default_factory=billing.Balance)
    refusal: ServiceError | None = None
    revoked: set[str] = field(default_factory=set)
    authentications: int = 0
    answer_after_s: float = 0.0

    async def Authenticate(
        self, request: billing.AuthenticateRequest, context: Any
    ) -> billing.AuthenticateResponse:
        self.authentications += 1
        await asyncio.sleep(self.answer_after_s)
        self._refuse()
        if request.api_key not in {LIVE_KEY, TEST_KEY, OTHER_KEY} - self.revoked:
            raise ServiceError(Kind.UNAUTHENTICATED, "INVALID_API_KEY", "unknown key")
        return billing.AuthenticateResponse(
            customer_id="cus_2" if request.api_key == OTHER_KEY else "cus_1",
            storefront=self.storefront,
            mode=billing.MODE_TEST if request.api_key == TEST_KEY else billing.MODE_LIVE,
            key_id="key_1",
            limits=billing.Limits(
                requests_per_minute=self.requests_per_minute, running_jobs=4, queued_jobs=16
            ),
        )

    async def GetBalance(
        self, request: billing.GetBalanceRequest, context: Any
    ) -> billing.GetBalanceResponse:
        self._refuse()
        return billing.GetBalanceResponse(balance=self.balance)

    def Dispatch(self, request_iterator: Any, context: Any) -> Any:
        handlers: dict[str, Handler[Any]] = {
            "Authenticate": Handler(billing.AuthenticateRequest, self.Authenticate),
            "GetBalance": Handler(billing.GetBalanceRequest, self.GetBalance),
        }
        serve = dispatcher(handlers, billing.DispatchResponse, billing.DispatchReply)
        return serve(request_iterator, context)

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal


@dataclass
class FakeJobs(_Jobs):
    """Keeps jobs in memory, one for each idempotency key. `refusal` is raised by every call while it is set."""

    prices_millis: dict[str, int] = field(
        default_factory=lambda: {"image.low": 20_000, "image.medium": 60_000, "video.second": 600_000}
    )
    stage: jobs.Stage.ValueType = jobs.STAGE_ACCOUNT_CHOSEN
    refusal: Exception | None = None
    answer_after_s: float = 0.0
    # So many jobs are made whose maker is told that the service is away.
    lose_answers: int = 0
    created: list[jobs.CreateJobRequest] = field(default_factory=list)
    asked: list[jobs.GetJobRequest] = field(default_factory=list)
    kept: dict[str, jobs.Job] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    async def CreateJob(self, request: jobs.CreateJobRequest, context: Any) -> jobs.CreateJobResponse:
        self.created.append(request)
        await asyncio.sleep(self.answer_after_s)
        self._refuse()
        known = self.keys.get(request.idempotency_key)
        if known is not None:
            if known[0] != request.fingerprint:
                raise ServiceError(Kind.ALREADY_EXISTS, "IDEMPOTENCY_KEY_CONFLICT", "another request")
            return jobs.CreateJobResponse(job=self.kept[known[1]], replayed=True)
        job = self.add(request.generation, self.prices_millis[request.sku] * request.quantity)
        job.customer_id, job.mode = request.customer_id, request.mode
        self.keys[request.idempotency_key] = (request.fingerprint, job.job_id)
        if self.lose_answers:
            self.lose_answers -= 1
            raise ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "the answer got lost")
        return jobs.CreateJobResponse(job=job)

    async def GetJob(self, request: jobs.GetJobRequest, context: Any) -> jobs.GetJobResponse:
        self.asked.append(request)
        self._refuse()
        job = self.kept.get(request.job_id)
        if job is None or (job.customer_id, job.mode) != (request.customer_id, request.mode):
            raise ServiceError(Kind.NOT_FOUND, "JOB_NOT_FOUND", "no such job")
        return jobs.GetJobResponse(job=job)

    def Dispatch(self, request_iterator: Any, context: Any) -> Any:
        handlers: dict[str, Handler[Any]] = {
            "CreateJob": Handler(jobs.CreateJobRequest, self.CreateJob),
            "GetJob": Handler(jobs.GetJobRequest, self.GetJob),
        }
        return dispatcher(handlers, jobs.DispatchResponse, jobs.DispatchReply)(request_iterator, context)

    def add(self, generation: jobs.Generation, quoted_millis: int) -> jobs.Job:
        """A job as it looks right after it was accepted."""
        job = jobs.Job(
            job_id=new_id("job"),
            customer_id="cus_1",
            mode=jobs.MODE_LIVE,
            stage=self.stage,
            kind=generation.kind,
            model=generation.model,
            quoted_millis=quoted_millis,
            created_at_ms=NOW_MS,
            updated_at_ms=NOW_MS,
        )
        self.kept[job.job_id] = job
        return job

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal


@dataclass
class FakePool(_Pool):
    """Keeps what is staged by id, unread. `refusal` is raised by every call while it is set."""

    refusal: ServiceError | None = None
    # Refuses as soon as the head has come, whatever is still being sent.
    reads_all: bool = True
    answer_after_s: float = 0.0
    heads: list[pool.StageReferenceRequest.Head] = field(default_factory=list)
    staged: dict[str, bytes] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    largest_piece_bytes: int = 0
    at_once: int = 0
    most_at_once: int = 0

    async def StageReference(
        self, request_iterator: AsyncIterator[pool.StageReferenceRequest], context: Any
    ) -> pool.StageReferenceResponse:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            content = bytearray()
            async for part in request_iterator:
                if part.WhichOneof("part") == "head":
                    self.heads.append(part.head)
                    if not self.reads_all:
                        self._refuse()
                content += part.content
                self.largest_piece_bytes = max(self.largest_piece_bytes, len(part.content))
            await asyncio.sleep(self.answer_after_s)
        finally:
            self.at_once -= 1
        self._refuse()
        reference_id = new_id("ref")
        self.staged[reference_id] = bytes(content)
        return pool.StageReferenceResponse(
            reference_id=reference_id, sha256=hashlib.sha256(content).digest(), size_bytes=len(content)
        )

    async def DropReferences(
        self, request: pool.DropReferencesRequest, context: Any
    ) -> pool.DropReferencesResponse:
        self._refuse()
        self.dropped += request.reference_ids
        return pool.DropReferencesResponse()

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal


@asynccontextmanager
async def serving_billing(fake: FakeBilling) -> AsyncIterator[str]:
    """The address of `fake` on a server of its own."""
    add = partial(billing_rpc.add_BillingServiceServicer_to_server, cast("Any", fake))
    async with RpcServer("127.0.0.1:0", [add], ["billing.v1.BillingService"], grace_s=0) as server:
        yield server.address


@asynccontextmanager
async def serving_jobs(fake: FakeJobs, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """The address of `fake` on a server of its own."""
    add = partial(jobs_rpc.add_JobsServiceServicer_to_server, cast("Any", fake))
    async with RpcServer(listen, [add], ["jobs.v1.JobsService"], grace_s=0) as server:
        yield server.address


@asynccontextmanager
async def serving_pool(fake: FakePool) -> AsyncIterator[str]:
    """The address of `fake` on a server of its own."""
    add = partial(pool_rpc.add_ProviderPoolServiceServicer_to_server, cast("Any", fake))
    async with RpcServer("127.0.0.1:0", [add], ["provider_pool.v1.ProviderPoolService"], grace_s=0) as server:
        yield server.address


async def eventually(check: Callable[[], bool], deadline_s: float = 5.0) -> None:
    """Returns once `check` holds; raises TimeoutError when it does not in time."""
    async with asyncio.timeout(deadline_s):
        while not check():
            await asyncio.sleep(0.01)
