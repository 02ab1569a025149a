"""Price lists are asked for once in a while, and never twice at once."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gateway.price_lists import PriceLists
from services.gen.billing.v1 import billing_pb2
from tests.clocks import HandClock


class Billing:
    """Answers with the number of the question as version."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away = False

    async def ask(self, storefront: str) -> billing_pb2.GetPriceListResponse:
        self.asked.append(storefront)
        await asyncio.sleep(0)
        if self.away:
            raise ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "away")
        return billing_pb2.GetPriceListResponse(version=str(len(self.asked)))


async def test_simultaneous_askers_share_one_question() -> None:
    billing = Billing()
    lists = PriceLists(billing.ask, HandClock())
    answers = await asyncio.gather(*(lists.of("a") for _ in range(20)))
    assert {answer.version for answer in answers} == {"1"}
    assert billing.asked == ["a"]


async def test_storefronts_are_kept_apart() -> None:
    billing = Billing()
    lists = PriceLists(billing.ask, HandClock())
    assert (await lists.of("a")).version != (await lists.of("b")).version


async def test_an_answer_is_good_for_some_seconds() -> None:
    billing, clock = Billing(), HandClock()
    lists = PriceLists(billing.ask, clock)
    versions = []
    for _ in range(4):
        versions.append((await lists.of("a")).version)
        clock.at_ms += 2_500
    assert versions == ["1", "1", "2", "2"]


async def test_a_failure_is_not_remembered() -> None:
    billing = Billing()
    billing.away = True
    lists = PriceLists(billing.ask, HandClock())
    with pytest.raises(ServiceError):
        await lists.of("a")
    billing.away = False
    assert (await lists.of("a")).version == "2"
