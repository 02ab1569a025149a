"""Small stand-ins for billing, jobs and the provider pool: real gRPC servers on free ports, whose answers a test decides."""

from __future__ import annotations

import asyncio
import hashlib
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from services import billing as billing_package
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
from tests.fake_accounts import FakeAccounts

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
# Of each storefront: how live and test keys begin. What follows says whose it is, as in the keys above.
KEY_PREFIXES = {
    "leonardo": ("ak_live_", "ak_test_"),
    "seedancee2": ("sk_seedancee2_live_", "sk_seedancee2_test_"),
    "seedance2pro": ("zimg_", "zimg_test_"),
    "loova": ("lv_live_", "lv_test_"),
    "imaginelab": ("il_live_", "il_test_"),
}
NOW_MS = 1_782_727_200_000  # 2026-06-29T10:00:00.000Z


def key_of(storefront: str, *, test: bool = False, other: bool = False) -> str:
    """A key that FakeBilling knows: of the first customer's wallets, or of another customer's live one."""
    return KEY_PREFIXES[storefront][test] + ("b" if test else "c" if other else "a") * 38


def _known_keys() -> dict[str, tuple[str, bool, str]]:
    """Storefront, test mode and customer of every key."""
    return {
        key_of(storefront, test=test, other=other): (storefront, test, "cus_2" if other else "cus_1")
        for storefront in KEY_PREFIXES
        for test, other in ((False, False), (True, False), (False, True))
    }


@dataclass
class FakeBilling(FakeAccounts, _Billing):
    """Of each storefront it knows two keys of one customer and one of another. `refusal` is raised by every call while it is set."""

    # The storefront that all keys are said to be of; empty: their own.
    storefront: str = ""
    requests_per_minute: int = 0
    balance: billing.Balance = field(default_factory=billing.Balance)
    topped_up_millis: int = 0
    revoked: set[str] = field(default_factory=set)
    authentications: int = 0
    answer_after_s: float = 0.0

    async def Authenticate(
        self, request: billing.AuthenticateRequest, context: Any
    ) -> billing.AuthenticateResponse:
        self.authentications += 1
        await asyncio.sleep(self.answer_after_s)
        self._refuse()
        signed_in = self.owner_of(request.api_key)
        if signed_in is not None:
            return signed_in
        known = None if request.api_key in self.revoked else _known_keys().get(request.api_key)
        if known is None:
            raise ServiceError(Kind.UNAUTHENTICATED, "INVALID_API_KEY", "unknown key")
        storefront, test, customer_id = known
        return billing.AuthenticateResponse(
            customer_id=customer_id,
            storefront=self.storefront or storefront,
            mode=billing.MODE_TEST if test else billing.MODE_LIVE,
            key_id="key_1",
            limits=billing.Limits(
                requests_per_minute=self.requests_per_minute, running_jobs=4, queued_jobs=16
            ),
        )

    async def GetBalance(
        self, request: billing.GetBalanceRequest, context: Any
    ) -> billing.GetBalanceResponse:
        self._refuse()
        topped_up_millis = self.topped_up_millis if request.with_topped_up else 0
        return billing.GetBalanceResponse(balance=self.balance, topped_up_millis=topped_up_millis)

    def Dispatch(self, request_iterator: Any, context: Any) -> Any:
        handlers: dict[str, Handler[Any]] = {
            "Authenticate": Handler(billing.AuthenticateRequest, self.Authenticate),
            "GetBalance": Handler(billing.GetBalanceRequest, self.GetBalance),
        }
        serve = dispatcher(handlers, billing.DispatchResponse, billing.DispatchReply)
        return serve(request_iterator, context)


def shipped_prices_millis() -> dict[tuple[str, str], int]:
    """What a unit of each storefront's SKUs costs in the price lists that come with the house."""
    return dict(_shipped_prices_millis())


@cache
def _shipped_prices_millis() -> dict[tuple[str, str], int]:
    prices_millis = {}
    for file in Path(billing_package.__file__).parent.glob("price_lists/*.toml"):
        for price in tomllib.loads(file.read_text(), parse_float=Decimal)["prices"]:
            prices_millis[file.stem, price["sku"]] = int(price["credits"] * 1000)
    return prices_millis


