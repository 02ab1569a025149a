"""Who may be sent to now: bounds on everything, on each customer, on each receiver, and a narrow lane for the slow.

Nothing waits in memory. What finds no room stays in the database, and the room that is left decides what is taken
from there, so a line of any length before one receiver takes neither places nor turns from the others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple


class Due(NamedTuple):
    """What is to be sent now, and who would be in the way."""

    delivery_id: str
    customer_id: str
    receiver: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many are sent at once: in all, of one customer, to one receiver of each pace, and to all slow ones."""

    in_all: int = 256
    of_customer: int = 32
    to_quick: int = 16
    to_unknown: int = 4
    to_slow: int = 2
    slow_of_customer: int = 4
    slow_in_all: int = 64


class Pace(Enum):
    """What is known of a receiver."""

    UNKNOWN = "unknown"
    QUICK = "quick"
    SLOW = "slow"


# A receiver that answers in less costs a place for no longer than a fifth of a second's worth of places.
SLOW_FROM_S: Final = 1.0
# Receivers are named by customers: beyond so many the one that was met longest ago is forgotten.
_REMEMBERED: Final = 10_000


class Lanes:
    """The places that are taken now, and what the last answer of each receiver said about its pace."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._customers: Counter[str] = Counter()
        self._slow_customers: Counter[str] = Counter()
        self._receivers: Counter[str] = Counter()
        self._slow_in_all = 0
        self._taken: dict[str, tuple[Due, bool]] = {}
        self._paces: OrderedDict[str, Pace] = OrderedDict()

    def free(self) -> int:
        """Places that are left in all."""
        return self._bounds.in_all - len(self._taken)

    def holds(self, delivery_id: str) -> bool:
        """Whether a place is this delivery's."""
        return delivery_id in self._taken

    def held(self) -> set[str]:
        """The deliveries that have a place."""
        return set(self._taken)

    def full_receivers(self) -> set[str]:
        """Receivers to which nothing more is sent now; the slow ones, once their lane is full, among them."""
        full = {receiver for receiver, count in self._receivers.items() if count >= self._places_at(receiver)}
        if self._slow_in_all >= self._bounds.slow_in_all:
            full |= {receiver for receiver, pace in self._paces.items() if pace is Pace.SLOW}
        return full

    def full_customers(self) -> set[str]:
        """Customers of whom nothing more is sent now."""
        return {customer for customer, count in self._customers.items() if count >= self._bounds.of_customer}

    def take(self, candidates: Iterable[Due]) -> list[Due]:
        """Those that have a place, which is theirs from now on: one of each customer in turn, in the order given."""
        lines: dict[str, deque[Due]] = {}
        for one in candidates:
            lines.setdefault(one.customer_id, deque()).append(one)
        taken: list[Due] = []
        while lines and self.free() > 0:
            for customer_id in list(lines):
                self._take_first(lines[customer_id], taken)
                if not lines[customer_id]:
                    del lines[customer_id]
        return taken

    def passed_over(self, candidates: Sequence[Due]) -> set[str]:
        """Receivers for which some of these found no place although their customer has some left."""
        full = self.full_customers()
        return {
            one.receiver
            for one in candidates
            if one.delivery_id not in self._taken and one.customer_id not in full
        }

    def give_back(self, delivery_id: str) -> None:
        """The place of this delivery is free again."""
        one, was_slow = self._taken.pop(delivery_id)
        _less(self._customers, one.customer_id)
        _less(self._receivers, one.receiver)
        if was_slow:
            self._slow_in_all -= 1
            _less(self._slow_customers, one.customer_id)

    def heard(self, receiver: str, took_s: float, *, taken: bool) -> None:
        """How a receiver did: one that takes long, or does not take what it is sent, is slow until it does, quickly.

        One that fails at once costs no place for long, but what it fails comes again and again.
        """
        quick = taken and took_s < SLOW_FROM_S
        self._paces[receiver] = Pace.QUICK if quick else Pace.SLOW
        self._paces.move_to_end(receiver)
        if len(self._paces) > _REMEMBERED:
            self._paces.popitem(last=False)

    def pace_of(self, receiver: str) -> Pace:
        return self._paces.get(receiver, Pace.UNKNOWN)

    def _take_first(self, line: deque[Due], taken: list[Due]) -> None:
        """The first of this customer's line that has a place, if there is one; those before it have none."""
        while line:
            one = line.popleft()
            if self._has_place(one):
                self._enter(one)
                taken.append(one)
                return

    def _has_place(self, one: Due) -> bool:
        if self.free() <= 0 or one.delivery_id in self._taken:
            return False
        if self._customers[one.customer_id] >= self._bounds.of_customer:
            return False
        if self._receivers[one.receiver] >= self._places_at(one.receiver):
            return False
        if self.pace_of(one.receiver) is not Pace.SLOW:
            return True
        return (
            self._slow_in_all < self._bounds.slow_in_all
            and self._slow_customers[one.customer_id] < self._bounds.slow_of_customer
        )

    def _enter(self, one: Due) -> None:
        slow = self.pace_of(one.receiver) is Pace.SLOW
        self._taken[one.delivery_id] = (one, slow)
        self._customers[one.customer_id] += 1
        self._receivers[one.receiver] += 1
        if slow:
            self._slow_in_all += 1
            self._slow_customers[one.customer_id] += 1

    def _places_at(self, receiver: str) -> int:
        places = {
            Pace.QUICK: self._bounds.to_quick,
            Pace.UNKNOWN: self._bounds.to_unknown,
            Pace.SLOW: self._bounds.to_slow,
        }
        return places[self.pace_of(receiver)]


def _less(counted: Counter[str], key: str) -> None:
    # A Counter keeps zeros, and receivers are named by strangers; reading one that is missing adds nothing.
    counted[key] -= 1
    if counted[key] <= 0:
        del counted[key]
