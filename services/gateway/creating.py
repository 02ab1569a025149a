"""What every contract's create request has in common, once the contract has said what is to be made."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from msgspec import Struct

from services.chassis import egress_url
from services.chassis.errors import ServiceError
from services.gateway import errors, reading
from services.gateway.backends import jobs_mode
from services.gateway.contract import Call
from services.gateway.reference_media import FULL, GivenReference, ReferenceLimits
from services.gen.jobs.v1 import jobs_pb2 as pb


class Order(Struct, frozen=True):
    """A create request that is well formed.

    request: its generation, sku, quantity and id_prefix, and whatever else the contract sets: public_model, echo,
    project_id, callback_url, numbered. compared: the request as it is compared with a repeat of it, given what stands
    for each of its references, in their order. webhook_form: where this kind of job has one of its own.
    """

    request: pb.CreateJobRequest
    compared: Callable[[Sequence[str]], Struct]
    references: Sequence[GivenReference] = ()
    limits: ReferenceLimits = FULL
    webhook_form: pb.WebhookForm | None = None


async def create(call: Call, order: Order) -> pb.CreateJobResponse:
    """Has the job accepted. Raises what the contract's error table spells; nothing remains then."""
    request = order.request
    request.idempotency_key = _key(call)
    if not call.caller.may_use(request.public_model or request.generation.model):
        raise errors.model_not_allowed(request.public_model)
    # The jobs service takes neither for a text that it could look at.
    if len(request.callback_url) > egress_url.LENGTH_LIMIT or "\0" in request.callback_url:
        raise errors.webhook_address_refused()
    _sign(request, call)
    form = order.webhook_form or call.contract.webhook_form
    request.webhook_form_id = await call.house.webhook_forms.id_of(form)
    try:
        return await _accepted(call, order)
    except ServiceError as refusal:
        if refusal.reason != "UNKNOWN_WEBHOOK_FORM":
            raise
        # The jobs service has lost what it was told, in a restored database say: the next request tells it again.
        call.house.webhook_forms.forget(form)
        raise errors.overloaded() from refusal


async def _accepted(call: Call, order: Order) -> pb.CreateJobResponse:
    request, media = order.request, call.house.references
    if order.references:
        taken = await media.take(order.references, order.limits, request, call.body)
        request.fingerprint = _fingerprint(call, order.compared(taken.identities))
        return await media.create_job(request, taken)
    request.fingerprint = _fingerprint(call, order.compared(()))
    return await call.house.backends.create_job(request)


def replay_headers(answer: pb.CreateJobResponse) -> dict[str, str]:
    """What tells a repeat from a first answer, on every contract."""
    return {"Idempotent-Replayed": "true"} if answer.replayed else {}


def _key(call: Call) -> str:
    """The customer's own key, or one for the repeats that this process makes on the way to the jobs service."""
    if call.contract.key_required or "Idempotency-Key" in call.request.headers:
        return reading.idempotency_key(call.request)
    return f"once-{secrets.token_hex(16)}"


def _sign(request: pb.CreateJobRequest, call: Call) -> None:
    caller = call.caller
    request.customer_id = caller.customer_id
    request.mode = jobs_mode(caller)
    request.storefront = call.contract.name
    if caller.spend_limited:
        # Of the others billing need not look the key up.
        request.key_id = caller.key_id
    request.limits.running_jobs = caller.running_jobs
    request.limits.queued_jobs = caller.queued_jobs


def _fingerprint(call: Call, compared: Struct) -> bytes:
    # A host of a storefront's own may have its paths without /api as well: one endpoint under two names.
    return reading.fingerprint(call.request.path.removeprefix("/api"), compared)
