"""Metrics every process has, and how they are shown."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from prometheus_client import REGISTRY, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

# From half a millisecond, a good answer on loopback, to the longest deadline of an edge request.
LATENCY_BUCKETS_S = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)

_LOOP_LAG = Histogram(
    "atelier_event_loop_lag_seconds",
    "How late the event loop woke a timer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
_LOOP_LAG_LAST = Gauge("atelier_event_loop_lag_last_seconds", "How late the event loop woke the last timer.")

# Twice a second costs nothing and still sees a loop that is blocked for a moment.
_PROBE_INTERVAL_S = 0.5


def exposition() -> bytes:
    """All metrics of this process in Prometheus' text format. Takes milliseconds: call it in a thread."""
    return generate_latest(REGISTRY)


class LoopLagProbe:
    """Measures, while entered, how late timers of the running loop fire."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._probe(), name="loop-lag-probe")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _PROBE_INTERVAL_S
            await asyncio.sleep(_PROBE_INTERVAL_S)
            lag_s = max(0.0, loop.time() - due_s)
            _LOOP_LAG.observe(lag_s)
            _LOOP_LAG_LAST.set(lag_s)
