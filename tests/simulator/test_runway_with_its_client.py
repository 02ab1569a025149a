"""The simulator of Runway, asked by Runway's own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import runwayml
from runwayml import AsyncRunwayML

from tests.simulator.worlds import Simulated, simulated

KEY = "key_simulated"


@pytest.fixture
async def world() -> AsyncIterator[Simulated]:
    async with simulated() as world:
        await world.account("runway", KEY, balance=1000)
        yield world


@pytest.fixture
async def client(world: Simulated) -> AsyncIterator[AsyncRunwayML]:
    async with AsyncRunwayML(api_key=KEY, base_url=f"{world.address}/runway", max_retries=0) as client:
        yield client


async def create(client: AsyncRunwayML, prompt: str = "a fox") -> str:
    # The types of the client's waiting variant leave the estimate out.
    made: Any = await client.text_to_video.create(
        model="seedance2", prompt_text=prompt, ratio="864:496", duration=4, audio=False
    )
    assert made.estimated_cost.credits == 64
    return str(made.id)


async def ended(client: AsyncRunwayML, task_id: str) -> runwayml.types.TaskRetrieveResponse:
    while True:
        task = await client.tasks.retrieve(task_id)
        if task.status in {"SUCCEEDED", "FAILED", "CANCELLED"}:
            return task
        await asyncio.sleep(0.02)


async def test_a_task_is_paid_at_once_and_becomes_a_video(client: AsyncRunwayML, world: Simulated) -> None:
    task_id = await create(client)
    assert (await client.organization.retrieve()).credit_balance == 936
    task = await ended(client, task_id)
    assert task.status == "SUCCEEDED"
    assert task.cost.credits == 64
    async with world.client.get(task.output[0]) as answer:
        assert (await answer.read())[4:8] == b"ftyp"


async def test_above_its_slots_a_task_is_throttled(client: AsyncRunwayML, world: Simulated) -> None:
    await world.account("runway", KEY, concurrency=1)
    await create(client, "one [[sim:slow=9]]")
    second = await client.tasks.retrieve(await create(client))
    assert second.status == "THROTTLED"
    assert second.estimated_cost.credits == 64


async def test_progress_is_a_share(client: AsyncRunwayML, world: Simulated) -> None:
    task_id = await create(client, "[[sim:slow=1000]]")
    await world.advance(500)
    task = await client.tasks.retrieve(task_id)
    assert task.status == "RUNNING"
    assert task.progress == pytest.approx(0.5, abs=0.05)


async def test_moderated_output_fails_with_its_code_and_is_paid_back(client: AsyncRunwayML) -> None:
    task = await ended(client, await create(client, "[[sim:moderated_after]]"))
    assert task.status == "FAILED"
    assert task.failure_code == "SAFETY.OUTPUT.VIDEO"
    assert task.cost.credits == 0
    assert (await client.organization.retrieve()).credit_balance == 1000


async def test_moderated_input_fails_after_acceptance_and_stays_paid(client: AsyncRunwayML) -> None:
    task = await ended(client, await create(client, "[[sim:moderated_before]]"))
    assert task.status == "FAILED"
    assert task.failure_code == "SAFETY.INPUT.TEXT"
    assert task.cost.credits == 64


async def test_a_running_task_is_cancelled_by_deleting_it(client: AsyncRunwayML) -> None:
    task_id = await create(client, "[[sim:slow=9]]")
    await client.tasks.delete(task_id)
    assert (await client.tasks.retrieve(task_id)).status == "CANCELLED"
    await client.tasks.delete(task_id)
    with pytest.raises(runwayml.NotFoundError):
        await client.tasks.retrieve(task_id)


async def test_too_few_credits_are_a_bad_request(client: AsyncRunwayML, world: Simulated) -> None:
    await world.account("runway", KEY, balance=63)
    with pytest.raises(runwayml.BadRequestError, match="enough credits"):
        await create(client)


async def test_a_wrong_ratio_is_an_issue_of_the_body(client: AsyncRunwayML) -> None:
    with pytest.raises(runwayml.BadRequestError) as caught:
        await client.post(
            "/v1/text_to_video",
            body={"model": "seedance2_fast", "promptText": "a fox", "ratio": "1920:1080", "duration": 5},
            cast_to=object,
        )
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["issues"][0]["path"] == ["ratio"]


async def test_a_wrong_key_is_refused(world: Simulated) -> None:
    async with AsyncRunwayML(api_key="key_nobody", base_url=f"{world.address}/runway") as stranger:
        with pytest.raises(runwayml.AuthenticationError):
            await stranger.organization.retrieve()


async def test_an_upload_can_be_used_as_a_frame(client: AsyncRunwayML, world: Simulated) -> None:
    uploaded = await client.uploads.create_ephemeral(file=("fox.png", b"\x89PNG picture", "image/png"))
    assert uploaded.uri.startswith("runway://")
    made = await client.image_to_video.create(
        model="seedance2_mini",
        prompt_image=[{"uri": uploaded.uri, "position": "first"}],
        ratio="864:496",
        duration=4,
    )
    assert (await ended(client, made.id)).status == "SUCCEEDED"


async def test_another_accounts_upload_cannot_be_used(client: AsyncRunwayML, world: Simulated) -> None:
    uploaded = await client.uploads.create_ephemeral(file=("fox.png", b"\x89PNG picture", "image/png"))
    await world.account("runway", "key_other")
    async with AsyncRunwayML(api_key="key_other", base_url=f"{world.address}/runway", max_retries=0) as other:
        with pytest.raises(runwayml.BadRequestError):
            await other.image_to_video.create(model="seedance2", prompt_image=uploaded.uri)


async def test_pictures_cost_by_quality_and_number(client: AsyncRunwayML) -> None:
    made: Any = await client.text_to_image.create(
        model="gpt_image_2", prompt_text="a map", ratio="1920:1088", quality="low", output_count=2
    )
    assert made.estimated_cost.credits == 4
    task = await ended(client, made.id)
    assert task.status == "SUCCEEDED"
    assert len(task.output) == 2


async def test_an_expired_link_is_renewed_by_reading_the_task_again(
    client: AsyncRunwayML, world: Simulated
) -> None:
    task_id = await create(client)
    first = await ended(client, task_id)
    assert first.status == "SUCCEEDED"
    await world.advance(25 * 3600)
    async with world.client.get(first.output[0]) as answer:
        assert answer.status == 403
    second = await client.tasks.retrieve(task_id)
    assert second.status == "SUCCEEDED"
    async with world.client.get(second.output[0]) as answer:
        assert answer.status == 200


async def test_the_organization_shows_limits_and_use(client: AsyncRunwayML) -> None:
    await create(client)
    organization = await client.organization.retrieve()
    assert organization.tier.models["seedance2"].max_concurrent_generations == 5
    assert organization.usage.models["seedance2"].daily_generations == 1
