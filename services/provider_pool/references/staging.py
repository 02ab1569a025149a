"""Inline images: taken in piece by piece, checked while the customer waits, kept under an id that cannot be guessed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, TypeVar

from services.chassis.errors import ServiceError
from services.chassis.ids import new_id
from services.provider_pool import errors, meters
from services.provider_pool.adapters.interface import ReferenceLimits, Strength
from services.provider_pool.catalog import Catalog
from services.provider_pool.references.intake import ContentRefused, Intake, Taken
from services.provider_pool.references.store import Kept, ReferenceStore

log = logging.getLogger(__name__)

T = TypeVar("T")

UPLOADS_LIMIT: Final = 16
"""At once in this process. The gateways bound theirs; this bounds the sum of many gateways."""

PIECE_S: Final = 10.0
"""A gateway has the piece in memory when it says that it will send it."""

UPLOAD_S: Final = 60.0
"""The largest image at 3 Mbit/s, in case the gateway passes on what a customer sends slowly."""


HEARD_OUT_BYTES: Final = 32 * 1024**2
"""More than any gateway sends of an image; who sends more need not learn why it is refused."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A reference that was taken in; `received_sha256` is of the content as it was sent."""

    reference_id: str
    received_sha256: bytes
    kept: Kept


class Staging:
    """Takes uploads in."""

    def __init__(self, intake: Intake, store: ReferenceStore, catalog: Catalog) -> None:
        self._intake = intake
        self._store = store
        self._catalog = catalog
        self._uploads: set[asyncio.Task[object]] = set()

    async def stage(self, model: str, limits: ReferenceLimits, pieces: AsyncIterator[bytes]) -> Staged:
        """Take in one image for a model.

        Raises REFERENCE_REFUSED, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, and whatever the stream raises; nothing is kept then.
        """
        if len(self._uploads) >= UPLOADS_LIMIT:
            meters.REFERENCE_UPLOADS.labels("busy").inc()
            raise errors.too_busy()
        task = asyncio.current_task()
        assert task is not None
        self._uploads.add(task)
        outcome = "broken"
        try:
            async with asyncio.timeout(UPLOAD_S):
                staged = await self._take(model, limits, pieces)
            outcome = "staged"
            return staged
        except ContentRefused as refused:
            outcome = "refused"
            raise errors.reference_refused(refused.rule) from None
        except TimeoutError:
            raise errors.upload_too_slow() from None
        except OSError as error:
            log.exception("references.unusable")
            raise errors.references_unusable() from error
        except ServiceError as error:
            outcome = "busy" if error.reason == "QUEUE_FULL" else outcome
            raise
        finally:
            self._uploads.discard(task)
            meters.REFERENCE_UPLOADS.labels(outcome).inc()

    async def close(self) -> None:
        """Wait until what a stopped server cut off has cleaned up behind itself."""
        uploads = list(self._uploads)
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)

    async def _take(self, model: str, limits: ReferenceLimits, pieces: AsyncIterator[bytes]) -> Staged:
        async with self._intake.arrival(limits) as arrival:
            try:
                await arrival.receive(pieces)
            except ContentRefused:
                await _hear_out(pieces)
                raise
            taken = await arrival.inspect()
            self._check_size(model, taken)
            reference_id = new_id("ref")
            kept = await self._store.publish(reference_id, taken.path, taken.record())
        meters.REFERENCE_BYTES.labels("inline").inc(taken.received_bytes)
        return Staged(reference_id, taken.received_sha256, kept)

    def _check_size(self, model: str, taken: Taken) -> None:
        file = Kept(taken.path, taken.record()).file(Strength.MID)
        if not self._catalog.takes_reference(model, file):
            raise ContentRefused("unsuitable_size")


async def _hear_out(pieces: AsyncIterator[bytes]) -> None:
    # A client that is answered in the middle of its own write may see a failed write, and never the answer.
    heard_bytes = 0
    async for piece in pieces:
        heard_bytes += len(piece)
        if heard_bytes > HEARD_OUT_BYTES:
            return


async def punctual(pieces: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same stream, which may not pause for long. Raises DEADLINE_EXCEEDED."""
    while True:
        try:
            async with asyncio.timeout(PIECE_S):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise errors.upload_too_slow() from None
        yield piece
