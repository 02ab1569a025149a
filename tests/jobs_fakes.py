"""Billing and the provider pool as the jobs service meets them: real gRPC, small rules, and faults on demand.

What a job does at its provider is chosen by its prompt: see `FakePool`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from services.chassis.dispatch import Handler, dispatcher
from services.chassis.errors import Kind, ServiceError
from services.chassis.rpc_server import RpcServer
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.billing.v1 import billing_pb2_grpc as billing_rpc
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as pool_rpc

PRICE_MILLIS = 20_000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def unavailable() -> ServiceError:
    return ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "away")


class _Partial:
    """A servicer that has the methods of `fake` and lacks all others."""

    def __init__(self, fake: Any) -> None:
        self._fake = fake

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name, None)


def _handlers(methods: dict[str, tuple[type[Any], Any]]) -> dict[str, Handler[Any]]:
    return {name: Handler(kind, behavior) for name, (kind, behavior) in methods.items()}


class _Faults:
    """Per method: an error to raise, and whether the call takes effect before it."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.before: dict[str, ServiceError] = {}
        self.after: dict[str, ServiceError] = {}
        self.delay_s: dict[str, float] = {}

    async def enter(self, method: str) -> None:
        self.calls[method] += 1
        if method in self.delay_s:
            await asyncio.sleep(self.delay_s[method])
        if method in self.before:
            raise self.before[method]

    def leave(self, method: str) -> None:
        if method in self.after:
            raise self.after[method]


@dataclass
class Hold:
    customer_id: str
    mode: int
    amount_millis: int
    state: int = billing.HOLD_STATE_OPEN
    captured_millis: int = 0
    created_at_ms: int = field(default_factory=_now_ms)


class FakeBilling(_Faults):
    """One wallet that never empties, unless told; every hold by its job."""

    def __init__(self) -> None:
        super().__init__()
        self.holds: dict[str, Hold] = {}
        self.captures: Counter[str] = Counter()
        self.expired: set[str] = set()
        methods: dict[str, tuple[type[Any], Any]] = {
            "Hold": (billing.HoldRequest, self.Hold),
            "Capture": (billing.CaptureRequest, self.Capture),
            "Release": (billing.ReleaseRequest, self.Release),
            "ExtendHolds": (billing.ExtendHoldsRequest, self.ExtendHolds),
            "ListHolds": (billing.ListHoldsRequest, self.ListHolds),
        }
        handlers = _handlers(methods)
        self._dispatch = dispatcher(handlers, billing.DispatchResponse, billing.DispatchReply)

    def add_to(self, server: Any) -> None:
        partial: Any = _Partial(self)
        billing_rpc.add_BillingServiceServicer_to_server(partial, server)

    def Dispatch(self, request_iterator: Any, context: Any) -> Any:
        return self._dispatch(request_iterator, context)

    def open_holds(self) -> list[str]:
        return [job_id for job_id, hold in self.holds.items() if hold.state == billing.HOLD_STATE_OPEN]

    async def Hold(self, request: billing.HoldRequest, context: Any) -> billing.HoldResponse:
        await self.enter("Hold")
        hold = self.holds.get(request.job_id)
        if hold is not None and hold.state == billing.HOLD_STATE_RELEASED:
            raise ServiceError(Kind.FAILED_PRECONDITION, "HOLD_RELEASED", "released")
        amount = PRICE_MILLIS * request.quantity
        if hold is None:
            self.holds[request.job_id] = Hold(request.customer_id, request.mode, amount)
        self.leave("Hold")
        return billing.HoldResponse(amount_millis=amount, price_version="1")

    async def Capture(self, request: billing.CaptureRequest, context: Any) -> billing.CaptureResponse:
        await self.enter("Capture")
        hold = self.holds[request.job_id]
        if hold.state == billing.HOLD_STATE_RELEASED:
            raise ServiceError(Kind.FAILED_PRECONDITION, "HOLD_RELEASED", "released")
        if hold.state == billing.HOLD_STATE_OPEN:
            self.captures[request.job_id] += 1
            hold.state = billing.HOLD_STATE_CAPTURED
            hold.captured_millis = request.amount_millis
        self.leave("Capture")
        if request.job_id in self.expired:
            return billing.CaptureResponse(unbilled=True)
        return billing.CaptureResponse(captured_millis=hold.captured_millis)

    async def Release(self, request: billing.ReleaseRequest, context: Any) -> billing.ReleaseResponse:
        await self.enter("Release")
        hold = self.holds.setdefault(request.job_id, Hold(request.customer_id, request.mode, 0))
        if hold.state == billing.HOLD_STATE_CAPTURED:
            raise ServiceError(Kind.FAILED_PRECONDITION, "HOLD_CAPTURED", "captured")
        hold.state = billing.HOLD_STATE_RELEASED
        self.leave("Release")
        return billing.ReleaseResponse()

    async def ExtendHolds(
        self, request: billing.ExtendHoldsRequest, context: Any
    ) -> billing.ExtendHoldsResponse:
        await self.enter("ExtendHolds")
        still_open = set(self.open_holds())
        return billing.ExtendHoldsResponse(
            not_open_job_ids=[i for i in request.job_ids if i not in still_open]
        )

    async def ListHolds(self, request: billing.ListHoldsRequest, context: Any) -> billing.ListHoldsResponse:
        await self.enter("ListHolds")
        rows = sorted((hold.created_at_ms, job_id, hold) for job_id, hold in self.holds.items())
        listed = [
            billing.HoldRecord(
                job_id=job_id,
                customer_id=hold.customer_id,
                mode=billing.Mode.ValueType(hold.mode),
                amount_millis=hold.amount_millis,
            )
            for created_at_ms, job_id, hold in rows
            if hold.state == request.state and created_at_ms < request.created_before_ms
        ]
        ids = [record.job_id for record in listed]
        start = ids.index(request.after_job_id) + 1 if request.after_job_id in ids else 0
        if request.after_job_id and request.after_job_id not in ids:
            return billing.ListHoldsResponse()
        return billing.ListHoldsResponse(holds=listed[start : start + request.limit])