@dataclass
class FakeJobs(_Jobs):
    """Keeps jobs in memory, one for each idempotency key. `refusal` is raised by every call while it is set."""

    # By storefront and SKU: what is shipped.
    prices_millis: dict[tuple[str, str], int] = field(default_factory=shipped_prices_millis)
    stage: jobs.Stage.ValueType = jobs.STAGE_ACCOUNT_CHOSEN
    refusal: Exception | None = None
    answer_after_s: float = 0.0
    # So many jobs are made whose maker is told that the service is away.
    lose_answers: int = 0
    created: list[jobs.CreateJobRequest] = field(default_factory=list)
    asked: list[jobs.GetJobRequest] = field(default_factory=list)
    kept: dict[str, jobs.Job] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    forms: dict[str, jobs.WebhookForm] = field(default_factory=dict)
    listed: list[jobs.ListJobsRequest] = field(default_factory=list)
    counted: list[jobs.GetUsageRequest] = field(default_factory=list)
    # What GetUsage answers.
    usage: list[jobs.UsageRow] = field(default_factory=list)

    async def CreateJob(self, request: jobs.CreateJobRequest, context: Any) -> jobs.CreateJobResponse:
        self.created.append(request)
        await asyncio.sleep(self.answer_after_s)
        self._refuse()
        known = self.keys.get(request.idempotency_key)
        if known is not None:
            if known[0] != request.fingerprint:
                raise ServiceError(Kind.ALREADY_EXISTS, "IDEMPOTENCY_KEY_CONFLICT", "another request")
            return jobs.CreateJobResponse(job=self.kept[known[1]], replayed=True)
        price_millis = self.prices_millis[request.storefront, request.sku]
        job = self.add(request.generation, price_millis * request.quantity, request.id_prefix or "job")
        job.customer_id, job.mode, job.storefront = request.customer_id, request.mode, request.storefront
        job.public_model = request.public_model or request.generation.model
        job.echo, job.project_id = request.echo, request.project_id
        if request.numbered:
            job.public_number = len(self.created) + 6_000_000_000_000_000
        self.keys[request.idempotency_key] = (request.fingerprint, job.job_id)
        if self.lose_answers:
            self.lose_answers -= 1
            raise ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "the answer got lost")
        return jobs.CreateJobResponse(job=job)

    async def PutWebhookForm(
        self, request: jobs.PutWebhookFormRequest, context: Any
    ) -> jobs.PutWebhookFormResponse:
        self.forms[request.form.storefront] = request.form
        return jobs.PutWebhookFormResponse(webhook_form_id=f"form-of-{request.form.storefront}")

    async def GetJob(self, request: jobs.GetJobRequest, context: Any) -> jobs.GetJobResponse:
        self.asked.append(request)
        self._refuse()
        job = self._asked_for(request)
        if job is None or job.mode != request.mode:
            raise ServiceError(Kind.NOT_FOUND, "JOB_NOT_FOUND", "no such job")
        if job.customer_id != request.customer_id:
            if request.tell_of_others and job.storefront == request.storefront:
                raise ServiceError(Kind.PERMISSION_DENIED, "JOB_OF_ANOTHER_CUSTOMER", "another's job")
            raise ServiceError(Kind.NOT_FOUND, "JOB_NOT_FOUND", "no such job")
        return jobs.GetJobResponse(job=job)

    def _asked_for(self, request: jobs.GetJobRequest) -> jobs.Job | None:
        if not request.public_number:
            return self.kept.get(request.job_id)
        wanted = (request.public_number, request.storefront)
        return next(
            (job for job in self.kept.values() if (job.public_number, job.storefront) == wanted), None
        )

    async def DeleteJob(self, request: jobs.DeleteJobRequest, context: Any) -> jobs.DeleteJobResponse:
        self._refuse()
        job = self.kept.get(request.job_id)
        if job is None or (job.customer_id, job.mode) != (request.customer_id, request.mode):
            raise ServiceError(Kind.NOT_FOUND, "JOB_NOT_FOUND", "no such job")
        del self.kept[request.job_id]
        return jobs.DeleteJobResponse()

    async def ListJobs(self, request: jobs.ListJobsRequest, context: Any) -> jobs.ListJobsResponse:
        self._refuse()
        self.listed.append(request)
        mine = [
            job
            for job in sorted(self.kept.values(), key=lambda job: job.job_id, reverse=True)
            if (job.customer_id, job.mode) == (request.customer_id, request.mode)
            and (not request.stages or job.stage in request.stages)
            and (not request.kind or job.kind == request.kind)
            and (not request.project_id or job.project_id == request.project_id)
        ]
        page = [job for job in mine if not request.before_job_id or job.job_id < request.before_job_id]
        page = page[request.skip : request.skip + (request.limit or 100)]
        return jobs.ListJobsResponse(jobs=page, total=len(mine) if request.count else 0)

    async def GetUsage(self, request: jobs.GetUsageRequest, context: Any) -> jobs.GetUsageResponse:
        self._refuse()
        self.counted.append(request)
        return jobs.GetUsageResponse(rows=self.usage)

    def Dispatch(self, request_iterator: Any, context: Any) -> Any:
        handlers: dict[str, Handler[Any]] = {
            "CreateJob": Handler(jobs.CreateJobRequest, self.CreateJob),
            "GetJob": Handler(jobs.GetJobRequest, self.GetJob),
            "GetUsage": Handler(jobs.GetUsageRequest, self.GetUsage),
            "ListJobs": Handler(jobs.ListJobsRequest, self.ListJobs),
            "PutWebhookForm": Handler(jobs.PutWebhookFormRequest, self.PutWebhookForm),
        }
        return dispatcher(handlers, jobs.DispatchResponse, jobs.DispatchReply)(request_iterator, context)

    def add(self, generation: jobs.Generation, quoted_millis: int, id_prefix: str = "job") -> jobs.Job:
        """A job as it looks right after it was accepted."""
        job = jobs.Job(
            job_id=new_id(id_prefix),
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
    hints: list[pool.TakeHintRequest] = field(default_factory=list)
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

    async def TakeHint(self, request: pool.TakeHintRequest, context: Any) -> pool.TakeHintResponse:
        self.hints.append(request)
        await asyncio.sleep(self.answer_after_s)
        self._refuse()
        return pool.TakeHintResponse()

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
