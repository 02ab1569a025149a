"""Who may be sent to now: bounds on everything, on each customer, on each receiver, and a narrow lane for the slow.

What a customer has for one receiver is a line of its own: hosts are shared, and that one customer's address there is dead
or its line long says nothing of another's. Nothing waits in memory. What finds no room stays in the database, and the room
that is left decides what is taken from there, so a line of any length takes neither places nor turns from the others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple


class Due(NamedTuple):
    """What is to be sent now, and who would be in the way."""

    delivery_id: str
    customer_id: str
    receiver: str

    @property
    def line(self) -> str:
        return line_of(self.customer_id, self.receiver)


def line_of(customer_id: str, receiver: str) -> str:
    """What is known by one name: this customer's deliveries to this receiver. Neither part has a blank in it."""
    return f"{customer_id} {receiver}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many are sent at once: in all, of one customer, to one receiver, of a line of each pace, and of all slow ones."""

    in_all: int = 256
    of_customer: int = 32
    to_receiver: int = 64
    of_quick: int = 16
    of_unknown: int = 4
    of_slow: int = 2
    slow_of_customer: int = 4
    slow_in_all: int = 64


@dataclass(frozen=True, slots=True)
class Blocked:
    """Who found no place: customers and receivers of which something waits; everybody, or all the slow, where their
    places were taken.
    """

    customers: frozenset[str] = frozenset()
    receivers: frozenset[str] = frozenset()
    everybody: bool = False
    the_slow: bool = False

    def waited_for(self, one: Due, *, slow: bool) -> bool:
        """Whether the place of this one, free again, may be another's now. It was `slow` when it took the place."""
        return (
            self.everybody
            or one.customer_id in self.customers
            or one.receiver in self.receivers
            or (slow and self.the_slow)
        )

    def with_one(self, one: Due) -> Blocked:
        """The same, with this one waiting too."""
        customers, receivers = self.customers | {one.customer_id}, self.receivers | {one.receiver}
        return replace(self, customers=customers, receivers=receivers)


class Pace(Enum):
    """What is known of how a line's receiver takes it."""

    UNKNOWN = "unknown"
    QUICK = "quick"
    SLOW = "slow"


# A receiver that answers in less costs a place for no longer than a fifth of a second's worth of places.
SLOW_FROM_S: Final = 1.0
# Receivers are named by customers: beyond so many lines the one that was met longest ago is forgotten.
_REMEMBERED: Final = 10_000


