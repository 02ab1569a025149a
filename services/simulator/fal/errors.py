"""How fal says no: a sentence with a type for the request itself, a list of findings for a model's input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.simulator.field_rules import Flaw

_DOCUMENTATION: Final = "https://docs.fal.ai/errors#"
# Another attempt may help: these are the platform's own trouble.
_RETRYABLE: Final = frozenset(
    {
        "request_timeout",
        "startup_timeout",
        "runner_scheduling_failure",
        "runner_connection_timeout",
        "runner_disconnected",
        "runner_connection_refused",
        "runner_connection_error",
        "runner_incomplete_response",
        "runner_server_error",
        "internal_error",
        "internal_server_error",
        "generation_timeout",
        "downstream_service_error",
        "downstream_service_unavailable",
    }
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not a success. `error_type` also travels as a header."""

    status: int
    body: Mapping[str, object]
    error_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def all_headers(self) -> dict[str, str]:
        """Its own and the platform's."""
        if not self.error_type:
            return dict(self.headers)
        retryable = "true" if self.error_type in _RETRYABLE else "false"
        return {"X-Fal-Error-Type": self.error_type, "X-Fal-Retryable": retryable, **self.headers}

    def text(self) -> str:
        """The body as it is sent."""
        return json.dumps(self.body, separators=(",", ":"))


def request_refused(status: int, detail: str, error_type: str, **headers: str) -> Refusal:
    """A refusal by the platform, before any model saw the request."""
    return Refusal(status, {"detail": detail, "error_type": error_type}, error_type, headers)


UNAUTHORIZED: Final = request_refused(
    401, "Cannot access application. Authentication is required.", "auth_error"
)
EXHAUSTED: Final = Refusal(
    403,
    {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."},
)
FORBIDDEN: Final = Refusal(403, {"detail": "This key does not have the scope that the request needs."})
NO_ENDPOINT: Final = request_refused(404, "Application not found", "not_found")
NO_REQUEST: Final = Refusal(404, {"detail": "Request not found"})
# What a fetch before the end answers is not documented; it is not a success.
IN_PROGRESS: Final = Refusal(400, {"detail": "Request is still in progress"})
CANCELLED: Final = request_refused(499, "Request was cancelled by the client", "client_cancelled")
NOT_STARTED: Final = Refusal(
    504,
    {"detail": "Request timed out before it started", "error_type": "request_timeout"},
    "request_timeout",
    {"X-Fal-Request-Timeout-Type": "user"},
)
PURGED: Final = Refusal(404, {"detail": "Request payload has expired"})


def model_refused(
    location: Sequence[str | int],
    message: str,
    error_type: str,
    value: object = None,
    context: Mapping[str, object] | None = None,
    status: int = 422,
) -> Refusal:
    """A refusal by a model: one finding."""
    return Refusal(status, {"detail": [_finding(location, message, error_type, value, context)]}, error_type)


def input_refused(flaws: Sequence[Flaw]) -> Refusal:
    """Every field that is wrong, in the manner of the model's own validation."""
    findings = [_finding(("body", flaw.field), *_words(flaw)) for flaw in flaws]
    return Refusal(422, {"detail": findings})


def _finding(
    location: Sequence[str | int],
    message: str,
    error_type: str,
    value: object = None,
    context: Mapping[str, object] | None = None,
) -> dict[str, object]:
    finding: dict[str, object] = {
        "loc": list(location),
        "msg": message,
        "type": error_type,
        "url": _DOCUMENTATION + error_type,
        "input": value,
    }
    if context:
        finding["ctx"] = dict(context)
    return finding


def _words(flaw: Flaw) -> tuple[str, str, object, Mapping[str, object] | None]:
    if flaw.kind == "missing":
        return "Field required", "missing", flaw.value, None
    if flaw.kind == "unknown":
        return "Extra inputs are not permitted", "extra_forbidden", flaw.value, None
    if flaw.kind == "type":
        wanted = flaw.rule.type if flaw.rule else "any"
        return (
            f"Input should be a valid {wanted}",
            f"{_TYPE_WORDS.get(wanted, wanted)}_type",
            flaw.value,
            None,
        )
    if flaw.kind == "choice":
        choices = [str(choice) for choice in flaw.rule.choices] if flaw.rule else []
        expected = ", ".join(f"'{choice}'" for choice in choices)
        return f"Input should be {expected}", "one_of", flaw.value, {"expected": choices}
    message, error_type, key = _BOUNDS[flaw.kind, isinstance(flaw.value, list)]
    return message.format(flaw.limit), error_type, flaw.value, {key: flaw.limit}


_TYPE_WORDS: Final = {
    "integer": "int",
    "boolean": "bool",
    "number": "float",
    "strings": "list",
    "objects": "list",
}
_BOUNDS: Final = {
    ("low", False): ("Input should be greater than or equal to {:g}", "greater_than_equal", "ge"),
    ("high", False): ("Input should be less than or equal to {:g}", "less_than_equal", "le"),
    ("low", True): ("Input should be greater than or equal to {:g}", "greater_than_equal", "ge"),
    ("high", True): ("Input should be less than or equal to {:g}", "less_than_equal", "le"),
    ("short", False): ("String should have at least {:g} characters", "sequence_too_short", "min_length"),
    ("long", False): ("String should have at most {:g} characters", "sequence_too_long", "max_length"),
    ("short", True): ("List should have at least {:g} items", "sequence_too_short", "min_length"),
    ("long", True): ("List should have at most {:g} items", "sequence_too_long", "max_length"),
}
