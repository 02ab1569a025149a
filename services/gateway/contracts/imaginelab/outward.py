"""Outward: gRPC responses to wire. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec import UNSET

from services.chassis.clock import rfc3339_s
from services.gateway.contracts.imaginelab.accounts import UserView
from services.gateway.contracts.imaginelab.inward import Echo
from services.gateway.contracts.imaginelab.settings import KINDS, MODELS, schema_of, sku_of
from services.gateway.contracts.imaginelab.wire import (
    Generation,
    GenerationStatus,
    GenerationType,
    ModelView,
    Output,
    PackageView,
    Status,
    Wallet,
)
from services.gateway.credits import credits_of
from services.gen.billing.v1 import billing_pb2
from services.gen.jobs.v1 import jobs_pb2 as pb

# A stage that this edge does not know yet is one that a newer jobs service added in the middle of the road.
_STATUS: Final[dict[int, Status]] = {
    pb.STAGE_UNSPECIFIED: "pending",
    pb.STAGE_WAITING: "pending",
    pb.STAGE_ACCOUNT_CHOSEN: "pending",
    pb.STAGE_AT_PROVIDER: "processing",
    pb.STAGE_ENDED_WELL: "completed",
    pb.STAGE_ENDED_BADLY: "failed",
}
_TYPE: Final[dict[int, GenerationType]] = {each.kind: each.name for each in KINDS.values()}
_NOTHING: Final = Echo(0, "")
_SEEN: Final = frozenset({"image", "video", "infographic"})
_HEARD: Final = frozenset({"voice", "music"})

_FAILED: Final = "The generation failed. Your credits were returned; please try again."
FAILURES: Final[dict[int, str]] = {
    pb.FAILURE_REASON_GENERATION_FAILED: _FAILED,
    pb.FAILURE_REASON_CONTENT_REFUSED: "The request was refused by the content policy. Your credits were returned; "
    "please change the prompt.",
    pb.FAILURE_REASON_REQUEST_REJECTED: "The request could not be generated as it is. Your credits were returned; "
    "please change the prompt or the settings.",
    pb.FAILURE_REASON_TIMED_OUT: "The generation took too long. Your credits were returned; please try again.",
    pb.FAILURE_REASON_SUBMISSION_UNKNOWN: "The generation could not be confirmed. Your credits were returned; "
    "please try again.",
    pb.FAILURE_REASON_PROVIDER_UNAVAILABLE: "Generation is temporarily unavailable. Your credits were returned; "
    "please try again later.",
    pb.FAILURE_REASON_OUTPUT_UNUSABLE: "What was generated could not be used. Your credits were returned; "
    "please try again.",
    pb.FAILURE_REASON_CANCELED: "The generation was cancelled. Your credits were returned.",
}

Link = Callable[[str], str | None]
"""Where an object of the media store can be fetched; None once it is no longer kept."""


def status_of(job: pb.Job) -> Status:
    """The contract's word for the furthest that the customer has been told."""
    return _STATUS.get(job.stage, "processing")


def accepted(job: pb.Job, asked: Echo) -> Generation:
    """The answer to a create request, first or repeated: only the status is live.

    asked: what the request says of itself, for a repeat whose generation was deleted and forgotten.
    """
    return _record(job, status_of(job), job.quoted_millis, [], asked)


def generation(job: pb.Job, link: Link) -> Generation:
    """The full record."""
    status = status_of(job)
    if status == "failed":
        record = _record(job, status, 0, [])
        return msgspec.structs.replace(record, error=FAILURES.get(job.failure, _FAILED))
    if status == "completed":
        return _record(job, status, job.charged_millis, _outputs(job, link))
    return _record(job, status, job.quoted_millis, [])