class Lanes:
    """The places that are taken now, and what the last answer to each line said about its pace."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._customers: Counter[str] = Counter()
        self._slow_customers: Counter[str] = Counter()
        self._receivers: Counter[str] = Counter()
        self._lines: Counter[str] = Counter()
        self._slow_in_all = 0
        self._taken: dict[str, tuple[Due, bool]] = {}
        self._paces: OrderedDict[str, Pace] = OrderedDict()

    def free(self) -> int:
        """Places that are left in all."""
        return self._bounds.in_all - len(self._taken)

    def has_place(self, one: Due) -> bool:
        """Whether there is a place for this one now. Changes nothing, so that any thread may ask; by the time it acts
        the place may be gone.
        """
        return self._has_place(one)

    def holds(self, delivery_id: str) -> bool:
        """Whether a place is this delivery's."""
        return delivery_id in self._taken

    def held(self) -> set[str]:
        """The deliveries that have a place."""
        return set(self._taken)

    def full_lines(self) -> set[str]:
        """Lines of which nothing more is sent now; the slow ones, once their lane or their customer's share of it is
        full, among them.
        """
        full = {line for line, count in self._lines.items() if count >= self._places_of(line)}
        most = self._bounds.slow_of_customer
        customers = {customer for customer, count in self._slow_customers.items() if count >= most}
        all_slow = self._slow_in_all >= self._bounds.slow_in_all
        if all_slow or customers:
            slow = (line for line, pace in self._paces.items() if pace is Pace.SLOW)
            full |= {line for line in slow if all_slow or line.partition(" ")[0] in customers}
        return full

    def full_customers(self) -> set[str]:
        """Customers of whom nothing more is sent now."""
        return {customer for customer, count in self._customers.items() if count >= self._bounds.of_customer}

    def take(self, candidates: Iterable[Due]) -> list[Due]:
        """Those that have a place, which is theirs from now on: one of each customer in turn, in the order given."""
        by_customer: dict[str, deque[Due]] = {}
        for one in candidates:
            by_customer.setdefault(one.customer_id, deque()).append(one)
        taken: list[Due] = []
        while by_customer and self.free() > 0:
            for customer_id in list(by_customer):
                self._take_first(by_customer[customer_id], taken)
                if not by_customer[customer_id]:
                    del by_customer[customer_id]
        return taken

    def passed_over(self, candidates: Sequence[Due]) -> set[str]:
        """Lines of which some of these found no place although their customer has some left."""
        full = self.full_customers()
        return {
            one.line
            for one in candidates
            if one.delivery_id not in self._taken and one.customer_id not in full
        }

    def blocked(self, passed_over: Collection[str]) -> Blocked:
        """Who finds no place now: these lines, and whatever is full."""
        lines = self.full_lines() | set(passed_over)
        named = [line.partition(" ") for line in lines]
        return Blocked(
            frozenset({customer for customer, _, _ in named} | self.full_customers()),
            frozenset(receiver for _, _, receiver in named),
            everybody=self.free() <= 0,
            the_slow=self._slow_in_all >= self._bounds.slow_in_all,
        )

    def give_back(self, delivery_id: str) -> tuple[Due, bool]:
        """The place of this delivery is free again: whose it was, and whether it was a slow one."""
        one, was_slow = self._taken.pop(delivery_id)
        _less(self._customers, one.customer_id)
        _less(self._receivers, one.receiver)
        _less(self._lines, one.line)
        if was_slow:
            self._slow_in_all -= 1
            _less(self._slow_customers, one.customer_id)
        return one, was_slow

    def heard(self, line: str, took_s: float, *, taken: bool) -> None:
        """How a line was taken: one that takes long, or is not taken, is slow until it is, quickly.

        One that fails at once costs no place for long, but what it fails comes again and again.
        """
        quick = taken and took_s < SLOW_FROM_S
        self._paces[line] = Pace.QUICK if quick else Pace.SLOW
        self._paces.move_to_end(line)
        if len(self._paces) > _REMEMBERED:
            self._paces.popitem(last=False)

    def pace_of(self, line: str) -> Pace:
        return self._paces.get(line, Pace.UNKNOWN)

    def _take_first(self, candidates: deque[Due], taken: list[Due]) -> None:
        """The first of these that has a place, if there is one; those before it have none."""
        while candidates:
            one = candidates.popleft()
            if self._has_place(one):
                self._enter(one)
                taken.append(one)
                return

    def _has_place(self, one: Due) -> bool:
        if self.free() <= 0 or one.delivery_id in self._taken:
            return False
        if self._customers[one.customer_id] >= self._bounds.of_customer:
            return False
        if self._receivers[one.receiver] >= self._bounds.to_receiver:
            return False
        if self._lines[one.line] >= self._places_of(one.line):
            return False
        if self.pace_of(one.line) is not Pace.SLOW:
            return True
        return (
            self._slow_in_all < self._bounds.slow_in_all
            and self._slow_customers[one.customer_id] < self._bounds.slow_of_customer
        )

    def _enter(self, one: Due) -> None:
        slow = self.pace_of(one.line) is Pace.SLOW
        self._taken[one.delivery_id] = (one, slow)
        self._customers[one.customer_id] += 1
        self._receivers[one.receiver] += 1
        self._lines[one.line] += 1
        if slow:
            self._slow_in_all += 1
            self._slow_customers[one.customer_id] += 1

    def _places_of(self, line: str) -> int:
        places = {
            Pace.QUICK: self._bounds.of_quick,
            Pace.UNKNOWN: self._bounds.of_unknown,
            Pace.SLOW: self._bounds.of_slow,
        }
        return places[self.pace_of(line)]


def _less(counted: Counter[str], key: str) -> None:
    # A Counter keeps zeros, and receivers are named by strangers; reading one that is missing adds nothing.
    counted[key] -= 1
    if counted[key] <= 0:
        del counted[key]
