"""Bytes on their way to being a reference: counted, written, inspected, and gone again unless somebody publishes them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from services.provider_pool.adapters.interface import Medium, ReferenceLimits
from services.provider_pool.references.container import (
    HEAD_BYTES,
    ImageLimits,
    ImageRefused,
    Rule,
    sniff,
)
from services.provider_pool.references.inspector import Inspected
from services.provider_pool.references.recordings import container as recordings
from services.provider_pool.references.recordings.judgement import RecordingLimits, RecordingRefused
from services.provider_pool.references.store import Record, ReferenceStore

_HELD_BYTES: Final = 256 * 1024
"""Bytes gathered before they are written: a small image is one trip to a thread."""


class ContentRefused(Exception):
    """The content is not taken; `rule` is one of container.Rule, or a lower_snake word of ours."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class Inspecting(Protocol):
    """What `inspector.Inspector` does."""

    async def inspect(self, source: Path, target: Path, limits: ImageLimits) -> Inspected:
        """Write what may be kept of `source` to `target`. Raises ImageRefused and RESOURCE_EXHAUSTED."""
        ...


class InspectingRecordings(Protocol):
    """What `recordings.inspector.RecordingInspector` does."""

    def check(self) -> None:
        """Raises RecordingsUnread where nothing could be examined."""
        ...

    async def inspect(self, source: Path, target: Path, limits: RecordingLimits) -> Inspected:
        """Write a copy of what may be kept of `source`. Raises RecordingRefused and RESOURCE_EXHAUSTED."""
        ...


class Allowance:
    """How many bytes may still arrive, for one medium or for all of one request."""

    def __init__(self, limit_bytes: int, rule: str) -> None:
        self._left_bytes = limit_bytes
        self._rule = rule

    def take(self, count_bytes: int) -> None:
        """Raises ContentRefused when it is more than is left."""
        self._left_bytes -= count_bytes
        if self._left_bytes < 0:
            raise ContentRefused(self._rule)


@dataclass(frozen=True, slots=True)
class Inspectors:
    """Who looks into what has arrived."""

    images: Inspecting
    recordings: InspectingRecordings


@dataclass(frozen=True, slots=True)
class Taken:
    """A file that passed, and what arrived for it."""

    path: Path
    inspected: Inspected
    received_bytes: int
    received_sha256: bytes

    def record(self, source: str = "") -> Record:
        """What is kept of it."""
        found = self.inspected
        return Record(
            found.content_type,
            found.extension,
            found.size_bytes,
            found.sha256,
            found.width,
            found.height,
            self.received_bytes,
            source,
            found.duration_ms,
        )


class Arrival:
    """One medium on its way in. `receive` comes first, then `inspect`."""

    def __init__(
        self, store: ReferenceStore, inspectors: Inspectors, limits: ReferenceLimits, medium: Medium
    ) -> None:
        self._store = store
        self._inspectors = inspectors
        self._limits = limits
        self._medium = medium
        self._digest = hashlib.sha256()
        self._received_bytes = 0
        self.parts = (store.new_part(), store.new_part())

    async def receive(self, pieces: AsyncIterator[bytes], *allowances: Allowance) -> None:
        """Take in a stream. Raises ContentRefused at the first byte too many or the first wrong ones."""
        own = Allowance(self._limits.bytes_of(self._medium), Rule.TOO_MANY_BYTES.value)
        held, is_known = bytearray(), False
        async for piece in pieces:
            self._received_bytes += len(piece)
            for allowance in (own, *allowances):
                allowance.take(len(piece))
            held += piece
            if not is_known and len(held) >= HEAD_BYTES:
                # By now it is known whether the rest is worth having.
                self._check_head(bytes(held[:HEAD_BYTES]))
                is_known = True
            if len(held) >= _HELD_BYTES:
                await self._store.run(self._write, bytes(held))
                held.clear()
        if not is_known:
            self._check_head(bytes(held))
        await self._store.run(self._write, bytes(held))

    async def inspect(self) -> Taken:
        """Have it walked, rewritten and decoded. Raises ContentRefused and RESOURCE_EXHAUSTED."""
        source, target = self.parts
        try:
            if self._medium is Medium.IMAGE:
                inspected = await self._inspectors.images.inspect(source, target, _image_limits(self._limits))
            else:
                limits = RecordingLimits(self._medium.value, self._limits.bytes_of(self._medium))
                inspected = await self._inspectors.recordings.inspect(source, target, limits)
        except (ImageRefused, RecordingRefused) as refused:
            raise ContentRefused(refused.rule) from None
        return Taken(target, inspected, self._received_bytes, self._digest.digest())

    def _check_head(self, head: bytes) -> None:
        if self._medium is not Medium.IMAGE:
            try:
                recordings.check_head(head, self._medium.value)
            except RecordingRefused as refused:
                raise ContentRefused(refused.rule) from None
            return
        if not head:
            raise ContentRefused(Rule.EMPTY.value)
        found = sniff(head)
        if found is None:
            raise ContentRefused(Rule.UNKNOWN_FORMAT.value)
        if found not in self._limits.image_formats:
            raise ContentRefused(Rule.FORMAT_NOT_TAKEN.value)

    def _write(self, content: bytes) -> None:
        self._digest.update(content)
        path = self.parts[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(content)


class Intake:
    """Where uploads and fetches come in."""

    def __init__(self, store: ReferenceStore, inspectors: Inspectors) -> None:
        self._store = store
        self._inspectors = inspectors

    @asynccontextmanager
    async def arrival(self, limits: ReferenceLimits, medium: Medium = Medium.IMAGE) -> AsyncIterator[Arrival]:
        """One medium; what nobody has published by the end is gone. Raises RecordingsUnread."""
        if medium is not Medium.IMAGE:
            self._inspectors.recordings.check()
        coming = Arrival(self._store, self._inspectors, limits, medium)
        try:
            yield coming
        finally:
            await self._store.discard(coming.parts)


def _image_limits(limits: ReferenceLimits) -> ImageLimits:
    return ImageLimits(limits.image_formats, limits.image_bytes, limits.first_frame_of_animations)
