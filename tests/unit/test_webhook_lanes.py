from __future__ import annotations

from itertools import count

from services.jobs.webhooks.lanes import SLOW_FROM_S, Blocked, Bounds, Due, Lanes, Pace, line_of

NUMBERS = count()
BOUNDS = Bounds(
    in_all=20, of_customer=8, of_quick=6, of_unknown=3, of_slow=1, slow_of_customer=2, slow_in_all=4
)


def due(customer: str, receiver: str, how_many: int = 1) -> list[Due]:
    return [Due(f"whd_{next(NUMBERS)}", customer, receiver) for _ in range(how_many)]


def test_one_customer_s_line_leaves_the_others_their_turn() -> None:
    lanes = Lanes(Bounds(in_all=4, of_customer=4, of_unknown=4))
    taken = lanes.take(due("greedy", "a:1", 100) + due("small", "b:1"))
    assert [one.customer_id for one in taken].count("small") == 1
    assert lanes.free() == 0


def test_a_receiver_that_nobody_knows_gets_few_a_quick_one_more_and_a_slow_one_fewest() -> None:
    for took_s, expected in ((None, 3), (0.01, 6), (SLOW_FROM_S, 1)):
        lanes = Lanes(BOUNDS)
        if took_s is not None:
            lanes.heard(line_of("c", "a:1"), took_s, taken=True)
        assert len(lanes.take(due("c", "a:1", 50))) == expected
        assert lanes.full_lines() == {line_of("c", "a:1")}


def test_all_slow_receivers_together_leave_most_places_to_the_others() -> None:
    lanes = Lanes(BOUNDS)
    lines = {line_of(f"c{number}", f"slow{number}:1") for number in range(20)}
    for line in lines:
        lanes.heard(line, 10.0, taken=False)
    slow = [one for number in range(20) for one in due(f"c{number}", f"slow{number}:1", 5)]
    assert len(lanes.take(slow)) == BOUNDS.slow_in_all
    assert lanes.full_lines() == lines
    assert len(lanes.take(due("other", "quick:1", 2))) == 2


def test_a_customer_with_many_slow_receivers_has_few_places_in_their_lane() -> None:
    lanes = Lanes(BOUNDS)
    lines = {line_of("c", f"slow{number}:1") for number in range(5)}
    for line in (*lines, line_of("d", "slow0:1")):
        lanes.heard(line, 10.0, taken=False)
    assert len(lanes.take([one for number in range(5) for one in due("c", f"slow{number}:1")])) == 2
    # None of them is looked at again before there is a place, so that they fill no look at the database.
    assert lanes.full_lines() == lines


def test_what_finds_no_place_is_passed_over_and_its_customer_s_rest_is_not() -> None:
    lanes = Lanes(BOUNDS)
    candidates = due("c", "a:1", 5) + due("d", "b:1")
    taken = lanes.take(candidates)
    assert {one.receiver for one in taken} == {"a:1", "b:1"}
    assert lanes.passed_over(candidates) == {line_of("c", "a:1")}


def test_a_receiver_is_not_passed_over_because_one_of_its_customers_is_full() -> None:
    lanes = Lanes(Bounds(of_customer=2, of_unknown=4))
    candidates = due("c", "shared:1", 3)
    lanes.take(candidates)
    assert lanes.full_customers() == {"c"}
    assert lanes.passed_over(candidates) == set()


def test_a_host_that_is_slow_for_one_customer_is_not_for_another() -> None:
    lanes = Lanes(BOUNDS)
    lanes.heard(line_of("c", "shared:1"), 10.0, taken=False)
    lanes.heard(line_of("d", "shared:1"), 0.1, taken=True)
    assert len(lanes.take(due("c", "shared:1", 50) + due("d", "shared:1", 50))) == 1 + 6


