"""How long a task may run before it is given up: by provider and model, from how long such tasks took lately.

Pure but for what it is told: durations in, milliseconds out. Time is an argument. What was given up counts as having taken
as long as it was given: of a provider that has become slower for good nothing would succeed any more, and nothing be learnt.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Pair: TypeAlias = tuple[str, str]
"""A provider and a model."""

SEEN_KEPT: Final = 500
"""Successes of a pair that count: enough for a p99, few enough that a change at the provider shows within a day."""

SEEN_NEEDED: Final = 50
"""Below this a p99 is one unlucky task, and what the provider's documents say is the better guess."""

FACTOR: Final = 3
"""Times the p99: a provider under load may take twice as long as ever, and giving up a paid task is the dearer mistake."""

SHORTEST_MS: Final = 60_000
"""Whatever was seen: a queue at the provider is a minute long before anything is wrong."""

_SORT_EVERY: Final = 25
"""Successes between two looks at the p99: thousands of answers an hour ask for it."""

_JUMP_MS: Final = 5_000
"""Clocks are slewed by less than this between two looks; a larger step is a clock that was set."""

_JUMPS_KEPT: Final = 16


def percentile_99(durations_ms: Sequence[int]) -> int:
    """The nearest rank; of none, 0."""
    if not durations_ms:
        return 0
    return sorted(durations_ms)[math.ceil(0.99 * len(durations_ms)) - 1]


def allowed_ms(durations_ms: Sequence[int], longest_s: int, ceiling_s: int) -> int:
    """`longest_s`: the model's own, 0 where it has none. Never more than the operator's ceiling.

    Without one of its own nothing is learnt: the sandbox's tasks take as long as their prompts and its accounts say.
    """
    limit_ms = 1000 * (min(longest_s, ceiling_s) if longest_s else ceiling_s)
    if not longest_s or len(durations_ms) < SEEN_NEEDED:
        return limit_ms
    return min(limit_ms, max(SHORTEST_MS, FACTOR * percentile_99(durations_ms)))


@dataclass(slots=True)
class _Seen:
    durations_ms: deque[int] = field(default_factory=lambda: deque(maxlen=SEEN_KEPT))
    allowed_ms: int = 0
    unsorted: int = 0


class Patience:
    """What was seen of every pair, and what follows from it. `longest_s`: of the models that have a limit of their own."""

    def __init__(self, longest_s: Mapping[Pair, int], ceiling_s: int) -> None:
        self._longest_s = longest_s
        self._ceiling_s = ceiling_s
        self._pairs: dict[Pair, _Seen] = {}

    def allowed_ms(self, provider: str, model: str) -> int:
        """How long a task of theirs may run."""
        seen = self._pairs.get((provider, model))
        if seen is None:
            return allowed_ms((), self._longest_s.get((provider, model), 0), self._ceiling_s)
        return seen.allowed_ms

    def seen(self, provider: str, model: str) -> int:
        """How many successes that is learnt from."""
        seen = self._pairs.get((provider, model))
        return 0 if seen is None else len(seen.durations_ms)

    def saw(self, provider: str, model: str, duration_ms: int) -> None:
        """A task of theirs succeeded after so long. What took no time says that a clock was set, and counts for nothing."""
        if duration_ms <= 0:
            return
        seen = self._pairs.setdefault((provider, model), _Seen())
        seen.durations_ms.append(duration_ms)
        seen.unsorted += 1
        if seen.unsorted >= _SORT_EVERY or not seen.allowed_ms or len(seen.durations_ms) == SEEN_NEEDED:
            self._look((provider, model), seen)

    def outran(self, provider: str, model: str, duration_ms: int) -> None:
        """A task of theirs was given up while it ran, after so long: the next ones may need longer, too."""
        self.saw(provider, model, duration_ms)
        seen = self._pairs.get((provider, model))
        if seen is not None:
            # Before the next is given up, which may be in a moment.
            self._look((provider, model), seen)

    def learn(self, found: Mapping[Pair, Iterable[int]]) -> None:
        """Take over what a database remembers, oldest first, of every pair of which it remembers no less than this."""
        for pair, durations_ms in found.items():
            told = [duration_ms for duration_ms in durations_ms if duration_ms > 0]
            if len(told[-SEEN_KEPT:]) >= self.seen(*pair) and told:
                seen = self._pairs[pair] = _Seen(deque(told, maxlen=SEEN_KEPT))
                self._look(pair, seen)

    def _look(self, pair: Pair, seen: _Seen) -> None:
        seen.unsorted = 0
        seen.allowed_ms = allowed_ms(seen.durations_ms, self._longest_s.get(pair, 0), self._ceiling_s)


class Ages:
    """How old things are by a clock that people set. A step forward makes nothing old that was there before it.

    A step back needs no correction: what is there looks younger than it is, and is given up later.
    """

    def __init__(self, now_ms: int, monotonic_s: float) -> None:
        self._seen = (now_ms, monotonic_s)
        # When the clock stepped forward, by the clock after the step, and how far.
        self._steps: deque[tuple[int, int]] = deque(maxlen=_JUMPS_KEPT)

    def age_ms(self, since_ms: int, now_ms: int, monotonic_s: float) -> int:
        """How long ago `since_ms` was, as far as this process has seen; negative where the clock was set back since."""
        self.look(now_ms, monotonic_s)
        stepped_ms = sum(step_ms for at_ms, step_ms in self._steps if since_ms < at_ms)
        return now_ms - since_ms - stepped_ms

    def look(self, now_ms: int, monotonic_s: float) -> None:
        """Notice a step: by the two clocks, more time has passed on one than on the other."""
        before_ms, before_s = self._seen
        step_ms = now_ms - before_ms - round((monotonic_s - before_s) * 1000)
        if step_ms > _JUMP_MS:
            self._steps.append((now_ms, step_ms))
        self._seen = (now_ms, monotonic_s)
