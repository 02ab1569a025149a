"""What goes wrong during a soak: faults at every provider, accounts that die and heal, processes that are killed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.faults.scene import Scene
from tests.soak.accounts import Known
from tests.soak.simulator import Simulator

# The share of requests that meet each fault. What puts a whole account out is rarer than what costs one request; of the
# faults that end a job for good there are few enough that most jobs end well.
SHARES: Final = {
    "unauthorized": 0.0005,
    "payment_required": 0.0005,
    "forbidden": 0.0005,
    "rate_limited": 0.002,
    "rate_limited_wait": 0.001,
    "server_error": 0.005,
    "html_error": 0.003,
    "truncated": 0.003,
    "cut_before_read": 0.003,
    "cut_after_read": 0.003,
    "answer_lost": 0.005,
    "stuck": 0.001,
    "backwards": 0.01,
    "no_output": 0.003,
    "output_expired": 0.003,
    "wrong_type": 0.003,
    "moderated_before": 0.004,
    "moderated_after": 0.004,
    "generation_failed": 0.005,
    "slow_drip": 0.002,
}
# Work that takes so many seconds longer than ever: within every patience, and beyond most guesses.
_SLOW_SHARE: Final = 0.002
_SLOW_S: Final = 8.0
# Providers that have words of their own for being too busy for anybody.
_OVERLOADED: Final = ("ark", "leonardo", "openai")
_OVERLOADED_SHARE: Final = 0.004
_DEAD_S: Final = (4.0, 12.0)
# How often it is not one account: a withdrawn card or a closed organisation takes out all that a provider's operator has.
_ALL_BUT_ONE: Final = 0.4
_BETWEEN_DEATHS_S: Final = (2.0, 6.0)
_DOWN_S: Final = (0.0, 0.5)


@dataclass(frozen=True, slots=True)
class Death:
    """An account that refused everything from one moment to another, in milliseconds since the epoch."""

    account_id: str
    died_at_ms: int
    healed_at_ms: int


def _now_ms() -> int:
    return round(time.time() * 1000)


async def break_everything(simulator: Simulator) -> None:
    """Every fault, at every provider, for as long as nobody clears them."""
    for fault, share in SHARES.items():
        await simulator.add_fault(fault=fault, share=share)
    await simulator.add_fault(fault="slow", share=_SLOW_SHARE, value=_SLOW_S)
    for provider in _OVERLOADED:
        await simulator.add_fault(fault="overloaded", provider=provider, share=_OVERLOADED_SHARE)


async def accounts_die(
    simulator: Simulator, accounts: Sequence[Known], chance: random.Random, stop: asyncio.Event
) -> list[Death]:
    """One account, or all of a provider's but one, then others; so that another one can always serve."""
    deaths: list[Death] = []
    while not stop.is_set():
        condemned = _condemned(accounts, chance)
        await _afflict(simulator, condemned, ["unauthorized"])
        died_at_ms = _now_ms()
        await _paused(stop, chance.uniform(*_DEAD_S))
        healed_at_ms = _now_ms()
        await _afflict(simulator, condemned, [])
        deaths += [Death(account.account_id, died_at_ms, healed_at_ms) for account in condemned]
        await _paused(stop, chance.uniform(*_BETWEEN_DEATHS_S))
    return deaths


def _condemned(accounts: Sequence[Known], chance: random.Random) -> list[Known]:
    one = chance.choice(accounts)
    siblings = [other for other in accounts if other.provider == one.provider and other is not one]
    return siblings if siblings and chance.random() < _ALL_BUT_ONE else [one]


async def _afflict(simulator: Simulator, accounts: Sequence[Known], faults: Sequence[str]) -> None:
    await asyncio.gather(*(simulator.set_faults(one.provider, one.key, faults) for one in accounts))


async def processes_die(
    scene: Scene,
    names: Sequence[str],
    between_s: tuple[float, float],
    chance: random.Random,
    stop: asyncio.Event,
) -> int:
    """kill -9 of one of these after the other; how often."""
    deaths = 0
    while True:
        await _paused(stop, chance.uniform(*between_s))
        if stop.is_set():
            return deaths
        name = chance.choice(names)
        await scene.processes[name].kill()
        await asyncio.sleep(chance.uniform(*_DOWN_S))
        await scene.processes[name].start()
        deaths += 1


async def _paused(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
