"""Rate, errors and duration of every call served, whether it came alone or on a Dispatch stream."""

from __future__ import annotations

from functools import cache
from typing import Final

from prometheus_client import Counter, Histogram

# From one loop turn to the longest deadline; the low end is dense because a healthy call takes a few milliseconds.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
# A batch is at most 128 items.
_ITEMS: Final = (1, 2, 4, 8, 16, 32, 64, 128)

_REQUESTS: Final = Counter(
    "atelier_rpc_server_requests_total", "Calls served, by outcome.", ["method", "code"]
)
_DURATION: Final = Histogram(
    "atelier_rpc_server_seconds", "Time to serve a call.", ["method"], buckets=_SECONDS
)
BATCH_ITEMS: Final = Histogram(
    "atelier_rpc_dispatch_batch_items",
    "Calls that travelled in one write of a stream.",
    ["peer"],
    buckets=_ITEMS,
)
BYTES: Final = Counter(
    "atelier_rpc_dispatch_bytes_total",
    "Bytes of the messages on the stream to a service, gRPC's own framing not among them.",
    ["peer", "direction"],
)
STREAMS_LOST: Final = Counter("atelier_rpc_dispatch_streams_lost_total", "Streams that broke.", ["peer"])

# Finding a labelled child costs more than using it.
_requests: Final = cache(_REQUESTS.labels)
_durations: Final = cache(_DURATION.labels)


def served(method: str, code: str, duration_s: float) -> None:
    """Counts one served call. method: a method this server really has, never what a stranger named."""
    _requests(method, code).inc()
    _durations(method).observe(duration_s)
