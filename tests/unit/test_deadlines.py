"""Deadlines that share a timer: never early, soon after, and each one's fate is its own."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

from services.chassis.deadlines import TICK_S, Deadlines

LATE_S = 0.2
"""What a busy machine may add to a tick."""


async def test_a_deadline_is_noticed_soon_after_it_and_never_before() -> None:
    noticed: dict[str, float] = {}
    deadlines = Deadlines[str](lambda key: noticed.update({key: time.monotonic()}))
    start_s = time.monotonic()
    due = {f"key {turn}": start_s + turn * 0.013 for turn in range(10)}
    for key in sorted(due, reverse=True):
        deadlines.set(key, due[key])
    await asyncio.sleep(0.13 + TICK_S + LATE_S)
    assert noticed.keys() == due.keys()
    assert all(0 <= noticed[key] - due[key] < TICK_S + LATE_S for key in due)


async def test_a_deadline_that_was_taken_back_is_not_noticed() -> None:
    noticed: list[str] = []
    deadlines = Deadlines[str](noticed.append)
    for key in ("one", "two"):
        deadlines.set(key, time.monotonic() + 0.01)
    deadlines.drop("one")
    deadlines.drop("never set")
    await asyncio.sleep(TICK_S + LATE_S)
    assert noticed == ["two"]


async def test_who_expires_may_take_back_others_that_are_due() -> None:
    noticed: list[str] = []

    def expire(key: str) -> None:
        noticed.append(key)
        deadlines.drop("two")

    deadlines = Deadlines[str](expire)
    start_s = time.monotonic()
    for key, after_s in (("one", 0.0), ("two", 2 * TICK_S), ("three", 4 * TICK_S)):
        deadlines.set(key, start_s + after_s)
    time.sleep(6 * TICK_S)
    await asyncio.sleep(TICK_S + LATE_S)
    assert noticed == ["one", "three"]


async def test_a_deadline_set_by_who_expires_delays_no_nearer_one() -> None:
    noticed: dict[str, float] = {}

    def expire(key: str) -> None:
        noticed[key] = time.monotonic()
        if key == "one":
            deadlines.set("far", time.monotonic() + 3600)

    deadlines = Deadlines[str](expire)
    due_s = time.monotonic() + 3 * TICK_S
    deadlines.set("one", time.monotonic())
    deadlines.set("near", due_s)
    await asyncio.sleep(4 * TICK_S + LATE_S)
    assert noticed.keys() == {"one", "near"}
    deadlines.drop("far")


async def test_what_is_closed_is_not_kept_by_its_timer() -> None:
    class Owner:
        def __init__(self) -> None:
            self.deadlines = Deadlines[str](self.expire)

        def expire(self, key: str) -> None:
            raise AssertionError

    owner = Owner()
    owner.deadlines.set("far", time.monotonic() + 600)
    owner.deadlines.close()
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
