"""Receivers of webhooks on the loopback, and a jobs service that may send to them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from services.chassis.egress import Egress
from services.chassis.egress_policy import EgressSettings
from services.chassis.sealing import SealingKeys
from services.chassis.settings import Secret, load
from services.chassis.signed_links import SignedLinks, SigningKeys
from services.gen.jobs.v1 import jobs_pb2 as pb
from services.jobs.schedule import Timing
from services.jobs.webhooks.sender import Means
from services.jobs.webhooks.telling import Terms
from tests.jobs_fakes import create_request
from tests.jobs_house import FAST, JobsHouse

SIGNING_KEYS = SigningKeys(Secret("k" * 40))
SEALING_KEYS = SealingKeys({"k1": b"k" * 32})
PUBLIC_URL = "https://media.example.com"
# Seconds between attempts, where tests cannot wait for the contract's.
RETRIES_S = (0.05, 0.05, 0.05)

FORM = pb.WebhookForm(
    storefront="leonardo",
    completed=json.dumps({"id": {"$": "job_id"}, "status": "completed", "url": {"$": "media:primary"}}),
    failed=json.dumps({"id": {"$": "job_id"}, "status": "failed", "error": {"$": "failure_message"}}),
    failure_messages={0: "It failed."},
    legacy_signature=pb.LegacySignature(
        event_header="X-Seedancee2-Event",
        signature_header="X-Seedancee2-Signature",
        completed_event="video.generation.completed",
        failed_event="video.generation.failed",
    ),
)


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def fine(request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


async def hanging(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError("nobody waits so long")


async def failing(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


async def redirecting(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/elsewhere")


async def flooding(request: web.Request) -> web.StreamResponse:
    """A gigabyte."""
    response = web.StreamResponse()
    response.content_length = 1 << 30
    await response.prepare(request)
    piece = bytes(1 << 20)
    # Whoever has heard enough hangs up.
    with suppress(ConnectionError):
        for _ in range(1 << 10):
            await response.write(piece)
    return response


@dataclass
class Receiver:
    """A real HTTP server; `answers` is what it does with a request."""

    answers: Answering = fine
    port: int = 0
    received: list[Received] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def until(self, count: int, within_s: float = 15.0) -> list[Received]:
        """What was received, once it is so much."""
        async with asyncio.timeout(within_s):
            while len(self.received) < count:
                await asyncio.sleep(0.01)
        return self.received

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        # As a dictionary of plain names, which is what a receiver's library takes.
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path_qs, headers, body, time.monotonic()))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.answers(request)
        finally:
            self.at_once -= 1


def allowed(*ports: int) -> str:
    """The operator's setting that lets these receivers be named."""
    return ",".join(f"127.0.0.1/32:{port}" for port in ports)


@asynccontextmanager
async def terms_for(*receivers: Receiver, **given: Any) -> AsyncIterator[Terms]:
    """Terms under which these receivers may be sent to."""
    ports = allowed(*(receiver.port for receiver in receivers))
    policy = load(EgressSettings, {"ATELIER_EGRESS_ALLOW": ports}).policy()
    async with Egress(policy) as egress:
        links = SignedLinks(SIGNING_KEYS, PUBLIC_URL)
        chosen: dict[str, Any] = {"retries_s": RETRIES_S, "timeout_s": 2.0} | given
        yield Terms(policy, Means(egress, SEALING_KEYS, links, **chosen))


@dataclass
class Telling:
    """A jobs service whose jobs are told to receivers."""

    house: JobsHouse
    form_id: str

    async def create(self, key: str, callback_url: str = "", *, customer: str = "cus_a") -> str:
        """A job; returns its id."""
        request = create_request(key, customer=customer)
        request.callback_url = callback_url
        request.webhook_form_id = self.form_id
        return (await self.house.stub.CreateJob(request, timeout=20)).job.job_id

    async def secret(self, customer: str = "cus_a", overlap_ms: int = 0) -> str:
        request = pb.RotateWebhookSecretRequest(customer_id=customer, overlap_ms=overlap_ms)
        return (await self.house.stub.RotateWebhookSecret(request)).secret

    async def deliveries(self, **wanted: Any) -> list[pb.Delivery]:
        return list((await self.house.stub.ListDeliveries(pb.ListDeliveriesRequest(**wanted))).deliveries)

    async def attempts(self, delivery_id: str) -> list[pb.DeliveryAttempt]:
        request = pb.ListDeliveryAttemptsRequest(delivery_id=delivery_id)
        return list((await self.house.stub.ListDeliveryAttempts(request)).attempts)

    async def until_state(self, state: int, count: int = 1, within_s: float = 15.0) -> list[pb.Delivery]:
        """The deliveries in this state, once there are so many."""
        async with asyncio.timeout(within_s):
            while len(found := await self.deliveries(state=state)) < count:
                await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def telling(
    url: str, *receivers: Receiver, timing: Timing = FAST, **given: Any
) -> AsyncIterator[Telling]:
    """The jobs service on this database, allowed to send to these receivers."""
    async with AsyncExitStack() as stack:
        terms = await stack.enter_async_context(terms_for(*receivers, **given))
        house = await stack.enter_async_context(JobsHouse(url, timing=timing, terms=terms))
        form = await house.stub.PutWebhookForm(pb.PutWebhookFormRequest(form=FORM))
        yield Telling(house, form.webhook_form_id)
