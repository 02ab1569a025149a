"""How Replicate says no: problem details of RFC 7807."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.simulator.field_rules import Flaw


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer of type application/problem+json."""

    status: int
    title: str
    detail: str
    more: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        """The members that are documented, and those of a validation."""
        return {"title": self.title, "detail": self.detail, "status": self.status, **self.more}


UNAUTHENTICATED: Final = Problem(
    401,
    "Unauthenticated",
    "You did not pass a valid authentication token",
    headers={"WWW-Authenticate": "Bearer"},
)
INSUFFICIENT: Final = Problem(
    402,
    "Insufficient credit",
    "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing"
    " to purchase credit. Once you purchase credit, please wait a few minutes before trying again.",
)
FORBIDDEN: Final = Problem(403, "Forbidden", "You do not have permission to perform this action.")
NOT_FOUND: Final = Problem(404, "Not found", "The requested resource could not be found.")
NO_VERSION: Final = Problem(
    422,
    "Invalid version or not permitted",
    "The specified version does not exist (or perhaps you don't have permission to use it?)",
)
UNAVAILABLE: Final = Problem(503, "Service unavailable", "Please try again in a moment.")
INTERNAL: Final = Problem(500, "Internal server error", "An unexpected error occurred.")


def throttled(wait_s: int | None) -> Problem:
    """Too many requests. The text always says how long to wait, the header only if `wait_s` is known."""
    shown = 30 if wait_s is None else wait_s
    headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
    detail = f"Request was throttled. Your rate limit resets in ~{shown}s."
    return Problem(429, "Too many requests", detail, headers=headers)


def body_refused(names: Sequence[str], *, missing: bool = False) -> Problem:
    """Members of the request itself, not of the model's input."""
    texts = [
        f"{name} is required" if missing else f"Additional property {name} is not allowed" for name in names
    ]
    kind = "required" if missing else "additional_property_not_allowed"
    fields = [{"type": kind, "field": "", "description": text} for text in texts]
    return _validation(texts, fields)


def input_refused(flaws: Sequence[Flaw]) -> Problem:
    """Every field of the model's input that is wrong."""
    texts = [_words(flaw) for flaw in flaws]
    fields = [
        {"type": _KINDS[flaw.kind], "field": _place(flaw), "description": text}
        for flaw, text in zip(flaws, texts, strict=True)
    ]
    return _validation([f"{_place(flaw)}: {text}" for flaw, text in zip(flaws, texts, strict=True)], fields)


def _validation(texts: Sequence[str], fields: Sequence[Mapping[str, object]]) -> Problem:
    detail = "".join(f"- {text}\n" for text in texts)
    return Problem(422, "Input validation failed", detail, {"invalid_fields": list(fields)})


_KINDS: Final = {
    "missing": "required",
    "unknown": "additional_property_not_allowed",
    "type": "invalid_type",
    "choice": "enum",
    "low": "number_gte",
    "high": "number_lte",
    "short": "min_items",
    "long": "max_items",
}


def _place(flaw: Flaw) -> str:
    return "input" if flaw.kind in {"missing", "unknown"} else f"input.{flaw.field}"


def _words(flaw: Flaw) -> str:
    if flaw.kind == "missing":
        return f"{flaw.field} is required"
    if flaw.kind == "unknown":
        return f"Additional property {flaw.field} is not allowed"
    if flaw.kind == "type":
        return f"Invalid type. Expected: {flaw.rule.type if flaw.rule else 'object'}"
    if flaw.kind == "choice":
        choices = ", ".join(f'"{choice}"' for choice in flaw.rule.choices) if flaw.rule else ""
        return (
            f"{flaw.field} must be one of the following: {choices}"
            if choices
            else f"{flaw.field} {flaw.value}"
        )
    word = {
        "low": "Must be greater than or equal to",
        "high": "Must be less than or equal to",
        "short": "Must have at least",
        "long": "Must have at most",
    }[flaw.kind]
    return f"{word} {flaw.limit:g}"
