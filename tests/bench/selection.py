"""Thirty days of accounts and customers, played to the pool's own rules under each policy, to round-robin and to chance.

Nothing is started and nothing waits: time is an argument of the rules, so a month takes seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from tests.bench.findings import Chart, Finding, Section, of_slices, shown
from tests.bench.plan import Plan, say
from tests.bench.selection_run import Result, played
from tests.bench.selection_ways import WAYS
from tests.bench.selection_world import SCENARIOS, Scenario, world

Results = Mapping[str, Sequence[Result]]


@dataclass(frozen=True, slots=True)
class _Column:
    """One number of a month, as the tables show it."""

    title: str
    of: Callable[[Result], float]
    unit: str = ""


_COLUMNS: Final = (
    _Column("expired", lambda one: 100 * one.expired_share, "%"),
    _Column("too small in the end", lambda one: 100 * one.small_share, "%"),
    _Column("refused", lambda one: 100 * one.refused_share, "%"),
    _Column("films refused", lambda one: 100 * one.films_refused_share, "%"),
    _Column("price", lambda one: one.price, "×"),
    _Column("429s", lambda one: 100 * one.crowded_share, "%"),
    _Column("sent to a dead account", lambda one: one.wasted_per_death),
    _Column("leaving", lambda one: one.leaving_longest_s, "s"),
    _Column("returning", lambda one: one.returning_longest_s, "s"),
)


async def measure(plan: Plan) -> list[Section]:
    """Every scenario, as many months as slices are asked for."""
    return [await asyncio.to_thread(_section, scenario, plan.slices) for scenario in SCENARIOS]


def _section(scenario: Scenario, months: int) -> Section:
    results = results_of(scenario, range(1, months + 1))
    jobs = [one.jobs for one in results[WAYS[0].name]]
    text = (
        f"{months} months of {min(jobs):,} to {max(jobs):,} jobs; the median month, and the lowest and highest.\n\n"
        + _table(results)
    )
    charts = tuple(
        Chart(
            f"selection-{scenario.name.replace(' ', '-')}-{name}",
            title,
            "%",
            [(way, median(of(one) for one in months_of)) for way, months_of in results.items()],
        )
        for name, title, of in (
            ("expired", f"Credit that expired unused: {scenario.name}", _COLUMNS[0].of),
            ("refused", f"Films refused: {scenario.name}", _COLUMNS[3].of),
        )
        if any(of(one) for months_of in results.values() for one in months_of)
    )
    return Section(scenario.name.capitalize(), _findings(scenario, results), text, charts)


def results_of(scenario: Scenario, seeds: Sequence[int]) -> Results:
    """The same months under every way to choose."""
    months = [(seed, world(scenario, seed)) for seed in seeds]
    results = {}
    for way in WAYS:
        say(f"{scenario.name}: {way.name}")
        results[way.name] = [played(month, way, seed) for seed, month in months]
    return results


def _findings(scenario: Scenario, results: Results) -> tuple[Finding, ...]:
    """What the rules are for, month by month against what is usually done instead."""

    def ratio(
        what: str, of: Callable[[Result], float], way: str, target: float, base: str = "round-robin"
    ) -> Finding:
        pairs = zip(results[way], results[base], strict=True)
        ratios = [of(one) / of(other) for one, other in pairs if of(other)]
        named = f"{scenario.name}: {what} under {way}, of {base}"
        return of_slices(named, ratios, "×", target=target, at_least=False)

    forgetful = "round-robin without memory"
    findings = [
        ratio("price", lambda one: one.price, "spread", 1.0),
        ratio("jobs sent to a dead account", lambda one: one.wasted_per_death, "spread", 0.25, forgetful),
    ]
    if scenario.demand < 1:
        findings.append(ratio("credit expired", lambda one: one.expired_share, "soonest_expiry", 0.5))
    else:
        findings.append(ratio("films refused", lambda one: one.films_refused_share, "soonest_expiry", 1.0))
    if scenario.believed > 1:
        findings.append(ratio("429s", lambda one: one.crowded_share, "spread", 0.5, forgetful))
    return tuple(findings)


def _table(results: Results) -> str:
    heads = [f"{column.title}{f', {column.unit}' if column.unit else ''}" for column in _COLUMNS]
    lines = ["| way | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for way, months in results.items():
        cells = [_cell([column.of(one) for one in months]) for column in _COLUMNS]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    low, middle, high = min(values), median(values), max(values)
    if low == high:
        return _short(middle)
    return f"{_short(middle)} ({_short(low)}–{_short(high)})"


def _short(value: float) -> str:
    return "0" if value == 0 else shown(value)
