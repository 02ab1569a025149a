from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.chassis.coalesce import Coalescer, unary_of
from services.chassis.errors import Kind, ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from tests.integration.pool_process import CANARY, TTL_MS, Pool, picture, running


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    async with running(tmp_path) as found:
        yield found


async def test_a_collected_picture_has_exactly_the_pixels_asked_for_and_costs_once(pool: Pool) -> None:
    account = await pool.account(options={"pace_ms": "100"})
    await pool.begin("job_1:1")
    assert (await pool.ended("job_1:1")).state == pb.ATTEMPT_STATE_SUCCEEDED
    first, second = await asyncio.gather(pool.collect("job_1:1"), pool.collect("job_1:1"))
    assert first == second == await pool.collect("job_1:1")
    (output,) = first
    content = (pool.folder / "media" / output.object_key).read_bytes()
    assert re.fullmatch(r"images/20\d\d/\d\d/\d\d/job_1\.png", output.object_key)
    assert len(content) == output.size_bytes
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert image.size == (output.width, output.height) == (320, 256)
    assert await pool.release("job_1:1") is False
    after = await pool.shown(account.account_id)
    assert (after.balance_millis, after.leases, after.leased_millis) == (10_000_000 - 20_000, 0, 0)


async def test_a_film_is_collected_with_its_preview(pool: Pool) -> None:
    await pool.account()
    film = pb.Generation(
        kind=pb.KIND_VIDEO, model="seedance-2.0-fast", prompt="a cat", width=320, height=256, duration_s=5
    )
    await pool.lease("job_1:1", generation=film)
    await pool.submit("job_1:1", film)
    await pool.ended("job_1:1")
    primary, preview = await pool.collect("job_1:1")
    assert (primary.role, primary.content_type, primary.duration_ms) == (
        pb.Output.ROLE_PRIMARY,
        "video/mp4",
        5_000,
    )
    assert (preview.role, preview.content_type) == (pb.Output.ROLE_PREVIEW, "image/jpeg")
    assert preview.object_key == primary.object_key.replace("videos/", "video-posters/").replace(
        ".mp4", ".jpg"
    )


async def test_fifty_simultaneous_leases_on_six_slots_grant_six_and_leave_the_rest_busy(pool: Pool) -> None:
    for _ in range(3):
        await pool.account()
    answers = await asyncio.gather(*(pool.lease(f"job_{turn}:1") for turn in range(50)))
    outcomes = [answer.outcome for answer in answers]
    assert outcomes.count(pb.LeaseResponse.OUTCOME_GRANTED) == 6
    assert outcomes.count(pb.LeaseResponse.OUTCOME_BUSY) == 44
    listed = (await pool.stub.ListLeases(pb.ListLeasesRequest())).leases
    assert len(listed) == 6


async def test_test_jobs_need_an_account_that_serves_them(pool: Pool) -> None:
    await pool.account(serves_test=False)
    with pytest.raises(ServiceError) as refusal:
        await pool.lease("job_1:1", mode=pb.MODE_TEST)
    assert (refusal.value.kind, refusal.value.reason) == (Kind.FAILED_PRECONDITION, "NO_CAPABLE_ACCOUNT")
    await pool.account(serves_live=False)
    granted = await pool.lease("job_1:1", mode=pb.MODE_TEST)
    assert granted.outcome == pb.LeaseResponse.OUTCOME_GRANTED


async def room_becomes(stream: Any, wanted: int) -> None:
    """Reads until so many slots are free; the same number may be told more than once."""
    async with asyncio.timeout(10):
        while True:
            message = await stream.read()
            rooms = {(room.mode, room.model): room.free_slots for room in message.rooms}
            if rooms[pb.MODE_LIVE, "gpt-image-2"] == wanted:
                return


async def test_watchers_hear_of_the_present_and_of_every_slot_that_comes_free(pool: Pool) -> None:
    await pool.account(concurrency_limit=1)
    await pool.lease("job_1:1")
    stream = pool.stub.WatchCapacity(pb.WatchCapacityRequest())
    await room_becomes(stream, 0)
    await pool.release("job_1:1")
    await room_becomes(stream, 1)
    await pool.account()
    await room_becomes(stream, 3)
    stream.cancel()


