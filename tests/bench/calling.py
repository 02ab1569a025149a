"""Programs of the call measurements: a service that only waits, and callers that ask as fast as they are answered.

`python -m tests.bench.calling serve` prints its address. `… call HOW WHAT ADDRESS SECONDS CALLERS [JOB CUSTOMER …]`
prints what its callers saw. Each is one process with one loop, as the services are.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import uvloop

from services.chassis.dispatch import Handler, dispatcher
from services.chassis.rpc_server import RpcServer
from services.chassis.service_link import ServiceLink
from services.gen.billing.v1 import billing_pb2, billing_pb2_grpc
from services.gen.jobs.v1 import jobs_pb2, jobs_pb2_grpc

if TYPE_CHECKING:
    # The generated class is abstract for mypy; this service has the one method that is measured.
    _Servicer = object
else:
    _Servicer = billing_pb2_grpc.BillingServiceServicer

_SLOW_EACH: Final = 100
_TIMEOUT_S: Final = 20.0
_WARM_S: Final = 0.3
Call = Callable[[], Awaitable[Any]]


class Waiting(_Servicer):
    """Hold answers at once; with a quantity it waits 2 ms, and every hundredth call 100 ms."""

    def __init__(self) -> None:
        self._turns = itertools.count(1)
        self._dispatch = dispatcher(
            {"Hold": Handler(billing_pb2.HoldRequest, self.Hold)},
            billing_pb2.DispatchResponse,
            billing_pb2.DispatchReply,
        )

    async def Hold(self, request: billing_pb2.HoldRequest, context: Any) -> billing_pb2.HoldResponse:
        if request.quantity:
            await asyncio.sleep(0.1 if next(self._turns) % _SLOW_EACH == 0 else 0.002)
        return billing_pb2.HoldResponse(amount_millis=1)

    def Dispatch(self, request_iterator: Any, context: Any) -> AsyncIterator[billing_pb2.DispatchResponse]:
        return self._dispatch(request_iterator, context)


async def serve() -> None:
    servicer: Any = Waiting()

    def add(server: grpc.aio.Server) -> None:
        billing_pb2_grpc.add_BillingServiceServicer_to_server(servicer, server)

    async with RpcServer("127.0.0.1:0", [add], ["billing.v1.BillingService"]) as server:
        print(server.address, flush=True)
        await asyncio.Event().wait()


async def call(how: str, what: str, address: str, seconds: float, callers: int, names: list[str]) -> None:
    async with _link(what, address) as link:
        await link.check()
        one = _call_of(link, how == "coalesced", what, names)
        await _closed_loop(one, callers, _WARM_S)
        began_s = time.perf_counter()
        spent_s = time.process_time()
        times_ms = sorted(await _closed_loop(one, callers, seconds))
        passed_s = time.perf_counter() - began_s
    seen = {
        "per_s": len(times_ms) / passed_s,
        "p50_ms": times_ms[len(times_ms) // 2],
        "p99_ms": times_ms[len(times_ms) * 99 // 100],
        "caller_cpu_ms": 1_000 * (time.process_time() - spent_s) / len(times_ms),
    }
    print(json.dumps(seen), flush=True)


async def _closed_loop(one: Call, callers: int, seconds: float) -> list[float]:
    until_s = time.perf_counter() + seconds
    times_ms: list[float] = []

    async def ask() -> None:
        while (began_s := time.perf_counter()) < until_s:
            await one()
            times_ms.append(1_000 * (time.perf_counter() - began_s))

    await asyncio.gather(*(ask() for _ in range(callers)))
    return times_ms


def _link(what: str, address: str) -> ServiceLink:
    of_jobs = what == "GetJob"
    return ServiceLink(
        address,
        name="measured",
        stub=jobs_pb2_grpc.JobsServiceStub if of_jobs else billing_pb2_grpc.BillingServiceStub,
        messages=jobs_pb2 if of_jobs else billing_pb2,
        repeatable=frozenset({"GetJob", "Hold"}),
    )


def _call_of(link: ServiceLink, coalesced: bool, what: str, names: list[str]) -> Call:
    if what == "GetJob":
        asked: Any = itertools.cycle(
            jobs_pb2.GetJobRequest(job_id=job_id, customer_id=customer_id, mode=jobs_pb2.MODE_LIVE, sync=True)
            for job_id, customer_id in zip(names[::2], names[1::2], strict=True)
        )
        method, answer, stub = "GetJob", jobs_pb2.GetJobResponse, jobs_pb2_grpc.JobsServiceStub(link.channel)
    else:
        quantity = 1 if what == "slow" else 0
        asked = itertools.repeat(
            billing_pb2.HoldRequest(customer_id="cus_1", job_id="job_1", quantity=quantity)
        )
        method, answer = "Hold", billing_pb2.HoldResponse  # type: ignore[assignment]
        stub = billing_pb2_grpc.BillingServiceStub(link.channel)  # type: ignore[assignment]
    unary = getattr(stub, method)
    if coalesced:
        return lambda: link.stream.call(method, next(asked), answer, timeout_s=_TIMEOUT_S)
    return lambda: unary(next(asked), timeout=_TIMEOUT_S)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(serve())
    else:
        how, what, address, seconds, callers, *names = sys.argv[2:]
        uvloop.run(call(how, what, address, float(seconds), int(callers), names))
