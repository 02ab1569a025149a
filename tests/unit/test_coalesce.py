from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from services.chassis import call_context
from services.chassis.call_context import CallContext
from services.chassis.coalesce import Coalescer, unary_of
from services.chassis.errors import Kind, ServiceError
from services.gen.billing.v1 import billing_pb2 as pb
from tests.unit.toy_service import (
    REFUSAL,
    SERVICE,
    Toy,
    ToyCoalescer,
    Unstreamed,
    capture,
    coalescer_of,
    hold,
    serving,
    stub_of,
)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextlib.asynccontextmanager
async def house(toy: Toy | None = None, **options: Any) -> AsyncIterator[ToyCoalescer]:
    async with serving(toy or Toy()) as server, coalescer_of(server.address, **options) as coalescer:
        yield coalescer


async def failure(call: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


# One call.


async def test_each_caller_gets_the_answer_to_its_own_call() -> None:
    async with house() as coalescer:
        answers = await asyncio.gather(*[hold(coalescer, "echo", size) for size in range(1000)])
    assert [answer.amount_millis for answer in answers] == list(range(1000))


async def test_an_error_is_raised_equal_to_the_handlers() -> None:
    async with house() as coalescer:
        assert await failure(hold(coalescer, "refuse")) == REFUSAL


async def test_an_error_is_equal_alone_and_on_the_stream() -> None:
    async with house() as coalescer, serving(Toy()) as server, stub_of(server.address) as stub:
        for what in ("refuse", "bug"):
            alone = await failure(stub.Hold(pb.HoldRequest(job_id=what)))
            assert await failure(hold(coalescer, what)) == alone


async def test_a_failing_call_does_not_fail_its_neighbours() -> None:
    async with house() as coalescer:
        calls = [hold(coalescer, what, 7) for what in ("echo", "bug", "echo", "refuse", "echo")]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(answer, pb.HoldResponse) for answer in answers] == [True, False, True, False, True]


async def test_request_id_trace_fence_and_deadline_reach_the_handler() -> None:
    async with house() as coalescer:
        with call_context.entered(CallContext("req_abc", time.monotonic() + 2.0, TRACE, fence=7)):
            answer = await hold(coalescer, "context", timeout_s=30)
    assert answer.price_version == f"req_abc|{TRACE}|7"
    assert 1500 < answer.amount_millis <= 1950


async def test_the_first_callers_deadline_does_not_end_the_stream() -> None:
    async with house() as coalescer:
        with call_context.entered(CallContext("req_first", time.monotonic() + 0.3, "")):
            await hold(coalescer, "echo")
        await asyncio.sleep(0.4)
        answer = await hold(coalescer, "context")
    assert "req_first" not in answer.price_version


# Slow, late and cancelled calls.


async def test_a_slow_call_holds_up_nobody() -> None:
    async with house() as coalescer:
        await hold(coalescer, "echo")
        slow = asyncio.ensure_future(hold(coalescer, "sleep", 1000))
        started_s = time.monotonic()
        await asyncio.gather(*[hold(coalescer, "echo") for _ in range(200)])
        assert time.monotonic() - started_s < 0.5
        assert not slow.done()
        await slow


