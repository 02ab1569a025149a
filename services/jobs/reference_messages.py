"""References on the wire: checked as they come in, and as the provider pool is told of them."""

from __future__ import annotations

import re
from typing import Final

from services.gen.jobs.v1 import jobs_pb2 as pb
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.jobs import errors
from services.jobs.reference import Reference, ReferenceLimits, Role, Strength

# Above every storefront's own limit.
_COUNT_LIMIT: Final = 32
_URL_LIMIT_CHARS: Final = 2_048
_REFERENCE_ID: Final = re.compile(r"ref_[0-9a-z]{26}")
# Which formats there are the pool knows; here a list is only kept from being anything else.
_FORMAT: Final = re.compile(r"[a-z0-9]{1,16}")
_FORMATS_LIMIT: Final = 16


def references_of(asked: pb.Generation) -> tuple[tuple[Reference, ...], ReferenceLimits | None]:
    """The references, and the limits that come with them. Raises INVALID_REQUEST that names the field."""
    if not asked.references:
        return (), None
    if not asked.HasField("reference_limits"):
        raise errors.invalid_request("generation.reference_limits", "is missing")
    limits = _limits_of(asked.reference_limits)
    if len(asked.references) > _COUNT_LIMIT:
        raise errors.invalid_request("generation.references", "are too many")
    references = tuple(map(_reference_of, asked.references))
    if not limits.allow(references):
        raise errors.invalid_request("generation.references", "are too many")
    return references, limits


def _limits_of(asked: pb.ReferenceLimits) -> ReferenceLimits:
    formats = tuple(asked.image_formats)
    if not 1 <= len(formats) <= _FORMATS_LIMIT or not all(map(_FORMAT.fullmatch, formats)):
        raise errors.invalid_request("generation.reference_limits.image_formats", "must be names of formats")
    if asked.image_bytes < 1:
        raise errors.invalid_request("generation.reference_limits.image_bytes", "must be at least 1")
    for medium, most, size_bytes in (
        ("video", asked.videos, asked.video_bytes),
        ("audio", asked.audios, asked.audio_bytes),
    ):
        if most and size_bytes < 1:
            raise errors.invalid_request(f"generation.reference_limits.{medium}_bytes", "must be at least 1")
    return ReferenceLimits(
        formats,
        asked.image_bytes,
        asked.images,
        asked.first_frame_of_animations,
        asked.videos,
        asked.video_bytes,
        asked.audios,
        asked.audio_bytes,
    )


def _reference_of(asked: pb.Reference) -> Reference:
    try:
        role, strength = Role(asked.role), Strength(asked.strength)
    except ValueError:
        raise errors.invalid_request("generation.references", "must have a role and a strength") from None
    match asked.WhichOneof("source"):
        case "url":
            # The message does not repeat it: its query may be a credential.
            if not 1 <= len(asked.url) <= _URL_LIMIT_CHARS:
                problem = f"must be 1 to {_URL_LIMIT_CHARS} characters"
                raise errors.invalid_request("generation.references.url", problem)
            return Reference(role, strength, url=asked.url)
        case "reference_id":
            if not _REFERENCE_ID.fullmatch(asked.reference_id):
                raise errors.invalid_request("generation.references.reference_id", "is not a reference's id")
            return Reference(role, strength, reference_id=asked.reference_id)
        case _:
            raise errors.invalid_request("generation.references", "must have a URL or an id")


def pool_reference(reference: Reference) -> pool.Reference:
    """One reference, as the pool takes it."""
    message = pool.Reference(
        role=pool.Reference.Role.ValueType(int(reference.role)),
        strength=pool.Reference.Strength.ValueType(int(reference.strength)),
    )
    if reference.reference_id:
        message.reference_id = reference.reference_id
    else:
        message.url = reference.url
    return message


def pool_limits(limits: ReferenceLimits) -> pool.ReferenceLimits:
    """What the storefront takes, as the pool takes it."""
    return pool.ReferenceLimits(
        image_formats=limits.image_formats,
        image_bytes=limits.image_bytes,
        images=limits.images,
        first_frame_of_animations=limits.first_frame_of_animations,
        videos=limits.videos,
        video_bytes=limits.video_bytes,
        audios=limits.audios,
        audio_bytes=limits.audio_bytes,
    )
