"""A queue in lanes: whoever fills one of them delays nobody in another."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar


class Laned(Protocol):
    """What belongs to a lane for as long as it waits."""

    @property
    def lane(self) -> str: ...


T = TypeVar("T", bound=Laned)


class Lanes(Generic[T]):
    """What waits: first in first out within a lane, lanes in turn, removal from anywhere."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[T]] = {}
        self._turns: deque[str] = deque()

    def __bool__(self) -> bool:
        return bool(self._turns)

    def push(self, one: T) -> None:
        self._lane(one.lane).append(one)

    def push_front(self, one: T) -> None:
        self._lane(one.lane).appendleft(one)

    def remove(self, one: T) -> None:
        # Found at once: it is nearly always the oldest of its lane whose time is over.
        lane = self._lanes.get(one.lane)
        if lane is None or one not in lane:
            return
        lane.remove(one)
        if not lane:
            del self._lanes[one.lane]
            self._turns.remove(one.lane)

    def pop(self) -> T:
        name = self._turns.popleft()
        lane = self._lanes[name]
        one = lane.popleft()
        if lane:
            self._turns.append(name)
        else:
            del self._lanes[name]
        return one

    def _lane(self, name: str) -> deque[T]:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = deque()
            self._turns.append(name)
        return lane
