"""References as they come in over the wire: every field checked. Raises INVALID_REQUEST, naming the field."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.provider_pool import errors
from services.provider_pool.adapters.interface import (
    Medium,
    Reference,
    ReferenceLimits,
    ReferenceRole,
    Strength,
)
from services.provider_pool.references.container import FORMATS

REFERENCES_LIMIT: Final = 32
"""Of one request; above every storefront's own limit."""

URL_LIMIT_CHARACTERS: Final = 2_048
IMAGE_LIMIT_BYTES: Final = 100 * 1024**2
VIDEO_LIMIT_BYTES: Final = 128 * 1024**2
AUDIO_LIMIT_BYTES: Final = 100 * 1024**2
PIECE_LIMIT_BYTES: Final = 1024**2
DROPS_LIMIT: Final = 1_000

STRENGTHS: Final[Mapping[pb.Reference.Strength.ValueType, Strength]] = {
    pb.Reference.STRENGTH_LOW: Strength.LOW,
    pb.Reference.STRENGTH_MID: Strength.MID,
    pb.Reference.STRENGTH_HIGH: Strength.HIGH,
}

ROLES: Final[Mapping[pb.Reference.Role.ValueType, ReferenceRole]] = {
    pb.Reference.ROLE_IMAGE: ReferenceRole.IMAGE,
    pb.Reference.ROLE_VIDEO: ReferenceRole.VIDEO,
    pb.Reference.ROLE_AUDIO: ReferenceRole.AUDIO,
    pb.Reference.ROLE_FIRST_FRAME: ReferenceRole.FIRST_FRAME,
    pb.Reference.ROLE_LAST_FRAME: ReferenceRole.LAST_FRAME,
}

_REFERENCE_ID: Final = re.compile(r"ref_[0-9a-z]{26}")


def references(message: pb.Generation) -> tuple[tuple[Reference, ...], ReferenceLimits | None]:
    """What the output is to follow, and the storefront's limits, which come with it."""
    if not message.references:
        return (), None
    if not message.HasField("reference_limits"):
        raise errors.invalid_request("generation.reference_limits", "is missing")
    found = limits(message.reference_limits, "generation.reference_limits")
    if len(message.references) > REFERENCES_LIMIT:
        raise errors.invalid_request("generation.references", f"holds more than {REFERENCES_LIMIT}")
    named = tuple(map(_reference, message.references))
    counted = Counter(reference.role.medium for reference in named)
    for medium, most in (
        (Medium.IMAGE, found.images),
        (Medium.VIDEO, found.videos),
        (Medium.AUDIO, found.audios),
    ):
        if counted[medium] > most:
            raise errors.invalid_request("generation.references", f"holds more than {most} of {medium.value}")
    return named, found


def limits(message: pb.ReferenceLimits, field: str) -> ReferenceLimits:
    """What a storefront takes."""
    formats = frozenset(message.image_formats)
    if not formats or not formats <= FORMATS:
        raise errors.invalid_request(f"{field}.image_formats", f"must be some of {sorted(FORMATS)}")
    if not 1 <= message.image_bytes <= IMAGE_LIMIT_BYTES:
        raise errors.invalid_request(f"{field}.image_bytes", f"must be 1 to {IMAGE_LIMIT_BYTES}")
    if not 1 <= message.images <= REFERENCES_LIMIT:
        raise errors.invalid_request(f"{field}.images", f"must be 1 to {REFERENCES_LIMIT}")
    for medium, many, size_bytes, limit_bytes in (
        ("video", message.videos, message.video_bytes, VIDEO_LIMIT_BYTES),
        ("audio", message.audios, message.audio_bytes, AUDIO_LIMIT_BYTES),
    ):
        if many > REFERENCES_LIMIT:
            raise errors.invalid_request(f"{field}.{medium}s", f"must be 0 to {REFERENCES_LIMIT}")
        if not min(many, 1) <= size_bytes <= limit_bytes:
            raise errors.invalid_request(f"{field}.{medium}_bytes", f"must be 1 to {limit_bytes}")
    return ReferenceLimits(
        formats,
        message.image_bytes,
        message.images,
        message.first_frame_of_animations,
        message.videos,
        message.video_bytes,
        message.audios,
        message.audio_bytes,
    )


def head(message: pb.StageReferenceRequest | None) -> tuple[str, ReferenceLimits]:
    """The first message of an upload: the model's name, unchecked, and the limits."""
    if message is None or message.WhichOneof("part") != "head":
        raise errors.invalid_request("head", "must come first")
    return message.head.model, limits(message.head.limits, "head.limits")


async def contents(messages: AsyncIterator[pb.StageReferenceRequest]) -> AsyncIterator[bytes]:
    """What follows the head of an upload."""
    async for message in messages:
        if message.WhichOneof("part") != "content":
            raise errors.invalid_request("content", "must follow the head, and nothing else")
        if len(message.content) > PIECE_LIMIT_BYTES:
            raise errors.invalid_request("content", f"is more than {PIECE_LIMIT_BYTES} bytes")
        yield message.content


def reference_ids(values: Iterable[str]) -> list[str]:
    """A bounded number of ids of ours."""
    listed = [_reference_id(value, "reference_ids") for value in values]
    if len(listed) > DROPS_LIMIT:
        raise errors.invalid_request("reference_ids", f"holds more than {DROPS_LIMIT}")
    return listed


def _reference(message: pb.Reference) -> Reference:
    if message.role not in ROLES:
        raise errors.invalid_request("generation.references.role", "must be one of the known roles")
    if message.strength not in STRENGTHS:
        raise errors.invalid_request("generation.references.strength", "must be low, mid or high")
    strength, role = STRENGTHS[message.strength], ROLES[message.role]
    source = message.WhichOneof("source")
    if source == "url":
        # Neither here nor anywhere else is the URL repeated: its query may be a credential.
        if not 1 <= len(message.url) <= URL_LIMIT_CHARACTERS:
            raise errors.invalid_request(
                "generation.references.url", f"must be 1 to {URL_LIMIT_CHARACTERS} characters"
            )
        return Reference(strength, url=message.url, role=role)
    if source == "reference_id":
        found = _reference_id(message.reference_id, "generation.references.reference_id")
        if role.medium is not Medium.IMAGE:
            raise errors.invalid_request("generation.references.reference_id", "is for images only")
        return Reference(strength, reference_id=found, role=role)
    raise errors.invalid_request("generation.references", "must have a URL or an id")


def _reference_id(value: str, field: str) -> str:
    if not _REFERENCE_ID.fullmatch(value):
        raise errors.invalid_request(field, "is not a reference's id")
    return value
