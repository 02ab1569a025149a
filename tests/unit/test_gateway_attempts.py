"""Counting attempts: moving windows, apart by name and subject, in bounded memory."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from services.gateway.attempts import Allowance, Attempts, network_of
from tests.clocks import HandClock

THREE = Allowance("login", 3, 60)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def attempts(clock: HandClock) -> Attempts:
    return Attempts(clock, names=100)


def test_as_many_are_allowed_as_were_named_and_the_rest_are_told_when_to_come_back(
    clock: HandClock, attempts: Attempts
) -> None:
    assert [attempts.take(THREE, "a").remaining for _ in range(3)] == [2, 1, 0]
    clock.at_ms += 20_000
    refused = attempts.take(THREE, "a")
    assert (refused.allowed, refused.limit, refused.remaining, refused.reset_s) == (False, 3, 0, 40)


def test_a_refused_attempt_is_not_counted_so_that_waiting_helps(clock: HandClock, attempts: Attempts) -> None:
    for _ in range(10):
        attempts.take(THREE, "a")
    clock.at_ms += 60_000
    assert attempts.take(THREE, "a").allowed


def test_the_window_moves_with_each_attempt(clock: HandClock, attempts: Attempts) -> None:
    for _ in range(3):
        attempts.take(THREE, "a")
        clock.at_ms += 20_000
    assert attempts.take(THREE, "a").allowed
    assert not attempts.take(THREE, "a").allowed


def test_what_is_given_back_may_be_taken_again(attempts: Attempts) -> None:
    for _ in range(10):
        assert attempts.take(THREE, "a").allowed
        attempts.give_back(THREE, "a")


def test_giving_back_what_was_never_taken_changes_nothing(attempts: Attempts) -> None:
    attempts.give_back(THREE, "a")
    assert [attempts.take(THREE, "a").allowed for _ in range(4)] == [True, True, True, False]


def test_names_and_subjects_are_counted_apart(attempts: Attempts) -> None:
    other = Allowance("forgot", 3, 60)
    for _ in range(3):
        attempts.take(THREE, "a")
    assert attempts.take(THREE, "b").allowed
    assert attempts.take(other, "a").allowed


def test_memory_is_bounded_and_the_longest_idle_is_forgotten_first(attempts: Attempts) -> None:
    for _ in range(3):
        attempts.take(THREE, "kept")
    for number in range(1_000):
        attempts.take(THREE, f"stranger {number}")
        if number % 50 == 0:
            assert not attempts.take(THREE, "kept").allowed
    assert attempts.remembered == 100


@pytest.mark.parametrize(
    "one,other,same",
    [
        ("203.0.113.7", "203.0.113.7", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(one: str, other: str, same: bool) -> None:
    assert (network_of(ip_address(one)) == network_of(ip_address(other))) is same
