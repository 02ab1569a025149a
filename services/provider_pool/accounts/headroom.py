"""For how long the accounts can go on as they did in the last hour, by model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.provider_pool import meters
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection import pool
from services.provider_pool.selection.market import Market
from services.provider_pool.selection.pool import Account, AccountState
from services.provider_pool.store import accounts as account_rows
from services.provider_pool.store import spending

HOUR_MS: Final = 3_600_000
SHOW_S: Final = 60.0
"""Between two looks; each reads the attempts that ended in an hour."""

_MINUTES: Final = 60


@dataclass(frozen=True, slots=True)
class ModelHeadroom:
    """`accounts`: those that could take a job of the model if they were idle. `minutes` is None where nothing was spent."""

    model: str
    accounts: int
    available_usd_micros: int
    spent_usd_micros: int

    @property
    def minutes(self) -> int | None:
        """How long the balances last at the last hour's pace, if nothing else is spent from them."""
        if not self.spent_usd_micros:
            return None
        return max(0, self.available_usd_micros) * _MINUTES // self.spent_usd_micros


def of_models(
    accounts: Iterable[Account],
    offers: Mapping[str, Iterable[str]],
    spent_millis: Mapping[tuple[str, str], int],
    market: Market,
) -> list[ModelHeadroom]:
    """Every model that some account is for, or money was spent on. `offers`, and `spent_millis` in an hour, by provider."""
    known = [one for one in accounts if one.state is not AccountState.DISABLED and one.serves_live]
    spent: dict[str, int] = {}
    for (provider, model), millis in spent_millis.items():
        spent[model] = spent.get(model, 0) + market.usd_micros(provider, millis)
    meant: dict[str, list[Account]] = {model: [] for model, usd_micros in spent.items() if usd_micros}
    for account in known:
        for model in offers.get(account.provider, ()):
            if pool.serves_model(account, model):
                meant.setdefault(model, []).append(account)
    return [_of_model(model, meant[model], spent.get(model, 0), market) for model in sorted(meant)]


def _of_model(model: str, accounts: Sequence[Account], spent: int, market: Market) -> ModelHeadroom:
    able = [one for one in accounts if one.state is AccountState.ACTIVE and not pool.is_out(one, model)]
    available = sum(market.usd_micros(one.provider, max(0, one.available_millis)) for one in able)
    return ModelHeadroom(model, len(able), available, spent)


class Headroom:
    """Works it out, for who asks and for the gauge."""

    def __init__(self, database: Database, catalog: Catalog, clock: Clock) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock

    async def look(self) -> list[ModelHeadroom]:
        """In the order of the models' names."""
        now_ms = self._clock.now_ms()
        accounts = await self._database.read(account_rows.load_accounts)
        spent = await self._database.read(
            lambda connection: spending.booked_since(connection, now_ms - HOUR_MS)
        )
        return of_models(accounts.values(), self._catalog.on_offer(now_ms), spent, self._catalog.market)

    async def show(self) -> float:
        """Set the gauge; returns how long to wait, in seconds."""
        meters.HEADROOM_HOURS.clear()
        for one in await self.look():
            hours = float("inf") if one.minutes is None else one.minutes / _MINUTES
            meters.HEADROOM_HOURS.labels(one.model).set(hours)
        return SHOW_S
