from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from services.chassis.clock import SystemClock
from services.chassis.egress_policy import EgressRefused
from services.simulator.hooks import Hooks, LoopbackOnly
from tests.simulator.receivers import receiver


async def settled(hooks: Hooks, attempts: int) -> list[int]:
    async with asyncio.timeout(10):
        while len(hooks.deliveries) < attempts:
            await asyncio.sleep(0.01)
    return [delivery.status for delivery in hooks.deliveries]


async def test_a_callback_is_repeated_until_it_is_taken() -> None:
    async with receiver(500, 503) as heard, Hooks(SystemClock()) as hooks:
        hooks.send("ark", heard.url, lambda n: (b"%d" % n, {}), waits_s=(0.01, 0.01, 0.01), timeout_s=5)
        assert await settled(hooks, 3) == [500, 503, 200]
        bodies = [(await heard.next()).body for _ in range(3)]
    assert bodies == [b"1", b"2", b"3"]


async def test_nothing_is_sent_to_another_machine() -> None:
    async with Hooks(SystemClock()) as hooks:
        hooks.send("ark", "http://192.0.2.1/hints/a", lambda _: (b"", {}), waits_s=(), timeout_s=1)
        assert await settled(hooks, 1) == [0]
    with pytest.raises(EgressRefused):
        LoopbackOnly().check_address(ip_address("10.0.0.1"), 443)