def _record(
    job: pb.Job, status: Status, cost_millis: int, outputs: list[Output], forgotten: Echo = _NOTHING
) -> Generation:
    echo = msgspec.json.decode(job.echo, type=Echo) if job.echo else forgotten
    return Generation(
        id=job.public_number,
        user_id=echo.user_id,
        generation_type=_TYPE[job.kind],
        model_name=job.public_model,
        prompt=echo.prompt,
        status=status,
        credit_cost=credits_of(cost_millis),
        created_at=rfc3339_s(job.created_at_ms),
        outputs=outputs,
    )


def _outputs(job: pb.Job, link: Link) -> list[Output]:
    kind = _TYPE[job.kind]
    primary = next((each for each in job.outputs if each.role == pb.Output.ROLE_PRIMARY), None)
    if primary is None:
        return []
    if kind == "text":
        return [Output(type=kind, text=primary.text)]
    url = link(primary.object_key)
    if url is None:
        return []
    return [
        Output(
            type=kind,
            url=url,
            mime_type=primary.content_type,
            width=primary.width if kind in _SEEN else UNSET,
            height=primary.height if kind in _SEEN else UNSET,
            duration=primary.duration_ms / 1000 if kind in _HEARD else UNSET,
        )
    ]


def progress(job: pb.Job) -> GenerationStatus:
    """How far the job is."""
    status = status_of(job)
    return GenerationStatus(
        id=job.public_number,
        status=status,
        progress=100 if status == "completed" else min(job.progress, 100),
    )


def user(found: billing_pb2.User) -> UserView:
    """A user as it sees itself."""
    return UserView(found.user_id, found.email, found.full_name or None, rfc3339_s(found.created_at_ms))


def wallet(balance: billing_pb2.Balance) -> Wallet:
    """The wallet, in credits."""
    return Wallet(
        credits_of(balance.balance_millis),
        credits_of(balance.reserved_millis),
        credits_of(balance.balance_millis - balance.reserved_millis),
    )


def models(prices: billing_pb2.GetPriceListResponse, wanted: str) -> list[ModelView]:
    """Every model of the wanted type that has a price; an empty type is all."""
    millis = {price.sku: price.unit_price_millis for price in prices.prices}
    return [
        ModelView(name, kind, credits_of(millis[sku_of(name)]), schema_of(name))
        for name, kind in MODELS.items()
        if wanted in {"", kind} and sku_of(name) in millis
    ]


def packages(sold: Iterable[billing_pb2.Package]) -> list[PackageView]:
    """What credits are sold in, as the operator set it."""
    return [
        PackageView(each.package_id, each.title, credits_of(each.credit_millis), each.price, each.currency)
        for each in sold
    ]


def _form(kind: GenerationType, status: Status) -> str:
    body: dict[str, Any] = {
        "id": {"$": "public_number"},
        "user_id": {"$": "echo.user_id"},
        "generation_type": kind,
        "model_name": {"$": "public_model"},
        "prompt": {"$": "echo.prompt"},
        "status": status,
        "credit_cost": 0 if status == "failed" else {"$": "charged_credits"},
        "created_at": {"$": "created_at_s"},
        "outputs": [],
    }
    if status == "failed":
        return json.dumps({**body, "error": {"$": "failure_message"}})
    output: dict[str, Any] = {"type": kind}
    if kind == "text":
        output["text"] = {"$": "text"}
    else:
        output |= {"url": {"$": "media:primary"}, "mime_type": {"$": "content_type"}}
    if kind in _SEEN:
        output |= {"width": {"$": "width"}, "height": {"$": "height"}}
    if kind in _HEARD:
        output["duration"] = {"$": "duration_s"}
    return json.dumps({**body, "outputs": [output]})


# One for each type: what an output has depends on it.
WEBHOOK_FORMS: Final[dict[GenerationType, pb.WebhookForm]] = {
    kind: pb.WebhookForm(
        storefront="imaginelab",
        completed=_form(kind, "completed"),
        failed=_form(kind, "failed"),
        failure_messages={0: _FAILED, **FAILURES},
    )
    for kind in KINDS
}