async def test_a_call_ends_at_its_own_deadline_on_both_sides() -> None:
    toy = Toy()
    async with house(toy) as coalescer:
        neighbour = asyncio.ensure_future(hold(coalescer, "sleep", 400))
        error = await failure(hold(coalescer, "hang", timeout_s=0.1))
        assert (error.kind, error.reason) == (Kind.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        await until(lambda: toy.cancelled == ["hang"])
        assert (await neighbour).amount_millis == 400


async def test_a_cancelled_caller_cancels_the_handler_and_only_that() -> None:
    toy = Toy()
    async with house(toy) as coalescer:
        hanging = asyncio.ensure_future(hold(coalescer, "hang"))
        neighbour = asyncio.ensure_future(hold(coalescer, "sleep", 300))
        await until(lambda: "hang" in toy.began)
        hanging.cancel()
        await until(lambda: toy.cancelled == ["hang"])
        assert (await neighbour).amount_millis == 300


async def test_a_call_cancelled_before_it_is_sent_never_begins() -> None:
    toy = Toy()
    async with house(toy) as coalescer:
        waiting = asyncio.ensure_future(hold(coalescer, "unwanted"))
        await asyncio.sleep(0)
        waiting.cancel()
        await hold(coalescer, "echo")
    assert toy.began == ["echo"]


# Bounds.


async def test_beyond_capacity_a_call_is_refused_at_once() -> None:
    async with house(capacity=10) as coalescer:
        held = [asyncio.ensure_future(hold(coalescer, "sleep", 300)) for _ in range(10)]
        await asyncio.sleep(0.05)
        started_s = time.monotonic()
        assert (await failure(hold(coalescer, "echo"))).kind is Kind.RESOURCE_EXHAUSTED
        assert time.monotonic() - started_s < 0.1
        await asyncio.gather(*held)
        await hold(coalescer, "echo")


async def test_no_more_calls_are_in_flight_than_the_window() -> None:
    toy = Toy()
    async with house(toy, window=8) as coalescer:
        await asyncio.gather(*[hold(coalescer, "sleep", 10) for _ in range(100)])
    assert toy.most_active == 8


async def test_a_server_refuses_the_items_beyond_its_own_bound_and_serves_the_rest() -> None:
    async with house(Toy(in_flight_limit=5)) as coalescer:
        calls = [hold(coalescer, "sleep", 200) for _ in range(20)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer.kind for answer in answers if isinstance(answer, ServiceError)]
    assert refused == [Kind.RESOURCE_EXHAUSTED] * 15


async def test_a_bulk_lane_does_not_delay_a_single_call_of_another() -> None:
    toy = Toy()
    async with house(toy, window=10) as coalescer:
        bulk = [asyncio.ensure_future(hold(coalescer, "sleep", 20)) for _ in range(1000)]
        await until(lambda: toy.active == 10)
        request = pb.HoldRequest(job_id="single")
        await coalescer.call("Hold", request, pb.HoldResponse, timeout_s=10, lane="other")
        assert sum(call.done() for call in bulk) < 100
        for call in bulk:
            call.cancel()
        await asyncio.gather(*bulk, return_exceptions=True)


async def test_messages_too_large_for_the_stream_fail_alone() -> None:
    async with house() as coalescer:
        neighbour = asyncio.ensure_future(hold(coalescer, "sleep", 200))
        big = pb.HoldRequest(job_id="echo", sku="x" * 5_000_000)
        error = await failure(coalescer.call("Hold", big, pb.HoldResponse, timeout_s=5))
        assert (error.kind, error.reason) == (Kind.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")
        error = await failure(hold(coalescer, "big", 5_000_000))
        assert (error.kind, error.reason) == (Kind.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
        await neighbour


async def test_many_large_messages_pass() -> None:
    async with house() as coalescer:
        answers = await asyncio.gather(*[hold(coalescer, "big", 2_000_000) for _ in range(20)])
    assert all(len(answer.price_version) == 2_000_000 for answer in answers)


# Servers that go and come.


@contextlib.asynccontextmanager
async def process(listen: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.toy_service", listen, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        yield child, (await child.stdout.readline()).decode().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def test_after_a_kill_repeatable_calls_are_sent_again_and_the_others_fail() -> None:
    async with process("127.0.0.1:0") as (child, address), coalescer_of(address) as coalescer:
        await hold(coalescer, "echo")
        repeatable = [asyncio.ensure_future(hold(coalescer, "sleep", 500)) for _ in range(50)]
        others = [asyncio.ensure_future(capture(coalescer, "sleep", 500)) for _ in range(50)]
        await asyncio.sleep(0.2)
        child.kill()
        await child.wait()
        failed = await asyncio.gather(*others, return_exceptions=True)
        assert {error.kind for error in failed if isinstance(error, ServiceError)} == {Kind.UNAVAILABLE}
        assert all(isinstance(error, ServiceError) for error in failed)
        async with process(address):
            assert {answer.amount_millis for answer in await asyncio.gather(*repeatable)} == {500}


async def test_a_repeatable_call_is_not_sent_again_beyond_its_deadline() -> None:
    async with process("127.0.0.1:0") as (child, address), coalescer_of(address) as coalescer:
        waiting = asyncio.ensure_future(hold(coalescer, "hang", timeout_s=1.0))
        await asyncio.sleep(0.5)
        child.kill()
        started_s = time.monotonic()
        assert (await failure(waiting)).kind in {Kind.DEADLINE_EXCEEDED, Kind.UNAVAILABLE}
        assert time.monotonic() - started_s < 0.7


async def test_restarts_on_the_same_port_under_load_fail_no_call_whatever_its_kind() -> None:
    answered = 0
    stop = False

    async def load(coalescer: ToyCoalescer, call: Callable[..., Any]) -> None:
        nonlocal answered
        while not stop:
            await call(coalescer, "sleep", 5)
            answered += 1

    async with serving(Toy()) as first, coalescer_of(first.address) as coalescer:
        loads = [asyncio.ensure_future(load(coalescer, call)) for call in (hold, capture) * 16]
        await asyncio.sleep(0.3)
        await first.drain()
        for _ in range(3):
            async with serving(Toy(), first.address):
                await asyncio.sleep(0.5)
        async with serving(Toy(), first.address):
            stop = True
            await asyncio.gather(*loads)
    assert answered > 500


async def test_a_drain_does_not_wait_for_quiet_streams() -> None:
    async with serving(Toy()) as server, coalescer_of(server.address) as coalescer:
        await hold(coalescer, "echo")
        started_s = time.monotonic()
        await server.drain()
        assert time.monotonic() - started_s < 1.0


async def test_a_server_that_stays_away_costs_little_patience() -> None:
    async with serving(Toy()) as server:
        address = server.address
    async with coalescer_of(address, patience_s=0.3) as coalescer:
        started_s = time.monotonic()
        assert (await failure(hold(coalescer, "echo"))).kind is Kind.UNAVAILABLE
        assert time.monotonic() - started_s < 1.0
        started_s = time.monotonic()
        assert (await failure(hold(coalescer, "echo"))).kind is Kind.UNAVAILABLE
        assert time.monotonic() - started_s < 0.1
        async with serving(Toy(), address):
            await until(lambda: coalescer.connected)
            assert (await hold(coalescer, "echo", 3)).amount_millis == 3


async def test_a_server_without_dispatch_is_called_alone() -> None:
    async with serving(Unstreamed()) as server, stub_of(server.address) as stub:
        coalescer = Coalescer(
            stub.Dispatch, pb.DispatchRequest, pb.DispatchItem, name="toy", unary=unary_of(stub)
        )
        answers = await asyncio.gather(*[hold(coalescer, "echo", size) for size in range(20)])
        assert [answer.amount_millis for answer in answers] == list(range(20))
        assert await failure(hold(coalescer, "refuse")) == REFUSAL
        assert (await failure(hold(coalescer, "hang", timeout_s=0.1))).kind is Kind.DEADLINE_EXCEEDED
        await coalescer.close()


async def test_without_dispatch_and_without_fallback_a_call_is_unimplemented() -> None:
    async with house(Unstreamed()) as coalescer:
        assert (await failure(hold(coalescer, "echo"))).kind is Kind.UNIMPLEMENTED


async def test_closing_fails_what_waits_and_what_comes_later() -> None:
    toy = Toy()
    async with house(toy) as coalescer:
        waiting = asyncio.ensure_future(hold(coalescer, "hang"))
        await until(lambda: toy.began)
        await coalescer.close()
        assert (await failure(waiting)).kind is Kind.UNAVAILABLE
        assert (await failure(hold(coalescer, "echo"))).kind is Kind.UNAVAILABLE
        await until(lambda: toy.cancelled == ["hang"])


# Hostile clients.


@contextlib.asynccontextmanager
async def raw_stream(toy: Toy) -> AsyncIterator[Any]:
    async with serving(toy) as server, stub_of(server.address) as stub:
        call = stub.Dispatch()
        try:
            yield call
        finally:
            call.cancel()


async def replies_to(toy: Toy, *items: pb.DispatchItem, expected: int) -> dict[int, pb.DispatchReply]:
    async with raw_stream(toy) as call:
        await call.write(pb.DispatchRequest(items=items))
        found: dict[int, pb.DispatchReply] = {}
        async with asyncio.timeout(5):
            while len(found) < expected:
                found |= {reply.sequence: reply for reply in (await call.read()).replies}
        return found


ECHO = pb.HoldRequest(job_id="echo", quantity=9).SerializeToString()


async def test_hostile_items_fail_alone() -> None:
    items = [
        pb.DispatchItem(sequence=1, method="DropTables", request=ECHO, timeout_ms=1000),
        pb.DispatchItem(sequence=2, method="Hold", request=b"\xff\xff\xff", timeout_ms=1000),
        pb.DispatchItem(sequence=3, method="Hold", request=ECHO, timeout_ms=1000),
        pb.DispatchItem(),
        pb.DispatchItem(sequence=77, cancel=True),
        pb.DispatchItem(sequence=5, method="Hold", request=ECHO, request_id="a\nb", traceparent="x" * 9999),
        pb.DispatchItem(sequence=2**64 - 1, method="Hold", timeout_ms=2**32 - 1),
    ]
    replies = await replies_to(Toy(), *items, expected=6)
    number = grpc.StatusCode
    assert {sequence: reply.code for sequence, reply in replies.items()} == {
        0: number.UNIMPLEMENTED.value[0],
        1: number.UNIMPLEMENTED.value[0],
        2: number.INVALID_ARGUMENT.value[0],
        3: 0,
        5: 0,
        2**64 - 1: 0,
    }
    assert pb.HoldResponse.FromString(replies[3].response).amount_millis == 9


async def test_a_sequence_used_twice_runs_once() -> None:
    toy = Toy()
    sleep = pb.HoldRequest(job_id="sleep", quantity=100).SerializeToString()
    item = pb.DispatchItem(sequence=1, method="Hold", request=sleep, timeout_ms=1000)
    last = pb.DispatchItem(sequence=2, method="Hold", request=ECHO, timeout_ms=1000)
    replies = await replies_to(toy, item, item, last, item, expected=2)
    assert toy.began == ["sleep", "echo"]
    assert {reply.code for reply in replies.values()} == {0}


async def test_an_item_cancelled_in_the_batch_that_brings_it_is_answered_and_leaves_nothing_behind() -> None:
    toy = Toy()
    items = [
        pb.DispatchItem(sequence=1, method="Hold", request=ECHO, timeout_ms=1000),
        pb.DispatchItem(sequence=1, cancel=True),
    ]
    replies = await replies_to(toy, *items, expected=1)
    assert replies[1].code == grpc.StatusCode.CANCELLED.value[0]
    assert toy.began == []


async def test_a_batch_of_absurd_length_ends_the_stream() -> None:
    async with raw_stream(Toy()) as call:
        await call.write(pb.DispatchRequest(items=[pb.DispatchItem()] * 5000))
        assert (await failure(call.read())).reason == "BATCH_TOO_LARGE"


async def test_bytes_that_are_no_batch_end_that_stream_only() -> None:
    async with (
        serving(Toy()) as server,
        grpc.aio.insecure_channel(server.address) as channel,
        coalescer_of(server.address) as coalescer,
    ):
        await hold(coalescer, "echo")
        call: Any = channel.stream_stream(f"/{SERVICE}/Dispatch")()
        await call.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await hold(coalescer, "echo", 2)).amount_millis == 2


async def test_a_vanished_client_leaves_no_handler_running() -> None:
    toy = Toy()
    async with raw_stream(toy) as call:
        hang = pb.HoldRequest(job_id="hang").SerializeToString()
        items = [
            pb.DispatchItem(sequence=n, method="Hold", request=hang, timeout_ms=60_000) for n in range(10)
        ]
        await call.write(pb.DispatchRequest(items=items))
        await until(lambda: toy.active == 10)
        call.cancel()
        await until(lambda: toy.active == 0)


async def test_a_client_that_never_reads_is_not_read_from_without_end() -> None:
    toy = Toy()
    # The padding makes the whole flood (400 MB) larger than all that the transport itself may buffer.
    big = pb.HoldRequest(job_id="big", quantity=20_000, sku="x" * 2000).SerializeToString()

    async def flood(call: Any) -> None:
        for first in range(0, 200_000, 128):
            span = range(first, first + 128)
            items = [pb.DispatchItem(sequence=n, method="Hold", request=big, timeout_ms=1000) for n in span]
            await call.write(pb.DispatchRequest(items=items))

    async with raw_stream(toy) as call:
        flooding = asyncio.ensure_future(flood(call))
        seen = -1
        async with asyncio.timeout(10):
            while seen != len(toy.began):
                seen = len(toy.began)
                await asyncio.sleep(0.5)
        assert not flooding.done()
        flooding.cancel()
    assert 0 < len(toy.began) < 30_000


async def test_a_client_that_does_not_leave_delays_a_drain_only_briefly() -> None:
    async with serving(Toy()) as server, stub_of(server.address) as stub:
        call = stub.Dispatch()
        await call.write(pb.DispatchRequest(items=[pb.DispatchItem(sequence=1, method="Hold", request=ECHO)]))
        answer: Any = await call.read()
        assert [reply.sequence for reply in answer.replies] == [1]
        started_s = time.monotonic()
        await server.drain()
        assert time.monotonic() - started_s < 4.0


async def test_what_arrives_after_the_server_said_goodbye_is_never_begun() -> None:
    toy = Toy()
    async with serving(toy) as server, stub_of(server.address) as stub:
        call: Any = stub.Dispatch()
        sleep = pb.HoldRequest(job_id="sleep", quantity=600).SerializeToString()
        await call.write(
            pb.DispatchRequest(items=[pb.DispatchItem(sequence=1, method="Hold", request=sleep)])
        )
        await until(lambda: toy.began)
        draining = asyncio.ensure_future(server.drain())
        assert not (await call.read()).replies
        await call.write(pb.DispatchRequest(items=[pb.DispatchItem(sequence=2, method="Hold", request=ECHO)]))
        await call.done_writing()
        answers = [reply.sequence async for response in _rest_of(call) for reply in response.replies]
        await draining
    assert answers == [1]
    assert toy.began == ["sleep"]


async def _rest_of(call: Any) -> AsyncIterator[Any]:
    while (response := await call.read()) is not grpc.aio.EOF:
        yield response
