"""Inward: wire to gRPC requests. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from services.gateway import errors, reading
from services.gateway.contracts.leonardo.wire import ImageRequest, ReferenceImage, Strength, VideoRequest
from services.gateway.reference_media import GivenReference, ReferenceLimits
from services.gen.jobs.v1 import jobs_pb2 as pb

_PROMPT_LIMIT: Final = 4_000
_JOB_ID: Final = re.compile(r"job_[0-9a-hjkmnp-tv-z]{26}")

_IMAGE_PIXELS: Final = {
    "16:9_SMALL": (1376, 768),
    "1:1_SMALL": (1024, 1024),
    "2:3_SMALL": (848, 1264),
    "9:16_SMALL": (768, 1376),
}
_VIDEO_PIXELS: Final = {
    "16:9_SMALL": (1280, 720),
    "1:1_SMALL": (960, 960),
    "2:3_SMALL": (720, 1080),
    "9:16_SMALL": (720, 1280),
}
REFERENCE_LIMITS: Final = ReferenceLimits(
    images=1, image_formats=("jpeg", "png", "webp"), first_frame_of_animations=False
)
_STRENGTHS: Final[dict[Strength, pb.Reference.Strength.ValueType]] = {
    "LOW": pb.Reference.STRENGTH_LOW,
    "MID": pb.Reference.STRENGTH_MID,
    "HIGH": pb.Reference.STRENGTH_HIGH,
}
_image_decoder = msgspec.json.Decoder(ImageRequest)
_video_decoder = msgspec.json.Decoder(VideoRequest)


def image_job(wire: ImageRequest) -> pb.CreateJobRequest:
    """What to make and what to charge; who and under which key comes later."""
    width, height = _IMAGE_PIXELS[wire.size]
    generation = pb.Generation(
        kind=pb.KIND_IMAGE,
        model="gpt-image-2",
        prompt=wire.prompt,
        width=width,
        height=height,
        quality=wire.quality.lower(),
    )
    sku = f"image.{wire.quality.lower()}"
    return pb.CreateJobRequest(generation=generation, sku=sku, quantity=1, id_prefix="job")


def video_job(wire: VideoRequest) -> pb.CreateJobRequest:
    """What to make and what to charge; who and under which key comes later."""
    width, height = _VIDEO_PIXELS[wire.size]
    generation = pb.Generation(
        kind=pb.KIND_VIDEO,
        model="seedance-2.0-fast",
        prompt=wire.prompt,
        width=width,
        height=height,
        duration_s=wire.duration,
        audio=wire.motion_has_audio,
    )
    return pb.CreateJobRequest(
        generation=generation, sku="video.second", quantity=wire.duration, id_prefix="job"
    )


W = TypeVar("W", ImageRequest, VideoRequest)


def read_image(body: bytes) -> ImageRequest:
    """The request in `body`, trimmed and checked, but for its reference image. Raises MALFORMED_REQUEST."""
    return _checked(reading.parsed(body, _image_decoder))


def read_video(body: bytes) -> VideoRequest:
    """The request in `body`, trimmed and checked, but for its reference image. Raises MALFORMED_REQUEST."""
    return _checked(reading.parsed(body, _video_decoder))


def _checked(wire: W) -> W:
    prompt = reading.text(wire.prompt, "prompt", _PROMPT_LIMIT)
    reference = wire.reference_image
    if isinstance(reference, str):
        reference = ReferenceImage(image_url=reference)
    if prompt == wire.prompt and reference is wire.reference_image:
        return wire
    return msgspec.structs.replace(wire, prompt=prompt, reference_image=reference)


def references(wire: ImageRequest | VideoRequest) -> list[GivenReference]:
    """The images that the output is to follow, as they were given."""
    reference = wire.reference_image
    if not isinstance(reference, ReferenceImage):
        return []
    return [GivenReference("referenceImage", reference.image_url, strength=_STRENGTHS[reference.strength])]


def compared(wire: W, identities: Sequence[str]) -> W:
    """The request as it is compared with a repeat of it: each image as its identity, whichever way it came."""
    reference = wire.reference_image
    if not isinstance(reference, ReferenceImage):
        return wire
    image = msgspec.structs.replace(reference, image_url=identities[0])
    return msgspec.structs.replace(wire, reference_image=image)


def job_id(value: str) -> str:
    """`value`, if it can be the id of a job. Raises JOB_NOT_FOUND without asking anybody otherwise."""
    if not _JOB_ID.fullmatch(value):
        raise errors.job_not_found()
    return value
