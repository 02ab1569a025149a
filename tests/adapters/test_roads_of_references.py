"""Adapters over real HTTP against providers that know nothing of them: references, webhooks, charts, cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from services.chassis.clock import SystemClock
from services.chassis.egress import Egress
from services.chassis.egress_calls import DirectCalls
from services.chassis.egress_policy import EgressPolicy
from services.chassis.settings import Secret
from services.provider_pool.adapters.fal.adapter import FalAdapter
from services.provider_pool.adapters.http_calls import HttpCalls
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Adapter,
    Context,
    Feature,
    Generation,
    Kind,
    Prepared,
    Reference,
    ReferenceFile,
    ReferenceRole,
    Snapshot,
    Submission,
    TaskRef,
    TaskState,
)
from services.provider_pool.adapters.openai.adapter import OpenAIAdapter
from services.provider_pool.adapters.replicate.adapter import ReplicateAdapter
from tests.adapters.scripted import KeptResults, image_file
from tests.simulator.receivers import receiver
from tests.simulator.worlds import Simulated, simulated

ADAPTERS: Final[dict[str, Adapter]] = {
    "fal": FalAdapter(),
    "replicate": ReplicateAdapter(),
    "openai": OpenAIAdapter(),
}
PATHS: Final = {
    "fal": {"base_url": "/fal/queue", "rest_url": "/fal/rest", "api_url": "/fal/api"},
    "replicate": {"base_url": "/replicate"},
    "openai": {"base_url": "/openai/v1"},
}
FILM = Generation(Kind.VIDEO, "seedance-2.0-fast", "A red balloon", 864, 496, duration_s=4)
PICTURE = Generation(Kind.IMAGE, "gpt-image-2", "A lighthouse", 1024, 1024, quality="low")
MEDIA: Final = {
    ReferenceRole.IMAGE: ("image/png", 0),
    ReferenceRole.FIRST_FRAME: ("image/png", 0),
    ReferenceRole.LAST_FRAME: ("image/png", 0),
    ReferenceRole.VIDEO: ("video/mp4", 4_000),
    ReferenceRole.AUDIO: ("audio/mpeg", 4_000),
}


@dataclass
class Road:
    """One provider's adapter, an account there, and what the pool would lend."""

    provider: str
    world: Simulated
    calls: HttpCalls
    results: KeptResults

    @property
    def adapter(self) -> Adapter:
        return ADAPTERS[self.provider]

    @property
    def account(self) -> AccountAccess:
        options = {name: self.world.address + path for name, path in PATHS[self.provider].items()}
        return AccountAccess("acct_1", self.provider, {"api_key": Secret("id-1:key-1")}, options)

    def context(self, callback_url: str = "") -> Context:
        calls = self.calls.of(self.account, self.adapter.addresses)
        return Context(SystemClock(), calls, self.results, callback_url)

    async def prepared(
        self, folder: Path, generation: Generation, roles: Sequence[ReferenceRole] = ()
    ) -> Prepared:
        """As the pool does it: a file for each reference, and each brought to the account."""
        asked = replace(generation, references=tuple(Reference(role=role) for role in roles))
        spec = next(spec for spec in self.adapter.models() if spec.model == asked.model)
        files = [_file(folder, number, role) for number, role in enumerate(roles)]
        prepared = self.adapter.prepare(asked, spec, files)
        if Feature.UPLOAD not in self.adapter.features:
            return prepared
        uploads = [await self.adapter.upload(self.context(), self.account, spec, file) for file in files]
        return replace(prepared, uploads=tuple(uploads))

    async def submit(self, prepared: Prepared, callback_url: str = "") -> Submission:
        return await self.adapter.submit(self.context(callback_url), self.account, prepared, "job_1:1")

    async def ended(self, task: TaskRef) -> Snapshot:
        async with asyncio.timeout(20):
            while True:
                snapshot = await self.adapter.poll(self.context(), self.account, task)
                if snapshot.state in {TaskState.SUCCEEDED, TaskState.FAILED}:
                    return snapshot
                await asyncio.sleep(0.02)

    async def fetched(self, task: TaskRef, snapshot: Snapshot) -> bytes:
        opened = self.adapter.open_output(self.context(), self.account, task, snapshot.outputs[0])
        async with opened as chunks:
            return b"".join([chunk async for chunk in chunks])


def _file(folder: Path, number: int, role: ReferenceRole) -> ReferenceFile:
    content_type, duration_ms = MEDIA[role]
    name = f"{number}.{content_type.rpartition('/')[2]}"
    content = b"\x89PNG\r\n\x1a\n" + bytes([number]) * 100
    return image_file(
        folder,
        name,
        role=role,
        content_type=content_type,
        # Large enough for a picture, and as many pixels as a film of 720p has.
        width=960,
        height=960,
        duration_ms=duration_ms,
        content=content,
    )


@pytest.fixture
async def road(request: pytest.FixtureRequest) -> AsyncIterator[Road]:
    async with simulated() as world, DirectCalls() as direct, Egress(EgressPolicy()) as outputs:
        calls = HttpCalls(direct, outputs, output_limit_bytes=64 * 1024 * 1024)
        await world.account(request.param, "id-1:key-1", balance=1000)
        yield Road(request.param, world, calls, KeptResults())