async def test_watchers_hear_of_a_slot_whose_lease_expired(pool: Pool) -> None:
    await pool.account(concurrency_limit=1)
    await pool.lease("job_1:1", ttl_ms=500)
    stream = pool.stub.WatchCapacity(pb.WatchCapacityRequest())
    await room_becomes(stream, 0)
    await room_becomes(stream, 1)
    stream.cancel()


async def test_watchers_hear_when_an_account_has_cooled_down(pool: Pool) -> None:
    await pool.account(concurrency_limit=2)
    stream = pool.stub.WatchCapacity(pb.WatchCapacityRequest())
    await room_becomes(stream, 2)
    status = await pool.begin("job_1:1", "rate-limit")
    assert status.failure.next_step == pb.NEXT_STEP_ROTATE
    assert status.failure.retry_after_ms == 2_000
    assert (await pool.lease("job_2:1")).outcome == pb.LeaseResponse.OUTCOME_BUSY
    # Open at first, then half-open: one job may try.
    await room_becomes(stream, 0)
    await room_becomes(stream, 1)
    assert (await pool.begin("job_2:1")).state == pb.ATTEMPT_STATE_RUNNING
    assert not (await pool.stub.ListAccounts(pb.ListAccountsRequest())).accounts[0].breakers
    stream.cancel()


async def test_a_submission_is_made_once_however_often_it_is_asked_for(pool: Pool) -> None:
    await pool.account()
    await pool.lease("job_1:1")
    statuses = await asyncio.gather(*(pool.submit("job_1:1", picture()) for _ in range(20)))
    assert {status.state for status in statuses} == {pb.ATTEMPT_STATE_RUNNING}
    orders = list((pool.folder / "sandbox" / "orders").rglob("*.json"))
    assert len(orders) == 1


async def test_a_kill_before_the_answer_leaves_a_doubt_that_the_provider_s_list_resolves(
    tmp_path: Path,
) -> None:
    wanted = picture("late-answer=20")
    async with running(tmp_path) as pool:
        await pool.account()
        await pool.lease("job_1:1", generation=wanted)
        call = asyncio.create_task(pool.submit("job_1:1", wanted))
        async with asyncio.timeout(10):
            while not list(tmp_path.glob("sandbox/orders/*/*.json")):
                await asyncio.sleep(0.02)
        await pool.kill()
        with pytest.raises(ServiceError):
            await call
    async with running(tmp_path) as pool:
        assert (await pool.submit("job_1:1", wanted)).state == pb.ATTEMPT_STATE_UNKNOWN
        assert (await pool.resolved("job_1:1")).state == pb.ATTEMPT_STATE_RUNNING
        assert (await pool.ended("job_1:1")).state == pb.ATTEMPT_STATE_SUCCEEDED
        assert len(await pool.collect("job_1:1")) == 1
    assert len({path.stem for path in tmp_path.glob("sandbox/orders/*/*.json")}) == 0


async def test_a_lost_answer_is_found_in_the_list(pool: Pool) -> None:
    await pool.account()
    assert (await pool.begin("job_1:1", "unknown")).state == pb.ATTEMPT_STATE_UNKNOWN
    assert (await pool.resolved("job_1:1")).state == pb.ATTEMPT_STATE_RUNNING
    assert (await pool.ended("job_1:1")).state == pb.ATTEMPT_STATE_SUCCEEDED


async def test_a_lost_request_is_given_up_after_the_window_and_counts_as_perhaps_paid(tmp_path: Path) -> None:
    async with running(tmp_path, ATELIER_POOL_UNKNOWN_WINDOW_S="1.5") as pool:
        account = await pool.account()
        assert (await pool.begin("job_1:1", "lost")).state == pb.ATTEMPT_STATE_UNKNOWN
        early = await pool.resolved("job_1:1")
        assert early.state == pb.ATTEMPT_STATE_UNKNOWN
        assert early.poll_after_ms > 0
        await asyncio.sleep(1.5)
        status = await pool.resolved("job_1:1")
        assert status.state == pb.ATTEMPT_STATE_ABANDONED
        assert status.failure.reason == pb.FAILURE_REASON_SUBMISSION_UNKNOWN
        assert (status.failure.next_step, status.failure.charged) == (pb.NEXT_STEP_FAIL, pb.CHARGED_MAYBE)
        assert (await pool.shown(account.account_id)).balance_millis == 10_000_000 - 20_000
        assert (
            'atelier_pool_resolved_unknown_total{outcome="abandoned",provider="sandbox"} 1.0'
            in await pool.metrics()
        )