def test_a_host_that_many_customers_name_has_its_share_of_places() -> None:
    lanes = Lanes(Bounds(to_receiver=5))
    taken = lanes.take([one for number in range(9) for one in due(f"c{number}", "shared:1")])
    assert len(taken) == 5
    assert len(lanes.take(due("d", "other:1"))) == 1
    lanes.give_back(taken[0].delivery_id)
    assert len(lanes.take(due("e", "shared:1", 2))) == 1


def test_a_place_that_is_given_back_is_another_s() -> None:
    lanes = Lanes(BOUNDS)
    first = lanes.take(due("c", "a:1", 3))
    assert lanes.take(due("c", "a:1")) == []
    lanes.give_back(first[0].delivery_id)
    assert not lanes.holds(first[0].delivery_id)
    assert len(lanes.take(due("c", "a:1", 2))) == 1


def test_a_place_in_the_slow_lane_is_counted_out_as_it_was_counted_in() -> None:
    lanes = Lanes(BOUNDS)
    lanes.heard(line_of("c", "a:1"), 10.0, taken=True)
    (one,) = lanes.take(due("c", "a:1"))
    lanes.heard(line_of("c", "a:1"), 0.1, taken=True)
    lanes.give_back(one.delivery_id)
    lanes.heard(line_of("c", "a:1"), 10.0, taken=True)
    assert len(lanes.take(due("c", "a:1", 5))) == 1
    assert lanes.free() == BOUNDS.in_all - 1


def test_a_receiver_that_refuses_is_slow_until_it_takes_something() -> None:
    lanes = Lanes(BOUNDS)
    assert lanes.pace_of(line_of("c", "a:1")) is Pace.UNKNOWN
    lanes.heard(line_of("c", "a:1"), 0.01, taken=False)
    assert lanes.pace_of(line_of("c", "a:1")) is Pace.SLOW
    lanes.heard(line_of("c", "a:1"), 0.01, taken=True)
    assert lanes.pace_of(line_of("c", "a:1")) is Pace.QUICK


def test_what_is_being_sent_is_not_taken_again() -> None:
    lanes = Lanes(BOUNDS)
    candidates = due("c", "a:1")
    assert lanes.take(candidates) == candidates
    assert lanes.take(candidates) == []


def test_a_place_is_offered_again_to_those_only_who_may_take_it() -> None:
    lanes = Lanes(BOUNDS)
    hanging, other = due("c", "a:1", 5), due("d", "b:1")[0]
    lanes.take([*hanging, other])
    blocked = lanes.blocked(lanes.passed_over(hanging))
    assert offered(blocked, lanes, hanging[0])
    assert not offered(blocked, lanes, other)
    assert blocked.waited_for(due("d", "a:1")[0], slow=False)


def test_where_every_place_was_taken_each_that_is_free_again_is_offered() -> None:
    lanes = Lanes(Bounds(in_all=2, of_customer=2, of_unknown=2))
    first, second = lanes.take(due("c", "a:1") + due("d", "b:1"))
    assert offered(lanes.blocked(()), lanes, first)
    assert not offered(lanes.blocked(()), lanes, second)


def test_where_the_lane_of_the_slow_was_full_any_slow_place_is_offered_and_no_quick_one() -> None:
    lanes = Lanes(BOUNDS)
    slow = [due(f"c{number}", f"slow{number}:1")[0] for number in range(BOUNDS.slow_in_all)]
    for one in slow:
        lanes.heard(one.line, 10.0, taken=False)
    lanes.take(slow)
    blocked = lanes.blocked(())
    stranger = due("stranger", "elsewhere:1")[0]
    assert blocked.waited_for(stranger, slow=True)
    assert not blocked.waited_for(stranger, slow=False)


def test_what_waits_from_the_start_is_waited_for_as_well() -> None:
    one = due("c", "a:1")[0]
    assert not Blocked().waited_for(one, slow=False)
    assert Blocked().with_one(one).waited_for(due("c", "z:1")[0], slow=False)


def offered(blocked: Blocked, lanes: Lanes, one: Due) -> bool:
    freed, slow = lanes.give_back(one.delivery_id)
    return blocked.waited_for(freed, slow=slow)
