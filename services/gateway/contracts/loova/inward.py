"""Inward: wire to gRPC requests. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from services.gateway import errors, reading
from services.gateway.contracts.loova.wire import Model, Ratio, VideoRequest
from services.gateway.reference_media import FULL, GivenReference
from services.gen.jobs.v1 import jobs_pb2 as pb

REFERENCE_LIMITS: Final = FULL
ID_PREFIX: Final = "task"
_PROMPT_LIMIT: Final = 4_000
_FRAMES_LIMIT: Final = 2
_TASK_ID: Final = re.compile(r"task_[0-9a-hjkmnp-tv-z]{26}")

_MODELS: Final[dict[Model, str]] = {"seedance_2_0": "seedance-2.0", "seedance_2_0_fast": "seedance-2.0-fast"}
_PIXELS: Final[dict[Ratio, tuple[int, int]]] = {
    "21:9": (1470, 630),
    "16:9": (1280, 720),
    "4:3": (1112, 834),
    "1:1": (960, 960),
    "3:4": (834, 1112),
    "9:16": (720, 1280),
}
_FRAME_ROLES: Final = (pb.Reference.ROLE_FIRST_FRAME, pb.Reference.ROLE_LAST_FRAME)
_decoder = msgspec.json.Decoder(VideoRequest)


def read_video(body: bytes) -> VideoRequest:
    """The request in `body`, trimmed and checked, but for its media. Raises MALFORMED_REQUEST."""
    wire = reading.parsed(body, _decoder)
    prompt = reading.text(wire.prompt, "prompt", _PROMPT_LIMIT)
    if wire.function_mode == "first_last_frames" and len(wire.image_urls) > _FRAMES_LIMIT:
        raise errors.malformed_request(
            f"image_urls may have at most {_FRAMES_LIMIT} images in first_last_frames.", "image_urls"
        )
    if (
        wire.function_mode == "omni_reference"
        and wire.audio_urls
        and not (wire.image_urls or wire.video_urls)
    ):
        raise errors.malformed_request(
            "audio_urls need at least one image or video beside them.", "audio_urls"
        )
    return wire if prompt == wire.prompt else msgspec.structs.replace(wire, prompt=prompt)


def video_job(wire: VideoRequest) -> pb.CreateJobRequest:
    """What to make and what to charge; who and under which key comes later."""
    width, height = _PIXELS[wire.ratio]
    model = _MODELS[wire.model]
    generation = pb.Generation(
        kind=pb.KIND_VIDEO,
        model=model,
        prompt=wire.prompt,
        width=width,
        height=height,
        duration_s=wire.duration,
        # The contract has no switch for it, and what has audio to follow must be heard.
        audio=True,
    )
    return pb.CreateJobRequest(
        generation=generation,
        sku=f"{model}.second",
        quantity=wire.duration,
        id_prefix=ID_PREFIX,
        public_model=wire.model,
    )


def references(wire: VideoRequest) -> list[GivenReference]:
    """The media that the video is to follow, as they were given."""
    frames = wire.function_mode == "first_last_frames"
    given = [
        GivenReference(f"image_urls[{n}]", url, _FRAME_ROLES[n] if frames else pb.Reference.ROLE_IMAGE)
        for n, url in enumerate(wire.image_urls)
    ]
    given += [
        GivenReference(f"video_urls[{n}]", url, pb.Reference.ROLE_VIDEO)
        for n, url in enumerate(wire.video_urls)
    ]
    given += [
        GivenReference(f"audio_urls[{n}]", url, pb.Reference.ROLE_AUDIO)
        for n, url in enumerate(wire.audio_urls)
    ]
    return given


def compared(wire: VideoRequest, identities: Sequence[str]) -> VideoRequest:
    """The request as it is compared with a repeat of it: each image as its identity, whichever way it came."""
    return msgspec.structs.replace(wire, image_urls=list(identities[: len(wire.image_urls)]))


def task_id(value: str) -> str:
    """`value`, if it can be the id of a task. Raises JOB_NOT_FOUND without asking anybody otherwise."""
    if not _TASK_ID.fullmatch(value):
        raise errors.job_not_found()
    return value
