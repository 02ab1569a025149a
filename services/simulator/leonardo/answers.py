"""How Leonardo answers: errors in their two forms, generations, accounts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from services.chassis.clock import rfc3339
from services.simulator.accounts import Account
from services.simulator.drawings import Film
from services.simulator.faults import Fault
from services.simulator.provider import Refused
from services.simulator.tasks import State, Task

# An account that pays in dollars may also be told of credits: 0.80 dollars are 80 of them.
CREDITS_PER_DOLLAR: Final = 100
_STATUS: Final = {
    State.QUEUED: "PENDING",
    State.RUNNING: "PENDING",
    State.SUCCEEDED: "COMPLETE",
    State.FAILED: "FAILED",
    State.CANCELED: "FAILED",
    State.EXPIRED: "FAILED",
}


def error(status: int, message: str, code: str, *, wait_s: float | None = None) -> web.Response:
    """The usual form."""
    headers = {} if wait_s is None else {"Retry-After": f"{wait_s:g}"}
    return web.json_response({"error": message, "path": "$", "code": code}, status=status, headers=headers)


def error_in_array(message: str, code: str = "VALIDATION_ERROR") -> web.Response:
    """How v2 reports an error: status 200, and an array."""
    extensions = {"code": code, "details": {"message": message}}
    return web.json_response([{"message": message, "extensions": extensions, "path": ["generate"]}])


def refused(message: str, code: str = "bad-request", status: int = 400) -> Refused:
    """A request that v1 refuses, to be raised."""
    return Refused(error(status, message, code))


def of_fault(fault: Fault, wait_s: float | None) -> web.Response:
    """Each fault in Leonardo's words."""
    match fault:
        case Fault.UNAUTHORIZED:
            return error(401, "Authentication hook unauthorized this request", "access-denied")
        case Fault.PAYMENT_REQUIRED:
            return error(
                400, "not enough api tokens userId: 00000000-0000-4000-8000-000000000000", "unexpected"
            )
        case Fault.FORBIDDEN:
            return error(403, "This account may not use the Production API", "access-denied")
        case Fault.MODERATED_BEFORE:
            return error(
                403, "The prompt holds inappropriate content, content moderation filter: NSFW", "unexpected"
            )
        case Fault.RATE_LIMITED | Fault.RATE_LIMITED_WAIT:
            return error(429, "Too many requests", "rate-limit-exceeded", wait_s=wait_s)
        case Fault.OVERLOADED:
            return error(503, "Service Error", "unexpected")
        case _:
            return error(500, "Service Error", "unexpected")


def dead_key() -> web.Response:
    """What a credential is answered that is not even a key: a 500 that no repeat will mend."""
    return error(500, "Invalid response from authorization hook", "unexpected")


def cost_of(account: Account, cost: Decimal) -> dict[str, Any]:
    """What a submission says that it costs. The amount is a text."""
    if account.options.get("unit") == "credits":
        return {"amount": f"{cost:f}", "unit": "CREDITS"}
    return {"amount": f"{cost:f}", "unit": "DOLLARS"}


def credits_of(account: Account, cost: Decimal) -> int:
    """The same in credits."""
    if account.options.get("unit") == "credits":
        return int(cost)
    return int(cost * CREDITS_PER_DOLLAR)


def moment(at_ms: int) -> str:
    """A time as Leonardo writes it: no zone."""
    return rfc3339(at_ms).removesuffix("Z")


def generation(task: Task, now_ms: int) -> dict[str, Any]:
    """A generation as reads show it."""
    facts = task.facts
    is_done = task.state is State.SUCCEEDED
    return {
        "id": task.id,
        "status": _STATUS[task.shown(now_ms)],
        "createdAt": moment(task.created_ms),
        "modelId": facts.get("modelId"),
        "prompt": task.prompt,
        "negativePrompt": facts.get("negativePrompt", ""),
        "imageWidth": facts.get("width"),
        "imageHeight": facts.get("height"),
        "seed": facts.get("seed", task.seed),
        "public": bool(facts.get("public", False)),
        "inferenceSteps": None,
        "guidanceScale": None,
        "presetStyle": None,
        "scheduler": None,
        "sdVersion": None,
        "photoReal": False,
        "initStrength": None,
        "generated_images": _images(task) if is_done else [],
    }


def _images(task: Task) -> list[dict[str, Any]]:
    # A film stands beside its still; everything else is one entry each.
    if task.files and isinstance(task.files[0].drawing, Film):
        film, still = task.files[0], task.files[-1]
        return [_image(task, 0, still.url(task.base_url), film.url(task.base_url))]
    return [_image(task, number, file.url(task.base_url), None) for number, file in enumerate(task.files)]


def _image(task: Task, number: int, url: str, film_url: str | None) -> dict[str, Any]:
    return {
        "id": image_id(task, number),
        "url": url,
        "nsfw": False,
        "likeCount": 0,
        "motionMP4URL": film_url,
        "motion": None if film_url is None else True,
        "imageToVideo": None,
        "motionModel": None,
        "generated_image_variation_generics": [],
    }


def image_id(task: Task, number: int) -> str:
    """The id of one output: that of its generation with the last digits counted up."""
    return f"{task.id[:-2]}{number:02d}"


def account_details(account: Account) -> dict[str, Any]:
    """`GET /me`. Balances are whole tokens there."""
    scale = 1 if account.options.get("unit") == "credits" else account.options.get("tokens_per_dollar")
    balance = account.balance if account.balance is not None else Decimal(1_000_000)
    tokens = max(0, int(balance * (scale or CREDITS_PER_DOLLAR)))
    return {
        "user_details": [
            {
                "user": {"id": account.user_id, "username": account.label},
                "apiPaidTokens": tokens,
                "apiSubscriptionTokens": 0,
                "apiConcurrencySlots": account.concurrency,
                "apiPlanTokenRenewalDate": account.options.get("renewal_date"),
                "paidTokens": 0,
                "subscriptionTokens": 0,
                "subscriptionGptTokens": 0,
                "subscriptionModelTokens": 0,
                "tokenRenewalDate": None,
            }
        ]
    }
