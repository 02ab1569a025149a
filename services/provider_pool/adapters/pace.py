"""How soon a provider is asked again about a task that takes minutes, where it does not say so itself."""

from __future__ import annotations

from typing import Final

_LONGEST_MS: Final = 15_000
# An eighth of a task's age is how much later, at worst, its end is noticed.
_SHARE: Final = 8


def poll_after_ms(age_ms: int, soonest_ms: int = 2_000) -> int:
    """The older a task, the longer until the next question: between `soonest_ms` and fifteen seconds."""
    return min(max(age_ms // _SHARE, soonest_ms), max(_LONGEST_MS, soonest_ms))
