"""Inward: wire to gRPC requests. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from aiohttp import web

from services.gateway import errors, lifting, reading
from services.gateway.contracts.seedance2pro.wire import Inputs, TaskRequest
from services.gateway.reference_media import FULL, GivenReference, ReferenceLimits
from services.gen.jobs.v1 import jobs_pb2 as pb

WORKFLOW: Final = "wan22-video-generation"
SECONDS: Final = (4, 15)
_PROMPT_LIMIT: Final = 4_000
# A name of a workflow is repeated in the answer, but not a book.
_NAME_LIMIT: Final = 100
_TASK_ID: Final = re.compile(r"task_[0-9a-hjkmnp-tv-z]{26}")
# `@1` is neither part of a longer word or address, nor of a number. ASCII: some languages write on without a space.
_MENTION: Final = re.compile(r"(?<![0-9A-Za-z_.@])@([1-9][0-9]?)(?![0-9A-Za-z_]|\.[0-9])")
# More than anybody's prompt has; what they grow by still fits into what models take beyond the contract's own limit.
_MENTIONS_LIMIT: Final = 100
_DURATION: Final = re.compile(r"(?P<seconds>[0-9]{1,3})s?")
# The contract takes images and videos.
LIMITS: Final[ReferenceLimits] = ReferenceLimits(
    images=FULL.images,
    image_formats=FULL.image_formats,
    first_frame_of_animations=FULL.first_frame_of_animations,
    videos=FULL.videos,
)
_FRAMES: Final = (pb.Reference.ROLE_FIRST_FRAME, pb.Reference.ROLE_LAST_FRAME)
_decoder: Final = msgspec.json.Decoder(TaskRequest)


@dataclass(frozen=True, slots=True)
class Edition:
    """A model as it is sold. reported: the task's model; sku: what a second of it is sold as; follows: takes references."""

    model: str
    reported: str
    sku: str
    follows: bool = False


_SEEDANCE: Final = "seedance-20"
# By the name within the workflow.
_EDITIONS: Final[Mapping[str, Edition]] = {
    "z video": Edition("z-video", "z video", "z-video.second"),
    "sora2": Edition("sora-2", "sora2", "sora2.second"),
    "sora2 pro": Edition("sora-2-pro", "sora2 pro", "sora2-pro.second"),
    _SEEDANCE: Edition("seedance-2.0", "seedance20-video-generation", "seedance-20.second", follows=True),
    "grok-imagine-video": Edition("grok-imagine-video", "grok-imagine-video", "grok-imagine-video.second"),
}
# The later edition names the model where the older one names the workflow.
_LATER: Final = Edition("seedance-2.0", _SEEDANCE, "seedance-20.second", follows=True)
_DEFAULT: Final = "z video"
_REFERENCE_SKU: Final = "seedance-20.reference.second"


class Task(msgspec.Struct, frozen=True):
    """A request that is well formed: its prompt trimmed, its duration a number, its two names one model."""

    model: str
    reported: str
    sku: str
    seconds: int
    inputs: Inputs
    callback_url: str


def read(body: bytes) -> Task:
    """The task in `body`, but for its references. Raises MALFORMED_REQUEST, UNSUPPORTED_WORKFLOW."""
    wire = reading.parsed(body, _decoder)
    edition = _edition(wire)
    given = wire.inputs
    seconds = _seconds(given.duration)
    follows = given.video_input_mode == "reference"
    if follows and not edition.follows:
        raise errors.malformed_request(
            "inputs.videoInputMode: reference is of seedance-20 only.", "inputs.videoInputMode"
        )
    if not follows:
        _check_frames(given)
    if wire.callBackUrl == "":
        raise errors.malformed_request("callBackUrl must be a public HTTPS address.", "callBackUrl")
    prompt = reading.text(given.prompt, "inputs.prompt", _PROMPT_LIMIT)
    # Following nothing is going by the prompt alone.
    dearer = follows and (given.urls or given.video_urls)
    return Task(
        model=edition.model,
        reported=edition.reported,
        sku=_REFERENCE_SKU if dearer else edition.sku,
        seconds=seconds,
        inputs=msgspec.structs.replace(given, prompt=prompt, duration=seconds, model=edition.reported),
        callback_url=wire.callBackUrl if isinstance(wire.callBackUrl, str) else "",
    )


