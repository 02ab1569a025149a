"""Billing and the provider pool as the jobs service meets them: real gRPC, small rules, and faults on demand.

What a job does at its provider is chosen by its prompt: see `FakePool`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from services.chassis.dispatch import dispatcher
from services.chassis.errors import Kind, ServiceError
from services.chassis.rpc_server import RpcServer
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as pool_rpc
from tests.jobs_fake_billing import PRICE_MILLIS, FakeBilling, Faults, Partial, handlers, now_ms, unavailable

__all__ = [
    "PRICE_MILLIS",
    "STAGED_ID",
    "FakeBilling",
    "FakePool",
    "FakeServers",
    "a_reference",
    "create_request",
    "unavailable",
]


@dataclass
class Attempt:
    account_id: str
    prompt: str = ""
    state: int = pool.ATTEMPT_STATE_SUBMITTING
    polls: int = 0
    questions: int = 0
    created_at_ms: int = field(default_factory=now_ms)


class FakePool(Faults):
    """Accounts with `slots` in all. The words of a prompt decide what happens at the provider:

    slow: runs until `finish`; refused: content refused; rotate, retry: the first attempt fails so; hopeless: every
    attempt fails with rotate; lost: in doubt, then found; abandoned: in doubt for ever. Else: two polls, then done.
    References are ready from their preparation until they are dropped; `unready` is what preparing them fails with.
    """

    def __init__(self, slots: int = 1000) -> None:
        super().__init__()
        self.slots = slots
        self.incapable = False
        self.leases: dict[str, Attempt] = {}
        self.ended: set[str] = set()
        self.order: list[str] = []
        self.submits: Counter[str] = Counter()
        self.avoided: list[tuple[str, ...]] = []
        self.finished: set[str] = set()
        # Attempts that go on at the provider when their lease has ended, by their id.
        self.open_attempts: dict[str, str] = {}
        self.closed: list[str] = []
        self.deleted_keys: list[str] = []
        self.poll_after_ms = 0
        self.resolve_after_ms = 20
        self.unready: pool.Failure | None = None
        self.prepared: list[pool.PrepareReferencesRequest] = []
        self.dropped: dict[str, tuple[str, ...]] = {}
        self._ready: set[str] = set()
        self._news = asyncio.Condition()
        # Attempts that are worth a poll, as a provider would say.
        self.hints: asyncio.Queue[str] = asyncio.Queue()
        methods: dict[str, tuple[type[Any], Any]] = {
            "Lease": (pool.LeaseRequest, self.Lease),
            "ReleaseLease": (pool.ReleaseLeaseRequest, self.ReleaseLease),
            "RenewLeases": (pool.RenewLeasesRequest, self.RenewLeases),
            "PrepareReferences": (pool.PrepareReferencesRequest, self.PrepareReferences),
            "DropReferences": (pool.DropReferencesRequest, self.DropReferences),
            "Submit": (pool.SubmitRequest, self.Submit),
            "Poll": (pool.PollRequest, self.Poll),
            "PollMany": (pool.PollManyRequest, self.PollMany),
            "ResolveUnknown": (pool.ResolveUnknownRequest, self.ResolveUnknown),
            "Collect": (pool.CollectRequest, self.Collect),
            "ListLeases": (pool.ListLeasesRequest, self.ListLeases),
            "CloseAttempts": (pool.CloseAttemptsRequest, self.CloseAttempts),
            "DeleteMedia": (pool.DeleteMediaRequest, self.DeleteMedia),
        }
        self._dispatch = dispatcher(handlers(methods), pool.DispatchResponse, pool.DispatchReply)

    def add_to(self, server: Any) -> None:
        partial: Any = Partial(self)
        pool_rpc.add_ProviderPoolServiceServicer_to_server(partial, server)

    def Dispatch(self, request_iterator: Any, context: Any) -> Any:
        return self._dispatch(request_iterator, context)

    async def finish(self, *job_ids: str) -> None:
        """Lets slow jobs end well."""
        self.finished.update(job_ids)

    async def open_slots(self, slots: int) -> None:
        self.slots = slots
        await self._announce()

    async def _announce(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def Lease(self, request: pool.LeaseRequest, context: Any) -> pool.LeaseResponse:
        return await self.grant(request, context)

    async def grant(self, request: pool.LeaseRequest, context: Any) -> pool.LeaseResponse:
        """What a lease request is answered; a test may put another in its place."""
        await self.enter("Lease")
        if self.incapable:
            raise ServiceError(Kind.FAILED_PRECONDITION, "NO_CAPABLE_ACCOUNT", "none")
        if request.attempt_id in self.ended:
            raise ServiceError(Kind.FAILED_PRECONDITION, "LEASE_ENDED", "ended")
        if request.attempt_id not in self.leases:
            if request.wait_behind_others or len(self.leases) >= self.slots:
                self.leave("Lease")
                return pool.LeaseResponse(outcome=pool.LeaseResponse.OUTCOME_BUSY)
            free = [name for name in ("acc_1", "acc_2", "acc_3") if name not in request.avoid_account_ids]
            self.leases[request.attempt_id] = Attempt(free[0] if free else "acc_1", request.generation.prompt)
            self.order.append(request.job_id)
            self.avoided.append(tuple(request.avoid_account_ids))
        self.leave("Lease")
        return pool.LeaseResponse(
            outcome=pool.LeaseResponse.OUTCOME_GRANTED, account_id=self.leases[request.attempt_id].account_id
        )

    async def ReleaseLease(
        self, request: pool.ReleaseLeaseRequest, context: Any
    ) -> pool.ReleaseLeaseResponse:
        await self.enter("ReleaseLease")
        was = self.leases.pop(request.attempt_id, None)
        self.ended.add(request.attempt_id)
        await self._announce()
        return pool.ReleaseLeaseResponse(tombstone=was is None)

    async def RenewLeases(self, request: pool.RenewLeasesRequest, context: Any) -> pool.RenewLeasesResponse:
        await self.enter("RenewLeases")
        return pool.RenewLeasesResponse(
            ended_attempt_ids=[i for i in request.attempt_ids if i not in self.leases]
        )

    async def WatchCapacity(
        self, request: pool.WatchCapacityRequest, context: Any
    ) -> AsyncIterator[pool.WatchCapacityResponse]:
        while True:
            free = max(0, self.slots - len(self.leases))
            modes = (pool.MODE_LIVE, pool.MODE_TEST)
            rooms = [
                pool.WatchCapacityResponse.Room(mode=mode, model="gpt-image-2", free_slots=free)
                for mode in modes
            ]
            yield pool.WatchCapacityResponse(rooms=rooms)
            async with self._news:
                await self._news.wait()

    async def WatchHints(
        self, request: pool.WatchHintsRequest, context: Any
    ) -> AsyncIterator[pool.WatchHintsResponse]:
        while True:
            yield pool.WatchHintsResponse(attempt_ids=[await self.hints.get()])

    def _attempt(self, attempt_id: str) -> Attempt:
        attempt = self.leases.get(attempt_id)
        if attempt is None:
            raise ServiceError(Kind.NOT_FOUND, "ATTEMPT_NOT_FOUND", "none")
        return attempt

    async def PrepareReferences(
        self, request: pool.PrepareReferencesRequest, context: Any
    ) -> pool.PrepareReferencesResponse:
        self.prepared.append(request)
        await self.enter("PrepareReferences")
        self._leased(request.attempt_id)
        if self.unready is not None:
            return pool.PrepareReferencesResponse(failure=self.unready)
        self._ready.add(request.job_id)
        self.leave("PrepareReferences")
        return pool.PrepareReferencesResponse()

    async def DropReferences(
        self, request: pool.DropReferencesRequest, context: Any
    ) -> pool.DropReferencesResponse:
        await self.enter("DropReferences")
        self._ready.discard(request.job_id)
        self.dropped[request.job_id] = tuple(request.reference_ids)
        self.leave("DropReferences")
        return pool.DropReferencesResponse()

    def _leased(self, attempt_id: str) -> Attempt:
        if attempt_id in self.ended:
            raise ServiceError(Kind.FAILED_PRECONDITION, "LEASE_ENDED", "ended")
        return self._attempt(attempt_id)

    async def Submit(self, request: pool.SubmitRequest, context: Any) -> pool.SubmitResponse:
        attempt = self._leased(request.attempt_id)
        if request.generation.references and request.job_id not in self._ready:
            raise ServiceError(Kind.INVALID_ARGUMENT, "INVALID_REQUEST", "its references are not ready")
        if attempt.state == pool.ATTEMPT_STATE_SUBMITTING and attempt.questions == 0:
            attempt.questions = 1
            self.submits[request.attempt_id] += 1
            doubtful = "lost" in attempt.prompt or "abandoned" in attempt.prompt
            attempt.state = pool.ATTEMPT_STATE_UNKNOWN if doubtful else pool.ATTEMPT_STATE_RUNNING
        await self.enter("Submit")
        self.leave("Submit")
        return pool.SubmitResponse(status=self._status(request.attempt_id, attempt))

    def _status(self, attempt_id: str, attempt: Attempt) -> pool.AttemptStatus:
        status = pool.AttemptStatus(
            state=pool.AttemptState.ValueType(attempt.state),
            progress=min(99, attempt.polls * 40),
            poll_after_ms=self.poll_after_ms,
        )
        first = attempt_id.endswith(":1")
        words = attempt.prompt.split()
        if attempt.state == pool.ATTEMPT_STATE_RUNNING:
            failing = (
                "refused" in words or "hopeless" in words or (first and {"rotate", "retry"} & set(words))
            )
            if failing and attempt.polls >= 1:
                status.state = pool.ATTEMPT_STATE_FAILED
                status.failure.CopyFrom(self._failure(words))
            elif ("slow" not in words and attempt.polls >= 2) or attempt_id.partition(":")[
                0
            ] in self.finished:
                status.state = pool.ATTEMPT_STATE_SUCCEEDED
        return status

    def _failure(self, words: list[str]) -> pool.Failure:
        if "refused" in words:
            # The advice to rotate must not be taken for content.
            return pool.Failure(
                reason=pool.FAILURE_REASON_CONTENT_REFUSED, next_step=pool.NEXT_STEP_ROTATE, detail="nsfw"
            )
        step = pool.NEXT_STEP_RETRY if "retry" in words else pool.NEXT_STEP_ROTATE
        return pool.Failure(reason=pool.FAILURE_REASON_PROVIDER_UNAVAILABLE, next_step=step, detail="503")

    async def Poll(self, request: pool.PollRequest, context: Any) -> pool.PollResponse:
        await self.enter("Poll")
        attempt = self._attempt(request.attempt_id)
        attempt.polls += 1
        return pool.PollResponse(status=self._status(request.attempt_id, attempt), answered_at_ms=now_ms())

    async def PollMany(self, request: pool.PollManyRequest, context: Any) -> pool.PollManyResponse:
        self.calls["PollMany"] += 1
        answers = await asyncio.gather(*(self._polled(one, context) for one in request.attempt_ids))
        return pool.PollManyResponse(answers=answers)

    async def _polled(self, attempt_id: str, context: Any) -> pool.PollManyResponse.Answer:
        try:
            answer = await self.Poll(pool.PollRequest(attempt_id=attempt_id), context)
        except ServiceError as error:
            missing = error.reason == "ATTEMPT_NOT_FOUND"
            refusal = pool.REASON_ATTEMPT_NOT_FOUND if missing else pool.REASON_PROVIDER_UNREACHABLE
            return pool.PollManyResponse.Answer(refusal=refusal)
        return pool.PollManyResponse.Answer(status=answer.status, answered_at_ms=answer.answered_at_ms)

    async def ResolveUnknown(
        self, request: pool.ResolveUnknownRequest, context: Any
    ) -> pool.ResolveUnknownResponse:
        await self.enter("ResolveUnknown")
        attempt = self._attempt(request.attempt_id)
        attempt.questions += 1
        if attempt.questions > 2:
            lost = "lost" in attempt.prompt
            attempt.state = pool.ATTEMPT_STATE_RUNNING if lost else pool.ATTEMPT_STATE_ABANDONED
        status = self._status(request.attempt_id, attempt)
        status.poll_after_ms = self.resolve_after_ms
        return pool.ResolveUnknownResponse(status=status)

    async def Collect(self, request: pool.CollectRequest, context: Any) -> pool.CollectResponse:
        await self.enter("Collect")
        output = pool.Output(
            role=pool.Output.ROLE_PRIMARY,
            object_key=f"{request.job_id}/0.png",
            content_type="image/png",
            size_bytes=10,
            sha256="00",
            width=64,
            height=64,
        )
        self.leave("Collect")
        return pool.CollectResponse(retention_ms=3_600_000, outputs=[output])

    async def ListLeases(self, request: pool.ListLeasesRequest, context: Any) -> pool.ListLeasesResponse:
        await self.enter("ListLeases")
        old = [i for i, lease in self.leases.items() if lease.created_at_ms < request.created_before_ms]
        ids = sorted(i for i in old if i > request.after_attempt_id)[: request.limit]
        return pool.ListLeasesResponse(
            leases=[pool.LeaseRecord(attempt_id=i, job_id=i.partition(":")[0]) for i in ids]
        )

    async def ListOpenAttempts(
        self, request: pool.ListOpenAttemptsRequest, context: Any
    ) -> pool.ListOpenAttemptsResponse:
        await self.enter("ListOpenAttempts")
        ids = sorted(i for i in self.open_attempts if i > request.after_attempt_id)[: request.limit]
        return pool.ListOpenAttemptsResponse(
            attempts=[pool.OpenAttempt(attempt_id=i, job_id=self.open_attempts[i]) for i in ids]
        )

    async def CloseAttempts(
        self, request: pool.CloseAttemptsRequest, context: Any
    ) -> pool.CloseAttemptsResponse:
        await self.enter("CloseAttempts")
        for attempt_id in request.attempt_ids:
            self.open_attempts.pop(attempt_id, None)
            self.closed.append(attempt_id)
        self.leave("CloseAttempts")
        return pool.CloseAttemptsResponse()

    async def DeleteMedia(self, request: pool.DeleteMediaRequest, context: Any) -> pool.DeleteMediaResponse:
        await self.enter("DeleteMedia")
        self.deleted_keys += request.object_keys
        self.leave("DeleteMedia")
        return pool.DeleteMediaResponse()


STAGED_ID = f"ref_{'0' * 26}"


def a_reference(**source: str) -> jobs.Reference:
    """One image; a staged one unless told."""
    image, mid = jobs.Reference.ROLE_IMAGE, jobs.Reference.STRENGTH_MID
    return jobs.Reference(role=image, strength=mid, **(source or {"reference_id": STAGED_ID}))


def create_request(
    key: str,
    *,
    customer: str = "cus_a",
    prompt: str = "a cat",
    running: int = 1000,
    queued: int = 100_000,
    references: Sequence[jobs.Reference] = (),
) -> jobs.CreateJobRequest:
    limits = jobs.ReferenceLimits(image_formats=["jpeg", "png"], image_bytes=1000, images=9)
    return jobs.CreateJobRequest(
        customer_id=customer,
        mode=jobs.MODE_TEST,
        storefront="leonardo",
        idempotency_key=key,
        fingerprint=prompt.encode(),
        generation=jobs.Generation(
            kind=jobs.KIND_IMAGE,
            model="gpt-image-2",
            prompt=prompt,
            width=64,
            height=64,
            references=references,
            reference_limits=limits if references else None,
        ),
        sku="image.low",
        quantity=1,
        limits=jobs.Limits(running_jobs=running, queued_jobs=queued),
        id_prefix="job",
    )


class FakeServers:
    """Both fakes on free ports."""

    def __init__(self, slots: int = 1000) -> None:
        self.billing = FakeBilling()
        self.pool = FakePool(slots)
        self._stack = AsyncExitStack()
        self.billing_address = ""
        self.pool_address = ""

    async def __aenter__(self) -> Self:
        self.billing_address = await self._serve(self.billing, "billing.v1.BillingService")
        self.pool_address = await self._serve(self.pool, "provider_pool.v1.ProviderPoolService")
        return self

    async def _serve(self, fake: FakeBilling | FakePool, name: str) -> str:
        server = RpcServer("127.0.0.1:0", [fake.add_to], [name], grace_s=0)
        await self._stack.enter_async_context(server)
        return server.address

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