async def test_an_operator_may_allow_one_more_submission_of_a_job(tmp_path: Path) -> None:
    changes = {"ATELIER_POOL_UNKNOWN_WINDOW_S": "0", "ATELIER_POOL_RESUBMIT_ONCE": "sandbox"}
    async with running(tmp_path, **changes) as pool:
        await pool.account(concurrency_limit=5)
        steps = []
        for attempt_id in ("job_1:1", "job_1:2"):
            # Doubt cools the account down for a moment; the next attempt waits for that.
            async with asyncio.timeout(20):
                while (await pool.lease(attempt_id)).outcome != pb.LeaseResponse.OUTCOME_GRANTED:
                    await asyncio.sleep(0.1)
            await pool.submit(attempt_id, picture("lost"))
            steps.append((await pool.resolved(attempt_id)).failure.next_step)
        assert steps == [pb.NEXT_STEP_RETRY, pb.NEXT_STEP_FAIL]


@pytest.mark.parametrize(
    ("marker", "reason", "step"),
    [
        ("refuse", pb.FAILURE_REASON_CONTENT_REFUSED, pb.NEXT_STEP_FAIL),
        ("fail", pb.FAILURE_REASON_GENERATION_FAILED, pb.NEXT_STEP_FAIL),
        ("account-error", pb.FAILURE_REASON_PROVIDER_UNAVAILABLE, pb.NEXT_STEP_ROTATE),
    ],
)
async def test_a_failure_says_what_to_do_next(pool: Pool, marker: str, reason: int, step: int) -> None:
    await pool.account()
    await pool.begin("job_1:1", marker)
    status = await pool.ended("job_1:1")
    assert status.state == pb.ATTEMPT_STATE_FAILED
    assert (status.failure.reason, status.failure.next_step) == (reason, step)


async def test_an_account_without_credit_is_out_until_it_is_reset_and_jobs_move_on(pool: Pool) -> None:
    accounts = {(await pool.account()).account_id for _ in range(2)}
    await pool.begin("job_1:1", "account-error")
    first = (await pool.stub.ListAttempts(pb.ListAttemptsRequest(job_id="job_1"))).attempts[0].account_id
    assert (await pool.shown(first)).breakers[0].state == pb.BREAKER_STATE_OPEN
    await pool.release("job_1:1")
    second = await pool.lease("job_1:2", avoid_account_ids=[first])
    assert second.account_id in accounts - {first}
    assert not (await pool.stub.ResetAccount(pb.ResetAccountRequest(account_id=first))).account.breakers


async def test_an_output_that_is_something_else_fails_the_attempt(pool: Pool) -> None:
    account = await pool.account()
    await pool.begin("job_1:1", "bad-output")
    await pool.ended("job_1:1")
    for _ in range(2):
        with pytest.raises(ServiceError) as refusal:
            await pool.collect("job_1:1")
        assert (refusal.value.reason, refusal.value.metadata["state"]) == ("ATTEMPT_STATE", "failed")
    status = await pool.poll("job_1:1")
    assert status.failure.reason == pb.FAILURE_REASON_OUTPUT_UNUSABLE
    # The provider did its work and charged for it.
    assert (await pool.shown(account.account_id)).balance_millis == 10_000_000 - 20_000
    assert not list(pool.folder.glob("media/job_1/*"))


async def test_many_polls_of_one_attempt_are_one_question(pool: Pool) -> None:
    await pool.account()
    await pool.begin("job_1:1", "pace=60")
    request = pb.PollRequest(attempt_id="job_1:1", max_age_ms=60_000)
    answers = await asyncio.gather(*(pool.stub.Poll(request) for _ in range(30)))
    assert len({answer.answered_at_ms for answer in answers}) == 1
    assert 'atelier_pool_polled_attempts_total{provider="sandbox"} 1.0' in await pool.metrics()


