"""Log lines: gathered, whole, and never the end of the work that they tell of."""

from __future__ import annotations

import errno
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from services.chassis.logs import GatheredLines, JsonLines


class Sink:
    """Where lines end up; while `broken` it is a full disk."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.broken = False

    def write(self, lines: bytes) -> None:
        if self.broken:
            raise OSError(errno.ENOSPC, "no space left on device")
        self.written += lines

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.written.splitlines()]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def log(sink: Sink) -> Iterator[logging.Logger]:
    log = logging.getLogger("tests.lines")
    log.handlers[:] = [GatheredLines(JsonLines("house"), sink.write)]
    log.setLevel(logging.INFO)
    log.propagate = False
    yield log
    log.handlers.clear()


def wait_for_events(sink: Sink, events: list[str]) -> None:
    deadline_s = time.monotonic() + 5
    while [line["event"] for line in sink.lines()] != events and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert [line["event"] for line in sink.lines()] == events


def test_a_line_is_written_soon_though_nothing_follows(log: logging.Logger, sink: Sink) -> None:
    log.info("job.leased", extra={"job_id": "job_1"})
    wait_for_events(sink, ["job.leased"])
    assert sink.lines()[0]["job_id"] == "job_1"


def test_a_warning_is_written_at_once_after_all_before_it(log: logging.Logger, sink: Sink) -> None:
    log.info("first")
    log.warning("second")
    assert [line["event"] for line in sink.lines()] == ["first", "second"]


def test_who_logs_does_not_fail_because_the_disk_is_full(
    log: logging.Logger, sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    sink.broken = True
    log.warning("lost")
    sink.broken = False
    log.warning("kept")
    wait_for_events(sink, ["kept"])


def test_lines_are_still_gathered_after_a_write_that_failed(
    log: logging.Logger, sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    sink.broken = True
    log.info("lost")
    time.sleep(0.3)
    sink.broken = False
    log.info("kept")
    wait_for_events(sink, ["kept"])


@pytest.mark.parametrize("odd", ["\udcff", 1 << 80])
def test_what_a_stranger_sent_suppresses_no_line(log: logging.Logger, sink: Sink, odd: object) -> None:
    log.warning("request.refused", extra={"odd": odd})
    (line,) = sink.lines()
    assert (line["event"], line["odd"]) == ("request.refused", odd)


def test_a_traceback_is_told_though_its_message_cannot_be_encoded(sink: Sink) -> None:
    # Past the logger: what the test runner captures of it, it could not send to whoever collects the reports.
    try:
        raise ValueError("bad header \udcff")
    except ValueError:
        told = logging.LogRecord("tests", logging.ERROR, "", 0, "request.failed", None, sys.exc_info())
    GatheredLines(JsonLines("house"), sink.write).emit(told)
    (line,) = sink.lines()
    assert "bad header" in line["traceback"]
