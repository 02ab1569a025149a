"""`webhooks`: where customers are told, with which secret, and what became of it."""

from __future__ import annotations

import argparse
from typing import Any

from services.admin.command import LIMIT, Command, argument, count
from services.admin.connection import House
from services.admin.rendering import Table, table
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as pb

_HOUR_MS = 3_600_000
_COLUMNS = (
    "delivery_id",
    "job_id",
    "customer_id",
    "address",
    "state",
    "attempts",
    "last_status",
    "last_error",
    "created_at_ms",
    "next_attempt_at_ms",
)


async def set_endpoint(house: House, chosen: Any) -> object:
    await _known(house, chosen.customer_id)
    request = pb.SetWebhookEndpointRequest(customer_id=chosen.customer_id, url=chosen.url)
    return _lines((await house.jobs.SetWebhookEndpoint(request)).endpoint)


async def show_endpoint(house: House, chosen: Any) -> object:
    request = pb.GetWebhookEndpointRequest(customer_id=chosen.customer_id)
    return _lines((await house.jobs.GetWebhookEndpoint(request)).endpoint)


async def rotate(house: House, chosen: Any) -> object:
    await _known(house, chosen.customer_id)
    request = pb.RotateWebhookSecretRequest(
        customer_id=chosen.customer_id, overlap_ms=chosen.overlap_hours * _HOUR_MS
    )
    answer = await house.jobs.RotateWebhookSecret(request)
    return _lines(answer.endpoint) | {"secret": answer.secret}


async def deliveries(house: House, chosen: Any) -> Table:
    request = pb.ListDeliveriesRequest(
        customer_id=chosen.customer,
        job_id=chosen.job,
        state=chosen.state or pb.DELIVERY_STATE_UNSPECIFIED,
        before_delivery_id=chosen.before,
        limit=chosen.limit,
    )
    return table((await house.jobs.ListDeliveries(request)).deliveries, *_COLUMNS)


async def attempts(house: House, chosen: Any) -> Table:
    request = pb.ListDeliveryAttemptsRequest(delivery_id=chosen.delivery_id)
    answer = await house.jobs.ListDeliveryAttempts(request)
    return table(answer.attempts, "number", "at_ms", "duration_ms", "status", "error")


async def resend(house: House, chosen: Any) -> Table:
    request = pb.ResendDeliveryRequest(delivery_id=chosen.delivery_id)
    return table([(await house.jobs.ResendDelivery(request)).delivery], *_COLUMNS)


async def _known(house: House, customer_id: str) -> None:
    # The jobs service knows no customers: what is kept under a name with a typing error would be used by nobody.
    await house.billing.GetCustomer(billing.GetCustomerRequest(customer_id=customer_id))


def _lines(endpoint: pb.WebhookEndpoint) -> dict[str, object]:
    # Named for its moment, so that it is shown as one.
    return {
        "customer_id": endpoint.customer_id,
        "url": endpoint.url,
        "secret_made_at_ms": endpoint.secret_made_at_ms,
        "old_secret_ends_at_ms": endpoint.overlap_until_ms,
    }


def _state(text: str) -> pb.DeliveryState.ValueType:
    try:
        return pb.DeliveryState.Value(f"DELIVERY_STATE_{text.upper()}")
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"no such state: {text!r}; one of waiting, delivered, dead"
        ) from None


_CUSTOMER = argument("customer_id", metavar="CUSTOMER_ID")
_DELIVERY = argument("delivery_id", metavar="DELIVERY_ID", help="also the webhook-id that the receiver saw")

COMMANDS = (
    Command(
        "webhooks",
        "set",
        "Tell the ends of all jobs of a customer there; with an empty URL, to each job's own address only.",
        set_endpoint,
        (_CUSTOMER, argument("url", metavar="URL", help="a public https address, or ''")),
        "cus_your_id https://example.com/hooks/atelier",
    ),
    Command(
        "webhooks",
        "show",
        "Show where a customer is told, and how old its secret is.",
        show_endpoint,
        (_CUSTOMER,),
        "cus_your_id",
    ),
    Command(
        "webhooks",
        "rotate",
        "Make a new signing secret, shown once; the one before it signs as well for a while.",
        rotate,
        (
            _CUSTOMER,
            argument(
                "--overlap-hours",
                type=count,
                default=24,
                help="how long both sign, up to 168 hours (default: 24)",
            ),
        ),
        "cus_your_id --overlap-hours 48",
    ),
    Command(
        "webhooks",
        "deliveries",
        "List deliveries, newest first.",
        deliveries,
        (
            argument("--customer", default="", metavar="CUSTOMER_ID", help="only this customer's"),
            argument("--job", default="", metavar="JOB_ID", help="only this job's"),
            argument("--state", type=_state, help="only in this state: waiting, delivered or dead"),
            argument("--before", default="", metavar="DELIVERY_ID", help="go on before this one"),
            LIMIT,
        ),
        "--state dead --limit 20",
    ),
    Command(
        "webhooks",
        "attempts",
        "Show every attempt of a delivery: when, how long, which status, what went wrong.",
        attempts,
        (_DELIVERY,),
        "whd_your_id",
    ),
    Command(
        "webhooks",
        "resend",
        "Send a delivery once more, whatever became of it, with its whole schedule before it.",
        resend,
        (_DELIVERY,),
        "whd_your_id",
    ),
)
