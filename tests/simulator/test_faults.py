from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.simulator.worlds import LONG_S, Simulated, simulated

KEY = "sk-simulated"
PROVIDERS = ("ark", "leonardo", "openai")
STATUSES = {
    "unauthorized": {"ark": 401, "leonardo": 401, "openai": 401},
    "payment_required": {"ark": 403, "leonardo": 400, "openai": 429},
    "forbidden": {"ark": 403, "leonardo": 403, "openai": 403},
    "rate_limited": {"ark": 429, "leonardo": 429, "openai": 429},
    "rate_limited_wait": {"ark": 429, "leonardo": 429, "openai": 429},
    "server_error": {"ark": 500, "leonardo": 500, "openai": 500},
    "overloaded": {"ark": 429, "leonardo": 503, "openai": 503},
}


@pytest.fixture
async def sim() -> AsyncIterator[Simulated]:
    async with simulated() as running:
        for provider in PROVIDERS:
            await running.account(provider, KEY, balance=10)
        yield running


def request_of(provider: str, prompt: str) -> tuple[str, dict[str, Any]]:
    match provider:
        case "ark":
            content = [{"type": "text", "text": prompt}]
            body = {"model": "dreamina-seedance-2-0-260128", "content": content}
            return "/ark/api/v3/contents/generations/tasks", body
        case "leonardo":
            return "/leonardo/api/rest/v1/generations", {"prompt": prompt}
        case _:
            return "/openai/v1/images/generations", {"prompt": prompt}


async def create(
    sim: Simulated, provider: str = "openai", prompt: str = "A boat", **more: Any
) -> tuple[int, bytes, dict[str, str]]:
    path, body = request_of(provider, prompt)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with sim.client.post(f"{sim.address}{path}", json=body, headers=headers, **more) as answer:
        return answer.status, await answer.read(), {k.lower(): v for k, v in answer.headers.items()}


async def fault(sim: Simulated, name: str, **more: Any) -> None:
    await sim.control("POST", "faults", {"fault": name, **more})


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", STATUSES)
async def test_a_status_fault_is_in_the_providers_own_words_and_accepts_nothing(
    sim: Simulated, name: str, provider: str
) -> None:
    await fault(sim, name)
    status, body, headers = await create(sim, provider)
    assert status == STATUSES[name][provider]
    assert b'"error"' in body
    assert ("retry-after" in headers) == (name == "rate_limited_wait")
    assert await sim.tasks() == []


async def test_an_html_page_is_no_json(sim: Simulated) -> None:
    await fault(sim, "html_error")
    status, body, headers = await create(sim)
    assert status == 502
    assert headers["content-type"].startswith("text/html")
    assert body.startswith(b"<!DOCTYPE html>")


async def test_a_connection_is_reset_before_the_body_was_read(sim: Simulated) -> None:
    await fault(sim, "cut_before_read")
    with pytest.raises(aiohttp.ClientOSError):
        await create(sim, prompt="x" * 30_000)
    (request,) = await sim.requests()
    assert (request["body"], request["answer"]) == ("", "cut_before_read")
    assert await sim.tasks() == []


async def test_a_connection_is_closed_after_the_body_was_read(sim: Simulated) -> None:
    await fault(sim, "cut_after_read")
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await create(sim)
    (request,) = await sim.requests()
    assert (request["body"], request["answer"]) == ({"prompt": "A boat"}, "cut_after_read")
    assert await sim.tasks() == []


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_answer_is_lost_though_the_task_was_accepted(sim: Simulated, provider: str) -> None:
    await fault(sim, "answer_lost")
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await create(sim, provider)
    assert len(await sim.tasks()) == 1


async def test_a_truncated_answer_stops_in_the_middle(sim: Simulated) -> None:
    await fault(sim, "truncated")
    with pytest.raises(aiohttp.ClientPayloadError):
        await create(sim)
    assert len(await sim.tasks()) == 1


async def test_a_dripping_answer_takes_its_time_and_is_whole(sim: Simulated) -> None:
    await fault(sim, "slow_drip", value=0.4)
    started_s = time.monotonic()
    status, body, _ = await create(sim, "leonardo")
    assert time.monotonic() - started_s > 0.35
    assert status == 200
    assert body.endswith(b"}")


async def test_a_stuck_task_never_ends_and_gives_its_slot_back(sim: Simulated) -> None:
    await sim.account("leonardo", KEY, concurrency=1)
    await create(sim, "leonardo", "[[sim:hang]]")
    await create(sim, "leonardo")
    tasks = await sim.ended()
    assert [task["state"] for task in tasks] == ["running", "succeeded"]


@pytest.mark.parametrize(
    ("name", "state", "outputs"),
    [
        ("no_output", "succeeded", 0),
        ("generation_failed", "failed", 0),
        ("moderated_after", "failed", 0),
        ("output_expired", "succeeded", 4),
        ("wrong_type", "succeeded", 4),
    ],
)
async def test_a_task_ends_as_its_mark_says(sim: Simulated, name: str, state: str, outputs: int) -> None:
    await create(sim, "leonardo", f"A boat [[sim:{name}]]")
    (task,) = await sim.ended()
    assert (task["state"], task["outputs"]) == (state, outputs)


async def image_of(sim: Simulated, prompt: str) -> tuple[int, str]:
    """How the first image of a new generation is served."""
    await create(sim, "leonardo", prompt)
    headers = {"Authorization": f"Bearer {KEY}"}
    (task,) = await sim.ended()
    url = f"{sim.address}/leonardo/api/rest/v1/generations/{task['id']}"
    async with sim.client.get(url, headers=headers) as answer:
        images = (await answer.json())["generations_by_pk"]["generated_images"]
    async with sim.client.get(images[0]["url"]) as image:
        return image.status, image.content_type


