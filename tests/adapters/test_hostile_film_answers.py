"""Whatever a provider of films answers, an adapter reads it or says in the pool's classes why it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine, Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.provider_pool.adapters.ark.adapter import ArkAdapter
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    Adapter,
    Feature,
    Generation,
    Kind,
    ProtocolViolation,
    ProviderError,
    SubmissionUnknown,
    TaskRef,
)
from services.provider_pool.adapters.leonardo.adapter import LeonardoAdapter
from services.provider_pool.adapters.runway.adapter import RunwayAdapter
from tests.adapters.scripted import ScriptedCalls, account, answer, context
from tests.clocks import T0_MS

ADAPTERS: Final[list[Adapter]] = [ArkAdapter(), LeonardoAdapter(), RunwayAdapter()]
FILM: Final = Generation(Kind.VIDEO, "seedance-2.0", "a mill", 1280, 720, 5)
TASK: Final = TaskRef("task-1", T0_MS, {"model": "seedance-2.0", "kind": "video"})

# Words of the documents, so that chance meets the shapes that are looked into.
_NAMES: Final = st.sampled_from(
    [
        "id",
        "status",
        "error",
        "code",
        "message",
        "content",
        "video_url",
        "usage",
        "completion_tokens",
        "created_at",
        "items",
        "total",
        "seed",
        "resolution",
        "generations_by_pk",
        "generated_images",
        "url",
        "motionMP4URL",
        "createdAt",
        "generate",
        "generationId",
        "cost",
        "amount",
        "unit",
        "apiCreditCost",
        "sdGenerationJob",
        "user_details",
        "user",
        "apiPaidTokens",
        "apiConcurrencySlots",
        "extensions",
        "details",
        "generations",
        "data",
        "object",
        "output",
        "progress",
        "credits",
        "failureCode",
        "creditBalance",
        "tier",
        "models",
        "maxConcurrentGenerations",
        "duration",
        "ratio",
        "safety_identifier",
        "apiPlanTokenRenewalDate",
    ]
)
_LEAVES: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["succeeded", "SUCCEEDED", "COMPLETE", "failed", "FAILED", "DOLLARS", "1e999", "é"]),
)
_VALUES: Final = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=12,
)
_DOCUMENTED: Final = st.one_of(
    st.fixed_dictionaries(
        {"id": st.just("task-1"), "status": st.sampled_from(["succeeded", "failed", "SUCCEEDED", "FAILED"])},
        optional=dict.fromkeys(
            ("content", "error", "usage", "output", "cost", "failureCode", "created_at"), _VALUES
        ),
    ),
    st.builds(
        lambda given: {
            "generations_by_pk": {"id": "task-1", "status": "COMPLETE", "generated_images": given}
        },
        _VALUES,
    ),
    st.builds(lambda given: {"generate": {"generationId": "task-1", "cost": given}}, _VALUES),
    st.builds(lambda given: {"user_details": [{"user": {"id": "u"}, "apiPaidTokens": given}]}, _VALUES),
    st.builds(lambda given: {"creditBalance": given}, _LEAVES),
    st.builds(lambda given: [{"message": "m", "extensions": given}], _VALUES),
    _VALUES,
)
_BODIES: Final = st.one_of(_DOCUMENTED.map(lambda value: json.dumps(value).encode()), st.binary(max_size=40))
_ANSWERS: Final = st.builds(
    HttpAnswer,
    st.sampled_from([200, 200, 200, 201, 302, 400, 401, 404, 409, 429, 500, 503]),
    st.dictionaries(st.just("retry-after"), st.text(max_size=8), max_size=1),
    _BODIES,
)
_named = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all examples: there is nothing in them to wait for."""
    with asyncio.Runner() as running:
        yield running


def _asked(runner: asyncio.Runner, work: Coroutine[Any, Any, object]) -> None:
    with contextlib.suppress(ProviderError):
        runner.run(work)


@_named
@settings(max_examples=60)
@given(reply=_ANSWERS)
def test_a_submission_is_taken_refused_or_in_doubt(
    runner: asyncio.Runner, adapter: Adapter, reply: HttpAnswer
) -> None:
    spec = next(spec for spec in adapter.models() if spec.model == FILM.model)
    prepared = adapter.prepare(FILM, spec)
    _asked(
        runner,
        adapter.submit(context(ScriptedCalls(reply)), account(adapter.name), prepared, "job_1:1"),
    )


@_named
@settings(max_examples=60)
@given(reply=_ANSWERS)
def test_a_poll_is_a_snapshot_or_an_error_of_ours(
    runner: asyncio.Runner, adapter: Adapter, reply: HttpAnswer
) -> None:
    _asked(runner, adapter.poll(context(ScriptedCalls(reply)), account(adapter.name), TASK))
    if Feature.POLL_MANY in adapter.features:
        _asked(runner, adapter.poll_many(context(ScriptedCalls(reply)), account(adapter.name), [TASK]))


@_named
@settings(max_examples=60)
@given(reply=_ANSWERS)
def test_a_check_is_a_status_or_an_error_of_ours(
    runner: asyncio.Runner, adapter: Adapter, reply: HttpAnswer
) -> None:
    _asked(runner, adapter.check(context(ScriptedCalls(reply)), account(adapter.name)))


async def test_numbers_that_no_number_can_be_made_of_are_bounded() -> None:
    leonardo, runway = LeonardoAdapter(), RunwayAdapter()
    me = answer({"user_details": [{"user": {"id": "u"}, "apiPaidTokens": 1.7e308}]})
    with pytest.raises(ProtocolViolation):
        await leonardo.check(context(ScriptedCalls(me)), account("leonardo"))
    running = answer({"id": "task-1", "status": "RUNNING", "progress": 1.7e308})
    assert (await runway.poll(context(ScriptedCalls(running)), account("runway"), TASK)).progress == 99


@pytest.mark.parametrize("adapter", ADAPTERS[:2], ids=lambda adapter: adapter.name)
@settings(max_examples=60)
@given(body=_BODIES)
def test_a_webhook_is_a_hint_or_nothing(runner: asyncio.Runner, adapter: Adapter, body: bytes) -> None:
    hint = runner.run(adapter.hint(context(ScriptedCalls()), account(adapter.name), {}, body))
    assert hint is None or hint.task_ids


@_named
@pytest.mark.parametrize("task_id", ["../../../me", "..", "", "a b", "x" * 200, "a/b", "a?b=c"])
async def test_an_id_that_would_lead_elsewhere_is_no_id(adapter: Adapter, task_id: str) -> None:
    spec = next(spec for spec in adapter.models() if spec.model == FILM.model)
    calls = ScriptedCalls(answer({"id": task_id, "generationId": task_id}))
    with pytest.raises(SubmissionUnknown):
        await adapter.submit(context(calls), account(adapter.name), adapter.prepare(FILM, spec), "job_1:1")
