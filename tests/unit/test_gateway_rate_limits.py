"""Requests in any 60 seconds."""

from __future__ import annotations

import pytest
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from services.gateway import rate_limits
from services.gateway.rate_limits import RateLimits


class HandTime:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandTime:
    hand = HandTime()
    monkeypatch.setattr("services.gateway.rate_limits.time", hand.time)
    return hand


async def allowed(limits: RateLimits, count: int, limit: int, customer: str = "cus_1") -> int:
    windows = [await limits.hit(customer, False, limit) for _ in range(count)]
    return sum(window.allowed for window in windows)


async def test_as_many_as_the_limit_are_allowed_and_no_more(clock: HandTime) -> None:
    assert await allowed(RateLimits(), 10, 4) == 4


async def test_the_library_s_own_storage_counts_the_same() -> None:
    limits = RateLimits(MemoryStorage())
    assert await allowed(limits, 10, 4) == 4
    window = await limits.hit("cus_1", False, 4)
    assert (window.allowed, window.remaining) == (False, 0)
    assert 58 <= window.reset_s <= 60


async def test_the_library_s_strategy_works_on_our_storage(clock: HandTime) -> None:
    strategy = MovingWindowRateLimiter(rate_limits.WindowStorage())
    item = RateLimitItemPerMinute(2)
    assert [await strategy.hit(item, "a") for _ in range(3)] == [True, True, False]
    assert not await strategy.test(item, "a")
    assert (await strategy.get_window_stats(item, "a")).remaining == 0
    await strategy.clear(item, "a")
    assert await strategy.hit(item, "a")


async def test_any_60_seconds_hold_at_most_the_limit(clock: HandTime) -> None:
    limits = RateLimits()
    taken: list[float] = []
    for _ in range(400):
        clock.now_s += 0.7
        if (await limits.hit("cus_1", False, 7)).allowed:
            taken.append(clock.now_s)
    assert len(taken) >= 7 * 4
    assert all(taken[n + 7] - taken[n] >= 60 for n in range(len(taken) - 7))


async def test_waiting_as_long_as_reset_says_is_enough(clock: HandTime) -> None:
    limits = RateLimits()
    await limits.hit("cus_1", False, 2)
    clock.now_s += 10.5
    await limits.hit("cus_1", False, 2)
    refused = await limits.hit("cus_1", False, 2)
    assert (refused.allowed, refused.remaining, refused.reset_s) == (False, 0, 50)
    clock.now_s += refused.reset_s
    assert (await limits.hit("cus_1", False, 2)).allowed


async def test_a_refused_request_does_not_count(clock: HandTime) -> None:
    limits = RateLimits()
    await allowed(limits, 100, 1)
    clock.now_s += 60.1
    assert await allowed(limits, 1, 1) == 1


async def test_customers_and_wallets_are_counted_apart(clock: HandTime) -> None:
    limits = RateLimits()
    assert await allowed(limits, 3, 2, "cus_1") == 2
    assert await allowed(limits, 3, 2, "cus_2") == 2
    assert (await limits.hit("cus_1", True, 2)).allowed


async def test_a_changed_limit_works_at_once(clock: HandTime) -> None:
    limits = RateLimits()
    await allowed(limits, 5, 5)
    assert await allowed(limits, 1, 3) == 0
    assert await allowed(limits, 3, 6) == 1


async def test_idle_customers_are_forgotten(clock: HandTime) -> None:
    storage = rate_limits.WindowStorage()
    limits = RateLimits(storage)
    for number in range(25_000):
        await limits.hit(f"cus_{number}", False, 5)
        clock.now_s += 0.1
    assert storage.customers < 12_000
