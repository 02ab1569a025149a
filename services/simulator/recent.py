"""When an account did something lately: what the limits of a minute and of a day are counted from."""

from __future__ import annotations

from collections import deque

from services.simulator.accounts import Account


class Recent:
    """Moments within the last `window_ms`, by account and by whatever else is counted apart."""

    def __init__(self, window_ms: int) -> None:
        self._window_ms = window_ms
        self._moments: dict[tuple[str, str], tuple[Account, deque[int]]] = {}

    def of(self, account: Account, now_ms: int, lane: str = "") -> deque[int]:
        """The moments that still count, oldest first; append to it what happens now."""
        owner, moments = self._moments.get((account.key, lane), (None, deque[int]()))
        if owner is not account:
            # Another account came in the place of an earlier one with its key.
            owner, moments = self._moments[account.key, lane] = (account, deque())
        while moments and moments[0] <= now_ms - self._window_ms:
            moments.popleft()
        return moments
