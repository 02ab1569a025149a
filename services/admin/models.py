"""`models`: what is served where, until when, and how long a task of it may run."""

from __future__ import annotations

from typing import Any

from services.admin.command import Command, argument
from services.admin.connection import House
from services.admin.rendering import Table, plain
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb

_COLUMNS = ("model", "kind", "provider", "upstream", "accounts", "patience_s", "seen", "retires_at_ms")


async def list_all(house: House, chosen: Any) -> Table:
    answer = await house.pool.ListModels(pb.ListModelsRequest())
    rows = [
        plain(offer) | {"patience_s": offer.patience_ms // 1000}
        for offer in answer.offers
        if chosen.served is False or offer.accounts
    ]
    return Table(rows, _COLUMNS)


COMMANDS = (
    Command(
        "models",
        "list",
        "List every model with the providers that serve it, their accounts, and how long a task may run.",
        list_all,
        (argument("--served", action="store_true", help="only those that some account may serve now"),),
        "--served",
    ),
)