@dataclass
class Attempt:
    account_id: str
    prompt: str = ""
    state: int = pool.ATTEMPT_STATE_SUBMITTING
    polls: int = 0
    questions: int = 0
    created_at_ms: int = field(default_factory=_now_ms)


class FakePool(_Faults):
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
        self.poll_after_ms = 0
        self.unready: pool.Failure | None = None
        self.prepared: list[pool.PrepareReferencesRequest] = []
        self.dropped: dict[str, tuple[str, ...]] = {}
        self._ready: set[str] = set()
        self._news = asyncio.Condition()
        methods: dict[str, tuple[type[Any], Any]] = {
            "Lease": (pool.LeaseRequest, self.Lease),
            "ReleaseLease": (pool.ReleaseLeaseRequest, self.ReleaseLease),
            "RenewLeases": (pool.RenewLeasesRequest, self.RenewLeases),
            "PrepareReferences": (pool.PrepareReferencesRequest, self.PrepareReferences),
            "DropReferences": (pool.DropReferencesRequest, self.DropReferences),
            "Submit": (pool.SubmitRequest, self.Submit),
            "Poll": (pool.PollRequest, self.Poll),
            "ResolveUnknown": (pool.ResolveUnknownRequest, self.ResolveUnknown),
            "Collect": (pool.CollectRequest, self.Collect),
            "ListLeases": (pool.ListLeasesRequest, self.ListLeases),
        }
        handlers = _handlers(methods)
        self._dispatch = dispatcher(handlers, pool.DispatchResponse, pool.DispatchReply)

    def add_to(self, server: Any) -> None:
        partial: Any = _Partial(self)
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
        return pool.PollResponse(status=self._status(request.attempt_id, attempt), answered_at_ms=_now_ms())

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
        status.poll_after_ms = 20
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