both = pytest.mark.parametrize("road", ["fal", "replicate"], indirect=True)
WAYS: Final = [
    (ReferenceRole.FIRST_FRAME,),
    (ReferenceRole.FIRST_FRAME, ReferenceRole.LAST_FRAME),
    (ReferenceRole.IMAGE, ReferenceRole.IMAGE),
    (ReferenceRole.IMAGE, ReferenceRole.VIDEO, ReferenceRole.AUDIO),
]


@both
@pytest.mark.parametrize("roles", WAYS)
async def test_a_film_after_references_is_made_from_files_that_the_account_was_given(
    road: Road, roles: tuple[ReferenceRole, ...], tmp_path: Path
) -> None:
    prepared = await road.prepared(tmp_path, FILM, roles)
    submission = await road.submit(prepared)
    snapshot = await road.ended(submission.task)
    assert snapshot.state is TaskState.SUCCEEDED, snapshot.error
    assert (await road.fetched(submission.task, snapshot))[4:8] == b"ftyp"
    found = await road.adapter.list_tasks(road.context(), road.account, prepared, 0, "job_1:1")
    assert [task.task_id for task in found] == [submission.task.task_id]


@both
async def test_a_film_whose_ratio_follows_a_picture_is_taken(road: Road, tmp_path: Path) -> None:
    asked = replace(FILM, width=864, height=864, adaptive_ratio=True, seed=7, audio=True)
    submission = await road.submit(await road.prepared(tmp_path, asked, [ReferenceRole.IMAGE]))
    assert (await road.ended(submission.task)).state is TaskState.SUCCEEDED


@both
async def test_a_film_is_found_by_what_was_sent_and_no_other_is(road: Road, tmp_path: Path) -> None:
    prepared = await road.prepared(tmp_path, FILM)
    await road.ended((await road.submit(prepared)).task)
    other = await road.prepared(tmp_path, replace(FILM, prompt="A blue balloon"))
    context, account = road.context(), road.account
    assert await road.adapter.list_tasks(context, account, other, 0, "job_2:1") == []
    later_ms = road.world.world.now_ms() + 60_000
    assert await road.adapter.list_tasks(context, account, prepared, later_ms, "job_1:1") == []


@both
async def test_the_provider_s_own_webhook_is_believed_and_a_changed_one_is_not(
    road: Road, tmp_path: Path
) -> None:
    async with receiver() as received:
        submission = await road.submit(await road.prepared(tmp_path, FILM), received.url)
        post = await received.next()
    hint = await road.adapter.hint(road.context(), road.account, post.headers, post.body)
    assert hint is not None
    assert hint.task_ids == (submission.task.task_id,)
    assert hint.delivery_id
    assert await road.adapter.hint(road.context(), road.account, post.headers, post.body + b" ") is None


@both
async def test_a_film_that_nobody_wants_is_stopped(road: Road, tmp_path: Path) -> None:
    asked = replace(FILM, prompt="A red balloon [[sim:slow=60]]")
    submission = await road.submit(await road.prepared(tmp_path, asked))
    stopped = await road.adapter.cancel(road.context(), road.account, submission.task)
    assert stopped.charged in ("no", "maybe")
    assert (await road.ended(submission.task)).state is TaskState.FAILED
    again = await road.adapter.cancel(road.context(), road.account, submission.task)
    assert again.charged in ("no", "maybe")


@pytest.mark.parametrize("road", ["fal"], indirect=True)
async def test_a_picture_after_others_comes_through_fal_s_queue(road: Road, tmp_path: Path) -> None:
    prepared = await road.prepared(tmp_path, PICTURE, [ReferenceRole.IMAGE])
    submission = await road.submit(prepared)
    snapshot = await road.ended(submission.task)
    assert snapshot.state is TaskState.SUCCEEDED, snapshot.error
    assert (await road.fetched(submission.task, snapshot)).startswith(b"\x89PNG")


@pytest.mark.parametrize("road", ["openai"], indirect=True)
@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_picture_after_others_is_one_form(road: Road, count: int, tmp_path: Path) -> None:
    prepared = await road.prepared(tmp_path, PICTURE, [ReferenceRole.IMAGE] * count)
    submission = await road.submit(prepared)
    assert submission.done is not None
    assert submission.done.cost_millis is not None
    estimate = prepared.spec.cost.estimate(prepared.generation)
    assert 0 < submission.done.cost_millis <= estimate.ceiling_millis
    assert (await road.fetched(submission.task, submission.done)).startswith(b"\x89PNG")


@pytest.mark.parametrize("road", ["openai"], indirect=True)
@pytest.mark.parametrize("quality", ["", "low", "medium", "high"])
@pytest.mark.parametrize("size", [(1024, 1024), (1280, 720), (1376, 768), (3840, 2160)])
async def test_no_picture_costs_more_than_its_ceiling(
    road: Road, quality: str, size: tuple[int, int], tmp_path: Path
) -> None:
    asked = replace(PICTURE, quality=quality, width=size[0], height=size[1], prompt="word " * 1000)
    prepared = await road.prepared(tmp_path, asked)
    submission = await road.submit(prepared)
    assert submission.done is not None
    assert submission.done.cost_millis is not None
    estimate = prepared.spec.cost.estimate(asked)
    assert submission.done.cost_millis <= estimate.ceiling_millis
