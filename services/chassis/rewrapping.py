"""Moves every sealed row to the key that seals now, so that an older key can leave the ring.

A page at a time, each written in one transaction that replaces only what still stands there: who replaces a secret
meanwhile wins, and his row is looked at again. What is done stays done, so that it may be stopped and started again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from services.chassis.sealing import SealBroken

PAGE: Final = 100
"""Rows read and written at once: some milliseconds of the one writer that SQLite has."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """How many rows were moved, how many needed nothing, and what is wrong with those that do not open."""

    moved: int
    already: int
    broken: tuple[str, ...]

    def as_text(self) -> str:
        """For the operator who has asked for it."""
        told = f"{self.moved} moved to the key that seals now, {self.already} were under it already"
        lost = [f"does not open: {one}" for one in self.broken]
        return "\n".join([told, *lost])


@dataclass(frozen=True, slots=True)
class Replacement(Generic[Value]):
    """`before` is what stands in the row when `after` is written, or nothing is."""

    row_id: str
    before: Value
    after: Value


async def rewrap_rows(
    page: Callable[[str, int], Awaitable[Sequence[tuple[str, Value]]]],
    rewrapped: Callable[[str, Value], Value],
    replace: Callable[[Sequence[Replacement[Value]]], Awaitable[Sequence[str]]],
) -> Rewrapped:
    """Rewrap all rows.

    `page` gives rows after an id, in their order; `rewrapped` the same value for one that is under the right key already, and
    raises SealBroken; `replace` writes in one transaction, and names the rows that had been changed meanwhile.
    """
    after = ""
    moved: set[str] = set()
    already: set[str] = set()
    broken: dict[str, str] = {}
    while rows := await page(after, PAGE):
        wanted: list[Replacement[Value]] = []
        for row_id, value in rows:
            try:
                fresh = rewrapped(row_id, value)
            except SealBroken as error:
                broken[row_id] = str(error)
                continue
            if fresh == value:
                already.add(row_id)
            else:
                wanted.append(Replacement(row_id, value, fresh))
        changed = set(await replace(wanted)) if wanted else set()
        moved |= {one.row_id for one in wanted} - changed
        # From the first that somebody changed meanwhile, look again: it may be sealed under any key of the ring.
        ids = [after, *(row_id for row_id, _ in rows)]
        first = next((place for place, row_id in enumerate(ids) if row_id in changed), len(ids))
        after = ids[first - 1]
    return Rewrapped(len(moved), len(already - moved), tuple(broken[row_id] for row_id in sorted(broken)))
