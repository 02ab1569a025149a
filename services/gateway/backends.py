"""The other services as the edge calls them: the hot calls ride on one stream for each service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_network
from types import TracebackType
from typing import Final, Self

from msgspec.structs import replace

from services.chassis import call_context
from services.chassis.errors import Kind, ServiceError
from services.chassis.service_link import ServiceLink
from services.gateway import errors
from services.gateway.auth import Caller
from services.gen.billing.v1 import billing_pb2, billing_pb2_grpc
from services.gen.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from services.gen.provider_pool.v1 import provider_pool_pb2, provider_pool_pb2_grpc

log = logging.getLogger(__name__)

# Authentication reads two rows; a billing that needs longer is down.
_AUTHENTICATE_TIMEOUT_S: Final = 5.0
# Longer than any route's deadline, which is what bounds a call of a request.
_CALL_TIMEOUT_S: Final = 15.0
# A large image over a slow network and its check (3 s at most).
_STAGE_TIMEOUT_S: Final = 10.0
# What staging leaves for the job itself: an image without time for its job would only lie there for a day.
_CREATE_S: Final = 3.0
_DROP_TIMEOUT_S: Final = 5.0
# References that nobody drops are swept after a day; beyond so many at once that is soon enough.
_DROPS_LIMIT: Final = 256

# Reads, and the one write that carries an idempotency key: these may be sent again when a stream breaks.
_BILLING_REPEATABLE: Final = frozenset({"Authenticate", "GetBalance"})
_JOBS_REPEATABLE: Final = frozenset({"CreateJob", "GetJob", "GetUsage", "ListJobs", "PutWebhookForm"})
_POOL_REPEATABLE: Final = frozenset({"DropReferences"})


class Backends:
    """Open channels to billing, jobs and the provider pool. Every call raises ServiceError and never outlasts the request's deadline."""

    def __init__(self, billing_address: str, jobs_address: str, pool_address: str) -> None:
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
        self.pool = ServiceLink(
            pool_address,
            name="provider_pool",
            stub=provider_pool_pb2_grpc.ProviderPoolServiceStub,
            messages=provider_pool_pb2,
            repeatable=_POOL_REPEATABLE,
            retried=_full("provider_pool.v1.ProviderPoolService", _POOL_REPEATABLE),
        )
        self._pool_stub: provider_pool_pb2_grpc.ProviderPoolServiceAsyncStub = (
            provider_pool_pb2_grpc.ProviderPoolServiceStub(self.pool.channel)
        )
        # For what is asked now and then; a stream's place is for the hot calls.
        self._billing_stub: billing_pb2_grpc.BillingServiceAsyncStub = billing_pb2_grpc.BillingServiceStub(
            self.billing.channel
        )
        self._jobs_stub: jobs_pb2_grpc.JobsServiceAsyncStub = jobs_pb2_grpc.JobsServiceStub(self.jobs.channel)
        self._drops: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_exit(self.billing)
            stack.push_async_exit(self.jobs)
            stack.push_async_exit(self.pool)
            for drop in self._drops:
                drop.cancel()
            await asyncio.gather(*self._drops, return_exceptions=True)

    async def identify(self, api_key: str) -> Caller:
        """Who owns `api_key`, or the access token in its place. Raises INVALID_API_KEY, CUSTOMER_INACTIVE."""
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
            models=frozenset(answer.rules.models),
            networks=tuple(map(ip_network, answer.rules.networks)),
            user_id=answer.user_id,
            spend_limited=answer.rules.HasField("spend_limits"),
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

    async def wallet(self, caller: Caller) -> billing_pb2.GetBalanceResponse:
        """The wallet of the caller's mode, with what was ever put into it."""
        mode = billing_pb2.MODE_TEST if caller.test else billing_pb2.MODE_LIVE
        return await self.billing.stream.call(
            "GetBalance",
            billing_pb2.GetBalanceRequest(customer_id=caller.customer_id, mode=mode, with_topped_up=True),
            billing_pb2.GetBalanceResponse,
            timeout_s=_CALL_TIMEOUT_S,
        )

    async def price_list(self, storefront: str) -> billing_pb2.GetPriceListResponse:
        """What the storefront sells. Raises UNKNOWN_STOREFRONT."""
        request = billing_pb2.GetPriceListRequest(storefront=storefront)
        return await self._billing_stub.GetPriceList(request, timeout=_CALL_TIMEOUT_S)

    async def sign_up(self, request: billing_pb2.SignUpRequest) -> billing_pb2.User:
        """A new user and its customer. Raises SIGN_UP_REFUSED."""
        return (await self._billing_stub.SignUp(request, timeout=_CALL_TIMEOUT_S)).user

    async def log_in(self, request: billing_pb2.LogInRequest) -> str:
        """An access token. Raises INVALID_LOGIN."""
        return (await self._billing_stub.LogIn(request, timeout=_CALL_TIMEOUT_S)).access_token

    async def user(self, caller: Caller) -> billing_pb2.User:
        """The user behind the caller. Raises USER_NOT_FOUND where the customer has none."""
        request = billing_pb2.GetUserRequest(user_id=caller.user_id, customer_id=caller.customer_id)
        return (await self._billing_stub.GetUser(request, timeout=_CALL_TIMEOUT_S)).user

    async def request_password_reset(self, storefront: str, email: str) -> None:
        """Has a mail sent if the address is known; does not tell."""
        request = billing_pb2.RequestPasswordResetRequest(storefront=storefront, email=email)
        await self._billing_stub.RequestPasswordReset(request, timeout=_CALL_TIMEOUT_S)

    async def reset_password(self, request: billing_pb2.ResetPasswordRequest) -> None:
        """Sets the password that a mailed token allows. Raises INVALID_RESET_TOKEN."""
        await self._billing_stub.ResetPassword(request, timeout=_CALL_TIMEOUT_S)

    async def create_job(self, request: jobs_pb2.CreateJobRequest) -> jobs_pb2.CreateJobResponse:
        """Has a job accepted. Safe to repeat under its idempotency key, and repeated when the stream breaks."""
        return await self.jobs.stream.call(
            "CreateJob",
            request,
            jobs_pb2.CreateJobResponse,
            timeout_s=_CALL_TIMEOUT_S,
            lane=request.customer_id,
        )

    async def put_webhook_form(self, form: jobs_pb2.WebhookForm) -> str:
        """Makes the spelling of a storefront's webhooks known; answers its id, the same whenever it is the same form."""
        request = jobs_pb2.PutWebhookFormRequest(form=form)
        answer = await self.jobs.stream.call(
            "PutWebhookForm", request, jobs_pb2.PutWebhookFormResponse, timeout_s=_CALL_TIMEOUT_S
        )
        return answer.webhook_form_id

    async def stage_reference(self, parts: AsyncIterator[provider_pool_pb2.StageReferenceRequest]) -> str:
        """Has the pool check and keep an image; answers its id. Raises REFERENCE_REFUSED, whose rule is metadata."""
        left_s = call_context.remaining_s(default=_STAGE_TIMEOUT_S + _CREATE_S) - _CREATE_S
        if left_s <= 0:
            raise errors.overloaded()
        whole = False

        async def written() -> AsyncIterator[provider_pool_pb2.StageReferenceRequest]:
            nonlocal whole
            async for part in parts:
                yield part
            whole = True

        try:
            timeout_s = min(left_s, _STAGE_TIMEOUT_S)
            answer = await self._pool_stub.StageReference(written(), timeout=timeout_s)
        except ServiceError as error:
            if error.kind is Kind.INTERNAL and not whole:
                # A call that ends while a piece is being written ends so, whatever the far side said of it.
                raise errors.overloaded() from error
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # gRPC cancels a call by itself when it ends while a piece is being written.
            raise errors.overloaded() from None
        return answer.reference_id

    def drop_references(self, reference_ids: Sequence[str]) -> None:
        """Has the pool let go of them, in the background and at the best: what is missed is swept within a day."""
        if not reference_ids or len(self._drops) >= _DROPS_LIMIT:
            return
        drop = asyncio.create_task(self._drop(list(reference_ids)))
        self._drops.add(drop)
        drop.add_done_callback(self._drops.discard)

    async def take_hint(self, token: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> None:
        """Passes on what came to an address that the pool gave out. Raises UNKNOWN_HINT."""
        request = provider_pool_pb2.TakeHintRequest(token=token, headers=headers, body=body)
        await self._pool_stub.TakeHint(request, timeout=timeout_s)

    async def _drop(self, reference_ids: list[str]) -> None:
        # The request that staged them may have no time left.
        with call_context.entered(replace(call_context.current(), deadline_s=None)):
            try:
                request = provider_pool_pb2.DropReferencesRequest(reference_ids=reference_ids)
                await self._pool_stub.DropReferences(request, timeout=_DROP_TIMEOUT_S)
            except ServiceError as error:
                log.info("references.not_dropped", extra={"reason": error.reason})

    async def job(self, caller: Caller, job_id: str, *, tell_of_others: bool = False) -> jobs_pb2.Job:
        """The caller's job, no older than its poll interval. Raises JOB_NOT_FOUND, STATUS_UNAVAILABLE.

        tell_of_others: of another customer's job of the storefront it raises JOB_OF_ANOTHER_CUSTOMER.
        """
        request = jobs_pb2.GetJobRequest(
            job_id=job_id,
            customer_id=caller.customer_id,
            mode=jobs_mode(caller),
            sync=True,
            storefront=caller.storefront if tell_of_others else "",
            tell_of_others=tell_of_others,
        )
        return await self._asked_for(request)

    async def numbered_job(self, caller: Caller, number: int, *, sync: bool = True) -> jobs_pb2.Job:
        """The caller's job of that public number. Raises JOB_NOT_FOUND, and with `sync` STATUS_UNAVAILABLE."""
        request = jobs_pb2.GetJobRequest(
            public_number=number,
            storefront=caller.storefront,
            customer_id=caller.customer_id,
            mode=jobs_mode(caller),
            sync=sync,
        )
        return await self._asked_for(request)

    async def _asked_for(self, request: jobs_pb2.GetJobRequest) -> jobs_pb2.Job:
        answer = await self.jobs.stream.call(
            "GetJob",
            request,
            jobs_pb2.GetJobResponse,
            timeout_s=_CALL_TIMEOUT_S,
            lane=request.customer_id,
        )
        return answer.job

    async def delete_job(self, caller: Caller, job_id: str) -> None:
        """Ends the caller's job if it runs, and takes it and its media away. Raises JOB_NOT_FOUND."""
        request = jobs_pb2.DeleteJobRequest(
            job_id=job_id, customer_id=caller.customer_id, mode=jobs_mode(caller)
        )
        await self._jobs_stub.DeleteJob(request, timeout=_CALL_TIMEOUT_S)

    async def list_jobs(self, caller: Caller, request: jobs_pb2.ListJobsRequest) -> jobs_pb2.ListJobsResponse:
        """The caller's jobs that `request` asks for, newest first; whose they are is filled in here."""
        request.customer_id, request.mode = caller.customer_id, jobs_mode(caller)
        return await self._jobs_stub.ListJobs(request, timeout=_CALL_TIMEOUT_S)

    async def usage(self, caller: Caller, from_ms: int, before_ms: int) -> Sequence[jobs_pb2.UsageRow]:
        """The caller's jobs created in that time, counted by day and model, newest day first."""
        request = jobs_pb2.GetUsageRequest(
            customer_id=caller.customer_id, mode=jobs_mode(caller), from_ms=from_ms, before_ms=before_ms
        )
        answer = await self._jobs_stub.GetUsage(request, timeout=_CALL_TIMEOUT_S)
        return answer.rows


def jobs_mode(caller: Caller) -> jobs_pb2.Mode.ValueType:
    """The caller's wallet in the words of the jobs service."""
    return jobs_pb2.MODE_TEST if caller.test else jobs_pb2.MODE_LIVE


def _full(service: str, methods: frozenset[str]) -> list[str]:
    return [f"{service}/{method}" for method in sorted(methods)]
