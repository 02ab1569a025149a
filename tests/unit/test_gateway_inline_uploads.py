"""Places for requests with images: bounded in all and for one customer, in turn, never lost."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.errors import ServiceError
from services.gateway.inline_uploads import InlineUploads, Place


async def taken(uploads: InlineUploads, *customer_ids: str) -> list[Place]:
    places = [uploads.place(customer_id) for customer_id in customer_ids]
    for place in places:
        await place.take()
    return places


async def waiting(place: Place) -> asyncio.Task[None]:
    task = asyncio.create_task(place.take())
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_one_customer_has_two_places_and_another_still_gets_one() -> None:
    uploads = InlineUploads(8)
    first, _ = await taken(uploads, "a", "a")
    third = await waiting(uploads.place("a"))
    await taken(uploads, "b")
    assert not third.done()
    first.leave()
    await third


async def test_all_places_together_are_bounded_and_given_in_turn() -> None:
    uploads = InlineUploads(2)
    first, second = await taken(uploads, "a", "b")
    third, fourth = await waiting(uploads.place("c")), await waiting(uploads.place("d"))
    first.leave()
    await third
    assert not fourth.done()
    second.leave()
    await fourth


async def test_who_may_not_have_one_more_keeps_nobody_waiting() -> None:
    uploads = InlineUploads(3)
    *_, third = await taken(uploads, "a", "a", "b")
    greedy, modest = await waiting(uploads.place("a")), await waiting(uploads.place("c"))
    third.leave()
    await modest
    assert not greedy.done()
    greedy.cancel()


async def test_who_waits_too_long_is_turned_away_and_leaves_no_trace() -> None:
    uploads = InlineUploads(1, patience_s=0.01)
    (holder,) = await taken(uploads, "a")
    with pytest.raises(ServiceError) as refusal:
        await uploads.place("b").take()
    assert refusal.value.reason == "OVERLOADED"
    holder.leave()
    await taken(uploads, "b")


@pytest.mark.parametrize("turns", [0, 1])
async def test_who_leaves_while_waiting_gives_up_the_turn(turns: int) -> None:
    uploads = InlineUploads(1)
    (holder,) = await taken(uploads, "a")
    gone = await waiting(uploads.place("b"))
    if turns:
        holder.leave()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    if not turns:
        holder.leave()
    await asyncio.wait_for(taken(uploads, "c"), 1)


async def test_a_place_is_taken_once_and_given_back_once() -> None:
    uploads = InlineUploads(1, patience_s=0.01)
    with uploads.place("a") as place:
        await place.take()
        await place.take()
        place.leave()
        place.leave()
        (other,) = await taken(uploads, "b")
    with pytest.raises(ServiceError):
        await uploads.place("c").take()
    other.leave()
    await taken(uploads, "c")
