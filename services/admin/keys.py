"""`keys`: API keys, shown once."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from services.admin.command import MODE, SPEND_LIMITS, Command, argument, count, moment_ms
from services.admin.connection import House
from services.admin.rendering import Table, plain
from services.gen.billing.v1 import billing_pb2 as pb

_HOUR_MS = 3_600_000
_MODES = {"live": pb.MODE_LIVE, "test": pb.MODE_TEST}


async def create(house: House, chosen: Any) -> object:
    request = pb.CreateKeyRequest(
        customer_id=chosen.customer_id,
        mode=_MODES[chosen.mode],
        label=chosen.label,
        expires_at_ms=chosen.expires or 0,
        rules=_rules(chosen),
    )
    answer = await house.billing.CreateKey(request)
    return _shown_once(answer.api_key, answer.key)


async def rotate(house: House, chosen: Any) -> object:
    overlap_ms = chosen.overlap_hours * _HOUR_MS
    answer = await house.billing.RotateKey(pb.RotateKeyRequest(key_id=chosen.key_id, overlap_ms=overlap_ms))
    return _shown_once(answer.api_key, answer.key)


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
        "limited_to",
    )
    return Table([plain(key) | {"limited_to": _limited_to(key.rules)} for key in answer.keys], columns)


async def revoke(house: House, chosen: Any) -> object:
    return plain((await house.billing.RevokeKey(pb.RevokeKeyRequest(key_id=chosen.key_id))).key)


def _shown_once(api_key: str, key: pb.Key) -> dict[str, object]:
    return {"api_key": api_key, "note": "shown this once; it cannot be read again"} | plain(key)


def _limited_to(rules: pb.KeyRules) -> list[str]:
    limits = {"day": rules.spend_limits.day_millis, "month": rules.spend_limits.month_millis}
    spending = [f"{Decimal(millis) / 1000:,f} a {period}" for period, millis in limits.items() if millis]
    return [*rules.models, *rules.networks, *spending]


def _rules(chosen: Any) -> pb.KeyRules | None:
    limits = pb.SpendLimits(day_millis=chosen.day_limit or 0, month_millis=chosen.month_limit or 0)
    limited = limits.day_millis or limits.month_millis
    if not (chosen.model or chosen.network or limited):
        return None
    return pb.KeyRules(
        models=chosen.model or (), networks=chosen.network or (), spend_limits=limits if limited else None
    )


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
            argument("--model", action="append", metavar="NAME", help="only this model; may be repeated"),
            argument(
                "--network",
                action="append",
                metavar="CIDR",
                help="only from here, as 203.0.113.0/24; may be repeated",
            ),
            *SPEND_LIMITS,
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
        "rotate",
        "Make a key like another and show it, this once; the old one works for a while longer.",
        rotate,
        (
            argument("key_id", metavar="KEY_ID"),
            argument(
                "--overlap-hours",
                type=count,
                default=24,
                metavar="HOURS",
                help="how long the old key goes on working (default: 24)",
            ),
        ),
        "key_your_id --overlap-hours 48",
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
