"""Webhooks in the proto's messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from services.chassis.settings import web_origin
from services.gen.jobs.v1 import jobs_pb2 as pb
from services.jobs import errors
from services.jobs.webhooks.addresses import shown
from services.jobs.webhooks.deliveries import Attempt, Delivery, DeliveryFilter
from services.jobs.webhooks.endpoints import Endpoint
from services.jobs.webhooks.forms import Form, read_document
from services.jobs.webhooks.schedule import State
from services.jobs.webhooks.signatures import LegacySignature

_ID_LIMIT_CHARS: Final = 100
_URL_LIMIT_CHARS: Final = 300
_LIST_LIMIT: Final = 1_000
_LIST_DEFAULT: Final = 100
_TABLE_LIMIT: Final = 64
_SENTENCE_LIMIT_CHARS: Final = 1_000
# Of the storefront's own: none that HTTP or the standard signature gives a meaning to.
_HEADER: Final = re.compile(r"[Xx]-[A-Za-z0-9-]{1,60}")
_EVENT: Final = re.compile(r"[\x21-\x7e]{1,100}")
_STATES: Final = {
    pb.DELIVERY_STATE_WAITING: State.WAITING,
    pb.DELIVERY_STATE_DELIVERED: State.DELIVERED,
    pb.DELIVERY_STATE_DEAD: State.DEAD,
}
_STATE_NUMBERS: Final = {state: number for number, state in _STATES.items()}


def customer_of(customer_id: str) -> str:
    """Raises INVALID_REQUEST for what cannot be a customer."""
    plain = customer_id.isascii() and customer_id.isprintable() and " " not in customer_id
    if not 1 <= len(customer_id) <= _ID_LIMIT_CHARS or not plain:
        raise errors.invalid_request(
            "customer_id", f"must be 1 to {_ID_LIMIT_CHARS} printable ASCII characters"
        )
    return customer_id


def form_of(asked: pb.WebhookForm) -> Form:
    """Raises INVALID_REQUEST that names the part that cannot be used."""
    if not 1 <= len(asked.storefront) <= _ID_LIMIT_CHARS:
        raise errors.invalid_request("form.storefront", f"must be 1 to {_ID_LIMIT_CHARS} characters")
    for name, text in (("completed", asked.completed), ("failed", asked.failed)):
        problem = ""
        try:
            read_document(text)
        except ValueError as fault:
            problem = str(fault)
        if problem:
            raise errors.invalid_request(f"form.{name}", problem)
    return Form(
        storefront=asked.storefront,
        completed=asked.completed,
        failed=asked.failed,
        failure_messages=_table("failure_messages", asked.failure_messages),
        failure_codes=_table("failure_codes", asked.failure_codes),
        legacy=_legacy_of(asked.legacy_signature) if asked.HasField("legacy_signature") else None,
        public_url=_public_url_of(asked.public_url),
    )


def _public_url_of(asked: str) -> str:
    try:
        if len(asked) > _URL_LIMIT_CHARS:
            raise ValueError(f"must have at most {_URL_LIMIT_CHARS} characters")
        return web_origin(asked) if asked else ""
    except ValueError as fault:
        raise errors.invalid_request("form.public_url", str(fault)) from None


def _table(name: str, asked: Mapping[int, str]) -> dict[int, str]:
    if len(asked) > _TABLE_LIMIT or any(len(text) > _SENTENCE_LIMIT_CHARS for text in asked.values()):
        raise errors.invalid_request(
            f"form.{name}",
            f"has more than {_TABLE_LIMIT} entries, or one of over {_SENTENCE_LIMIT_CHARS} characters",
        )
    return dict(asked)


def _legacy_of(asked: pb.LegacySignature) -> LegacySignature:
    if not _HEADER.fullmatch(asked.event_header) or not _HEADER.fullmatch(asked.signature_header):
        raise errors.invalid_request("form.legacy_signature", "names a header that does not begin with X-")
    if not _EVENT.fullmatch(asked.completed_event) or not _EVENT.fullmatch(asked.failed_event):
        raise errors.invalid_request("form.legacy_signature", "names an event that is no plain word")
    return LegacySignature(
        asked.event_header, asked.signature_header, asked.completed_event, asked.failed_event
    )


def filter_of(request: pb.ListDeliveriesRequest) -> DeliveryFilter:
    """Raises INVALID_REQUEST for what cannot be listed."""
    if request.limit > _LIST_LIMIT:
        raise errors.invalid_request("limit", f"must be at most {_LIST_LIMIT}")
    return DeliveryFilter(
        customer_id=request.customer_id,
        job_id=request.job_id,
        state=_STATES.get(request.state),
        before_delivery_id=request.before_delivery_id,
        limit=request.limit or _LIST_DEFAULT,
    )


def endpoint_message(endpoint: Endpoint) -> pb.WebhookEndpoint:
    """The endpoint without its secrets."""
    return pb.WebhookEndpoint(
        customer_id=endpoint.customer_id,
        url=endpoint.url,
        secret_made_at_ms=endpoint.secret_made_at_ms,
        overlap_until_ms=endpoint.overlap_until_ms,
    )


def delivery_message(delivery: Delivery) -> pb.Delivery:
    """The delivery as an operator sees it: neither its body nor a query that may hold a credential."""
    return pb.Delivery(
        delivery_id=delivery.delivery_id,
        job_id=delivery.job_id,
        customer_id=delivery.customer_id,
        address=shown(delivery.url),
        state=_STATE_NUMBERS[delivery.state],
        attempts=delivery.attempts,
        created_at_ms=delivery.created_at_ms,
        next_attempt_at_ms=delivery.next_attempt_at_ms if delivery.state is State.WAITING else 0,
        delivered_at_ms=delivery.ended_at_ms if delivery.state is State.DELIVERED else 0,
        last_status=delivery.last_status,
        last_error=delivery.last_error,
    )


def attempt_message(attempt: Attempt) -> pb.DeliveryAttempt:
    """One line of a delivery's log."""
    return pb.DeliveryAttempt(
        number=attempt.number,
        at_ms=attempt.at_ms,
        duration_ms=attempt.duration_ms,
        status=attempt.status,
        error=attempt.error,
    )
