"""`make run PROVIDERS=simulated`: live jobs of every contract, made by adapters over the providers' own wire protocols."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from tests.house import Answer, Customer, House, Inside, inside, running_house
from tests.leak.roads import ROADS, Road

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

_PATIENCE_S: Final = 90.0
# Its model is the sandbox's alone: no provider documents an API for it.
UNSERVED: Final = next(road for road in ROADS if (road.storefront, road.kind) == ("imaginelab", "image"))
SERVED: Final = [road for road in ROADS if road is not UNSERVED]


@dataclass(frozen=True)
class Simulated:
    """A house whose live jobs go to simulated providers."""

    house: House
    inside: Inside
    session: aiohttp.ClientSession

    async def ended(self, road: Road, prompt: str, key: str) -> tuple[str, list[str]]:
        """How a job of a demo customer ended, and the addresses of its outputs."""
        customer = Customer(self.session, self.house.base_url, self.house.key("live", road.storefront))
        made = await customer.call("POST", road.path, road.body(prompt), {"Idempotency-Key": key})
        assert made.status in {200, 201, 202}, made.body
        path = road.reads[0].format(id=road.job_id(made.json))
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                answer = await customer.call("GET", path)
                if answer.status == 200 and road.status(answer.json) in {road.succeeded, road.failed}:
                    break
                await asyncio.sleep(0.3)
        texts = [await _read(customer, each.format(id=road.job_id(made.json))) for each in road.reads]
        links = {link for text in texts for link in _links(text)}
        return road.status(answer.json), sorted(links)

    async def attempts(self) -> list[pool.Attempt]:
        return list((await self.inside.pool.ListAttempts(pool.ListAttemptsRequest(limit=1000))).attempts)


async def _read(customer: Customer, path: str) -> Any:
    answer: Answer = await customer.call("GET", path)
    return answer.json if answer.status == 200 else None


def _links(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [link for each in value.values() for link in _links(each)]
    if isinstance(value, list):
        return [link for each in value for link in _links(each)]
    return [value] if isinstance(value, str) and "/media/" in value else []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulated(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulated]:
    var = tmp_path_factory.mktemp("house")
    async with running_house(var, ATELIER_PROVIDERS="simulated") as house:
        house.var = var / "simulated"
        async with aiohttp.ClientSession() as session, inside(house) as stubs:
            yield Simulated(house, stubs, session)


@pytest.mark.parametrize("road", SERVED, ids=str)
async def test_every_kind_of_job_is_made_by_a_provider_that_is_not_the_sandbox(
    simulated: Simulated, road: Road
) -> None:
    status, links = await simulated.ended(road, "a lighthouse at dusk, 12 boats and 30 gulls", f"kind-{road}")
    assert status == road.succeeded
    if road.kind != "text":
        assert links
    for link in links:
        async with simulated.session.get(link) as media:
            assert media.status == 200
            assert await media.read()


async def test_what_no_provider_serves_is_refused_and_costs_nothing(simulated: Simulated) -> None:
    customer = Customer(
        simulated.session, simulated.house.base_url, simulated.house.key("live", "imaginelab")
    )
    wallet = await customer.call("GET", "/api/v1/credits/wallet")
    refused = await customer.call("POST", UNSERVED.path, UNSERVED.body("a boat"))
    assert refused.status == 503
    assert (await customer.call("GET", "/api/v1/credits/wallet")).json == wallet.json


async def test_what_a_provider_refuses_is_the_customer_s_answer(simulated: Simulated) -> None:
    for road in ROADS[:3]:
        status, _ = await simulated.ended(road, "a boat [[sim:moderated_before]]", f"refused-{road}")
        assert status == road.failed


async def test_a_submission_whose_answer_was_lost_ends_once_and_is_paid_for_once(
    simulated: Simulated,
) -> None:
    road = next(each for each in ROADS if each.storefront == "loova")
    status, _ = await simulated.ended(road, "a boat [[sim:answer_lost]]", "lost")
    assert status in {road.succeeded, road.failed}


async def test_every_job_was_given_to_a_simulated_account(simulated: Simulated) -> None:
    accounts = (await simulated.inside.pool.ListAccounts(pool.ListAccountsRequest())).accounts
    provider_of = {account.account_id: account.provider for account in accounts}
    used = {provider_of[attempt.account_id] for attempt in await simulated.attempts()}
    assert used
    assert "sandbox" not in used


async def test_providers_call_back_and_what_they_sign_is_verified(simulated: Simulated) -> None:
    film = next(road for road in ROADS if road.storefront == "seedancee2")
    # More than the cheapest provider, which sends none by itself, takes at once.
    films = [simulated.ended(film, f"a gull, number {number}", f"hinted-{number}") for number in range(12)]
    assert {status for status, _ in await asyncio.gather(*films)} == {film.succeeded}
    async with simulated.session.get(
        f"{simulated.house.demo['operations']['provider_pool']}/metrics"
    ) as page:
        metrics = await page.text()
    heard = [line for line in metrics.splitlines() if line.startswith("atelier_pool_hints_total{")]
    assert any('outcome="verified"' in line for line in heard), heard
