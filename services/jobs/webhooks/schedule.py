"""When a delivery is tried again, and when it is given up. Time and chance are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from services.jobs.schedule import spread

_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3600.0
_DAY_MS: Final = 24 * 3600 * 1000

RETRIES_S: Final = (
    5.0,
    30.0,
    2 * _MINUTE_S,
    10 * _MINUTE_S,
    _HOUR_S,
    3 * _HOUR_S,
    6 * _HOUR_S,
    12 * _HOUR_S,
    24 * _HOUR_S,
)
"""The contract's: seconds from each attempt to the next, give or take a fifth; the attempt after the last is the last."""

TIMEOUT_S: Final = 10.0
RETENTION_MS: Final = 30 * _DAY_MS
"""So long the log of a delivery that has ended is kept."""

# Long enough for every attempt of a schedule to send the same links, a day before they end included.
_LINKS_MS: Final = 4 * _DAY_MS
_LINKS_LEFT_MS: Final = _DAY_MS
# A receiver that asks for more is asked again after a day all the same.
_LONGEST_WAIT_MS: Final = _DAY_MS
_ASKING: Final = frozenset({429, 503})
_GONE: Final = 410


class State(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


def links_until_ms(until_ms: int, media_expires_at_ms: int, now_ms: int) -> int:
    """Until when the links of what is sent now are good; `until_ms`: those that were sent before."""
    if until_ms - now_ms >= _LINKS_LEFT_MS:
        return until_ms
    # Never longer than the media are kept; once they are gone, so that a receiver reads why nothing is there.
    return min(now_ms + _LINKS_MS, media_expires_at_ms or now_ms + _LINKS_MS)


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended. status: 0 where there was no answer; error: a word, empty where it went well."""

    status: int
    error: str
    retry_after: str = ""

    @classmethod
    def of_status(cls, status: int, retry_after: str) -> Answer:
        """What a receiver's status means."""
        if 200 <= status <= 299:
            return cls(status, "")
        return cls(status, "redirect" if 300 <= status <= 399 else "status", retry_after)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a delivery after an attempt. next_attempt_at_ms: 0 where there is none."""

    state: State
    next_attempt_at_ms: int


def verdict(answer: Answer, tries: int, now_ms: int, jitter: float, retries_s: tuple[float, ...]) -> Verdict:
    """After the `tries`-th attempt of a schedule, this one included."""
    if not answer.error:
        return Verdict(State.DELIVERED, 0)
    if answer.status == _GONE or tries > len(retries_s):
        return Verdict(State.DEAD, 0)
    wait_ms = int(spread(retries_s[tries - 1], jitter) * 1000)
    if answer.status in _ASKING:
        wait_ms = max(wait_ms, min(_LONGEST_WAIT_MS, asked_ms(answer.retry_after, now_ms)))
    return Verdict(State.WAITING, now_ms + wait_ms)


def asked_ms(retry_after: str, now_ms: int) -> int:
    """Milliseconds from now that a Retry-After header asks for, in either spelling; 0 where it says nothing."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        # Its length is bounded by whoever read the header.
        return int(text) * 1000
    try:
        moment = parsedate_to_datetime(text)
        return max(0, int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000) - now_ms)
    except (ValueError, OverflowError):
        return 0
