"""The whole road of contract `loova`, as a customer walks it: real HTTP, real processes, real films."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import av
import pytest
import pytest_asyncio

from tests.house import Answer, Customer, House, inside, running_house

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running_house(tmp_path_factory.mktemp("road") / "var") as house, inside(house) as services:
        await services.set_account_options(pace_ms="100")
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def customer_of(house: House, session: aiohttp.ClientSession, mode: str) -> Customer:
    return Customer(session, house.base_url, house.key(mode, "loova"))


async def made(customer: Customer, **fields: Any) -> Answer:
    return await customer.call("POST", "/api/v1/video/seedance-2", {"prompt": "a red boat", **fields})


async def ended(customer: Customer, task_id: str) -> dict[str, Any]:
    """Asks as a customer would until the task has ended."""
    async with asyncio.timeout(90):
        while True:
            answer = await customer.call("GET", f"/api/v1/tasks?task_id={task_id}")
            if answer.status == 200 and answer.json["data"]["status"] != "running":
                told: dict[str, Any] = answer.json["data"]
                return told
            await asyncio.sleep(0.2)


async def credits_of(customer: Customer) -> tuple[float, float]:
    data = (await customer.call("GET", "/api/v1/credits")).json["data"]
    return data["api_available_credits"], data["api_total_credits"]


@pytest.mark.parametrize("mode", ["live", "test"])
async def test_a_task_becomes_a_film_and_is_paid_for(
    house: House, session: aiohttp.ClientSession, mode: str
) -> None:
    customer = customer_of(house, session, mode)
    before = await credits_of(customer)
    answer = await made(customer, duration=4, ratio="9:16", model="seedance_2_0_fast")
    assert answer.status == 200
    assert answer.json["data"]["credits_cost"] == 7.6
    assert (await credits_of(customer))[0] == pytest.approx(before[0] - 7.6)
    task = await ended(customer, answer.json["data"]["task_id"])
    assert (task["status"], task["credits_cost"], task["model"]) == ("succeeded", 7.6, "seedance_2_0_fast")
    assert task["result"]["error_message"] is None
    async with session.get(task["result"]["video_url"]) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "video/mp4")
        with av.open(io.BytesIO(await response.read()), mode="r") as film:
            (pictures,) = film.streams.video
            assert (pictures.width, pictures.height) == (720, 1280)
            assert sum(1 for _ in film.decode(pictures)) == 4 * 24
            assert len(film.streams.audio) == 1
    available, total = await credits_of(customer)
    assert available == pytest.approx(before[0] - 7.6)
    assert total == before[1]


async def test_a_task_that_fails_costs_nothing(house: House, session: aiohttp.ClientSession) -> None:
    customer = customer_of(house, session, "live")
    before = await credits_of(customer)
    answer = await made(customer, prompt="a boat [sandbox:fail]")
    task = await ended(customer, answer.json["data"]["task_id"])
    assert (task["status"], task["credits_cost"], task["result"]["status"]) == ("failed", 0.0, "failed")
    assert "sandbox" not in task["result"]["error_message"].lower()
    assert await credits_of(customer) == before


async def test_a_live_task_is_unknown_to_a_test_key(house: House, session: aiohttp.ClientSession) -> None:
    live, test = (customer_of(house, session, mode) for mode in ("live", "test"))
    task_id = (await made(live)).json["data"]["task_id"]
    answer = await test.call("GET", f"/api/v1/tasks?task_id={task_id}")
    assert (answer.status, answer.json["message"]) == (404, "Task not found")
    await ended(live, task_id)
