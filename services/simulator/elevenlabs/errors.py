"""How ElevenLabs says no: a `detail`, with a code and the older status word, or a list of findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.simulator.field_rules import Flaw


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not a success. `code` is also the legacy `status`."""

    status: int
    type: str
    code: str
    message: str
    parameter: str | None = None
    data: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, request_id: str) -> dict[str, object]:
        """As it is sent."""
        detail: dict[str, object] = {
            "type": self.type,
            "code": self.code,
            "message": self.message,
            "status": self.code,
            "request_id": request_id,
            "param": self.parameter,
        }
        if self.data is not None:
            detail["data"] = dict(self.data)
        return {"detail": detail}


INVALID_KEY: Final = Refusal(401, "authentication_error", "invalid_api_key", "Invalid API key")
UNUSUAL_ACTIVITY: Final = Refusal(
    401,
    "authentication_error",
    "detected_unusual_activity",
    "Unusual activity detected. Free Tier usage disabled.",
)
PAID_PLAN: Final = Refusal(
    402, "payment_required", "payment_required", "This feature is only available on paid plans."
)
VOICE_NOT_FOUND: Final = Refusal(
    404, "not_found", "voice_not_found", "A voice with that id was not found.", "voice_id"
)
HISTORY_NOT_FOUND: Final = Refusal(
    404,
    "not_found",
    "history_item_not_found",
    "A history item with that id was not found.",
    "history_item_id",
)
MODERATED: Final = Refusal(
    400,
    "validation_error",
    "content_policy_violation",
    "The text was refused by the content policy.",
    "text",
)
BAD_PROMPT: Final = Refusal(
    400,
    "validation_error",
    "bad_prompt",
    "The prompt was refused. Try the suggestion.",
    "prompt",
    {"prompt_suggestion": "An instrumental piece in the same mood"},
)
BUSY: Final = Refusal(
    429, "rate_limit_error", "system_busy", "The system is experiencing heavy traffic, please try again."
)
INTERNAL: Final = Refusal(500, "internal_error", "internal_server_error", "An unexpected error occurred.")


def quota_exceeded(remaining: int, required: int) -> Refusal:
    """Out of credits. It comes as 401, as if the key were wrong."""
    message = (
        f"This request exceeds your quota. You have {remaining} credits remaining, "
        f"while {required} credits are required for this request."
    )
    return Refusal(401, "authentication_error", "quota_exceeded", message)


def missing_permission(permission: str) -> Refusal:
    """A key whose scope does not reach so far."""
    message = f"The API key you used is missing the permission {permission} to execute this operation."
    return Refusal(401, "authentication_error", "missing_permissions", message)


def concurrent_limit(limit: int) -> Refusal:
    """More requests at the same time than the plan has."""
    message = (
        "Too many concurrent requests. Your current subscription is associated with a maximum of "
        f"{limit} concurrent requests (running in parallel)."
    )
    return Refusal(429, "rate_limit_error", "concurrent_limit_exceeded", message)


def rate_limited(wait_s: int | None) -> Refusal:
    """Too many requests in a time."""
    headers = {} if wait_s is None else {"retry-after": str(wait_s)}
    return Refusal(429, "rate_limit_error", "rate_limit_exceeded", "Rate limit exceeded.", headers=headers)


def too_long(length: int, limit: int) -> Refusal:
    """More text than the model takes."""
    message = (
        f"This request's text has {length} characters and exceeds the character limit of {limit} characters."
    )
    return Refusal(400, "validation_error", "max_character_limit_exceeded", message, "text")


def invalid(message: str, parameter: str) -> Refusal:
    """A value that is well formed and not possible."""
    return Refusal(400, "validation_error", "invalid_parameters", message, parameter)


def not_in_plan(what: str, tier: str) -> Refusal:
    """Something that a larger plan has."""
    message = f"{what} requires the {tier} tier or above."
    return Refusal(403, "authorization_error", "subscription_required", message, "output_format")


def findings(flaws: Sequence[Flaw]) -> dict[str, object]:
    """The body of a 422: every field that is wrong."""
    return {"detail": [_finding(flaw) for flaw in flaws]}


def _finding(flaw: Flaw) -> dict[str, object]:
    kind, message = _WORDS[flaw.kind]
    wanted = flaw.rule.type if flaw.rule else ""
    text = message.format(limit=flaw.limit, wanted=wanted, name=flaw.field)
    return {"loc": ["body", flaw.field], "msg": text, "type": kind.format(wanted=wanted)}


_WORDS: Final = {
    "missing": ("missing", "Field required"),
    "unknown": ("extra_forbidden", "Extra inputs are not permitted"),
    "type": ("{wanted}_type", "Input should be a valid {wanted}"),
    "choice": ("enum", "Input should be one of the documented values"),
    "low": ("greater_than_equal", "Input should be greater than or equal to {limit:g}"),
    "high": ("less_than_equal", "Input should be less than or equal to {limit:g}"),
    "short": ("too_short", "Value should have at least {limit:g} items"),
    "long": ("too_long", "Value should have at most {limit:g} items"),
}
