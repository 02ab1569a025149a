"""A month that is played to selection: accounts whose credit ends on different days, customers in batches, deaths and healings.

Everything is drawn beforehand from one seed, so that every way to choose meets the very same month.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from services.provider_pool.selection.market import Market, Provider

DAY_MS: Final = 86_400_000
DAYS: Final = 30
MONTH_MS: Final = DAYS * DAY_MS
_HOUR_MS: Final = 3_600_000

# What a unit of each provider's costs: one bills in dollars, one in cents of a plan, one in dollars paid beforehand.
UNITS_USD_MICROS: Final = {"monthly": 1_000_000, "plan": 10_000, "prepaid": 1_000_000}

# Ceilings in thousandths of the provider's unit. A film is what small remainders cannot pay for, and the prepaid
# provider is a fifth dearer: worth using only where nobody else can serve.
CEILINGS: Final[Mapping[str, Mapping[str, int]]] = {
    "image": {"monthly": 40, "plan": 4_100, "prepaid": 48},
    "clip": {"monthly": 600, "plan": 62_000},
    "film": {"monthly": 2_500, "prepaid": 3_000},
}
_SHARES: Final = {"image": 0.70, "clip": 0.24, "film": 0.06}
SECONDS: Final = {"image": 20, "clip": 150, "film": 420}
# A batch is a campaign or a script: it is what meets the limits on concurrency.
_MEAN_BATCH: Final = 10
_LONGEST_BATCH: Final = 100
# What is charged of a ceiling.
_CHARGED: Final = (0.7, 1.0)
_PER_PROVIDER: Final = 8
_GRANTS_USD: Final = (20, 40, 60, 90, 130, 190, 270, 400)
_LIMITS: Final = (1, 2, 2, 3, 3, 4, 5, 8)
_DIES: Final = 0.6
_MEAN_OUT_MS: Final = 10 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class Scenario:
    """demand: what customers ask for, as a share of the credit. believed: what operators think limits are, of the true ones."""

    name: str
    demand: float
    believed: int = 1


SCENARIOS: Final = (
    Scenario("credit to spare", 0.7),
    Scenario("credit that just does not last", 1.05),
    Scenario("limits believed twice too high", 0.7, 2),
)


@dataclass(frozen=True, slots=True)
class Plot:
    """One account as it really is. grant_millis: what each renewal brings, 0 where credit was bought once."""

    account_id: str
    provider: str
    opening_millis: int
    grant_millis: int
    renewals_ms: tuple[int, ...]
    limit: int
    out_ms: tuple[tuple[int, int], ...]

    def is_dead(self, now_ms: int) -> bool:
        return any(start <= now_ms < end for start, end in self.out_ms)


@dataclass(frozen=True, slots=True)
class Job:
    """charged: its cost as a share of whatever ceiling it runs under."""

    name: str
    at_ms: int
    model: str
    charged: float


@dataclass(frozen=True)
class World:
    """One month."""

    scenario: Scenario
    plots: Mapping[str, Plot]
    batches: tuple[tuple[Job, ...], ...]
    market: Market = field(
        default_factory=lambda: Market(
            {name: Provider(usd_micros_per_unit=micros) for name, micros in UNITS_USD_MICROS.items()}
        )
    )

    def usd(self, provider: str, millis: int) -> float:
        return self.market.usd_micros(provider, millis) / 1_000_000

    @property
    def jobs(self) -> int:
        return sum(map(len, self.batches))


def cheapest_usd(model: str) -> float:
    """What a job costs at most where it is cheapest."""
    return min(
        millis * UNITS_USD_MICROS[provider] / 1_000_000_000 for provider, millis in CEILINGS[model].items()
    )


def world(scenario: Scenario, seed: int) -> World:
    """The month of this seed."""
    chance = random.Random(f"{scenario.name} {seed}")
    plots = {plot.account_id: plot for plot in _plots(chance)}
    return World(scenario, plots, tuple(_batches(chance, scenario.demand * _credit_usd(plots))))


def _plots(chance: random.Random) -> list[Plot]:
    plots = []
    for provider, micros in UNITS_USD_MICROS.items():
        limits = chance.sample(_LIMITS, _PER_PROVIDER)
        for number, grant_usd in enumerate(_GRANTS_USD):
            millis = grant_usd * 1_000_000_000 // micros
            renews = provider != "prepaid"
            day_ms = chance.randrange(1, DAYS) * DAY_MS + chance.randrange(DAY_MS)
            plots.append(
                Plot(
                    f"{provider}-{number}",
                    provider,
                    # The part of its month that is still to come, as after a month of even use.
                    millis * day_ms // MONTH_MS if renews else millis,
                    millis if renews else 0,
                    (day_ms,) if renews else (),
                    limits[number],
                    _deaths(chance),
                )
            )
    return plots


def _deaths(chance: random.Random) -> tuple[tuple[int, int], ...]:
    if chance.random() >= _DIES:
        return ()
    start_ms = chance.randrange(MONTH_MS)
    return ((start_ms, start_ms + round(chance.expovariate(1 / _MEAN_OUT_MS))),)


def _credit_usd(plots: Mapping[str, Plot]) -> float:
    """What can be spent in the month: what is there, and of what renews the part that belongs to the month."""
    found = 0.0
    for plot in plots.values():
        millis = plot.opening_millis
        for at_ms in plot.renewals_ms:
            millis += plot.grant_millis * (MONTH_MS - at_ms) // MONTH_MS
        found += millis * UNITS_USD_MICROS[plot.provider] / 1_000_000_000
    return found


def _batches(chance: random.Random, usd: float) -> list[tuple[Job, ...]]:
    """Jobs worth so much at the cheapest, in batches that come by chance and thrice as often at noon as at midnight."""
    batches: list[tuple[Job, ...]] = []
    models, shares = list(_SHARES), list(_SHARES.values())
    number = 0
    left_usd = usd
    while left_usd > 0:
        at_ms = _moment(chance)
        model = chance.choices(models, shares)[0]
        size = min(_LONGEST_BATCH, 1 + int(chance.expovariate(1 / _MEAN_BATCH)))
        jobs = []
        for _ in range(size):
            number += 1
            charged = chance.uniform(*_CHARGED)
            jobs.append(Job(f"job-{number}", at_ms, model, charged))
            left_usd -= charged * cheapest_usd(model)
        batches.append(tuple(jobs))
    return sorted(batches, key=lambda batch: batch[0].at_ms)


def _moment(chance: random.Random) -> int:
    """Of a Poisson process whose rate follows the day: candidates are evenly spread, and thinned by the hour."""
    while True:
        at_ms = chance.randrange(MONTH_MS)
        rate = 1 - 0.5 * math.cos(2 * math.pi * (at_ms % DAY_MS) / DAY_MS)
        if chance.random() * 1.5 < rate:
            return at_ms
