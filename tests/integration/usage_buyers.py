"""Buyers from all five contracts: each asks under keys, believes what it is answered, and adds up what it was told that it paid.

Money is read as decimals, exactly as the bodies spell it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal

import aiohttp
from aiohttp import web

from tests.house import Answer, Customer
from tests.leak.roads import Road

Mode = Literal["live", "test"]

# A house may be without one of its processes for some seconds.
_PATIENCE_S: Final = 150.0
_AGAIN_S: Final = 0.2
# No answer yet: the same request may be answered otherwise in a moment.
_PASSING: Final = frozenset({429, 502, 503})

_COST: Final[Mapping[str, Callable[[Any], Decimal]]] = {
    "leonardo": lambda body: Decimal(body["chargedCredits"]),
    "seedancee2": lambda body: Decimal(body["data"]["credits_charged"]),
    "seedance2pro": lambda body: Decimal(body["creditsUsed"]),
    "loova": lambda body: Decimal(body["data"]["credits_cost"]),
    "imaginelab": lambda body: Decimal(body["credit_cost"]),
}
# What was reserved, where the answer to a create request tells it; and what a failed job gave back, where it tells that.
_RESERVED: Final[Mapping[str, Callable[[Any], Decimal]]] = {
    **_COST,
    "seedancee2": lambda body: Decimal(body["data"]["credits_reserved"]),
}
_REFUND: Final[Mapping[str, Callable[[Any], Decimal]]] = {
    "leonardo": lambda body: Decimal(body["refundedCredits"]),
    "seedancee2": lambda body: Decimal(body["data"]["credits_refunded"]),
}


def parsed(body: bytes) -> Any:
    """JSON whose decimals stay decimals."""
    return json.loads(body, parse_float=Decimal)


def cost_told(storefront: str, body: bytes) -> Decimal:
    """What a body, polled or sent, says that an ended job cost."""
    return _COST[storefront](parsed(body))


@dataclass
class Promise:
    """A job that was accepted, and what its buyer knows of it. reserved: None where the contract does not tell."""

    road: Road
    key: str
    body: Mapping[str, Any]
    job_id: Any
    reserved: Decimal | None
    deleted: bool = False
    word: str = ""
    cost: Decimal = Decimal(0)


@dataclass
class Buyer:
    """One wallet and its key.

    promises: everything that was accepted. refused: how often the wallet could not pay. had: what was in the wallet at
    the beginning; None where the contract does not tell.
    """

    storefront: str
    mode: Mode
    customer_id: str
    client: Customer
    promises: list[Promise] = field(default_factory=list)
    refused: int = 0
    had: Decimal | None = None

    async def answered(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The same request until it is answered for good. Raises TimeoutError, and AssertionError of an answer that says 500."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    answer = await self.client.call(method, path, body, headers)
                except (aiohttp.ClientError, ConnectionError):
                    await asyncio.sleep(_AGAIN_S)
                    continue
                assert answer.status < 500 or answer.status in _PASSING, answer.body
                if answer.status not in _PASSING:
                    return answer
                await asyncio.sleep(_AGAIN_S)

    async def ask(self, road: Road, key: str, body: Mapping[str, Any], *, times: int = 1) -> Promise | None:
        """Asks so many times at once under one key; None where the wallet could not pay."""
        sent = [self.answered("POST", road.path, body, {"Idempotency-Key": key}) for _ in range(times)]
        answers = await asyncio.gather(*sent)
        accepted = [parsed(answer.body) for answer in answers if answer.status < 300]
        assert all(answer.status < 300 or answer.status == 402 for answer in answers), answers
        if not accepted:
            self.refused += 1
            return None
        (job_id,) = {road.job_id(body) for body in accepted}
        reserved = _RESERVED[self.storefront](accepted[0]) if self.storefront != "seedance2pro" else None
        promise = Promise(road, key, body, job_id, reserved)
        self.promises.append(promise)
        return promise

    async def delete(self, promise: Promise) -> None:
        """As `imaginelab` expresses a cancellation. Whoever asks again after a lost answer is told that it is gone."""
        promise.deleted = True
        answer = await self.answered("DELETE", f"/api/v1/generations/{promise.job_id}")
        assert answer.status in {204, 404}, answer.body

    async def see_the_end(self, promise: Promise) -> None:
        """Polls until the job has ended, and checks that what it cost is all or nothing."""
        road = promise.road
        path, *others = (each.format(id=promise.job_id) for each in road.reads)
        async with asyncio.timeout(_PATIENCE_S):
            while promise.word not in {road.succeeded, road.failed}:
                promise.word = road.status(parsed((await self.answered("GET", path)).body))
                await asyncio.sleep(_AGAIN_S)
        # The status of `imaginelab` tells no cost; its record is the next thing to read.
        record = others[0] if self.storefront == "imaginelab" else path
        told = (await self.answered("GET", record)).body
        promise.cost = cost_told(self.storefront, told)
        if promise.word == road.failed:
            assert promise.cost == 0
            if self.storefront in _REFUND:
                assert _REFUND[self.storefront](parsed(told)) == promise.reserved
        else:
            assert promise.cost > 0
            assert promise.reserved in {promise.cost, None}

    async def ask_again(self, promise: Promise) -> None:
        """The key is remembered: no second job."""
        again = await self.answered("POST", promise.road.path, promise.body, {"Idempotency-Key": promise.key})
        assert again.status < 300, again.body
        assert again.headers["Idempotent-Replayed"] == "true"
        assert promise.road.job_id(parsed(again.body)) == promise.job_id

    async def read(self, path: str) -> Any:
        answer = await self.answered("GET", path)
        assert answer.status == 200, answer.body
        return parsed(answer.body)

    async def left(self) -> Decimal | None:
        """What the contract says is left in the wallet when nothing is reserved; None where it does not tell."""
        match self.storefront:
            case "leonardo":
                usage = await self.read("/v1/usage")
                assert usage["creditsReserved"] == 0
                return Decimal(usage["creditsBalance"])
            case "loova":
                return Decimal((await self.read("/api/v1/credits"))["data"]["api_available_credits"])
            case "imaginelab":
                wallet = await self.read("/api/v1/credits/wallet")
                assert wallet["reserved"] == 0
                return Decimal(wallet["balance"])
            case _:
                return None


@dataclass
class Mailbox:
    """Where every customer's webhooks arrive: the bodies by customer and webhook-id. Each fourth id is refused once."""

    bodies: dict[tuple[str, str], set[bytes]] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = (request.path.removeprefix("/"), request.headers["webhook-id"])
        known = name in self.bodies
        self.bodies.setdefault(name, set()).add(await request.read())
        return web.Response(status=500 if len(self.bodies) % 4 == 0 and not known else 204)

    def told_of(self, customer_id: str) -> list[bytes]:
        """One body for each webhook-id."""
        return [
            next(iter(bodies)) for (customer, _), bodies in self.bodies.items() if customer == customer_id
        ]
