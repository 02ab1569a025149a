"""A service whose calls do what their request says: for tests of the road, not of the business on it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc

from services.chassis import call_context
from services.chassis.coalesce import Coalescer, Handler, dispatcher
from services.chassis.errors import Kind, ServiceError
from services.chassis.rpc_client import open_channel
from services.chassis.rpc_server import RpcServer
from services.gen.billing.v1 import billing_pb2 as pb
from services.gen.billing.v1 import billing_pb2_grpc as rpc

SERVICE = "billing.v1.BillingService"
REFUSAL = ServiceError(
    Kind.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS", "5 credits — you have 2", {"need": "5"}
)

ToyCoalescer = Coalescer[pb.DispatchRequest, pb.DispatchResponse]


if TYPE_CHECKING:
    # The generated class is abstract for mypy; that most methods are missing is a part of these tests.
    _Servicer = object
else:
    _Servicer = rpc.BillingServiceServicer


class Toy(_Servicer):
    """`job_id` names what happens, `quantity` is its size. Hold is treated as repeatable, Capture is not."""

    def __init__(self, in_flight_limit: int = 2048) -> None:
        self.began: list[str] = []
        self.cancelled: list[str] = []
        self.active = 0
        self.most_active = 0
        self._dispatch = dispatcher(
            {"Hold": Handler(pb.HoldRequest, self.Hold), "Capture": Handler(pb.CaptureRequest, self.Capture)},
            pb.DispatchResponse,
            pb.DispatchReply,
            in_flight_limit=in_flight_limit,
        )

    async def Hold(self, request: pb.HoldRequest, context: Any) -> pb.HoldResponse:
        self.began.append(request.job_id)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            return await self._act(request.job_id, request.quantity)
        except asyncio.CancelledError:
            self.cancelled.append(request.job_id)
            raise
        finally:
            self.active -= 1

    async def Capture(self, request: pb.CaptureRequest, context: Any) -> pb.CaptureResponse:
        answer = await self.Hold(
            pb.HoldRequest(job_id=request.job_id, quantity=request.amount_millis), context
        )
        return pb.CaptureResponse(captured_millis=answer.amount_millis)

    def Dispatch(self, request_iterator: Any, context: Any) -> AsyncIterator[pb.DispatchResponse]:
        return self._dispatch(request_iterator, context)

    async def _act(self, what: str, size: int) -> pb.HoldResponse:
        if what == "refuse":
            raise REFUSAL
        if what == "bug":
            raise RuntimeError("the secret name of a host")
        if what == "sleep":
            await asyncio.sleep(size / 1000)
        if what == "hang":
            await asyncio.Event().wait()
        if what == "big":
            return pb.HoldResponse(price_version="x" * size)
        if what == "context":
            here = call_context.current()
            left_ms = int(call_context.remaining_s(0) * 1000)
            return pb.HoldResponse(
                price_version=f"{here.request_id}|{here.traceparent}|{here.fence}", amount_millis=left_ms
            )
        return pb.HoldResponse(amount_millis=size)


class Unstreamed(Toy):
    """An older server, from before Dispatch."""

    Dispatch = rpc.BillingServiceServicer.Dispatch  # type: ignore[assignment]


def serving(toy: Toy, listen: str = "127.0.0.1:0", **options: Any) -> RpcServer:
    servicer: Any = toy

    def add(server: grpc.aio.Server) -> None:
        rpc.add_BillingServiceServicer_to_server(servicer, server)

    return RpcServer(listen, [add], [SERVICE], **options)


@contextlib.asynccontextmanager
async def stub_of(address: str, **options: Any) -> AsyncIterator[rpc.BillingServiceAsyncStub]:
    channel = open_channel(address, **options)
    try:
        yield rpc.BillingServiceStub(channel)
    finally:
        await channel.close()


@contextlib.asynccontextmanager
async def coalescer_of(address: str, **options: Any) -> AsyncIterator[ToyCoalescer]:
    async with stub_of(address) as stub:
        options.setdefault("repeatable", frozenset({"Hold"}))
        coalescer = Coalescer(stub.Dispatch, pb.DispatchRequest, pb.DispatchItem, name="toy", **options)
        try:
            yield coalescer
        finally:
            await coalescer.close()


async def hold(coalescer: ToyCoalescer, what: str, size: int = 0, timeout_s: float = 10.0) -> pb.HoldResponse:
    request = pb.HoldRequest(job_id=what, quantity=size)
    return await coalescer.call("Hold", request, pb.HoldResponse, timeout_s=timeout_s)


async def capture(
    coalescer: ToyCoalescer, what: str, size: int = 0, timeout_s: float = 10.0
) -> pb.CaptureResponse:
    request = pb.CaptureRequest(job_id=what, amount_millis=size)
    return await coalescer.call("Capture", request, pb.CaptureResponse, timeout_s=timeout_s)


async def main(listen: str) -> None:
    async with serving(Toy(), listen) as server:
        sys.stdout.write(f"{server.address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
