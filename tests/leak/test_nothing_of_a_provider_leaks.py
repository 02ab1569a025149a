"""Every name, address, id, secret and message of the provider holds a canary; no byte that a customer can read does."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from tests.house import House, Inside, inside, running_house
from tests.leak.canaries import CANARY, CREDENTIAL, LABEL, PROVIDER
from tests.leak.roads import ROADS, Road

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

# Every way in which a submission, a task or its output can go wrong.
FAILURES = ("fail", "refuse", "bad-output", "lost")
ROTATIONS = ("rate-limit", "account-error", "unknown")
_URL = re.compile(rb'https?://[^"\\ ]+/media/[^"\\ ]+')
_PATIENCE_S = 120.0


@dataclass
class Customer:
    """Reads whatever it is given, and remembers all of it."""

    session: aiohttp.ClientSession
    base_url: str
    keys: dict[str, str]
    read: dict[str, bytes] = field(default_factory=dict)

    async def call(self, method: str, path: str, storefront: str, body: object = None) -> tuple[int, bytes]:
        url = path if path.startswith("http") else self.base_url + path
        headers = {"Authorization": f"Bearer {self.keys[storefront]}"}
        if body is not None:
            headers["Idempotency-Key"] = os.urandom(8).hex()
        async with self.session.request(method, url, headers=headers, json=body) as answer:
            content = await answer.read()
            heard = b"\n".join(b"%s: %s" % pair for pair in answer.raw_headers) + b"\n\n" + content
            self.read[f"{method} {path} {answer.status} #{len(self.read)}"] = heard
            return answer.status, content

    async def through(self, road: Road, prompt: str) -> str:
        """Makes a job, waits for its end and reads everything about it; answers its last status."""
        status, content = await self.call("POST", road.path, road.storefront, road.body(prompt))
        assert status < 300, content
        job_id = road.job_id(json.loads(content))
        word = await self._ended(road, job_id)
        for path in road.reads:
            _, content = await self.call("GET", path.format(id=job_id), road.storefront)
            for url in _URL.findall(content):
                await self.call("GET", url.decode().replace("\\u0026", "&"), road.storefront)
        return word

    async def _ended(self, road: Road, job_id: Any) -> str:
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                _, content = await self.call("GET", road.reads[0].format(id=job_id), road.storefront)
                if (word := road.status(json.loads(content))) in {road.succeeded, road.failed}:
                    return word
                await asyncio.sleep(0.2)

    def betrayals(self) -> list[str]:
        """What was read and holds the canary."""
        return [name for name, heard in self.read.items() if CANARY.encode() in heard.lower()]


class Receiver:
    """An HTTP server that webhooks are sent to."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def take(self, request: web.Request) -> web.Response:
        head = b"\n".join(b"%s: %s" % pair for pair in request.raw_headers)
        self.heard.append(head + b"\n\n" + await request.read())
        return web.Response()


@dataclass
class Scene:
    house: House
    services: Inside
    customer: Customer
    receiver: Receiver


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    egress = {"ATELIER_EGRESS_ALLOW": f"127.0.0.1/32:{port}", "ATELIER_EGRESS_PORTS": str(port)}
    var = tmp_path_factory.mktemp("leak") / "var"
    async with (
        running_house(var, module="tests.leak.canary_house", **egress) as house,
        inside(house) as services,
        aiohttp.ClientSession() as session,
    ):
        await _furnish(services, house, port)
        keys = {name: str(store["live_key"]) for name, store in house.demo["storefronts"].items()}
        yield Scene(house, services, Customer(session, house.base_url, keys), receiver)
    await runner.cleanup()


async def _furnish(services: Inside, house: House, port: int) -> None:
    """Accounts of the canary provider alone, and a webhook endpoint for every customer."""
    for account in (await services.pool.ListAccounts(pool.ListAccountsRequest())).accounts:
        state = pool.ACCOUNT_STATE_DISABLED
        await services.pool.UpdateAccount(
            pool.UpdateAccountRequest(account_id=account.account_id, state=state)
        )
    for number in range(3):
        request = pool.CreateAccountRequest(
            provider=PROVIDER,
            label=f"{LABEL}-{number}",
            credentials={"api_key": CREDENTIAL},
            serves_live=True,
            concurrency_limit=100,
            balance_millis=10**12,
            weight=1,
            # Its files are constant bytes and the canary, so that nobody waits for pictures.
            options={"pace_ms": "200", "render": "instant"},
        )
        await services.pool.CreateAccount(request)
    for store in house.demo["storefronts"].values():
        endpoint = jobs.SetWebhookEndpointRequest(
            customer_id=str(store["customer_id"]), url=f"http://127.0.0.1:{port}/hook"
        )
        await services.jobs.SetWebhookEndpoint(endpoint)


@pytest.mark.parametrize("road", ROADS, ids=str)
async def test_a_job_that_ends_well_betrays_nothing(scene: Scene, road: Road) -> None:
    assert await scene.customer.through(road, "a lighthouse, Q1 20, Q2 35") == road.succeeded
    assert scene.customer.betrayals() == []


@pytest.mark.parametrize("marker", FAILURES)
async def test_no_failure_betrays_anything(scene: Scene, marker: str) -> None:
    words = await asyncio.gather(
        *(scene.customer.through(road, f"a boat [sandbox:{marker}]") for road in ROADS)
    )
    assert words == [road.failed for road in ROADS]
    assert scene.customer.betrayals() == []


@pytest.mark.parametrize("marker", ROTATIONS)
async def test_no_account_that_was_left_betrays_anything(scene: Scene, marker: str) -> None:
    words = await asyncio.gather(
        *(scene.customer.through(road, f"a boat [sandbox:{marker}]") for road in ROADS)
    )
    assert words == [road.succeeded for road in ROADS]
    assert scene.customer.betrayals() == []


async def test_no_webhook_betrays_anything(scene: Scene) -> None:
    listed = await scene.services.jobs.ListJobs(jobs.ListJobsRequest(limit=1_000))
    assert len(listed.jobs) > len(ROADS)
    async with asyncio.timeout(_PATIENCE_S):
        while len(scene.receiver.heard) < len(listed.jobs):
            await asyncio.sleep(0.1)
    assert [heard for heard in scene.receiver.heard if CANARY.encode() in heard.lower()] == []


async def test_the_provider_s_files_and_words_would_have_betrayed_it(scene: Scene) -> None:
    """Else the tests above could not fail."""
    logs = b"".join(path.read_bytes() for path in Path(scene.house.var, "logs").glob("*.log"))
    attempts = await scene.services.pool.ListAttempts(pool.ListAttemptsRequest(limit=1_000))
    assert any(CANARY in attempt.failure.detail for attempt in attempts.attempts)
    assert CREDENTIAL.encode() not in logs


async def test_a_refusal_for_want_of_accounts_betrays_nothing(scene: Scene) -> None:
    for account in (await scene.services.pool.ListAccounts(pool.ListAccountsRequest())).accounts:
        disabled = pool.UpdateAccountRequest(account_id=account.account_id, state=pool.ACCOUNT_STATE_DISABLED)
        await scene.services.pool.UpdateAccount(disabled)
    for road in ROADS:
        status, _ = await scene.customer.call("POST", road.path, road.storefront, road.body("a boat"))
        assert status == 503
    assert scene.customer.betrayals() == []
