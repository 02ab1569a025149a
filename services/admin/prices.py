"""`prices`: what a storefront asks."""

from __future__ import annotations

from typing import Any

from services.admin.command import Command, argument
from services.admin.connection import House
from services.admin.rendering import Table, plain
from services.gen.billing.v1 import billing_pb2 as pb


async def show(house: House, chosen: Any) -> Table:
    answer = await house.billing.GetPriceList(pb.GetPriceListRequest(storefront=chosen.storefront))
    rows = [plain(price) | {"version": answer.version} for price in answer.prices]
    return Table(rows, ("sku", "title", "unit", "unit_price_millis", "version"))


COMMANDS = (
    Command(
        "prices",
        "show",
        "Show a storefront's price list as billing uses it.",
        show,
        (argument("storefront", metavar="STOREFRONT"),),
        "leonardo",
    ),
)
