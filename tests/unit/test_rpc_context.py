from __future__ import annotations

import time

import pytest

from services.chassis import call_context
from services.chassis.call_context import CallContext
from services.chassis.errors import Kind, ServiceError

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_outside_of_a_call_there_is_no_request_and_no_deadline() -> None:
    assert call_context.current() == CallContext("", None, "")
    assert call_context.remaining_s(7.0) == 7.0
    assert call_context.drain_signal() is None


def test_a_context_holds_inside_its_with_only() -> None:
    context = CallContext("req_1", None, TRACE)
    with call_context.entered(context):
        assert call_context.current() is context
    assert call_context.current().request_id == ""


def test_an_error_leaves_the_context_unchanged() -> None:
    with pytest.raises(ServiceError), call_context.entered(CallContext("req_1", None, "")):
        raise ServiceError(Kind.ABORTED, "X", "x")
    assert call_context.current().request_id == ""


def test_a_good_request_id_and_trace_are_kept() -> None:
    context = call_context.received("abc-1:2.3_4", TRACE, None)
    assert context == CallContext("abc-1:2.3_4", None, TRACE)


@pytest.mark.parametrize("hostile", ["", "a b", "a\nb", "x" * 129, "ä", '"}{'])
def test_an_odd_request_id_is_replaced(hostile: str) -> None:
    context = call_context.received(hostile, hostile, None)
    assert context.request_id.startswith("req_")
    assert context.traceparent == ""


def test_an_outgoing_call_gets_what_is_left_less_the_shave() -> None:
    with call_context.entered(CallContext("r", time.monotonic() + 1.0, "")):
        assert call_context.outgoing_timeout_s(10.0) == pytest.approx(0.95, abs=0.02)
        assert call_context.outgoing_timeout_s(0.2) == 0.2


def test_an_outgoing_call_without_time_left_is_not_started() -> None:
    with call_context.entered(CallContext("r", time.monotonic() + 0.04, "")):
        with pytest.raises(ServiceError) as caught:
            call_context.outgoing_timeout_s(10.0)
        assert caught.value.kind is Kind.DEADLINE_EXCEEDED
        assert 0 < call_context.remaining_s(9.0) <= 0.04