def _edition(wire: TaskRequest) -> Edition:
    name = wire.inputs.model
    if wire.model == _SEEDANCE:
        if isinstance(name, str) and name != _SEEDANCE:
            raise errors.malformed_request("inputs.model does not go with seedance-20.", "inputs.model")
        return _LATER
    if wire.model != WORKFLOW:
        # One that was lifted out of a large body is repeated by nobody.
        lifted = lifting.is_placeholder(wire.model)
        raise errors.unsupported_workflow("…" if lifted else wire.model[:_NAME_LIMIT])
    edition = _EDITIONS.get(name if isinstance(name, str) else _DEFAULT)
    if edition is None:
        raise errors.malformed_request(f"inputs.model must be one of {', '.join(_EDITIONS)}.", "inputs.model")
    return edition


def _seconds(duration: int | str) -> int:
    match = _DURATION.fullmatch(str(duration))
    low, high = SECONDS
    if match is None or not low <= int(match["seconds"]) <= high:
        raise errors.malformed_request(
            f"inputs.duration must be {low}s to {high}s, in whole seconds.", "inputs.duration"
        )
    return int(match["seconds"])


def _check_frames(given: Inputs) -> None:
    if len(given.urls) > len(_FRAMES):
        raise errors.malformed_request(
            "inputs.urls may be at most two with keyframe: the first and the last frame.", "inputs.urls"
        )
    if given.video_urls:
        raise errors.malformed_request(
            "inputs.videoUrls must not be given without videoInputMode reference.", "inputs.videoUrls"
        )


def job(task: Task) -> pb.CreateJobRequest:
    """What to make and what to charge; who and under which key comes later."""
    width, _, height = task.inputs.resolution.partition("x")
    generation = pb.Generation(
        kind=pb.KIND_VIDEO,
        model=task.model,
        prompt=_prompt(task.inputs),
        width=int(width),
        height=int(height),
        duration_s=task.seconds,
    )
    return pb.CreateJobRequest(
        generation=generation,
        sku=task.sku,
        quantity=task.seconds,
        id_prefix="task",
        public_model=task.reported,
        callback_url=task.callback_url,
    )


def _prompt(given: Inputs) -> str:
    """With `@1`, `@2` … as the pool knows what they mean: `@Image1` …, and behind the images `@Video1` …"""
    if given.video_input_mode != "reference":
        return given.prompt
    media = {"Image": given.urls, "Video": given.video_urls}
    names = [f"@{medium}{number}" for medium, urls in media.items() for number in range(1, len(urls) + 1)]

    def name(found: re.Match[str]) -> str:
        number = int(found[1])
        return names[number - 1] if number <= len(names) else found[0]

    return _MENTION.sub(name, given.prompt, count=_MENTIONS_LIMIT)


def references(task: Task) -> list[GivenReference]:
    """The media that the video is to follow, as they were given, in the order of `@1`, `@2` …"""
    given = task.inputs
    follows = given.video_input_mode == "reference"
    images = [
        GivenReference(f"inputs.urls[{place}]", text, pb.Reference.ROLE_IMAGE if follows else _FRAMES[place])
        for place, text in enumerate(given.urls)
    ]
    videos = [
        GivenReference(f"inputs.videoUrls[{place}]", text, pb.Reference.ROLE_VIDEO)
        for place, text in enumerate(given.video_urls)
    ]
    return images + videos


def compared(task: Task, identities: Sequence[str]) -> Task:
    """The task as it is compared with a repeat of it: each reference as its identity, whichever way it came."""
    count = len(task.inputs.urls)
    inputs = msgspec.structs.replace(
        task.inputs, urls=list(identities[:count]), video_urls=list(identities[count:])
    )
    return msgspec.structs.replace(task, inputs=inputs)


def task_id(request: web.Request) -> str:
    """Raises TASK_ID_MISSING, and JOB_NOT_FOUND for what can be no task's, without asking anybody."""
    value = request.query.get("taskId", "")
    if not value:
        raise errors.task_id_missing()
    if not _TASK_ID.fullmatch(value):
        raise errors.job_not_found()
    return value
