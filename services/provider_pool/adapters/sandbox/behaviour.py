"""How the sandbox provider behaves: what an account's options and the markers in a prompt ask of it.

Markers are words in square brackets anywhere in a prompt, such as `[sandbox:fail]` or `[sandbox:slow=30]`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.provider_pool.adapters.interface import Kind

PACE_MS: Final[Mapping[Kind, int]] = {
    Kind.IMAGE: 1_500,
    Kind.VIDEO: 6_000,
    Kind.VOICE: 1_000,
    Kind.MUSIC: 3_000,
    Kind.INFOGRAPHIC: 2_000,
    Kind.TEXT: 800,
}
"""How long a job pretends to take: long enough to see it run, short enough to wait for."""

LONGEST_PACE_MS: Final = 3_600_000

_MARKER: Final = re.compile(r"\[sandbox:([a-z-]{1,20})(?:=([0-9.]{1,10}))?\]")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What happens to one order. Every switch but `pace_ms` is off unless asked for."""

    pace_ms: int
    instant: bool = False
    fails: bool = False
    refuses: bool = False
    stuck: bool = False
    bad_output: bool = False
    answer_lost: bool = False
    request_lost: bool = False
    rate_limited: bool = False
    rate_limited_once: bool = False
    account_error_once: bool = False
    answer_after_s: float = 0.0


def behaviour(kind: Kind, prompt: str, options: Mapping[str, str], reference: str) -> Behaviour:
    """What this order gets. Rates are decided by a hash of `reference`, so that a repeat has the same fate."""
    markers = {found[1]: found[2] or "" for found in _MARKER.finditer(prompt)}
    return Behaviour(
        pace_ms=_pace_ms(kind, markers, options),
        instant=options.get("render") == "instant",
        fails="fail" in markers or _drawn(reference, "failure", options.get("failure_rate")),
        refuses="refuse" in markers or _drawn(reference, "refusal", options.get("refusal_rate")),
        stuck="stuck" in markers,
        bad_output="bad-output" in markers,
        answer_lost="unknown" in markers,
        request_lost="lost" in markers,
        rate_limited=_drawn(reference, "rate limit", options.get("rate_limit_rate")),
        rate_limited_once="rate-limit" in markers,
        account_error_once="account-error" in markers,
        answer_after_s=_number(markers["late-answer"], 5.0) if "late-answer" in markers else 0.0,
    )


def complaint(options: Mapping[str, str]) -> str | None:
    """What is wrong with an account's options, in one sentence, or None."""
    for name, value in options.items():
        if name == "render":
            if value not in ("full", "instant"):
                return "render must be 'full' or 'instant'"
        elif name == "pace_ms":
            if not (value.isascii() and value.isdigit() and int(value) <= LONGEST_PACE_MS):
                return f"pace_ms must be a whole number up to {LONGEST_PACE_MS}"
        elif name in ("failure_rate", "refusal_rate", "rate_limit_rate"):
            if not 0 <= _number(value, -1.0) <= 1:
                return f"{name} must be 0 to 1"
        else:
            return f"the sandbox has no option {name!r}"
    return None


def _pace_ms(kind: Kind, markers: Mapping[str, str], options: Mapping[str, str]) -> int:
    pace_ms = _number(options.get("pace_ms"), float(PACE_MS[kind]))
    if "pace" in markers:
        pace_ms = _number(markers["pace"], pace_ms / 1000) * 1000
    if "slow" in markers:
        pace_ms += _number(markers["slow"], 30.0) * 1000
    return min(round(max(pace_ms, 0)), LONGEST_PACE_MS)


def _drawn(reference: str, what: str, rate: str | None) -> bool:
    if not rate:
        return False
    draw = int.from_bytes(hashlib.sha256(f"{what}:{reference}".encode()).digest()[:8]) / 2**64
    return draw < _number(rate, 0.0)


def _number(text: str | None, default: float) -> float:
    try:
        number = float(text) if text else default
    except ValueError:
        return default
    return number if math.isfinite(number) else default
