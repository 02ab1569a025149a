from __future__ import annotations

from email.utils import formatdate

import pytest

from services.jobs.webhooks.schedule import RETRIES_S, Answer, State, Verdict, asked_ms, verdict

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
FAILED = Answer(500, "status")


def wait_ms(answer: Answer, tries: int = 1, jitter: float = 0.5) -> int:
    return verdict(answer, tries, NOW_MS, jitter, RETRIES_S).next_attempt_at_ms - NOW_MS


def test_the_waits_are_the_contract_s() -> None:
    waits = [wait_ms(FAILED, tries) / 1000 for tries in range(1, 10)]
    assert waits == [5, 30, 120, 600, 3600, 10_800, 21_600, 43_200, 86_400]


def test_each_wait_is_a_fifth_longer_or_shorter_at_random() -> None:
    assert (wait_ms(FAILED, 1, 0.0), wait_ms(FAILED, 1, 1.0)) == (4_000, 6_000)


def test_after_the_last_wait_it_is_given_up() -> None:
    assert verdict(FAILED, 10, NOW_MS, 0.5, RETRIES_S) == Verdict(State.DEAD, 0)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_is_success(status: int) -> None:
    answer = Answer.of_status(status, "")
    assert verdict(answer, 3, NOW_MS, 0.5, RETRIES_S) == Verdict(State.DELIVERED, 0)


@pytest.mark.parametrize(
    ("status", "error"),
    [(199, "status"), (301, "redirect"), (308, "redirect"), (404, "status"), (500, "status")],
)
def test_everything_else_is_tried_again(status: int, error: str) -> None:
    answer = Answer.of_status(status, "")
    assert answer.error == error
    assert verdict(answer, 1, NOW_MS, 0.5, RETRIES_S).state is State.WAITING


def test_gone_stops_at_once() -> None:
    assert verdict(Answer.of_status(410, ""), 1, NOW_MS, 0.5, RETRIES_S) == Verdict(State.DEAD, 0)


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_asks_for_time_gets_it_up_to_a_day(status: int) -> None:
    assert wait_ms(Answer.of_status(status, "60")) == 60_000
    assert wait_ms(Answer.of_status(status, "1")) == 5_000
    assert wait_ms(Answer.of_status(status, "999999999")) == DAY_MS


def test_other_statuses_cannot_ask() -> None:
    assert wait_ms(Answer.of_status(500, "60")) == 5_000


def test_a_moment_is_understood_too() -> None:
    assert asked_ms(formatdate(NOW_MS / 1000 + 90, usegmt=True), NOW_MS) == 90_000
    assert asked_ms(formatdate(NOW_MS / 1000 - 90, usegmt=True), NOW_MS) == 0


@pytest.mark.parametrize("text", ["", "soon", "-5", "1.5", "٣", "Mon, 99 Foo 2026 00:00:00 GMT", "9" * 100])
def test_what_makes_no_sense_asks_for_nothing_or_for_the_most(text: str) -> None:
    assert wait_ms(Answer.of_status(503, text)) in {5_000, DAY_MS}
