from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.provider_pool.selection import health
from services.provider_pool.selection.health import CLOSED, Breaker, BreakerState, Fault, FaultKind

T0_MS = 1_000_000


def fault(kind: FaultKind, sent_at_ms: int = T0_MS, retry_after_ms: int = 0) -> Fault:
    return Fault(kind, "cause", sent_at_ms, retry_after_ms)


def opened(kind: FaultKind, retry_after_ms: int = 0) -> Breaker:
    return health.after_fault(CLOSED, fault(kind, retry_after_ms=retry_after_ms), T0_MS)


def test_an_account_that_is_out_stays_out_whatever_time_and_luck_bring() -> None:
    breaker = opened(FaultKind.OUT)
    assert breaker.is_out
    assert health.state_of(breaker, T0_MS + 10**12) is BreakerState.OPEN
    assert health.after_success(breaker, T0_MS + 1) == breaker
    assert health.after_fault(breaker, fault(FaultKind.COOL_DOWN, T0_MS + 1), T0_MS + 1) == breaker


def test_a_rate_limit_cools_down_for_as_long_as_the_provider_asks() -> None:
    breaker = opened(FaultKind.COOL_DOWN, retry_after_ms=7_000)
    assert health.state_of(breaker, T0_MS + 6_999) is BreakerState.OPEN
    assert health.state_of(breaker, T0_MS + 7_000) is BreakerState.HALF_OPEN


def test_a_rate_limit_without_a_time_cools_down_for_the_default() -> None:
    assert opened(FaultKind.COOL_DOWN).reopens_at_ms == T0_MS + health.COOL_DOWN_MS


def test_an_absurd_retry_after_is_cut() -> None:
    asked = opened(FaultKind.COOL_DOWN, retry_after_ms=10**12)
    assert asked.reopens_at_ms == T0_MS + health.COOL_DOWN_LIMIT_MS


def test_repeated_failures_double_the_pause_up_to_a_limit() -> None:
    pauses = [health.pause_ms(fault(FaultKind.TRANSIENT), failures) for failures in range(1, 60)]
    assert pauses[:4] == [1_000, 2_000, 4_000, 8_000]
    assert pauses[-1] == health.LONGEST_PAUSE_MS


def test_a_burst_of_failures_that_were_under_way_together_counts_once() -> None:
    breaker = opened(FaultKind.TRANSIENT)
    again = health.after_fault(breaker, fault(FaultKind.TRANSIENT, T0_MS - 1), T0_MS + 5)
    assert again == breaker


def test_a_withdrawn_key_is_heard_even_from_a_call_that_was_under_way() -> None:
    breaker = health.after_fault(opened(FaultKind.TRANSIENT), fault(FaultKind.OUT, T0_MS - 1), T0_MS + 5)
    assert breaker.is_out


def test_a_success_sent_before_the_fault_proves_nothing() -> None:
    breaker = opened(FaultKind.TRANSIENT)
    assert health.after_success(breaker, T0_MS - 1) == breaker
    assert health.after_success(breaker, T0_MS + 1) == CLOSED


def test_a_trial_that_ends_without_a_word_makes_room_for_the_next() -> None:
    breaker = health.on_trial(opened(FaultKind.TRANSIENT), "job_1:1")
    late_ms = T0_MS + 10_000
    assert health.state_of(breaker, late_ms) is BreakerState.OPEN
    assert health.after_trial_ended(breaker, "job_2:1") == breaker
    assert health.state_of(health.after_trial_ended(breaker, "job_1:1"), late_ms) is BreakerState.HALF_OPEN


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin and end in any order while time passes; at most one of them is let through half-open."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = T0_MS
        self.breaker = CLOSED
        self.under_way: list[int] = []
        self.trials = 0

    @rule(passed_ms=st.integers(1, 400_000))
    def time_passes(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @rule()
    def a_call_begins(self) -> None:
        state = health.state_of(self.breaker, self.now_ms)
        if state is BreakerState.HALF_OPEN:
            self.breaker = health.on_trial(self.breaker, "job_1:1")
            assert health.state_of(self.breaker, self.now_ms) is BreakerState.OPEN
        if state is not BreakerState.OPEN:
            self.under_way.append(self.now_ms)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), kind=st.sampled_from([None, *FaultKind]), retry_after_ms=st.integers(0, 10_000))
    def a_call_ends(self, data: st.DataObject, kind: FaultKind | None, retry_after_ms: int) -> None:
        sent_at_ms = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        before = self.breaker
        if kind is None:
            self.breaker = health.after_success(before, sent_at_ms)
            return
        self.breaker = health.after_fault(before, fault(kind, sent_at_ms, retry_after_ms), self.now_ms)
        assert self.breaker != CLOSED
        assert (
            self.breaker.is_out
            or self.breaker.reopens_at_ms >= before.reopens_at_ms
            or not before.trial_attempt_id
        )

    @precondition(lambda self: self.breaker.is_out)
    @rule()
    def an_operator_resets(self) -> None:
        self.breaker = CLOSED

    @invariant()
    def an_open_breaker_says_why_and_reopens_unless_it_is_out(self) -> None:
        if self.breaker == CLOSED:
            return
        assert self.breaker.cause
        after_all_ms = self.now_ms + health.COOL_DOWN_LIMIT_MS
        untried = health.after_trial_ended(self.breaker, "job_1:1")
        expected = BreakerState.OPEN if self.breaker.is_out else BreakerState.HALF_OPEN
        assert health.state_of(untried, after_all_ms) is expected


TestBreaker = BreakerMachine.TestCase
