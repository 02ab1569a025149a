from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from services.chassis.errors import Kind, ServiceError
from services.gen.jobs.v1 import jobs_pb2 as pb
from services.jobs.webhooks.deliveries import Delivery
from services.jobs.webhooks.endpoints import Endpoint
from services.jobs.webhooks.lanes import Due
from services.jobs.webhooks.store import WebhookStore
from tests.jobs_house import FAST, sqlite_url
from tests.webhook_receiver import Answering, Receiver, fine, telling

JOBS = 40


async def test_two_replicas_send_everything_once(postgres_url: str) -> None:
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver())
        # Neither is taken for dead, nor the receiver for silent, on a machine with much else to do.
        patient = replace(FAST, worker_ttl_s=60.0)
        each = (telling(postgres_url, receiver, timing=patient, timeout_s=60.0) for _ in range(2))
        both = [await stack.enter_async_context(one) for one in each]
        creates = (both[n % 2].create(f"k{n}", receiver.url()) for n in range(JOBS))
        await asyncio.gather(*creates)
        await both[0].until_state(pb.DELIVERY_STATE_DELIVERED, JOBS, within_s=30)
        ids = Counter(one.headers["webhook-id"] for one in receiver.received)
    assert len(ids) == JOBS
    assert set(ids.values()) == {1}


async def test_what_a_leaving_replica_was_sending_is_sent_by_the_other(postgres_url: str) -> None:
    held = asyncio.Event()

    async def holding(request: web.Request) -> web.StreamResponse:
        await held.wait()
        return web.Response(status=200)

    async with Receiver(holding) as receiver, AsyncExitStack() as staying:
        async with telling(postgres_url, receiver, timeout_s=60.0) as leaving:
            await leaving.create("k1", receiver.url())
            await receiver.until(1)
            other = await staying.enter_async_context(telling(postgres_url, receiver))
            receiver.answers = fine
        await other.until_state(pb.DELIVERY_STATE_DELIVERED)
        held.set()
        assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
        assert len(receiver.received) == 2


async def test_what_was_claimed_though_the_answer_was_lost_is_sent_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = WebhookStore.claim
    lost = 0

    async def losing(self: WebhookStore, worker_id: str, taken: list[Due], now_ms: int) -> list[Delivery]:
        nonlocal lost
        claimed = await claim(self, worker_id, taken, now_ms)
        lost += 1
        if lost == 1:
            raise ServiceError(Kind.UNAVAILABLE, "DATABASE_UNAVAILABLE", "the connection was cut")
        return claimed

    monkeypatch.setattr(WebhookStore, "claim", losing)
    # What a first attempt did not bring there is claimed for the next one.
    async with Receiver(fine_at_the_second()) as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        await here.create("k1", receiver.url())
        await here.until_state(pb.DELIVERY_STATE_DELIVERED, within_s=30)
    assert lost == 2
    assert len(receiver.received) == 2


async def test_what_was_made_though_its_secret_could_not_be_read_is_sent_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = WebhookStore.with_secrets
    asked = 0

    async def failing_at_first(self: WebhookStore, *arguments: Any) -> dict[str, Endpoint]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise ServiceError(Kind.UNAVAILABLE, "DATABASE_UNAVAILABLE", "the connection was cut")
        return await reading(self, *arguments)

    monkeypatch.setattr(WebhookStore, "with_secrets", failing_at_first)
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        await here.create("k1", receiver.url())
        await here.until_state(pb.DELIVERY_STATE_DELIVERED, within_s=30)
    assert len(receiver.received) == 1


def fine_at_the_second() -> Answering:
    requests = itertools.count(1)

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=204 if next(requests) > 1 else 500)

    return answer
