"""The pace at which an account is given jobs: a generic cell rate, whose whole state is one moment on the account's row.

That moment is when the submissions so far would be over if they had been made evenly. Whoever moves it holds the row's
lock, so that replicas keep one pace between them. It outlives processes, so it is wall time, and a clock that is set back
leaves it in the future: a moment that no pace leads to is not believed.
"""

from __future__ import annotations

from dataclasses import dataclass

_MINUTE_MS = 60_000

_BURST_SHARE = 10
"""A tenth of a minute's submissions may come at once: a queue that has waited is served quickly, without using up the minute."""

_SKEW_MS = 60_000
"""Clocks of replicas may differ by this much, and one that is set back by less costs an account no more than this."""


@dataclass(frozen=True, slots=True)
class Pace:
    """So many at once, and then one every `interval_ms`."""

    burst: int
    interval_ms: int

    def room(self, pace_at_ms: int, now_ms: int) -> int:
        """How many may go now."""
        ahead_ms = max(0, self._believed(pace_at_ms, now_ms) - now_ms)
        return (self.burst * self.interval_ms - ahead_ms) // self.interval_ms

    def opens_at_ms(self, pace_at_ms: int, now_ms: int) -> int:
        """From when the next one may go; what is not after `now_ms` means now."""
        return self._believed(pace_at_ms, now_ms) - (self.burst - 1) * self.interval_ms

    def after(self, pace_at_ms: int, now_ms: int) -> int:
        """The account's moment after one more, which was let go at `now_ms`."""
        return max(self._believed(pace_at_ms, now_ms), now_ms) + self.interval_ms

    def _believed(self, pace_at_ms: int, now_ms: int) -> int:
        # Nobody who looks at a clock like ours moves it further than a whole burst ahead.
        latest_ms = now_ms + self.burst * self.interval_ms + _SKEW_MS
        return pace_at_ms if pace_at_ms <= latest_ms else now_ms


def pace_of(submits_per_minute: int) -> Pace | None:
    """The pace that never lets more than so many go in any minute; None for no limit."""
    if submits_per_minute <= 0:
        return None
    burst = max(1, submits_per_minute // _BURST_SHARE)
    # Of a minute that begins with a burst, the rest is left for the others.
    return Pace(burst, -(-_MINUTE_MS // (submits_per_minute - burst + 1)))
