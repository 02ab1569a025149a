"""Whatever a provider answers, an adapter raises classified errors and nothing else, and repeats nothing of a customer's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.elevenlabs.adapter import ElevenLabsAdapter
from services.provider_pool.adapters.fal.adapter import FalAdapter
from services.provider_pool.adapters.interface import (
    Adapter,
    Context,
    Feature,
    Generation,
    Kind,
    Prepared,
    ProviderError,
    SubmissionUnknown,
    TaskRef,
)
from services.provider_pool.adapters.openai.adapter import OpenAIAdapter
from services.provider_pool.adapters.replicate.adapter import ReplicateAdapter
from tests.adapters.scripted import ScriptedCalls, account, answer, context
from tests.clocks import T0_MS

PROMPT: Final = "a prompt that nobody repeats"
ID: Final = "764cabcf-b745-4b3e-ae38-1200304cf45b"
APP: Final = f"https://queue.fal.run/bytedance/seedance-2.0/requests/{ID}"
ADAPTERS: Final[dict[str, Adapter]] = {
    "openai": OpenAIAdapter(),
    "elevenlabs": ElevenLabsAdapter(),
    "fal": FalAdapter(),
    "replicate": ReplicateAdapter(),
}
GENERATIONS: Final = {
    "openai": Generation(Kind.IMAGE, "gpt-image-2", PROMPT, 1024, 1024),
    "elevenlabs": Generation(Kind.VOICE, "eleven-multilingual-v2", PROMPT),
    "fal": Generation(Kind.VIDEO, "seedance-2.0", PROMPT, 1280, 720, duration_s=5),
    "replicate": Generation(Kind.VIDEO, "seedance-2.0", PROMPT, 1280, 720, duration_s=5),
}
TASK: Final = TaskRef(
    ID, T0_MS, {"status_url": f"{APP}/status", "response_url": APP, "cancel_url": f"{APP}/cancel"}
)

# Words that mean something to one of the providers, in places where they may or may not belong.
names = st.sampled_from(
    [
        "id",
        "status",
        "error",
        "error_type",
        "detail",
        "type",
        "code",
        "message",
        "data",
        "b64_json",
        "choices",
        "usage",
        "output",
        "video",
        "images",
        "url",
        "results",
        "next",
        "items",
        "request_id",
        "status_url",
        "credits",
        "current_balance",
        "urls",
        "get",
        "key",
        "tier",
        "character_count",
        "character_limit",
        "logs",
        "input",
        "json_input",
        "sent_at",
        "created_at",
        "content",
        "has_nsfw_concepts",
        "upload_url",
        "file_url",
    ]
)
words = st.sampled_from(
    [
        "succeeded",
        "failed",
        "processing",
        "COMPLETED",
        "IN_QUEUE",
        "insufficient_quota",
        "invalid_api_key",
        "content_policy_violation",
        "quota_exceeded",
        "E005",
        "2026-11-21T10:00:00Z",
        "https://queue.fal.run/x/y",
        "https://evil.example/",
        PROMPT,
        "",
    ]
)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words | st.text(max_size=20)
bodies: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=25,
)
contents = bodies | st.binary(max_size=60)
statuses = st.sampled_from(
    [200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 408, 409, 422, 429, 500, 502, 503]
)
headers = st.dictionaries(
    st.sampled_from(
        ["retry-after", "retry-after-ms", "content-type", "x-fal-retryable", "character-cost", "x-request-id"]
    ),
    st.text(max_size=20) | st.sampled_from(["audio/mpeg", "true", "30"]),
    max_size=4,
)
answers = st.builds(answer, contents, statuses, headers)

Call = Callable[[Adapter, Context, Prepared], Awaitable[object]]


def _prepared(provider: str) -> Prepared:
    asked = GENERATIONS[provider]
    spec = next(spec for spec in ADAPTERS[provider].models() if spec.model == asked.model)
    return ADAPTERS[provider].prepare(asked, spec)


def _account(adapter: Adapter) -> Any:
    return account(adapter.name, {"api_key": "key-1", "admin_key": "admin-1", "webhook_secret": "whsec_aGk="})


async def _submit(adapter: Adapter, lent: Context, prepared: Prepared) -> object:
    return await adapter.submit(lent, _account(adapter), prepared, "job_1:1")


async def _poll(adapter: Adapter, lent: Context, prepared: Prepared) -> object:
    return await adapter.poll(lent, _account(adapter), TASK)


async def _check(adapter: Adapter, lent: Context, prepared: Prepared) -> object:
    return await adapter.check(lent, _account(adapter))


async def _list(adapter: Adapter, lent: Context, prepared: Prepared) -> object:
    return await adapter.list_tasks(lent, _account(adapter), prepared, T0_MS, "job_1:1")


async def _poll_many(adapter: Adapter, lent: Context, prepared: Prepared) -> object:
    if Feature.POLL_MANY not in adapter.features:
        return None
    return await adapter.poll_many(lent, _account(adapter), [TASK, TaskRef("other", T0_MS)])


async def _cancel(adapter: Adapter, lent: Context, prepared: Prepared) -> object:
    if Feature.CANCEL not in adapter.features:
        return None
    return await adapter.cancel(lent, _account(adapter), TASK)


CALLS: Final[dict[str, Call]] = {
    "submit": _submit,
    "poll": _poll,
    "check": _check,
    "list": _list,
    "poll_many": _poll_many,
    "cancel": _cancel,
}


def _outcome(provider: str, call: Call, told: list[HttpAnswer]) -> object:
    # Whatever is asked beyond the script is answered as the last of it was.
    calls = ScriptedCalls(*told, *[told[-1]] * 60)
    try:
        return asyncio.run(_awaited(call(ADAPTERS[provider], context(calls), _prepared(provider))))
    except ProviderError as error:
        return error


async def _awaited(call: Awaitable[object]) -> object:
    return await call


@pytest.mark.parametrize("provider", ADAPTERS)
@pytest.mark.parametrize("call", CALLS)
@given(told=st.lists(answers, min_size=1, max_size=3))
def test_no_answer_makes_an_adapter_raise_anything_but_a_classified_error(
    provider: str, call: str, told: list[HttpAnswer]
) -> None:
    outcome = _outcome(provider, CALLS[call], told)
    if isinstance(outcome, ProviderError):
        assert PROMPT not in str(outcome)
        assert "key-1" not in str(outcome)
        assert outcome.retry_after_s is None or 0 <= outcome.retry_after_s <= 3600


@pytest.mark.parametrize("provider", ADAPTERS)
@given(told=st.builds(answer, contents, st.sampled_from([500, 502, 504, 520, 599]), headers))
def test_a_server_s_error_to_a_submission_is_never_taken_for_a_refusal(
    provider: str, told: HttpAnswer
) -> None:
    outcome = _outcome(provider, _submit, [told])
    assert isinstance(outcome, SubmissionUnknown), outcome
