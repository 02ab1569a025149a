"""The other services as the edge calls them: the hot calls ride on one stream for each service."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from services.chassis.service_link import ServiceLink
from services.gateway.auth import Caller
from services.gen.billing.v1 import billing_pb2, billing_pb2_grpc
from services.gen.jobs.v1 import jobs_pb2, jobs_pb2_grpc

# Authentication reads two rows; a billing that needs longer is down.
_AUTHENTICATE_TIMEOUT_S: Final = 5.0
# Longer than any route's deadline, which is what bounds a call of a request.
_CALL_TIMEOUT_S: Final = 15.0

# Reads, and the one write that carries an idempotency key: these may be sent again when a stream breaks.
_BILLING_REPEATABLE: Final = frozenset({"Authenticate", "GetBalance"})
_JOBS_REPEATABLE: Final = frozenset({"CreateJob", "GetJob"})


class Backends:
    """Open channels to billing and jobs. Every call raises ServiceError and never outlasts the request's deadline."""

    def __init__(self, billing_address: str, jobs_address: str) -> None:
        self.billing = ServiceLink(
            billing_address,
            name="billing",
            stub=billing_pb2_grpc.BillingServiceStub,
            messages=billing_pb2,
            repeatable=_BILLING_REPEATABLE,
            retried=_full("billing.v1.BillingService", _BILLING_REPEATABLE),
        )
        self.jobs = ServiceLink(
            jobs_address,
            name="jobs",
            stub=jobs_pb2_grpc.JobsServiceStub,
            messages=jobs_pb2,
            repeatable=_JOBS_REPEATABLE,
            retried=_full("jobs.v1.JobsService", _JOBS_REPEATABLE),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_exit(self.billing)
            stack.push_async_exit(self.jobs)

    async def identify(self, api_key: str) -> Caller:
        """Who owns `api_key`. Raises INVALID_API_KEY, CUSTOMER_INACTIVE."""
        answer = await self.billing.stream.call(
            "Authenticate",
            billing_pb2.AuthenticateRequest(api_key=api_key),
            billing_pb2.AuthenticateResponse,
            timeout_s=_AUTHENTICATE_TIMEOUT_S,
        )
        return Caller(
            customer_id=answer.customer_id,
            storefront=answer.storefront,
            test=answer.mode == billing_pb2.MODE_TEST,
            key_id=answer.key_id,
            requests_per_minute=answer.limits.requests_per_minute,
            running_jobs=answer.limits.running_jobs,
            queued_jobs=answer.limits.queued_jobs,
        )

    async def balance(self, caller: Caller) -> billing_pb2.Balance:
        """The wallet of the caller's mode."""
        mode = billing_pb2.MODE_TEST if caller.test else billing_pb2.MODE_LIVE
        answer = await self.billing.stream.call(
            "GetBalance",
            billing_pb2.GetBalanceRequest(customer_id=caller.customer_id, mode=mode),
            billing_pb2.GetBalanceResponse,
            timeout_s=_CALL_TIMEOUT_S,
        )
        return answer.balance

    async def create_job(self, request: jobs_pb2.CreateJobRequest) -> jobs_pb2.CreateJobResponse:
        """Has a job accepted. Safe to repeat under its idempotency key, and repeated while jobs is unavailable."""
        return await self.jobs.stream.call(
            "CreateJob",
            request,
            jobs_pb2.CreateJobResponse,
            timeout_s=_CALL_TIMEOUT_S,
            lane=request.customer_id,
        )

    async def job(self, caller: Caller, job_id: str) -> jobs_pb2.Job:
        """The caller's job, no older than its poll interval. Raises JOB_NOT_FOUND, STATUS_UNAVAILABLE."""
        request = jobs_pb2.GetJobRequest(
            job_id=job_id, customer_id=caller.customer_id, mode=jobs_mode(caller), sync=True
        )
        answer = await self.jobs.stream.call(
            "GetJob",
            request,
            jobs_pb2.GetJobResponse,
            timeout_s=_CALL_TIMEOUT_S,
            lane=caller.customer_id,
        )
        return answer.job


def jobs_mode(caller: Caller) -> jobs_pb2.Mode.ValueType:
    """The caller's wallet in the words of the jobs service."""
    return jobs_pb2.MODE_TEST if caller.test else jobs_pb2.MODE_LIVE


def _full(service: str, methods: frozenset[str]) -> list[str]:
    return [f"{service}/{method}" for method in sorted(methods)]