async def test_the_stream_answers_like_the_unary_calls(pool: Pool) -> None:
    await pool.account()
    stream = Coalescer(
        pool.stub.Dispatch,
        batch=pb.DispatchRequest,
        item=pb.DispatchItem,
        unary=unary_of(pool.stub),
        name="provider_pool",
    )
    try:
        request = pb.LeaseRequest(
            attempt_id="job_1:1", job_id="job_1", mode=pb.MODE_LIVE, generation=picture(), ttl_ms=TTL_MS
        )
        leased = await stream.call("Lease", request, pb.LeaseResponse, timeout_s=10)
        assert leased == await pool.stub.Lease(request)
        with pytest.raises(ServiceError) as refusal:
            await stream.call("Poll", pb.PollRequest(attempt_id="job_9:1"), pb.PollResponse, timeout_s=10)
        assert refusal.value.reason == "ATTEMPT_NOT_FOUND"
    finally:
        await stream.close()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"attempt_id": "job_1"}, "attempt_id"),
        ({"attempt_id": "../x:1", "job_id": "../x"}, "attempt_id"),
        ({"job_id": "job_2"}, "job_id"),
        ({"mode": pb.MODE_UNSPECIFIED}, "mode"),
        ({"ttl_ms": 0}, "ttl_ms"),
        ({"generation": pb.Generation(model="gpt-image-2")}, "generation.kind"),
        ({"generation": pb.Generation(kind=pb.KIND_IMAGE)}, "generation.model"),
        ({"avoid_account_ids": ["a b"]}, "account_id"),
    ],
    ids=str,
)
async def test_a_field_out_of_range_is_named(pool: Pool, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        await pool.lease(**({"attempt_id": "job_1:1"} | changes))
    assert (refusal.value.reason, refusal.value.metadata["field"]) == ("INVALID_REQUEST", field)


async def test_accounts_are_changed_field_by_field_and_bad_ones_refused(pool: Pool) -> None:
    account = await pool.account(priority=3)
    request = pb.UpdateAccountRequest(
        account_id=account.account_id, state=pb.ACCOUNT_STATE_DRAINING, serves_test=False, priority=0
    )
    after = (await pool.stub.UpdateAccount(request)).account
    assert (after.state, after.serves_test, after.serves_live) == (pb.ACCOUNT_STATE_DRAINING, False, True)
    assert (after.priority, after.concurrency_limit, after.balance_millis) == (0, 2, 10_000_000)
    for bad in (
        {"provider": "nobody"},
        {"models": ["nothing"]},
        {"options": {"pace_ms": "soon"}},
        {"label": ""},
    ):
        with pytest.raises(ServiceError) as refusal:
            await pool.account(**bad)
        assert refusal.value.kind is Kind.INVALID_ARGUMENT


async def test_credentials_and_prompts_are_seen_nowhere(pool: Pool) -> None:
    account = await pool.account()
    await pool.begin("job_1:1", "fail")
    await pool.ended("job_1:1")
    shown = str(await pool.shown(account.account_id))
    with pytest.raises(ServiceError) as refusal:
        await pool.account(credentials={"api key": CANARY})
    everything = shown + await pool.metrics() + pool.log + str(refusal.value) + str(refusal.value.metadata)
    assert CANARY not in everything
    assert "a cat" not in everything
    assert all(CANARY.encode() not in path.read_bytes() for path in pool.folder.glob("pool.db*"))


async def test_a_stopped_pool_ends_well_and_finds_its_accounts_again(tmp_path: Path) -> None:
    async with running(tmp_path) as pool:
        account_id = (await pool.account()).account_id
        await pool.begin("job_1:1", "pace=0.5")
        account = await pool.shown(account_id)
        assert await pool.stop() == 0
    async with running(tmp_path) as pool:
        assert await pool.shown(account_id) == account
        assert (await pool.ended("job_1:1")).state == pb.ATTEMPT_STATE_SUCCEEDED


async def test_a_key_ring_that_went_missing_is_not_replaced(tmp_path: Path) -> None:
    async with running(tmp_path) as pool:
        await pool.account()
        await pool.stop()
    (tmp_path / "ring").unlink()
    with pytest.raises(AssertionError, match="the key ring"):
        async with running(tmp_path):
            pass
    assert not (tmp_path / "ring").exists()


async def test_a_slot_freed_by_one_replica_is_heard_of_at_the_other(
    tmp_path: Path, postgres_url: str
) -> None:
    changes = {"ATELIER_POOL_DATABASE_URL": postgres_url}
    async with running(tmp_path, **changes) as one, running(tmp_path, **changes) as other:
        await one.account(concurrency_limit=1)
        await one.lease("job_1:1")
        assert (await other.lease("job_2:1")).outcome == pb.LeaseResponse.OUTCOME_BUSY
        stream = other.stub.WatchCapacity(pb.WatchCapacityRequest())
        await room_becomes(stream, 0)
        await one.release("job_1:1")
        await room_becomes(stream, 1)
        stream.cancel()
