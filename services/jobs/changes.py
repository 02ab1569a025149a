"""Who wants to know when a job changes, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Changes:
    """In-process subscriptions by job; a publication wakes, it carries nothing."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def watching(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at every change of the job until the context ends."""
        event = asyncio.Event()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(event)
        try:
            yield event
        finally:
            watchers.discard(event)
            if not watchers and self._watchers.get(job_id) is watchers:
                del self._watchers[job_id]

    def publish(self, job_id: str) -> None:
        """Wakes whoever watches the job."""
        for event in self._watchers.get(job_id, ()):
            event.set()
