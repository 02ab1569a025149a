"""What the edge remembers of keys, for how long, and what it never asks twice."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gateway.auth import Authenticator, Caller

CALLER = Caller("cus_1", "leonardo", False, "key_1", 60, 4, 16)
UNKNOWN = ServiceError(Kind.UNAUTHENTICATED, "INVALID_API_KEY", "unknown key")


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s


class Billing:
    """Answers one thing, and counts how often it was asked."""

    def __init__(self, answer: Caller | ServiceError) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None

    async def identify(self, api_key: str, /) -> Caller:
        self.asked.append(api_key)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, ServiceError):
            raise self.answer
        return self.answer


def authenticator(billing: Billing, clock: HandClock, jitter: float = 0.0) -> Authenticator:
    return Authenticator(billing.identify, clock, lambda: jitter)


async def test_a_key_is_asked_about_once_while_it_is_remembered() -> None:
    billing, clock = Billing(CALLER), HandClock()
    subject = authenticator(billing, clock)
    assert [await subject.authenticate("k") for _ in range(3)] == [CALLER] * 3
    assert billing.asked == ["k"]


@pytest.mark.parametrize("jitter", [0.0, 0.999])
async def test_a_revoked_key_is_refused_within_5_seconds_whatever_the_jitter(jitter: float) -> None:
    billing, clock = Billing(CALLER), HandClock()
    subject = authenticator(billing, clock, jitter)
    await subject.authenticate("k")
    billing.answer = UNKNOWN
    clock.now_s += 5.0
    with pytest.raises(ServiceError) as refusal:
        await subject.authenticate("k")
    assert refusal.value == UNKNOWN


async def test_a_refused_key_is_not_asked_about_again_at_once_but_soon() -> None:
    billing, clock = Billing(UNKNOWN), HandClock()
    subject = authenticator(billing, clock)
    for _ in range(3):
        with pytest.raises(ServiceError):
            await subject.authenticate("k")
    assert len(billing.asked) == 1
    billing.answer = CALLER
    clock.now_s += 2.0
    assert await subject.authenticate("k") == CALLER


async def test_an_outage_is_not_remembered() -> None:
    billing, clock = Billing(ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "")), HandClock()
    subject = authenticator(billing, clock)
    with pytest.raises(ServiceError):
        await subject.authenticate("k")
    billing.answer = CALLER
    assert await subject.authenticate("k") == CALLER


async def test_simultaneous_askers_share_one_question() -> None:
    billing, clock = Billing(CALLER), HandClock()
    billing.gate = asyncio.Event()
    subject = authenticator(billing, clock)
    waiting = [asyncio.create_task(subject.authenticate("k")) for _ in range(50)]
    await asyncio.sleep(0)
    billing.gate.set()
    assert await asyncio.gather(*waiting) == [CALLER] * 50
    assert len(billing.asked) == 1


async def test_who_asked_first_may_leave_without_taking_the_answer_along() -> None:
    billing, clock = Billing(CALLER), HandClock()
    billing.gate = asyncio.Event()
    subject = authenticator(billing, clock)
    first = asyncio.create_task(subject.authenticate("k"))
    await asyncio.sleep(0)
    second = asyncio.create_task(subject.authenticate("k"))
    await asyncio.sleep(0)
    first.cancel()
    billing.gate.set()
    assert await second == CALLER
    assert len(billing.asked) == 1


async def test_a_flood_of_made_up_keys_does_not_push_out_a_good_one() -> None:
    billing, clock = Billing(CALLER), HandClock()
    subject = authenticator(billing, clock)
    await subject.authenticate("good")
    billing.answer = UNKNOWN
    for number in range(10_050):
        with pytest.raises(ServiceError):
            await subject.authenticate(f"bad-{number}")
    assert await subject.authenticate("good") == CALLER
    assert subject.remembered <= 20_000
