"""Spend limits: what a customer or a key may spend in a UTC day and month, and how that is counted.

A hold counts in the day and the month in which it was made: in full while it is open, with what was charged once it
is captured, and not at all once it is released or has expired. A count is kept only where there is a limit: of the
whole wallet under the empty key, of a key under the first of its line, so that a rotated key goes on with what is
left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from services.billing.operations import WalletId

DAY, MONTH = "day", "month"
WHOLE_WALLET = ""

_DAY_S = 86_400
_NOTE = re.compile(rf"({DAY}|{MONTH}) limit ([0-9]+), spent ([0-9]+)")


class SpendLimits(NamedTuple):
    """What may be spent in a day and in a month, in millis; 0 means no limit."""

    day_millis: int = 0
    month_millis: int = 0

    @property
    def are_set(self) -> bool:
        """Whether there is a limit at all."""
        return self.day_millis > 0 or self.month_millis > 0


UNLIMITED = SpendLimits()


class SpendId(NamedTuple):
    """One count: of a wallet or, where `key_id` is not empty, of the line of keys that begins with that one."""

    wallet: WalletId
    key_id: str
    period: str


class KeyLine(NamedTuple):
    """A key with a limit of its own: whose it is, and under which key its line counts."""

    wallet: WalletId
    key_id: str
    limits: SpendLimits


class Reached(NamedTuple):
    """Which limit stands in the way: its period, `day` or `month`, and what is spent of it."""

    period: str
    limit_millis: int
    spent_millis: int

    @property
    def note(self) -> str:
        """For the journal; `reached` reads it back."""
        return f"{self.period} limit {self.limit_millis}, spent {self.spent_millis}"


def reached(note: str) -> Reached | None:
    """What a journal entry's note says, or None where it says something else."""
    found = _NOTE.fullmatch(note)
    return None if found is None else Reached(found[1], int(found[2]), int(found[3]))


def periods(at_ms: int) -> tuple[str, str]:
    """The UTC day and the month of a moment: ("2026-11-21", "2026-11")."""
    return _periods(at_ms // (_DAY_S * 1000))


@lru_cache(maxsize=1024)
def _periods(day: int) -> tuple[str, str]:
    name = datetime.fromtimestamp(day * _DAY_S, UTC).date().isoformat()
    return name, name[:7]


class Counts:
    """What is spent, while a batch is applied. `keys` are the limited keys that it names, `spent` the counts."""

    def __init__(self, keys: Mapping[str, KeyLine], spent: Mapping[SpendId, int]) -> None:
        self._keys = keys
        self._spent = dict(spent)
        self._changed: dict[SpendId, None] = {}

    def line(self, key_id: str) -> KeyLine | None:
        """The line of a key that has a limit, else None."""
        return self._keys.get(key_id)

    def in_the_way(
        self, wallet: WalletId, limits: SpendLimits, line: KeyLine | None, amount_millis: int, at_ms: int
    ) -> Reached | None:
        """The limit, of the wallet or of the line, that this amount would go beyond; what is free goes beyond none."""
        spenders = [(WHOLE_WALLET, limits)] if limits.are_set else []
        spenders += [(line.key_id, line.limits)] if line else []
        for key_id, own in spenders:
            for name, period, limit_millis in zip((DAY, MONTH), periods(at_ms), own, strict=True):
                spent_millis = self._spent.get(SpendId(wallet, key_id, period), 0)
                if limit_millis and amount_millis > max(0, limit_millis - spent_millis):
                    return Reached(name, limit_millis, spent_millis)
        return None

    def move(
        self, wallet: WalletId, key_id: str, made_at_ms: int, change_millis: int, *, begins: bool
    ) -> None:
        """A hold that was made at that time counts for so much more or less.

        Only one that begins to count makes a count that is not there: a missing one is of a time without a limit.
        """
        for period in periods(made_at_ms):
            name = SpendId(wallet, key_id, period)
            if begins or name in self._spent:
                self._spent[name] = self._spent.get(name, 0) + change_millis
                self._changed[name] = None

    def changed(self) -> list[tuple[SpendId, int]]:
        """Every count that the batch has changed, as it is now."""
        return [(name, self._spent[name]) for name in self._changed]
