"""Slices of several cases in turn, forward and then backward, so that a slow moment of the machine falls on all."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from tests.bench.plan import Plan, say
from tests.bench.processes import Foreign

T = TypeVar("T")

# A slice during which others had more of the machine than this says little about us.
DISTURBED: Final = 0.10
_LOOK_S: Final = 0.3
# With fewer undisturbed rounds than this all are used: the median of two is nobody's.
_ENOUGH: Final = 3


@dataclass(frozen=True)
class Slice(Generic[T]):
    """What one slice gave, and what share of all cores others used meanwhile."""

    value: T
    foreign: float


@dataclass(frozen=True)
class Rounds(Generic[T]):
    """Alternated slices; round n of every case was measured within seconds of round n of the others."""

    slices: Mapping[str, list[Slice[T]]]

    def of(self, name: str) -> list[T]:
        """The values of the rounds that count."""
        return [self.slices[name][number].value for number in self.counted()]

    def undisturbed(self) -> list[int]:
        """The rounds in which every case had the machine to itself."""
        count = min(len(taken) for taken in self.slices.values())
        return [
            n for n in range(count) if all(taken[n].foreign < DISTURBED for taken in self.slices.values())
        ]

    def counted(self) -> list[int]:
        """The undisturbed rounds, or all of them when those are too few."""
        quiet = self.undisturbed()
        return quiet if len(quiet) >= _ENOUGH else list(range(min(map(len, self.slices.values()))))

    def ratios(self, name: str, base: str, number: Callable[[T], float]) -> list[float]:
        """`name` divided by `base`, round by round."""
        return [
            number(mine) / number(theirs) for mine, theirs in zip(self.of(name), self.of(base), strict=True)
        ]

    def median(self, name: str, number: Callable[[T], float]) -> float:
        return statistics.median(number(value) for value in self.of(name))

    def trust(self) -> str:
        """One sentence on how disturbed the slices were."""
        foreign = [taken.foreign for case in self.slices.values() for taken in case]
        count, quiet = min(map(len, self.slices.values())), len(self.undisturbed())
        used = "only those count" if quiet >= _ENOUGH else "all count"
        return (
            f"Others had {100 * statistics.median(foreign):.0f} % of the machine (median; at most "
            f"{100 * max(foreign):.0f} %); {quiet} of {count} rounds were undisturbed, {used}."
        )


async def alternate(cases: Mapping[str, Callable[[], Awaitable[T]]], plan: Plan) -> Rounds[T]:
    """Runs every case once a round, until `plan.slices` rounds were undisturbed, or twice as many have been.

    A warm-up round comes first and does not count. Where not one of the first rounds was undisturbed there are no
    more of them: that machine will not fall silent.
    """
    rounds: Rounds[T] = Rounds({name: [] for name in cases})
    await _round(cases, plan, forward=False)
    for number in range(2 * plan.slices):
        quiet = rounds.undisturbed()
        if len(quiet) == plan.slices or (number == plan.slices and not quiet):
            break
        taken = await _round(cases, plan, forward=number % 2 == 0)
        for name, slice_ in taken.items():
            rounds.slices[name].append(slice_)
            say(f"{name}, round {number + 1}: {slice_.value} (others {slice_.foreign:.0%})")
    return rounds


async def _round(
    cases: Mapping[str, Callable[[], Awaitable[T]]], plan: Plan, *, forward: bool
) -> dict[str, Slice[T]]:
    taken: dict[str, Slice[T]] = {}
    for name in cases if forward else list(cases)[::-1]:
        await quiet_moment(plan.patience_s)
        foreign = Foreign()
        value = await cases[name]()
        taken[name] = Slice(value, foreign.share())
    return taken


async def quiet_moment(patience_s: float) -> None:
    """Returns when others leave the machine alone, or after `patience_s`."""
    waited_s = 0.0
    while waited_s < patience_s:
        foreign = Foreign()
        await asyncio.sleep(_LOOK_S)
        waited_s += _LOOK_S
        if foreign.share() < DISTURBED:
            return
