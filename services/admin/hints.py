"""`hints`: where a provider that knows one address for a whole account may tell that something has happened."""

from __future__ import annotations

from typing import Any

from services.admin.command import Command, argument
from services.admin.connection import House
from services.chassis.errors import Kind, ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb


async def address(house: House, chosen: Any) -> object:
    answer = await house.pool.GetHintAddress(pb.GetHintAddressRequest(account_id=chosen.account_id))
    if not answer.url:
        raise ServiceError(
            Kind.FAILED_PRECONDITION, "NO_PUBLIC_URL", "set ATELIER_POOL_PUBLIC_URL, and start the pool again"
        )
    return {"url": answer.url}


COMMANDS = (
    Command(
        "hints",
        "address",
        "Show the address to enter at a provider that knows one for a whole account; keep it like a credential.",
        address,
        (argument("account_id", metavar="ACCOUNT_ID"),),
        "acc_your_id",
    ),
)
