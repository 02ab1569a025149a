"""Billing as the jobs service meets it, and what every such fake has: real gRPC, small rules, faults on demand."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from services.chassis.dispatch import Handler, dispatcher
from services.chassis.errors import Kind, ServiceError
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.billing.v1 import billing_pb2_grpc as billing_rpc

PRICE_MILLIS = 20_000
# All others are known.
UNKNOWN_CUSTOMER = "cus_none"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def unavailable() -> ServiceError:
    return ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "away")


class Partial:
    """A servicer that has the methods of `fake` and lacks all others."""

    def __init__(self, fake: Any) -> None:
        self._fake = fake

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name, None)


def handlers(methods: dict[str, tuple[type[Any], Any]]) -> dict[str, Handler[Any]]:
    return {name: Handler(kind, behavior) for name, (kind, behavior) in methods.items()}


class Faults:
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
    created_at_ms: int = field(default_factory=now_ms)


class FakeBilling(Faults):
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
            "GetChargedTotals": (billing.GetChargedTotalsRequest, self.GetChargedTotals),
        }
        self._dispatch = dispatcher(handlers(methods), billing.DispatchResponse, billing.DispatchReply)

    def add_to(self, server: Any) -> None:
        partial: Any = Partial(self)
        billing_rpc.add_BillingServiceServicer_to_server(partial, server)

    def Dispatch(self, request_iterator: Any, context: Any) -> Any:
        return self._dispatch(request_iterator, context)

    def open_holds(self) -> list[str]:
        return [job_id for job_id, hold in self.holds.items() if hold.state == billing.HOLD_STATE_OPEN]

    async def GetCustomer(
        self, request: billing.GetCustomerRequest, context: Any
    ) -> billing.GetCustomerResponse:
        await self.enter("GetCustomer")
        if request.customer_id == UNKNOWN_CUSTOMER:
            raise ServiceError(Kind.NOT_FOUND, "CUSTOMER_NOT_FOUND", "There is no such customer.")
        return billing.GetCustomerResponse(customer=billing.Customer(customer_id=request.customer_id))

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
            if hold.state == request.state
            and created_at_ms < (request.created_before_ms or created_at_ms + 1)
            and (not request.job_ids or job_id in request.job_ids)
        ]
        ids = [record.job_id for record in listed]
        start = ids.index(request.after_job_id) + 1 if request.after_job_id in ids else 0
        if request.after_job_id and request.after_job_id not in ids:
            return billing.ListHoldsResponse()
        return billing.ListHoldsResponse(holds=listed[start : start + request.limit])

    async def GetChargedTotals(
        self, request: billing.GetChargedTotalsRequest, context: Any
    ) -> billing.GetChargedTotalsResponse:
        await self.enter("GetChargedTotals")
        totals: Counter[tuple[str, int]] = Counter()
        for job_id, hold in self.holds.items():
            if job_id not in self.expired:
                totals[hold.customer_id, hold.mode] += hold.captured_millis
        return billing.GetChargedTotalsResponse(
            totals=[
                billing.ChargedTotal(
                    customer_id=name.customer_id,
                    mode=name.mode,
                    captured_millis=totals[name.customer_id, name.mode],
                )
                for name in request.wallets
            ]
        )