async def test_an_expired_output_is_refused_by_the_store(sim: Simulated) -> None:
    assert await image_of(sim, "[[sim:expire-url]]") == (403, "application/xml")


async def test_an_output_of_the_wrong_type_is_a_page(sim: Simulated) -> None:
    assert await image_of(sim, "[[sim:wrong_type]]") == (200, "text/html")


async def test_outputs_may_be_asked_for_in_part(sim: Simulated) -> None:
    await image_of(sim, "A boat")
    (task,) = sim.world.tasks.all()
    url = task.files[0].url(sim.address)
    async with sim.client.get(url) as whole, sim.client.get(url, headers={"Range": "bytes=10-"}) as part:
        assert (part.status, await part.read()) == (206, (await whole.read())[10:])


async def test_media_are_cut_when_the_rule_says_media(sim: Simulated) -> None:
    await fault(sim, "truncated", calls=["media"])
    with pytest.raises(aiohttp.ClientPayloadError):
        await image_of_body(sim)


async def image_of_body(sim: Simulated) -> bytes:
    await image_of(sim, "A boat")
    (task,) = sim.world.tasks.all()
    async with sim.client.get(task.files[0].url(sim.address)) as image:
        return await image.read()


async def test_a_rule_meets_its_share_of_requests_and_the_same_ones_for_the_same_seed() -> None:
    async def pattern(seed: int) -> list[int]:
        async with simulated(seed=seed) as sim:
            await sim.account("leonardo", KEY, balance=10)
            await fault(sim, "server_error", share=0.5)
            return [(await create(sim, "leonardo"))[0] for _ in range(40)]

    first, again, other = await pattern(1), await pattern(1), await pattern(2)
    assert first == again
    assert first != other
    assert 10 < first.count(500) < 30


async def test_a_rule_ends_after_its_times_and_begins_and_ends_by_the_clock(sim: Simulated) -> None:
    await fault(sim, "server_error", times=2)
    assert [(await create(sim))[0] for _ in range(3)] == [500, 500, 200]
    await sim.control("DELETE", "faults")
    await fault(sim, "forbidden", after=60, until=120)
    seen = []
    for _ in range(3):
        seen.append((await create(sim))[0])
        await sim.advance(61)
    assert seen == [200, 403, 200]


async def test_a_rule_concerns_one_key_of_one_provider(sim: Simulated) -> None:
    await fault(sim, "forbidden", provider="openai", key="another")
    await fault(sim, "forbidden", provider="ark")
    assert (await create(sim, "openai"))[0] == 200
    assert (await create(sim, "ark"))[0] == 403


async def test_an_account_has_faults_of_its_own_until_it_is_healed(sim: Simulated) -> None:
    await sim.account("openai", KEY, faults=["unauthorized"])
    assert (await create(sim))[0] == 401
    await sim.control("PATCH", f"accounts/openai/{KEY}", {"faults": []})
    assert (await create(sim))[0] == 200


async def test_a_fault_or_an_account_that_cannot_be_meant_is_refused(sim: Simulated) -> None:
    for path, body in (
        ("faults", {"fault": "nothing"}),
        ("faults", {"fault": "stuck", "colour": 1}),
        ("accounts", {"provider": "nobody", "key": "a"}),
        ("accounts", {"provider": "ark"}),
        ("accounts", {"provider": "ark", "key": "a", "balance": "much"}),
    ):
        async with sim.client.post(f"{sim.address}/_control/{path}", json=body) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]


async def test_requests_are_recorded_without_credentials(sim: Simulated) -> None:
    await create(sim)
    (request,) = await sim.requests()
    assert request["headers"]["authorization"] == "Bearer [redacted]"
    assert KEY not in str(request["headers"])
    assert (request["method"], request["path"]) == ("POST", "/openai/v1/images/generations")
    assert request["body"] == {"prompt": "A boat"}


async def test_a_reset_forgets_everything(sim: Simulated) -> None:
    await create(sim)
    await fault(sim, "forbidden")
    await sim.control("POST", "reset")
    assert await sim.tasks() == []
    assert await sim.requests() == []
    assert (await sim.control("GET", "accounts"))["accounts"] == []
    assert (await sim.control("GET", "faults"))["faults"] == []


async def test_an_account_remembers_the_most_that_ran_and_the_least_that_was_left(sim: Simulated) -> None:
    await sim.account("leonardo", KEY, balance=10, concurrency=5, latency_s=LONG_S)
    await asyncio.gather(*(create(sim, "leonardo") for _ in range(4)))
    account = await sim.control("GET", f"accounts/leonardo/{KEY}")
    assert account["most_running"] == 4
    assert account["least_balance"] == pytest.approx(10 - 4 * 0.012)


async def test_an_account_made_anew_keeps_what_it_has_under_way(sim: Simulated) -> None:
    await sim.account("leonardo", KEY, latency_s=LONG_S, concurrency=2)
    await create(sim, "leonardo")
    account = await sim.account("leonardo", KEY, balance=3, concurrency=1)
    assert (account["running"], account["balance"], account["charged"]) == (1, 3, 0)
    await create(sim, "leonardo")
    account = await sim.control("GET", f"accounts/leonardo/{KEY}")
    assert (account["running"], account["waiting"]) == (1, 1)
    await sim.advance(LONG_S / 1000)
    tasks = await sim.ended(2)
    assert {task["state"] for task in tasks} == {"succeeded"}
