"""What a pool process tells of attempts, models and hints over gRPC, and what an operator reads of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.chassis.errors import ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.provider_pool.accounts.vault import KeyRing
from services.provider_pool.attempts.hint_addresses import HintAddresses
from tests.integration.pool_process import CANARY, ROOT, Pool, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
PUBLIC_URL = "https://api.example.com"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    folder = tmp_path_factory.mktemp("pool")
    async with running(folder, ATELIER_POOL_PUBLIC_URL=PUBLIC_URL) as pool:
        await pool.account(concurrency_limit=20)
        yield pool


def token_of(pool: Pool, attempt_id: str) -> str:
    addresses = HintAddresses(KeyRing.load(Path(pool.folder / "ring")), PUBLIC_URL)
    return addresses.callback_url(attempt_id).rpartition("/")[2]


async def admin(pool: Pool, *arguments: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.admin", *arguments, "--json"),
        cwd=ROOT,
        env=os.environ | {"ATELIER_POOL_ADDRESS": pool.addresses["grpc"]},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(said)


async def test_the_history_of_a_lost_answer_is_told_by_gRPC_and_at_the_command_line(pool: Pool) -> None:
    status = await pool.begin("job_1:1", "unknown")
    assert status.state == pb.ATTEMPT_STATE_UNKNOWN
    assert [one["attempt_id"] for one in await admin(pool, "attempts", "unknown")] == ["job_1:1"]
    async with asyncio.timeout(20):
        while (await pool.resolved("job_1:1")).state == pb.ATTEMPT_STATE_UNKNOWN:
            await asyncio.sleep(0.1)
    await pool.ended("job_1:1")
    told = await pool.stub.GetAttemptHistory(pb.GetAttemptHistoryRequest(attempt_id="job_1:1"))
    assert (told.attempt.attempt_id, told.attempt.state) == ("job_1:1", pb.ATTEMPT_STATE_SUCCEEDED)
    events = [event.what for event in told.events]
    assert {"begun", "in_doubt", "found", "submitted", "ended"} <= set(events)
    assert [event.at_ms for event in told.events] == sorted(event.at_ms for event in told.events)
    shown = await admin(pool, "attempts", "show", "job_1:1")
    assert [event["what"] for event in shown["history"]] == events
    assert shown["state"] == "succeeded"
    assert "a cat" not in str(told)
    assert CANARY not in str(told)
    assert await admin(pool, "attempts", "unknown") == []
    listed = await admin(pool, "attempts", "list", "--job", "job_1", "--state", "succeeded")
    assert [one["attempt_id"] for one in listed] == ["job_1:1"]


async def test_models_are_told_with_their_accounts_and_their_patience(pool: Pool) -> None:
    told = await pool.stub.ListModels(pb.ListModelsRequest())
    (offer,) = [one for one in told.offers if (one.provider, one.model) == ("sandbox", "gpt-image-2")]
    assert (offer.kind, offer.accounts) == (pb.KIND_IMAGE, 1)
    assert 0 < offer.patience_ms <= 1_800_000
    shown = await admin(pool, "models", "list", "--served")
    assert {one["provider"] for one in shown} == {"sandbox"}
    assert all(one["patience_s"] * 1000 == one["patience_ms"] for one in shown)


async def test_hints_are_taken_at_addresses_of_the_pool_s_own_making_only(pool: Pool) -> None:
    await pool.begin("job_2:1")
    for token in ("", "a" * 200, token_of(pool, "job_of_nobody:1")):
        with pytest.raises(ServiceError) as refusal:
            await pool.stub.TakeHint(pb.TakeHintRequest(token=token, body=b"{}"))
        assert refusal.value.reason == "UNKNOWN_HINT"
    # The sandbox sends none, so that whoever speaks in its name is not heard; but the address is known.
    await pool.stub.TakeHint(pb.TakeHintRequest(token=token_of(pool, "job_2:1"), headers={"X-A": "b"}))
    metrics = await pool.metrics()
    assert 'atelier_pool_hints_total{outcome="unknown"} 3.0' in metrics
    assert 'atelier_pool_hints_total{outcome="refused"} 1.0' in metrics


async def test_an_account_has_an_address_for_providers_that_know_only_one(pool: Pool) -> None:
    (account,) = (await pool.stub.ListAccounts(pb.ListAccountsRequest())).accounts
    shown = await admin(pool, "hints", "address", account.account_id)
    assert shown["url"].startswith(f"{PUBLIC_URL}/hints/")
    assert account.account_id not in shown["url"]
    await pool.stub.TakeHint(pb.TakeHintRequest(token=shown["url"].rpartition("/")[2]))
    with pytest.raises(ServiceError, match="ACCOUNT_NOT_FOUND"):
        await pool.stub.GetHintAddress(pb.GetHintAddressRequest(account_id="acc_of_nobody"))


async def test_hints_beyond_what_a_webhook_is_are_refused(pool: Pool) -> None:
    many = {f"x-{turn}": "1" for turn in range(101)}
    for request in (
        pb.TakeHintRequest(token="a" * 200, body=b"x" * (1024 * 1024 + 1)),
        pb.TakeHintRequest(token="a" * 200, headers=many),
    ):
        with pytest.raises(ServiceError) as refusal:
            await pool.stub.TakeHint(request)
        assert refusal.value.reason == "INVALID_REQUEST"


async def test_whoever_watches_for_hints_waits_quietly_and_may_leave(pool: Pool) -> None:
    watching = pool.stub.WatchHints(pb.WatchHintsRequest())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await anext(aiter(watching))
    watching.cancel()
    assert (await pool.poll("job_2:1")).state in (pb.ATTEMPT_STATE_RUNNING, pb.ATTEMPT_STATE_SUCCEEDED)
