"""What customers do while a process dies: each deed passes certain points, and knows how it must end."""

from __future__ import annotations

import asyncio
import base64
import io
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from PIL import Image

from services.chassis.errors import Kind, ServiceError
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from tests.egress.evil_server import EvilServer
from tests.faults.client import Client
from tests.faults.scene import Scene

R = TypeVar("R")
A = TypeVar("A")

_AGAIN_S = 0.1
_PATIENCE_S = 40.0


def picture(name: str) -> bytes:
    """A small PNG, another one for every name."""
    colour = zlib.crc32(name.encode())
    file = io.BytesIO()
    Image.new("RGB", (320, 320), (colour & 255, colour >> 8 & 255, colour >> 16 & 255)).save(file, "PNG")
    return file.getvalue()


@dataclass
class Actor:
    """One deed's view of the scene. `key` is new for every deed, and part of what it asks for."""

    scene: Scene
    customer: Client
    key: str
    # Outside the house: what anybody may fetch from, and be told at.
    server: EvilServer
    # A picture there.
    picture_url: str
    # Whether the death lies where nobody can know what reached the provider: then the job may fail, and be refunded.
    doubtful: bool

    async def job(self, suffix: str = "", markers: str = "", **fields: Any) -> dict[str, Any]:
        """Has an image made, under a key and with a prompt of its own; how it ended."""
        key = self.key + suffix
        accepted = await self.customer.image(key, f"{key} {markers}", **fields)
        assert accepted.status == 202, accepted.body
        return await self.customer.ended(accepted.json["jobId"])

    async def done(self, suffix: str = "", markers: str = "", **fields: Any) -> dict[str, Any]:
        """Like `job`; it must end well, but for a submission in doubt."""
        ended = await self.job(suffix, markers, **fields)
        assert ended["status"] == "complete" or self.doubtful, ended
        return ended

    async def refunded(self, markers: str) -> None:
        ended = await self.job(markers=markers)
        assert (ended["status"], ended["chargedCredits"]) == ("failed", 0), ended


async def succeed(actor: Actor) -> None:
    await actor.done()


async def fail_at_the_provider(actor: Actor) -> None:
    await actor.refunded("[sandbox:fail]")


async def be_refused_at_the_provider(actor: Actor) -> None:
    await actor.refunded("[sandbox:refuse]")


async def yield_rubbish(actor: Actor) -> None:
    await actor.refunded("[sandbox:bad-output]")


async def lose_the_answer(actor: Actor) -> None:
    """The provider took the order and its answer never came: it is found in its list."""
    await actor.done(markers="[sandbox:unknown]")


async def lose_the_request(actor: Actor) -> None:
    """The connection broke before the order arrived: it is looked for in vain, and the customer is refunded."""
    ended = await actor.job(markers="[sandbox:lost]")
    assert ended["status"] == "failed", ended


async def take_long(actor: Actor) -> None:
    """Long enough for its hold and its lease to be renewed."""
    await actor.done(markers="[sandbox:pace=1.6]")


async def outlive_its_owner(actor: Actor) -> None:
    """Long enough for the next owner to be there before it is done, also on a machine with much else to do."""
    await actor.done(markers="[sandbox:pace=8]")


async def queue(actor: Actor) -> None:
    """More at once than there are places."""
    jobs = (actor.done(f"-{n}", "[sandbox:pace=0.4]") for n in range(9))
    await asyncio.gather(*jobs)


async def be_sent_on(actor: Actor) -> None:
    """One account is busy when it comes, so that it goes to another."""
    await actor.done(markers="[sandbox:rate-limit]")


async def have_no_credit(actor: Actor) -> None:
    poor = await actor.scene.customer(0)
    refused = await poor.image(actor.key, actor.key)
    assert refused.status == 402, refused.body


async def find_no_account(actor: Actor) -> None:
    """No account could ever serve it: 503, and nothing remains."""
    await _set_accounts(actor.scene, pool.ACCOUNT_STATE_DISABLED)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            # While a process is down the answer is 503 too; only this one says which.
            while b"provider_unavailable" not in await _body(actor):
                await asyncio.sleep(_AGAIN_S)
    finally:
        await _set_accounts(actor.scene, pool.ACCOUNT_STATE_ACTIVE)
    await actor.done()


async def _body(actor: Actor) -> bytes:
    answer = await actor.customer.once(actor.key, f"{actor.key} ")
    return b"" if answer is None else answer.body


async def _set_accounts(scene: Scene, state: pool.AccountState.ValueType) -> None:
    calls = scene.inside.pool
    accounts = await insisted(calls.ListAccounts, pool.ListAccountsRequest())
    for account in accounts.accounts:
        change = pool.UpdateAccountRequest(account_id=account.account_id, state=state)
        await insisted(calls.UpdateAccount, change)


async def insisted(call: Callable[[R], Awaitable[A]], request: R) -> A:
    """The answer, however often the service is away."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            try:
                return await call(request)
            except ServiceError as away:
                if away.kind not in {Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED}:
                    raise
            await asyncio.sleep(_AGAIN_S)


async def top_up(actor: Actor) -> None:
    """An operator's top-up, repeated under its key until it is answered: it counts once."""
    customer = await actor.scene.customer(0)
    request = billing.TopUpRequest(
        customer_id=customer.customer_id,
        mode=billing.MODE_LIVE,
        amount_millis=1_000,
        idempotency_key=actor.key,
    )
    for _ in range(2):
        await insisted(actor.scene.inside.billing.TopUp, request)
    usage = await customer.read("/v1/usage")
    assert usage.json["creditsBalance"] == 1


async def come_new(actor: Actor) -> None:
    """The first request of a key that the gateway has never seen."""
    newcomer = await actor.scene.customer(100)
    accepted = await newcomer.image(actor.key, actor.key)
    assert accepted.status == 202
    await newcomer.ended(accepted.json["jobId"])


async def read_everything(actor: Actor) -> None:
    job = await actor.done()
    result = await actor.customer.read(f"/v1/jobs/{job['jobId']}/result")
    usage = await actor.customer.read("/v1/usage")
    assert (result.status, usage.status) == (200, 200)
    async with aiohttp.ClientSession() as session, session.get(result.json["url"]) as media:
        assert media.status == 200


async def repeat_a_request(actor: Actor) -> None:
    """The same key again, during the job and after it: the same job."""
    first = await actor.customer.image(actor.key, actor.key)
    second = await actor.customer.image(actor.key, actor.key)
    await actor.customer.ended(first.json["jobId"])
    third = await actor.customer.image(actor.key, actor.key)
    assert first.json["jobId"] == second.json["jobId"] == third.json["jobId"]


async def follow_a_picture(actor: Actor) -> None:
    """A reference inline, which is staged before the job is made; and the same request once more."""
    job = await actor.done(referenceImage=_inline(actor))
    again = await actor.customer.image(actor.key, f"{actor.key} ", referenceImage=_inline(actor))
    assert again.json["jobId"] == job["jobId"]


def _inline(actor: Actor) -> dict[str, str]:
    content = base64.b64encode(picture(actor.key)).decode()
    return {"imageUrl": f"data:image/png;base64,{content}", "strength": "MID"}


async def follow_an_address(actor: Actor) -> None:
    """A reference by URL, which is fetched once the job has an account."""
    await actor.done(referenceImage={"imageUrl": actor.picture_url, "strength": "MID"})
