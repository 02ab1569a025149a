"""References over each provider's wire protocol: brought to the account that works, once, and again where the job moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.provider_pool.adapters.interface import Kind, ModelSpec
from services.provider_pool.adapters.model_files import models_of
from tests.adapters.simulated import PROVIDERS, Bench, bench, wanted
from tests.corpus import images

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

# Of these an account has to have a reference before it can be named; the others take it inside the request.
UPLOADING: Final = ("leonardo", "replicate", "runway", "fal")
_SIDE_PX: Final = (640, 640)
_LIMITS: Final = pb.ReferenceLimits(image_formats=["jpeg", "png", "webp"], image_bytes=20 * 1024**2, images=9)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("pool")) as found:
        yield found


def _following(provider: str) -> ModelSpec | None:
    specs = [spec for spec in models_of(provider) if spec.capability.references.images]
    return next((spec for spec in specs if spec.kind is Kind.VIDEO), next(iter(specs), None))


WITH_REFERENCES: Final = [(name, spec) for name in PROVIDERS if (spec := _following(name)) is not None]


def _name(value: object) -> str:
    return value.model if isinstance(value, ModelSpec) else str(value)


async def _followed(place: Bench, spec: ModelSpec, prompt: str, content: bytes) -> str:
    """An attempt that follows this picture, ended well."""
    staged = await place.pool.stage(content, limits=_LIMITS)
    generation = wanted(spec, prompt)
    generation.references.append(
        pb.Reference(
            role=pb.Reference.ROLE_IMAGE,
            strength=pb.Reference.STRENGTH_MID,
            reference_id=staged.reference_id,
        )
    )
    generation.reference_limits.CopyFrom(_LIMITS)
    attempt_id = f"job_{next(place.numbers)}:1"
    leased = await place.pool.lease(attempt_id, generation=generation)
    assert leased.outcome == pb.LeaseResponse.OUTCOME_GRANTED, leased
    assert await place.pool.prepare(attempt_id, generation) is None
    await place.pool.submit(attempt_id, generation)
    status = await place.ended(attempt_id)
    assert status.state == pb.ATTEMPT_STATE_SUCCEEDED, status
    return attempt_id


async def _leased(place: Bench, spec: ModelSpec, prompt: str, content: bytes) -> tuple[str, pb.Generation]:
    """An attempt that follows this picture, whose answer will be lost."""
    staged = await place.pool.stage(content, limits=_LIMITS)
    generation = wanted(spec, f"{prompt} [[sim:answer_lost]]")
    generation.references.append(
        pb.Reference(
            role=pb.Reference.ROLE_IMAGE,
            strength=pb.Reference.STRENGTH_MID,
            reference_id=staged.reference_id,
        )
    )
    generation.reference_limits.CopyFrom(_LIMITS)
    attempt_id = f"job_{next(place.numbers)}:1"
    leased = await place.pool.lease(attempt_id, generation=generation)
    assert leased.outcome == pb.LeaseResponse.OUTCOME_GRANTED, leased
    assert await place.pool.prepare(attempt_id, generation) is None
    return attempt_id, generation


async def _lost(place: Bench, attempt_id: str, generation: pb.Generation) -> int:
    """When the attempt's task was begun at the provider, which nobody here was told."""
    before = {task.id for task in place.world.tasks.all()}
    status = await place.pool.submit(attempt_id, generation)
    assert status.state == pb.ATTEMPT_STATE_UNKNOWN, status
    (created_ms,) = (task.created_ms for task in place.world.tasks.all() if task.id not in before)
    return created_ms


def _uploads(place: Bench, provider: str) -> int:
    """How many references the provider has been brought so far."""
    paths = {
        "leonardo": "/init-image",
        "replicate": "/files",
        "runway": "/uploads",
        "fal": "/storage/upload/initiate",
    }
    found = place.world.records.matching(provider, "")
    return sum(record.method == "POST" and record.path.endswith(paths[provider]) for record in found)


@pytest.mark.parametrize(("provider", "spec"), WITH_REFERENCES, ids=_name)
async def test_a_picture_is_followed(place: Bench, provider: str, spec: ModelSpec) -> None:
    await place.alone(await place.account(provider, spec))
    picture = images.saved("PNG", size=_SIDE_PX)
    attempt_id = await _followed(place, spec, f"like this, {provider}", picture)
    assert await place.pool.collect(attempt_id)


@pytest.mark.parametrize("provider", UPLOADING)
async def test_an_account_is_brought_a_picture_once_and_every_other_account_its_own(
    place: Bench, provider: str
) -> None:
    spec = _following(provider)
    assert spec is not None
    # Too large for the requests of those that take small files inside them.
    picture = images.saved("PNG", size=(900, 900))
    first, second = await place.account(provider, spec), await place.account(provider, spec)
    await place.alone(first)
    before = _uploads(place, provider)
    await _followed(place, spec, "one", picture)
    await _followed(place, spec, "two", picture)
    assert _uploads(place, provider) == before + 1
    await place.alone(second)
    await _followed(place, spec, "three", picture)
    assert _uploads(place, provider) == before + 2


@pytest.mark.parametrize("provider", ["leonardo", "replicate"])
async def test_two_customers_who_send_the_same_words_get_each_what_follows_their_own_picture(
    place: Bench, provider: str
) -> None:
    spec = _following(provider)
    assert spec is not None
    await place.alone(await place.account(provider, spec))
    pictures = [images.saved("PNG", size=size) for size in ((700, 700), (760, 760))]
    leased = [await _leased(place, spec, f"make it move, {provider}", picture) for picture in pictures]
    begun = [(attempt_id, await _lost(place, attempt_id, asked)) for attempt_id, asked in leased]
    # The younger is looked for first: the older one's task must not be taken for it.
    for attempt_id, created_ms in reversed(begun):
        end = await place.ended(attempt_id)
        assert end.state == pb.ATTEMPT_STATE_SUCCEEDED, end
        assert (await place.recorded(attempt_id)).submitted_at_ms == created_ms
