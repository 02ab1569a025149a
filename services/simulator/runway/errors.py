"""How Runway says no: an `error` in words, and the issues of a body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.simulator.field_rules import Flaw

_DOCUMENTATION: Final = "https://docs.dev.runwayml.com/api"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not a success."""

    status: int
    error: str
    more: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        """As it is sent."""
        return {"error": self.error, **self.more}


UNAUTHORIZED: Final = Refusal(401, "The API key is invalid.", {"docUrl": _DOCUMENTATION})
FORBIDDEN: Final = Refusal(403, "This organization may not use the model.")
NO_CREDITS: Final = Refusal(400, "You do not have enough credits to run this task.")
NO_VERSION: Final = Refusal(
    400,
    "The X-Runway-Version header is required and must name a supported version.",
    {"docUrl": _DOCUMENTATION},
)
NO_TASK: Final = Refusal(404, "Task not found.")
NOT_FOUND: Final = Refusal(404, "Not found.")
NOT_ALLOWED: Final = Refusal(405, "Method not allowed.")
NOT_JSON: Final = Refusal(400, "The body is not valid JSON.")
UNAVAILABLE: Final = Refusal(503, "The service is temporarily unavailable.")


def too_many(wait_s: int | None, reason: str = "You have reached your rate limit.") -> Refusal:
    """A limit was reached."""
    return Refusal(429, reason, headers={} if wait_s is None else {"Retry-After": str(wait_s)})


def daily_limit(model: str) -> Refusal:
    """As many generations as the tier has for a day."""
    return Refusal(429, f"You have reached the daily generation limit for {model}.")


def body_refused(flaws: Sequence[Flaw]) -> Refusal:
    """Every field that is wrong."""
    issues = [_issue(flaw) for flaw in flaws]
    return Refusal(400, "Validation of body failed", {"issues": issues, "docUrl": _DOCUMENTATION})


def asset_refused(place: str, message: str) -> Refusal:
    """An address in the body that leads nowhere."""
    issue = {"code": "custom", "path": place.split("."), "message": message}
    return Refusal(400, "Validation of body failed", {"issues": [issue], "docUrl": _DOCUMENTATION})


def _issue(flaw: Flaw) -> dict[str, object]:
    code, message = _WORDS[flaw.kind]
    wanted = flaw.rule.type if flaw.rule else "value"
    choices = ", ".join(f"'{choice}'" for choice in flaw.rule.choices) if flaw.rule else str(flaw.value)
    text = message.format(wanted=wanted, choices=choices or flaw.value, limit=flaw.limit, name=flaw.field)
    return {"code": code, "path": flaw.field.split("."), "message": text}


_WORDS: Final = {
    "missing": ("invalid_type", "Required"),
    "unknown": ("unrecognized_keys", "Unrecognized key: {name}"),
    "type": ("invalid_type", "Expected {wanted}"),
    "choice": ("invalid_enum_value", "Invalid value. Expected {choices}"),
    "low": ("too_small", "Number must be greater than or equal to {limit:g}"),
    "high": ("too_big", "Number must be less than or equal to {limit:g}"),
    "short": ("too_small", "Must contain at least {limit:g}"),
    "long": ("too_big", "Must contain at most {limit:g}"),
}
