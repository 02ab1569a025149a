"""What customers do who want to be told: their own servers listen outside the house while a process in it dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from services.gen.jobs.v1 import jobs_pb2 as pb
from tests.egress.evil_server import Scene as Answering
from tests.egress.scenes import answer
from tests.faults.matrix_deeds import Actor, insisted

_AGAIN_S = 0.1
_PATIENCE_S = 40.0
_CREDITS = 1_000


async def be_told(actor: Actor) -> None:
    """The receiver takes it at once."""
    await _told(actor, answer(b""), pb.DELIVERY_STATE_DELIVERED)


async def be_told_late(actor: Actor) -> None:
    """The receiver takes it at the second request."""

    async def play() -> AsyncIterator[bytes]:
        yield answer(b"", status="200 OK" if len(_requests(actor)) > 1 else "500 No")

    await _told(actor, play, pb.DELIVERY_STATE_DELIVERED)


async def be_told_in_vain(actor: Actor) -> None:
    """The receiver is gone for good."""
    await _told(actor, answer(b"", status="410 Gone"), pb.DELIVERY_STATE_DEAD)


async def _told(actor: Actor, answering: Answering, end: pb.DeliveryState.ValueType) -> None:
    actor.server.scenes[_path(actor)] = answering
    customer = await actor.scene.customer(_CREDITS)
    url = f"https://127.0.0.1:{actor.server.port}{_path(actor)}"
    endpoint = pb.SetWebhookEndpointRequest(customer_id=customer.customer_id, url=url)
    await insisted(actor.scene.inside.jobs.SetWebhookEndpoint, endpoint)
    accepted = await customer.image(actor.key, actor.key)
    assert accepted.status == 202, accepted.body
    await customer.ended(accepted.json["jobId"])
    delivery = await _ended(actor, customer.customer_id)
    assert delivery.state == end, delivery
    ids = {_webhook_id(head) for head in _requests(actor)}
    assert ids == {delivery.delivery_id}, ids


def _path(actor: Actor) -> str:
    return f"/told/{actor.key}"


def _requests(actor: Actor) -> list[bytes]:
    return [head for head in actor.server.heads if head.startswith(f"POST {_path(actor)} ".encode())]


def _webhook_id(head: bytes) -> str:
    lines = head.decode().split("\r\n")
    return next(line.partition(": ")[2] for line in lines if line.lower().startswith("webhook-id: "))


async def _ended(actor: Actor, customer_id: str) -> pb.Delivery:
    """The one delivery of this customer, once it is over."""
    request = pb.ListDeliveriesRequest(customer_id=customer_id)
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            found = (await insisted(actor.scene.inside.jobs.ListDeliveries, request)).deliveries
            assert len(found) <= 1, found
            if found and found[0].state != pb.DELIVERY_STATE_WAITING:
                return found[0]
            await asyncio.sleep(_AGAIN_S)
