"""One suite for every adapter: what the pool promises, kept over each provider's own wire protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from services.chassis.errors import ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.provider_pool.adapters.interface import Kind, ModelSpec
from tests.adapters.simulated import OFFERS, PROVIDERS, Bench, bench, spec_of, wanted

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

TYPES: Final = {
    Kind.IMAGE: "image/",
    Kind.INFOGRAPHIC: "image/",
    Kind.VIDEO: "video/",
    Kind.VOICE: "audio/",
    Kind.MUSIC: "audio/",
    Kind.TEXT: "text/plain",
}
# Where the answer to a submission is the result already.
SYNCHRONOUS: Final = frozenset({"openai", "elevenlabs"})
# Providers that tell what a job cost, in credits, in dollars or in tokens.
TELLING: Final = frozenset({"leonardo", "ark", "openai", "elevenlabs", "runway"})
# Providers that tell what an account has.
WITH_BALANCE: Final = ("leonardo", "fal", "elevenlabs", "runway")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("pool")) as found:
        yield found


def _name(value: object) -> str:
    return value.model if isinstance(value, ModelSpec) else str(value)


@pytest.mark.parametrize(("provider", "spec"), OFFERS, ids=_name)
async def test_every_model_is_made_collected_and_booked(place: Bench, provider: str, spec: ModelSpec) -> None:
    account = await place.account(provider, spec)
    await place.alone(account)
    prompt = f"a harbour for {provider} {spec.model}"
    attempt_id, _ = await place.begun(wanted(spec, prompt))
    status = await place.ended(attempt_id)
    assert status.state == pb.ATTEMPT_STATE_SUCCEEDED, status
    outputs = await place.pool.collect(attempt_id)
    assert outputs[0].content_type.startswith(TYPES[spec.kind])
    (charged,) = place.charged(provider, prompt)
    booked = (await place.recorded(attempt_id)).cost_millis
    assert charged > 0
    if provider in TELLING:
        assert charged * 1000 <= booked < charged * 1000 + 1
    else:
        # As expected: near enough that no account is emptied unseen.
        assert booked >= charged * 1000 * 9 / 10


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_a_job_may_cost_is_never_less_than_what_it_costs(place: Bench, provider: str) -> None:
    spec = spec_of(provider)
    account = await place.account(provider, spec)
    await place.alone(account)
    prompt = f"a mountain for {provider}"
    attempt_id, _ = await place.begun(wanted(spec, prompt))
    leases = (await place.pool.stub.ListLeases(pb.ListLeasesRequest(limit=1000))).leases
    (ceiling_millis,) = (each.cost_ceiling_millis for each in leases if each.attempt_id == attempt_id)
    await place.ended(attempt_id)
    (charged,) = place.charged(provider, prompt)
    assert ceiling_millis >= charged * 1000


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_submission_whose_answer_is_lost_is_never_sent_again(place: Bench, provider: str) -> None:
    spec = spec_of(provider)
    account = await place.account(provider, spec)
    await place.alone(account)
    prompt = f"a bridge for {provider} [[sim:answer_lost]]"
    attempt_id, status = await place.begun(wanted(spec, prompt))
    assert status.state == pb.ATTEMPT_STATE_UNKNOWN, status
    again = await place.pool.submit(attempt_id, wanted(spec, prompt))
    assert again.state == pb.ATTEMPT_STATE_UNKNOWN
    assert len(place.charged(provider, f"a bridge for {provider}")) == 1
    end = await place.ended(attempt_id)
    if end.state == pb.ATTEMPT_STATE_ABANDONED:
        assert end.failure.charged == pb.CHARGED_MAYBE
        assert (await place.recorded(attempt_id)).cost_millis > 0
    else:
        assert end.state == pb.ATTEMPT_STATE_SUCCEEDED, end


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name not in {"openai", "runway", "fal"}])
async def test_a_task_whose_submission_was_in_doubt_is_found_in_the_provider_s_list(
    place: Bench, provider: str
) -> None:
    spec = spec_of(provider)
    account = await place.account(provider, spec)
    await place.alone(account)
    prompt = f"a tower for {provider} [[sim:answer_lost]]"
    attempt_id, status = await place.begun(wanted(spec, prompt))
    assert status.state == pb.ATTEMPT_STATE_UNKNOWN
    end = await place.ended(attempt_id)
    assert end.state == pb.ATTEMPT_STATE_SUCCEEDED, end
    assert await place.pool.collect(attempt_id)
    assert len(place.charged(provider, prompt)) == 1


async def test_speech_in_doubt_does_not_get_what_was_answered_to_its_twin(place: Bench) -> None:
    spec = spec_of("elevenlabs")
    account = await place.account("elevenlabs", spec)
    await place.alone(account)
    text = "a twin for elevenlabs"
    first, status = await place.begun(wanted(spec, text))
    assert status.state == pb.ATTEMPT_STATE_SUCCEEDED
    # As if nothing of it had been taken: the history has the first one's alone.
    wish = {"provider": "elevenlabs", "key": account.label, "fault": "cut_after_read", "times": 1}
    place.world.faults.add(wish, place.world.now_ms())
    second, status = await place.begun(wanted(spec, text))
    assert status.state == pb.ATTEMPT_STATE_UNKNOWN
    assert (await place.ended(second)).state == pb.ATTEMPT_STATE_ABANDONED
    assert await place.pool.collect(first)


REFUSALS: Final = [
    ("unauthorized", pb.FAILURE_REASON_PROVIDER_UNAVAILABLE, pb.NEXT_STEP_ROTATE),
    ("payment_required", pb.FAILURE_REASON_PROVIDER_UNAVAILABLE, pb.NEXT_STEP_ROTATE),
    ("forbidden", pb.FAILURE_REASON_PROVIDER_UNAVAILABLE, pb.NEXT_STEP_ROTATE),
    ("rate_limited", pb.FAILURE_REASON_PROVIDER_UNAVAILABLE, pb.NEXT_STEP_ROTATE),
    ("rate_limited_wait", pb.FAILURE_REASON_PROVIDER_UNAVAILABLE, pb.NEXT_STEP_ROTATE),
    ("moderated_before", pb.FAILURE_REASON_CONTENT_REFUSED, pb.NEXT_STEP_FAIL),
]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("fault", "reason", "step"), REFUSALS, ids=[row[0] for row in REFUSALS])
async def test_a_refusal_is_understood_and_costs_nothing(
    place: Bench,
    provider: str,
    fault: str,
    reason: pb.FailureReason.ValueType,
    step: pb.NextStep.ValueType,
) -> None:
    spec = spec_of(provider)
    account = await place.account(provider, spec)
    await place.alone(account)
    prompt = f"a {fault} at {provider}"
    attempt_id, status = await place.begun(wanted(spec, f"{prompt} [[sim:{fault}]]"))
    if fault == "moderated_before":
        # Some take a prompt first and look at it then.
        status = await place.ended(attempt_id)
    assert status.state == pb.ATTEMPT_STATE_FAILED, status
    assert (status.failure.reason, status.failure.next_step) == (reason, step), status.failure
    charged = sum(place.charged(provider, prompt))
    booked = (await place.recorded(attempt_id)).cost_millis
    # Where a provider does not say whether it charged for what it took and then refused, it is booked.
    assert booked >= charged * 1000
    if fault != "moderated_before":
        assert (booked, charged) == (0, 0)
        assert status.failure.charged == pb.CHARGED_NO
    shown = await place.pool.shown(account.account_id)
    assert bool(shown.breakers) == (step == pb.NEXT_STEP_ROTATE)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", ["server_error", "html_error", "truncated", "cut_after_read"])
async def test_an_answer_that_tells_nothing_leaves_the_submission_in_doubt_or_is_plainly_a_refusal(
    place: Bench, provider: str, fault: str
) -> None:
    spec = spec_of(provider)
    account = await place.account(provider, spec)
    await place.alone(account)
    attempt_id, status = await place.begun(wanted(spec, f"a {fault} for {provider} [[sim:{fault}]]"))
    if status.state == pb.ATTEMPT_STATE_FAILED:
        assert status.failure.next_step == pb.NEXT_STEP_ROTATE, status
        assert sum(place.charged(provider, f"a {fault} for {provider}")) == 0
    else:
        assert status.state == pb.ATTEMPT_STATE_UNKNOWN, status
        await place.ended(attempt_id)


ENDINGS: Final = ["generation_failed", "moderated_after", "no_output", "wrong_type"]


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name not in SYNCHRONOUS])
@pytest.mark.parametrize("fault", ENDINGS)
async def test_a_task_that_ends_badly_fails_its_attempt(place: Bench, provider: str, fault: str) -> None:
    spec = spec_of(provider)
    account = await place.account(provider, spec)
    await place.alone(account)
    attempt_id, _ = await place.begun(wanted(spec, f"a ship [[sim:{fault}]]"))
    status = await place.ended(attempt_id)
    if status.state == pb.ATTEMPT_STATE_SUCCEEDED:
        # It shows when the output is looked at.
        with pytest.raises(ServiceError, match=r"ATTEMPT_STATE|failed"):
            await place.pool.collect(attempt_id)
        status = await place.pool.poll(attempt_id)
    assert status.state == pb.ATTEMPT_STATE_FAILED, status
    refused = status.failure.reason == pb.FAILURE_REASON_CONTENT_REFUSED
    assert refused or fault != "moderated_after" or provider == "leonardo"


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name not in SYNCHRONOUS])
async def test_a_status_that_goes_back_is_not_believed(place: Bench, provider: str) -> None:
    spec = spec_of(provider)
    account = await place.account(provider, spec)
    await place.alone(account)
    attempt_id, status = await place.begun(wanted(spec, "a kite [[sim:backwards]] [[sim:slow=2]]"))
    most = 0
    async with asyncio.timeout(60):
        while status.state == pb.ATTEMPT_STATE_RUNNING:
            status = await place.pool.poll(attempt_id)
            assert status.progress >= most
            most = status.progress
            await asyncio.sleep(0.05)
    assert status.state == pb.ATTEMPT_STATE_SUCCEEDED, status


@pytest.mark.parametrize("provider", WITH_BALANCE)
async def test_what_an_account_has_is_read_from_its_provider(place: Bench, provider: str) -> None:
    account = await place.account(provider, balance=123, balance_millis=0)
    assert account.balance_millis == 123_000
    assert account.balance_read_at_ms > 0


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_account_whose_key_is_wrong_is_not_added(place: Bench, provider: str) -> None:
    with pytest.raises(ServiceError) as refused:
        await place.account(
            provider,
            credentials={"api_key": "wrong-key", "admin_key": "wrong-key"}
            if provider == "fal"
            else {"api_key": "wrong-key"},
        )
    assert refused.value.reason == "CREDENTIALS_REFUSED"
    labels = [one.label for one in (await place.pool.stub.ListAccounts(pb.ListAccountsRequest())).accounts]
    assert f"00000000-0000-4000-8000-{next(place.numbers) - 1:012d}" not in labels


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_task_that_nobody_wants_any_more_is_stopped_where_it_can_be(
    place: Bench, provider: str
) -> None:
    spec = spec_of(provider)
    account = await place.account(provider, spec)
    await place.alone(account)
    attempt_id, _ = await place.begun(wanted(spec, f"a dune for {provider}"))
    closed = await place.pool.stub.CloseAttempts(pb.CloseAttemptsRequest(attempt_ids=[attempt_id]))
    assert not closed.still_open_attempt_ids
    attempt = await place.recorded(attempt_id)
    assert attempt.state in {pb.ATTEMPT_STATE_FAILED, pb.ATTEMPT_STATE_SUCCEEDED}


async def test_no_credential_and_no_prompt_is_in_the_pool_s_log(place: Bench) -> None:
    log = place.pool.log
    assert "00000000-0000-4000-8000-" not in log
    assert "a harbour for" not in log
    assert "[[sim:" not in log
