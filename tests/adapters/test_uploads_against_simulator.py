"""References through the whole road: staged, brought to the account that was chosen, and used for its later jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest
import pytest_asyncio

from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.provider_pool.adapters.interface import ModelSpec
from services.provider_pool.adapters.model_files import models_of
from tests.adapters.simulated import Bench, bench, wanted
from tests.integration.pool_process import LIMITS
from tests.integration.test_pool_references import png

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

UPLOADING: Final = ("leonardo", "fal", "replicate", "runway")
SIDE_PX: Final = 640


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("pool")) as found:
        yield found


def _spec(provider: str) -> ModelSpec:
    """One that follows a picture."""
    return next(spec for spec in models_of(provider) if spec.capability.references.images)


async def _following(place: Bench, spec: ModelSpec, prompt: str, colour: str) -> pb.Generation:
    staged = await place.pool.stage(png(SIDE_PX, SIDE_PX, colour))
    generation = wanted(spec, prompt)
    generation.references.append(
        pb.Reference(
            role=pb.Reference.ROLE_IMAGE,
            strength=pb.Reference.STRENGTH_MID,
            reference_id=staged.reference_id,
        )
    )
    generation.reference_limits.CopyFrom(LIMITS)
    return generation


async def _made(place: Bench, generation: pb.Generation) -> str:
    """The attempt, which went well."""
    attempt_id = f"job_{next(place.numbers)}:1"
    leased = await place.pool.lease(attempt_id, generation=generation)
    assert leased.outcome == pb.LeaseResponse.OUTCOME_GRANTED, leased
    assert await place.pool.prepare(attempt_id, generation) is None
    await place.pool.submit(attempt_id, generation)
    status = await place.ended(attempt_id)
    assert status.state == pb.ATTEMPT_STATE_SUCCEEDED, status
    assert await place.pool.collect(attempt_id)
    return attempt_id


async def _withdraw(place: Bench, account: pb.Account) -> None:
    """The provider takes the account's key for none from here on."""
    wish = {"provider": account.provider, "key": account.label, "fault": "unauthorized"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{place.url}/_control/faults", json=wish) as made,
    ):
        assert made.status == 200, await made.text()


async def _uploads(place: Bench, provider: str, outcome: str) -> int:
    line = f'atelier_pool_provider_uploads_total{{outcome="{outcome}",provider="{provider}"}}'
    found = [row for row in (await place.pool.metrics()).splitlines() if row.startswith(line)]
    return round(float(found[0].rpartition(" ")[2])) if found else 0


@pytest.mark.parametrize("provider", UPLOADING)
async def test_a_reference_is_uploaded_once_for_an_account_and_again_for_another(
    place: Bench, provider: str
) -> None:
    spec = _spec(provider)
    first, second = await place.account(provider, spec), await place.account(provider, spec)
    for account, uploads in ((first, 1), (first, 1), (second, 2)):
        await place.alone(account)
        await _made(place, await _following(place, spec, f"a boat for {provider}", "teal"))
        assert await _uploads(place, provider, "uploaded") == uploads
    assert await _uploads(place, provider, "there") == 1
    assert await _uploads(place, provider, "failed") == 0


@pytest.mark.parametrize("provider", UPLOADING)
async def test_an_account_that_takes_no_upload_costs_nothing_and_the_job_may_move(
    place: Bench, provider: str
) -> None:
    spec = _spec(provider)
    account = await place.account(provider, spec)
    await place.alone(account)
    prompt = f"a dead end for {provider}"
    generation = await _following(place, spec, prompt, "olive")
    attempt_id = f"job_{next(place.numbers)}:1"
    await place.pool.lease(attempt_id, generation=generation)
    # Not before: the account's next check would find it out, and no lease would be given.
    await _withdraw(place, account)
    assert await place.pool.prepare(attempt_id, generation) is None
    status = await place.pool.submit(attempt_id, generation)
    assert status.state == pb.ATTEMPT_STATE_FAILED, status
    assert (status.failure.next_step, status.failure.charged) == (pb.NEXT_STEP_ROTATE, pb.CHARGED_NO)
    assert place.charged(provider, prompt) == []
    shown = await place.pool.shown(account.account_id)
    assert [breaker.cause for breaker in shown.breakers] == ["auth_failed"]


async def test_results_that_came_in_an_answer_are_gone_once_they_are_collected(
    place: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = next(spec for spec in models_of("openai") if spec.kind == "image")
    account = await place.account("openai", spec)
    await place.alone(account)
    attempt_id, _ = await place.begun(wanted(spec, "a lighthouse for openai"))
    kept = [path.name for path in _results(place).rglob("*") if path.is_file()]
    assert sorted(kept) == [".sealed", "0.png"]
    await place.ended(attempt_id)
    (output,) = await place.pool.collect(attempt_id)
    assert output.content_type == "image/png"
    assert not [path for path in _results(place).rglob("*") if path.is_file()]


def _results(place: Bench) -> Path:
    return place.pool.folder / "results"
