"""`keys`: API keys, shown once."""

from __future__ import annotations

from typing import Any

from services.admin.command import MODE, Command, argument, moment_ms
from services.admin.connection import House
from services.admin.rendering import Table, plain, table
from services.gen.billing.v1 import billing_pb2 as pb

_MODES = {"live": pb.MODE_LIVE, "test": pb.MODE_TEST}


async def create(house: House, chosen: Any) -> object:
    request = pb.CreateKeyRequest(
        customer_id=chosen.customer_id,
        mode=_MODES[chosen.mode],
        label=chosen.label,
        expires_at_ms=chosen.expires or 0,
    )
    answer = await house.billing.CreateKey(request)
    return {"api_key": answer.api_key, "note": "shown this once; it cannot be read again"} | plain(answer.key)


async def list_all(house: House, chosen: Any) -> Table:
    answer = await house.billing.ListKeys(pb.ListKeysRequest(customer_id=chosen.customer_id))
    columns = (
        "key_id",
        "mode",
        "label",
        "hint",
        "created_at_ms",
        "last_used_at_ms",
        "expires_at_ms",
        "revoked_at_ms",
    )
    return table(answer.keys, *columns)


async def revoke(house: House, chosen: Any) -> object:
    return plain((await house.billing.RevokeKey(pb.RevokeKeyRequest(key_id=chosen.key_id))).key)


COMMANDS = (
    Command(
        "keys",
        "create",
        "Make an API key and show it, this once.",
        create,
        (
            argument("customer_id", metavar="CUSTOMER_ID"),
            MODE,
            argument("--label", default="", help="what it is for"),
            argument("--expires", type=moment_ms, metavar="TIME", help="2026-12-31 or 2026-12-31T23:59:59Z"),
        ),
        "cus_your_id --mode test --label laptop",
    ),
    Command(
        "keys",
        "list",
        "List a customer's keys, by the part that may be shown.",
        list_all,
        (argument("customer_id", metavar="CUSTOMER_ID"),),
        "cus_your_id",
    ),
    Command(
        "keys",
        "revoke",
        "Refuse a key everywhere within five seconds.",
        revoke,
        (argument("key_id", metavar="KEY_ID"),),
        "key_your_id",
    ),
)
