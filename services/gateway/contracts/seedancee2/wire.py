"""Wire: exactly the public JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

GenerationType = Literal["omni_reference", "first_and_last_frames"]
Resolution = Literal["480p", "720p", "1080p"]
AspectRatio = Literal["16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "adaptive"]
Status = Literal["pending", "processing", "completed", "failed"]
FaultCode = Literal["generation_failed", "invalid_reference_image", "reference_unavailable"]
Credits = int | float
Id = Annotated[str, Meta(description="Names the video in every later request.")]
Model = Annotated[str, Meta(description="`pro`, `fast` or `mini`.")]
StatusWord = Annotated[Status, Meta(description="Where the video stands; never goes backwards.")]
Moment = Annotated[str, Meta(description="UTC.", extra_json_schema={"format": "date-time"})]
Count = Annotated[int, Meta(ge=0)]
ImageUrl = Annotated[
    str | UnsetType,
    Meta(description="For `first_and_last_frames`: a public HTTPS URL, a data URL or base64."),
]


class VideoInput(msgspec.Struct, kw_only=True, frozen=True):
    """What the video is to show, and how."""

    prompt: Annotated[
        str,
        Meta(
            description="What to make, in words: 1 to 4,000 characters once white space around it is removed. "
            "Line breaks and tabs are kept; other control characters are refused.",
            extra_json_schema={"minLength": 1, "maxLength": 4000},
        ),
    ]
    generation_type: Annotated[
        GenerationType,
        Meta(
            description="`omni_reference` follows any references; `first_and_last_frames` goes from one image to another."
        ),
    ] = "omni_reference"
    image_urls: Annotated[
        list[str],
        Meta(
            description="Up to 9 images: public HTTPS URLs, data URLs or base64 of JPEG, PNG, WebP, BMP, TIFF or GIF, "
            "20 MB each. `first_and_last_frames` takes exactly two.",
            extra_json_schema={"maxItems": 9},
        ),
    ] = []
    video_url: Annotated[str | UnsetType, Meta(description="One video; not beside `video_urls`.")] = UNSET
    video_urls: Annotated[
        list[str],
        Meta(
            description="Up to 3 public HTTPS URLs of MP4, MOV or WebM, 100 MB and 60 seconds each.",
            extra_json_schema={"maxItems": 3},
        ),
    ] = []
    audio_urls: Annotated[
        list[str],
        Meta(
            description="Up to 3 public HTTPS URLs of MP3, WAV, M4A or OGG, 20 MB and 60 seconds each.",
            extra_json_schema={"maxItems": 3},
        ),
    ] = []
    start_image_url: ImageUrl = UNSET
    end_image_url: ImageUrl = UNSET
    duration: Annotated[int, Meta(ge=4, le=15, description="Seconds, as a whole number.")] = 5
    resolution: Annotated[Resolution, Meta(description="`1080p` is of `pro` only.")] = "720p"
    aspect_ratio: Annotated[
        AspectRatio, Meta(description="`adaptive` follows the first image or video that is given.")
    ] = "16:9"
    generate_audio: Annotated[bool, Meta(description="Adds a sound track, at no extra cost.")] = False
    watermark: Annotated[bool, Meta(description="Adds a visible mark.")] = False
    seed: Annotated[
        Annotated[int, Meta(ge=-1, le=4294967295)] | UnsetType,
        Meta(description="The same seed makes a similar video again; −1 or nothing: a random one."),
    ] = UNSET
    return_last_frame: Annotated[bool, Meta(description="Adds `last_frame_url` to the output.")] = False


class VideoRequest(msgspec.Struct, kw_only=True, frozen=True):
    """One video to make."""

    model: Annotated[
        str, Meta(description="What makes it.", extra_json_schema={"enum": ["pro", "fast", "mini"]})
    ]
    input: VideoInput
    callback_url: Annotated[
        str | UnsetType, Meta(description="A public HTTPS address that is told when the video has ended.")
    ] = UNSET
    metadata: Annotated[
        dict[str, Any] | UnsetType,
        Meta(
            description="Anything of yours, given back with the video: at most 50 keys, and 16 KiB and 500 levels as JSON."
        ),
    ] = UNSET


class Accepted(msgspec.Struct, kw_only=True, frozen=True):
    """A video that was accepted."""

    id: Id
    status: StatusWord
    model: Model
    credits_reserved: Annotated[
        Credits, Meta(description="Charged when the video is ready; returned if it fails.")
    ]
    created_at: Moment


class AcceptedBody(msgspec.Struct, frozen=True):
    """The answer to a create request."""

    data: Accepted


class VideoOutput(msgspec.Struct, kw_only=True, frozen=True):
    """Where the files are. The links need no key and are good for a day; each read gives fresh ones."""

    video_url: Annotated[str | None, Meta(description="The MP4; null once it is no longer kept.")]
    thumbnail_url: Annotated[str | None, Meta(description="A still of it; null once it is no longer kept.")]
    last_frame_url: Annotated[
        str | UnsetType | None, Meta(description="Only where `return_last_frame` asked for it.")
    ] = UNSET


class VideoFault(msgspec.Struct, kw_only=True, frozen=True):
    """Why the video failed."""

    code: Annotated[
        FaultCode,
        Meta(
            description="`invalid_reference_image`: a reference cannot be used; `reference_unavailable`: one could not be "
            "fetched; `generation_failed`: everything else."
        ),
    ]
    message: Annotated[str, Meta(description="For people: what happened, and what to do.")]
    type: Literal["generation_error"] = "generation_error"


class Video(msgspec.Struct, kw_only=True, frozen=True):
    """A video as it stands."""

    id: Id
    status: StatusWord
    model: Model
    created_at: Moment
    metadata: Annotated[
        dict[str, Any] | UnsetType, Meta(description="As it was given; left out where none was.")
    ] = UNSET
    completed_at: Annotated[
        str | UnsetType,
        Meta(description="Only of a completed video.", extra_json_schema={"format": "date-time"}),
    ] = UNSET
    credits_charged: Annotated[
        Credits | UnsetType, Meta(description="Once it has ended; 0 if it failed.")
    ] = UNSET
    credits_refunded: Annotated[Credits | UnsetType, Meta(description="Only of a failed video.")] = UNSET
    output: Annotated[VideoOutput | UnsetType, Meta(description="Only of a completed video.")] = UNSET
    error: Annotated[VideoFault | UnsetType, Meta(description="Only of a failed video.")] = UNSET


class VideoBody(msgspec.Struct, frozen=True):
    """One video."""

    data: Video


class VideoPage(msgspec.Struct, kw_only=True, frozen=True):
    """Some videos, newest first."""

    data: list[Video]
    has_more: Annotated[bool, Meta(description="Whether there are older ones.")]
    next_cursor: Annotated[
        str | None, Meta(description="Send it as `cursor` for the next page; null on the last one.")
    ]


class PageQuery(msgspec.Struct, kw_only=True, frozen=True):
    """Which videos are wanted."""

    status: Annotated[Status | UnsetType, Meta(description="Only videos of this status.")] = UNSET
    limit: Annotated[int, Meta(ge=1, le=100, description="Videos on a page.")] = 20
    cursor: Annotated[
        str | UnsetType,
        Meta(description="The `next_cursor` of the page before; the newest videos without it."),
    ] = UNSET


class UsageQuery(msgspec.Struct, kw_only=True, frozen=True):
    """Which videos are counted, and how many days are told apart."""

    start: Annotated[
        str | UnsetType,
        Meta(
            description="A date or time in ISO 8601, UTC where it does not say; 30 days before `end` without it."
        ),
    ] = UNSET
    end: Annotated[
        str | UnsetType,
        Meta(description="The same; of a date its last millisecond counts. The present moment without it."),
    ] = UNSET
    limit: Annotated[int, Meta(ge=1, le=365, description="Days in `timeline`.")] = 30


class DurationRange(msgspec.Struct, frozen=True):
    """Seconds that a model makes."""

    min: int
    max: int


class ModelView(msgspec.Struct, kw_only=True, frozen=True):
    """A model that can be asked for."""

    id: Model
    status: Literal["active"]
    resolutions: list[Resolution]
    duration: DurationRange


class ModelPage(msgspec.Struct, frozen=True):
    """All models."""

    data: list[ModelView]


class UsageRange(msgspec.Struct, kw_only=True, frozen=True):
    """What was looked at; both ends are in it."""

    start: Moment
    end: Moment


class Figures(msgspec.Struct, kw_only=True, frozen=True):
    """Counts of videos, and their credits."""

    total_jobs: Count
    pending_jobs: Count
    processing_jobs: Count
    completed_jobs: Count
    failed_jobs: Count
    credits_charged: Annotated[
        Credits, Meta(description="Of completed videos what they cost, of failed ones what was returned.")
    ]
    credits_refunded: Annotated[Credits, Meta(description="Of failed videos.")]
    net_credits: Annotated[Credits, Meta(description="`credits_charged` less `credits_refunded`.")]


class ModelFigures(Figures, kw_only=True, frozen=True):
    """The figures of one model."""

    model: Model


class DayFigures(Figures, kw_only=True, frozen=True):
    """The figures of one day."""

    date: Annotated[str, Meta(description="The UTC day of creation.", extra_json_schema={"format": "date"})]


class Usage(msgspec.Struct, kw_only=True, frozen=True):
    """What was made and what it cost."""

    range: UsageRange
    summary: Annotated[Figures, Meta(description="All of the range.")]
    by_model: Annotated[list[ModelFigures], Meta(description="The most used model first.")]
    timeline: Annotated[
        list[DayFigures], Meta(description="Newest day first; days without videos are left out.")
    ]


class UsageBody(msgspec.Struct, frozen=True):
    """The usage report."""

    data: Usage


class ErrorDetail(msgspec.Struct, kw_only=True, frozen=True):
    """What went wrong."""

    code: Annotated[str, Meta(description="One of the table of errors; stable.")]
    message: Annotated[str, Meta(description="For people; may change.")]
    type: Annotated[str, Meta(description="What kind of error; stable.")]
    param: Annotated[str | UnsetType, Meta(description="The part of the request that is wrong.")] = UNSET


class ErrorBody(msgspec.Struct, frozen=True):
    """Every error."""

    error: ErrorDetail
