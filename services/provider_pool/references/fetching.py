"""What is behind a URL, made a reference: fetched through the one door, inspected, published under its job and place."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import msgspec

from services.chassis import crash_points
from services.chassis.egress import EgressFailed, EgressRefused
from services.chassis.errors import ServiceError
from services.provider_pool import errors, meters
from services.provider_pool.adapters.interface import Medium, Reference, ReferenceLimits
from services.provider_pool.references.container import Rule
from services.provider_pool.references.intake import Allowance, ContentRefused, Intake
from services.provider_pool.references.recordings.inspector import RecordingsUnread
from services.provider_pool.references.store import Kept, ReferenceStore

log = logging.getLogger(__name__)

FETCH_S: Final = 15.0
"""Names, connections, redirects and the body of one image or sound, all in all."""

FILM_FETCH_S: Final = 60.0
"""The same of a film, which may be five times as large."""

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class Unavailable(Exception):
    """A reference could not be had; `rule` is a lower_snake word."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


_OUTCOMES: Final[Mapping[type[Exception], str]] = {
    ContentRefused: "invalid",
    Unavailable: "unavailable",
    ServiceError: "busy",
}


class Body(Protocol):
    """What `egress.Arriving` is."""

    host: str

    def chunks(self) -> AsyncIterator[bytes]: ...


class Fetches(Protocol):
    """What `egress.Egress` does."""

    def fetch(self, url: str, *, total_s: float, limit_bytes: int) -> AbstractAsyncContextManager[Body]: ...


class Fetching:
    """Fetches references. Who calls sees to it that one place is not fetched twice at a time."""

    def __init__(self, egress: Fetches, intake: Intake, store: ReferenceStore) -> None:
        self._egress = egress
        self._intake = intake
        self._store = store

    async def get(
        self, job_id: str, place: int, reference: Reference, limits: ReferenceLimits, allowance: Allowance
    ) -> Kept:
        """The reference at this place of the job; fetched unless it is there already.

        Raises Unavailable, ContentRefused, and RESOURCE_EXHAUSTED where this process has too much to do.
        """
        name = name_of(job_id, place)
        source = _source(reference, limits)
        kept = await self._there(name, source)
        if kept is not None:
            allowance.take(kept.record.received_bytes)
            return kept
        fetch = _Fetch(job_id, place, reference.role.medium)
        try:
            kept = await self._fetch(fetch, name, reference, limits, allowance, source)
        except (EgressRefused, EgressFailed) as failed:
            rule, error = failed.rule, _judged(failed)
        except ContentRefused as refused:
            rule, error = refused.rule, refused
        except RecordingsUnread:
            rule, error = "unread", Unavailable("unread")
        except ServiceError as refused:
            rule, error = "busy", refused
        else:
            fetch.ended("ready", "")
            return kept
        fetch.ended(_OUTCOMES[type(error)], rule)
        raise error

    async def _fetch(
        self,
        fetch: _Fetch,
        name: str,
        reference: Reference,
        limits: ReferenceLimits,
        allowance: Allowance,
        source: str,
    ) -> Kept:
        medium = reference.role.medium
        total_s, limit_bytes = FILM_FETCH_S if medium is Medium.VIDEO else FETCH_S, limits.bytes_of(medium)
        async with self._intake.arrival(limits, medium) as arrival:
            crash_points.reached("references", "fetch", "before", subject=name)
            async with self._egress.fetch(
                reference.url, total_s=total_s, limit_bytes=limit_bytes
            ) as arriving:
                fetch.host = arriving.host
                await arrival.receive(arriving.chunks(), allowance)
            crash_points.reached("references", "fetch", "after", subject=name)
            # The connection is gone by now: nobody's server waits while we look.
            taken = await arrival.inspect()
            # Another replica may have been quicker, and what it made ready may be on its way to a provider.
            kept = await self._there(name, source)
            if kept is None:
                kept = await self._store.publish(name, taken.path, taken.record(source))
        meters.REFERENCE_BYTES.labels("url").inc(taken.received_bytes)
        return kept

    async def _there(self, name: str, source: str) -> Kept | None:
        kept = await self._store.find(name)
        return kept if kept is not None and kept.record.source == source else None


class _Fetch:
    """What may be told of one fetch: its job and its host, never its path."""

    def __init__(self, job_id: str, place: int, medium: Medium) -> None:
        self._told = {"job_id": job_id, "place": place, "medium": medium.value}
        self.host = ""

    def ended(self, outcome: str, rule: str) -> None:
        meters.REFERENCE_FETCHES.labels(outcome).inc()
        told = {"outcome": outcome, "host": self.host, "rule": rule}
        log.info("reference.fetched", extra=self._told | told)


def name_of(job_id: str, place: int) -> str:
    """The name under which the reference at a place of a job is kept."""
    return f"{job_id}-{place}"


def _source(reference: Reference, limits: ReferenceLimits) -> str:
    # With the medium and the limits: under others the same bytes might not have passed.
    return hashlib.sha256(_ENCODER.encode([reference.url, reference.role.medium, limits])).hexdigest()


def _judged(failed: EgressRefused | EgressFailed) -> ContentRefused | Unavailable | ServiceError:
    if failed.rule == "too_large":
        return ContentRefused(Rule.TOO_MANY_BYTES.value)
    if failed.rule == "busy":
        # Our own crowd, not the far side: worth asking again.
        return errors.too_busy()
    return Unavailable(failed.rule)
