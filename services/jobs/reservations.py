"""Leases being asked for at this moment, by customer: what will run is counted before it is committed.

Whoever asks for a lease reserves first and only then reads how much of the customer's runs. A lease that was
granted meanwhile is then either in what was read or in what was reserved, and never in neither.
"""

from __future__ import annotations

from collections import Counter

Customer = tuple[str, str]


class Reservations:
    """Counts questions under way."""

    def __init__(self) -> None:
        self._asking: Counter[Customer] = Counter()
        self._begun: Counter[Customer] = Counter()

    def reserve(self, customer: Customer) -> int:
        """Begins a question; how many of this customer are under way now, with this one."""
        self._asking[customer] += 1
        self._begun[customer] += 1
        return self._asking[customer]

    def release(self, customer: Customer) -> None:
        """The question is answered, and the answer is committed."""
        self._asking[customer] -= 1
        if self._asking[customer] <= 0:
            del self._asking[customer], self._begun[customer]

    def of(self, customer: Customer) -> int:
        """Questions of this customer under way."""
        return self._asking[customer]

    def begun(self, customer: Customer) -> int:
        """Questions begun since the last moment at which none was under way: what came after an earlier look is the
        difference, for whoever has had a question under way ever since.
        """
        return self._begun[customer]
