"""What is wrong with a field, in Leonardo's words."""

from __future__ import annotations

from collections.abc import Mapping

from services.simulator.field_rules import Field, Flaw, flaws_of


def first_fault(body: Mapping[str, object], fields: Mapping[str, Field]) -> tuple[str, str] | None:
    """The first thing that is wrong, as a message and a code; None for a sound body."""
    flaw = next(flaws_of(body, fields), None)
    return None if flaw is None else _said(flaw)


def _said(flaw: Flaw) -> tuple[str, str]:
    match flaw.kind:
        case "unknown":
            return f"Unexpected variable {flaw.field}", "bad-request"
        case "missing":
            return f"Expecting a value for non-nullable variable: {flaw.field}", "validation-failed"
        case "long":
            return f"{flaw.field} must be at most {flaw.limit:g} long", "validation-failed"
        case "short":
            return f"{flaw.field} must be at least {flaw.limit:g} long", "validation-failed"
        case "low" | "high":
            return f"{flaw.field} is out of range", "validation-failed"
        case _:
            return f"Invalid value for {flaw.field}", "validation-failed"
