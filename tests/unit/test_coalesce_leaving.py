"""Calls on a stream whose server leaves: what it began is answered there, everything else goes on elsewhere."""

from __future__ import annotations

import asyncio

from services.chassis.errors import Kind, ServiceError
from services.gen.billing.v1 import billing_pb2 as pb
from tests.unit.test_coalesce import failure, until
from tests.unit.toy_service import Toy, capture, coalescer_of, hold, serving


async def test_calls_do_not_wait_for_what_a_leaving_server_still_has_to_answer() -> None:
    toy = Toy()
    async with serving(toy) as first, coalescer_of(first.address) as coalescer:
        slow = asyncio.ensure_future(hold(coalescer, "sleep", 2000))
        await until(lambda: toy.began == ["sleep"])
        await first.leave()
        async with serving(Toy(), first.address):
            assert (await hold(coalescer, "echo", 3)).amount_millis == 3
            assert not slow.done()
            assert (await slow).amount_millis == 2000
            assert toy.began == ["sleep"]


async def test_patience_with_a_server_that_stays_away_does_not_end_what_the_leaving_one_answers() -> None:
    toy = Toy()
    async with serving(toy) as server, coalescer_of(server.address, patience_s=0.2) as coalescer:
        slow = asyncio.ensure_future(hold(coalescer, "sleep", 1500))
        await until(lambda: toy.began == ["sleep"])
        await server.leave()
        assert (await failure(hold(coalescer, "echo"))).kind is Kind.UNAVAILABLE
        assert (await slow).amount_millis == 1500


async def test_what_outlasts_a_leaving_server_is_sent_to_the_next_one_if_it_may_be() -> None:
    toy = Toy()
    async with serving(toy) as first, coalescer_of(first.address) as coalescer:
        calls = [
            asyncio.ensure_future(call(coalescer, "sleep", 1500, timeout_s=20)) for call in (hold, capture)
        ]
        await until(lambda: len(toy.began) == 2)
        await first.leave()
        async with serving(Toy(), first.address):
            await hold(coalescer, "echo")
            await first.drain(0)
            repeated, cut = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(repeated, pb.HoldResponse)
    assert isinstance(cut, ServiceError)
    assert cut.kind is Kind.UNAVAILABLE
