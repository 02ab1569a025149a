"""`seedance2pro` through a whole house: create, poll, fetch; failures, other people's tasks, models nobody serves."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import av
import pytest
import pytest_asyncio

from services.gen.billing.v1 import billing_pb2 as billing
from tests.house import Customer, House, Inside, inside, running_house
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREATE = "/api/v1/jobs/createTask"
RECORD = "/api/v1/jobs/recordInfo?taskId="


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> AsyncIterator[House]:
    var = tmp_path_factory.mktemp("seedance2pro") / "var"
    allowed = f"127.0.0.1/32:{receiver.port}"
    async with running_house(var, ATELIER_EGRESS_ALLOW=allowed) as house, inside(house) as services:
        await services.set_account_options(pace_ms="100")
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(house: House) -> AsyncIterator[Inside]:
    async with inside(house) as services:
        yield services


def asking(model: str, **inputs: Any) -> dict[str, Any]:
    given = {"model": model, "prompt": "a paper boat", "duration": "4s", "resolution": "720x720", **inputs}
    return {"model": "wan22-video-generation", "inputs": given}


async def created(customer: Customer, body: dict[str, Any]) -> str:
    answer = await customer.call("POST", CREATE, body)
    assert answer.status == 200, answer.json
    return str(answer.json["taskId"])


async def ended(customer: Customer, task_id: str) -> dict[str, Any]:
    """Polls until the task has ended."""
    async with asyncio.timeout(90):
        while True:
            answer = await customer.call("GET", RECORD + task_id)
            assert answer.status == 200, answer.json
            if answer.json["status"] in {"success", "fail"}:
                return answer.json
            assert answer.json["status"] in {"waiting", "generating"}
            assert (answer.json["output"], answer.json["completeTime"]) == (None, None)
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("mode", ["live", "test"])
@pytest.mark.parametrize(
    "body,reported,used",
    [
        (asking("seedance-20"), "seedance20-video-generation", 160),
        (asking("z video"), "z video", 80),
    ],
)
async def test_a_task_is_run_as_asked_and_paid_for(
    house: House, session: aiohttp.ClientSession, mode: str, body: dict[str, Any], reported: str, used: int
) -> None:
    customer = Customer(session, house.base_url, house.key(mode, "seedance2pro"))
    task = await ended(customer, await created(customer, body))
    assert (task["status"], task["model"], task["creditsUsed"]) == ("success", reported, used)
    assert task["completeTime"] > task["createTime"]
    (output,) = task["output"]
    assert (output["width"], output["height"]) == (720, 720)
    async with session.get(output["url"]) as answer:
        assert answer.status == 200
        content = await answer.read()
    with av.open(io.BytesIO(content), mode="r") as film:
        (pictures,) = film.streams.video
        assert (pictures.width, pictures.height) == (720, 720)


async def test_a_task_that_fails_costs_nothing(
    house: House, services: Inside, session: aiohttp.ClientSession
) -> None:
    _, key, _ = await services.customer(160, storefront="seedance2pro")
    customer = Customer(session, house.base_url, key)
    body = asking("seedance-20", prompt="a boat [sandbox:fail]")
    for _ in range(2):
        task = await ended(customer, await created(customer, body))
        assert (task["status"], task["error"], task["creditsUsed"]) == ("fail", "Task execution failed", 0)
    poor = await customer.call("POST", CREATE, asking("seedance-20", duration=5))
    assert (poor.status, poor.json) == (
        402,
        {"message": "Insufficient credits", "required": 200, "available": 160},
    )


async def test_another_customers_task_is_denied_and_one_of_the_other_mode_unknown(
    house: House, services: Inside, session: aiohttp.ClientSession
) -> None:
    owner = Customer(session, house.base_url, house.key("live", "seedance2pro"))
    task_id = await created(owner, asking("z video"))
    _, stranger, _ = await services.customer(0, storefront="seedance2pro")
    answer = await Customer(session, house.base_url, stranger).call("GET", RECORD + task_id)
    assert (answer.status, answer.json) == (403, {"message": "Access denied"})
    test = Customer(session, house.base_url, house.key("test", "seedance2pro"))
    answer = await test.call("GET", RECORD + task_id)
    assert (answer.status, answer.json) == (404, {"message": "Task not found"})


async def test_a_suspended_customer_is_told_that_it_may_not_use_the_api(
    house: House, services: Inside, session: aiohttp.ClientSession
) -> None:
    customer_id, key, _ = await services.customer(400, storefront="seedance2pro")
    suspended = billing.UpdateCustomerRequest(customer_id=customer_id, state=billing.CUSTOMER_STATE_SUSPENDED)
    await services.billing.UpdateCustomer(suspended)
    customer = Customer(session, house.base_url, key)
    for method, path in (("POST", CREATE), ("GET", RECORD + "task_01jz8b7q4x8k2p9w3m5c6n7r8s")):
        answer = await customer.call(method, path, asking("seedance-20") if method == "POST" else None)
        assert (answer.status, answer.json) == (403, {"message": "API access not enabled for this account"})


@pytest.mark.parametrize("model", ["sora2", "sora2 pro", "grok-imagine-video"])
async def test_a_model_that_nobody_serves_is_503_and_reserves_nothing(
    house: House, services: Inside, session: aiohttp.ClientSession, model: str
) -> None:
    _, key, _ = await services.customer(400, storefront="seedance2pro")
    customer = Customer(session, house.base_url, key)
    answer = await customer.call("POST", CREATE, asking(model))
    assert (answer.status, answer.json) == (503, {"message": "Model temporarily unavailable"})
    assert int(answer.headers["Retry-After"]) > 0
    assert await created(customer, asking("seedance-20", duration=10))


@pytest.mark.parametrize("prompt,word", [("a boat", "success"), ("a boat [sandbox:fail]", "fail")])
async def test_the_end_is_told_as_polling_tells_it(
    house: House, session: aiohttp.ClientSession, receiver: Receiver, prompt: str, word: str
) -> None:
    customer = Customer(session, house.base_url, house.key("live", "seedance2pro"))
    address = f"http://127.0.0.1:{receiver.port}/hooks/{word}"
    task = await ended(
        customer, await created(customer, {**asking("z video", prompt=prompt), "callBackUrl": address})
    )
    async with asyncio.timeout(20):
        while not (received := [each for each in receiver.received if each.path.endswith(word)]):
            await asyncio.sleep(0.1)
    told = received[0].json
    for output in (told["output"] or []) + (task["output"] or []):
        async with session.get(output["url"]) as answer:
            assert answer.status == 200
        output["url"] = output["url"].partition("?")[0]
    assert told == task
    assert task["status"] == word
    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= {
        name.lower() for name in received[0].headers
    }
