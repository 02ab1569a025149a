"""Connections between the services that break in the middle of batches, stall, half-close and refuse, under load."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.faults.proxy import Direction, Proxy
from tests.faults.storm_load import load, seeded, settled, soak_s
from tests.faults.storm_wiring import Wired, wired_scene

pytestmark = [pytest.mark.faults, pytest.mark.timeout(2 * 3600)]

# Without SOAK: so many blows, spread over all wires.
_BLOWS = 40
_BETWEEN_S = (0.05, 0.4)
# Less than the shortest request of a customer, and about a whole batch of sixty.
_CUT_AFTER_BYTES = (1, 20_000)
# Longer than keepalive's 30 s until a ping and 10 s for its answer.
_STALL_S = 45.0
_DIRECTIONS: tuple[Direction, ...] = ("up", "down")


def _cut_now(proxy: Proxy, chance: random.Random) -> None:
    proxy.cut()


def _cut_in_the_middle(proxy: Proxy, chance: random.Random) -> None:
    proxy.cut_after(chance.randint(*_CUT_AFTER_BYTES), chance.choice(_DIRECTIONS))


def _half_close(proxy: Proxy, chance: random.Random) -> None:
    proxy.half_close(chance.choice(_DIRECTIONS))


def _refuse_for_a_while(proxy: Proxy, chance: random.Random) -> None:
    proxy.refuse()
    proxy.cut()
    asyncio.get_running_loop().call_later(chance.uniform(0.2, 2), proxy.accept)


def _stall_for_a_moment(proxy: Proxy, chance: random.Random) -> None:
    proxy.stall()
    asyncio.get_running_loop().call_later(chance.uniform(0.2, 2), proxy.flow)


_DEEDS: dict[Callable[[Proxy, random.Random], None], int] = {
    _cut_in_the_middle: 12,
    _cut_now: 3,
    _half_close: 2,
    _refuse_for_a_while: 1,
    _stall_for_a_moment: 2,
}


async def _rage(wired: Wired, chance: random.Random, blows: int) -> None:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + soak_s()
    proxies = list(wired.wires.values())
    while blows > 0 or loop.time() < until_s:
        deed = chance.choices(list(_DEEDS), list(_DEEDS.values()))[0]
        deed(chance.choice(proxies), chance)
        blows -= 1
        await asyncio.sleep(chance.uniform(*_BETWEEN_S))


async def test_connections_torn_in_the_middle_of_batches_lose_nothing_and_repeat_nothing() -> None:
    chance = seeded()
    async with wired_scene("sqlite") as wired:
        async with load(wired.scene, chance, workers=10) as asked:
            await _rage(wired, chance, _BLOWS)
        assert [wire for wire, proxy in wired.wires.items() if not proxy.carried["down"]] == []
        assert sum(proxy.cuts for proxy in wired.wires.values()) >= 10
        await asked.kept()
        assert await settled(wired.scene) == []


@pytest.mark.faults_full
@pytest.mark.parametrize("wire", ["gateway-jobs", "gateway-billing", "jobs-billing", "jobs-provider_pool"])
async def test_a_connection_that_stalls_for_longer_than_keepalive_is_given_up_and_nothing_is_lost(
    wire: str,
) -> None:
    chance = seeded()
    caller, _, called = wire.partition("-")
    async with wired_scene("sqlite") as wired:
        proxy = wired.wires[caller, called]
        async with load(wired.scene, chance) as asked:
            await asyncio.sleep(1)
            proxy.stall()
            await asyncio.sleep(_STALL_S)
            proxy.flow()
            await asyncio.sleep(1)
        # Callers did not wait for it: they were told to come again.
        assert 503 in {told.status for told in wired.scene.told}
        await asked.kept()
        assert await settled(wired.scene) == []
