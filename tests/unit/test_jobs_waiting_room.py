from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.jobs.waiting_room import Waiting, WaitingRoom

CLASS = ("test", "gpt-image-2")


def waits(
    job_id: str, customer: str = "a", deadline_ms: int = 1000, job_class: tuple[str, str] = CLASS
) -> Waiting:
    return Waiting(
        job_id, (customer, "test"), job_class, created_at_ms=int(job_id.strip("abc")), deadline_ms=deadline_ms
    )


def taken(room: WaitingRoom) -> list[str]:
    ids = []
    while (waiting := room.take(CLASS)) is not None:
        ids.append(waiting.job_id)
    return ids


def test_customers_take_turns_and_each_keeps_its_order() -> None:
    room = WaitingRoom()
    for job_id in ("a1", "a2", "a3", "b1", "b2", "c1"):
        room.add(waits(job_id, job_id[0]))
    assert taken(room) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_job_that_is_put_back_is_the_next_one_again() -> None:
    room = WaitingRoom()
    for job_id in ("a1", "a2", "b1"):
        room.add(waits(job_id, job_id[0]))
    first = room.take(CLASS)
    assert first is not None
    room.add(first, front=True)
    assert taken(room) == ["a1", "b1", "a2"]


def test_a_skipped_customer_keeps_its_turn() -> None:
    room = WaitingRoom()
    for job_id in ("a1", "b1", "b2"):
        room.add(waits(job_id, job_id[0]))
    skipped = room.take(CLASS, skip={("a", "test")})
    assert skipped is not None
    assert skipped.job_id == "b1"
    assert taken(room) == ["a1", "b2"]


def test_nobody_is_found_where_everybody_is_skipped() -> None:
    room = WaitingRoom()
    room.add(waits("a1"))
    assert room.take(CLASS, skip={("a", "test")}) is None
    assert room.take(("live", "other")) is None
    assert "a1" in room


def test_overdue_jobs_leave_even_after_they_were_put_back() -> None:
    room = WaitingRoom()
    room.add(waits("a1", deadline_ms=10))
    room.add(waits("a2", deadline_ms=30))
    first = room.take(CLASS)
    assert first is not None
    assert room.overdue(20) == []
    room.add(first, front=True)
    assert room.overdue(20) == ["a1"]
    assert room.job_ids() == ["a2"]


def test_adding_a_job_twice_lets_it_wait_once() -> None:
    room = WaitingRoom()
    room.add(waits("a1"))
    room.add(waits("a1"))
    assert (len(room), taken(room)) == (1, ["a1"])


def test_the_oldest_is_told_and_nobody_when_empty() -> None:
    room = WaitingRoom()
    assert room.oldest_ms() is None
    for job_id in ("a5", "b3", "c9"):
        room.add(waits(job_id, job_id[0]))
    assert room.oldest_ms() == 3
    room.clear()
    assert room.oldest_ms() is None
    assert not room.waits(CLASS)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_every_job_comes_out_once_and_no_customer_has_two_turns_while_another_waits(
    arrivals: list[tuple[str, bool]],
) -> None:
    room = WaitingRoom()
    left: dict[str, int] = {}
    for number, (customer, _) in enumerate(arrivals):
        room.add(waits(f"{customer}{number}", customer))
        left[customer] = left.get(customer, 0) + 1
    last_turn: dict[str, int] = dict.fromkeys(left, -1)
    order = taken(room)
    assert len(order) == len(set(order)) == len(arrivals)
    for turn, job_id in enumerate(order):
        customer = job_id[0]
        others = [other for other in left if left[other] and other != customer]
        assert all(last_turn[other] >= last_turn[customer] for other in others if last_turn[customer] >= 0)
        last_turn[customer] = turn
        left[customer] -= 1
