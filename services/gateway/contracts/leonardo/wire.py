"""Wire: exactly the public JSON."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Size = Literal["16:9_SMALL", "1:1_SMALL", "2:3_SMALL", "9:16_SMALL"]
Quality = Literal["LOW", "MEDIUM"]
Strength = Literal["LOW", "MID", "HIGH"]
JobFaultCode = Literal["generation_failed", "invalid_reference_image", "reference_unavailable"]
Status = Literal["queued", "processing", "complete", "failed"]
Credits = int | float
Succeeded = Annotated[Literal[True], Meta(description="Always `true` on success.")]
Type = Annotated[Literal["image", "video"], Meta(description="What is made.")]
Model = Annotated[str, Meta(description="What makes it: `gpt-image-2` or `seedance-2.0-fast`.")]
JobId = Annotated[str, Meta(description="Names the job in every later request.")]
Prompt = Annotated[
    str,
    Meta(
        description="What to make, in words: 1 to 4,000 characters once white space around it is removed. "
        "Line breaks and tabs are kept; other control characters are refused.",
        extra_json_schema={"minLength": 1, "maxLength": 4000},
    ),
]


class ReferenceImage(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """An image to start from."""

    image_url: Annotated[
        str,
        Meta(
            description="A public HTTPS URL, a data URL, or base64. JPEG, PNG or WebP, not animated, 20 MB at most."
        ),
    ]
    strength: Annotated[Strength, Meta(description="How closely the output follows the image.")] = "MID"


Reference = Annotated[
    ReferenceImage | str | UnsetType,
    Meta(
        description="An image to start from. A bare string is short for an object with only `imageUrl`. "
        "The chapter on reference images has the rules."
    ),
]


class ImageRequest(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """One image to make."""

    prompt: Prompt
    quality: Annotated[Quality, Meta(description="`LOW` costs 20 credits, `MEDIUM` 60.")] = "LOW"
    size: Annotated[
        Size, Meta(description="Aspect ratio of the PNG: 1376×768, 1024×1024, 848×1264 or 768×1376 pixels.")
    ] = "1:1_SMALL"
    reference_image: Reference = UNSET


class VideoRequest(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """One video to make."""

    prompt: Prompt
    size: Annotated[
        Size,
        Meta(description="Aspect ratio of the 720p MP4: 1280×720, 960×960, 720×1080 or 720×1280 pixels."),
    ] = "1:1_SMALL"
    duration: Annotated[
        int, Meta(ge=4, le=15, description="Seconds, as a whole number. 600 credits each.")
    ] = 5
    motion_has_audio: Annotated[bool, Meta(description="Adds a sound track, at no extra cost.")] = False
    reference_image: Reference = UNSET


class AcceptedJob(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """A job that was accepted and paid for."""

    ok: Succeeded
    job_id: JobId
    status: Annotated[Status, Meta(description="Where the job stands right now.")]
    type: Type
    charged_credits: Annotated[Credits, Meta(description="Reserved now; returned in full if the job fails.")]
    model: Model
    idempotent_replay: Annotated[
        bool, Meta(description="`true` when an earlier request with the same Idempotency-Key made this job.")
    ]


class JobFault(msgspec.Struct, frozen=True):
    """Why a job failed."""

    code: Annotated[
        JobFaultCode,
        Meta(
            description="`invalid_reference_image`: what is behind the URL cannot be used; `reference_unavailable`: it "
            "could not be fetched; `generation_failed`: everything else."
        ),
    ]
    message: Annotated[str, Meta(description="For people: what happened, and what to do.")]


class JobView(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """A job as it stands."""

    ok: Succeeded
    job_id: JobId
    type: Type
    model: Model
    status: Annotated[Status, Meta(description="Never goes backwards.")]
    progress: Annotated[int, Meta(ge=0, le=100, description="Per cent; never goes backwards.")]
    charged_credits: Annotated[Credits, Meta(description="Final once the job has ended; 0 if it failed.")]
    refunded_credits: Annotated[Credits | UnsetType, Meta(description="Only when the job failed.")] = UNSET
    created_at: Annotated[str, Meta(description="UTC.", extra_json_schema={"format": "date-time"})]
    updated_at: Annotated[
        str, Meta(description="When anything of it last changed.", extra_json_schema={"format": "date-time"})
    ]
    completed_at: Annotated[str | None, Meta(description="When it ended; null until then.")]
    error: Annotated[JobFault | None, Meta(description="Why it failed; null otherwise.")]


class ResultView(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """Where the finished media are."""

    ok: Succeeded
    job_id: JobId
    type: Type
    status: Literal["complete"]
    url: Annotated[str, Meta(description="The image or video. Needs no API key; share it with care.")]
    preview_url: Annotated[str | UnsetType, Meta(description="A still of the video.")] = UNSET
    content_type: Annotated[str, Meta(description="`image/png` or `video/mp4`.")]
    width: Annotated[int, Meta(description="Pixels.")]
    height: Annotated[int, Meta(description="Pixels.")]
    duration: Annotated[float | UnsetType, Meta(description="Seconds, of a video.")] = UNSET
    expires_at: Annotated[
        str,
        Meta(
            description="When the links stop working. Each read gives fresh ones.",
            extra_json_schema={"format": "date-time"},
        ),
    ]


class UsageView(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """The wallet."""

    credits_balance: Annotated[Credits, Meta(description="All credits, the reserved ones included.")]
    credits_reserved: Annotated[Credits, Meta(description="Held for jobs that have not ended.")]
    credits_available: Annotated[Credits, Meta(description="What new jobs can spend.")]


class ErrorDetail(msgspec.Struct, kw_only=True, frozen=True):
    """What went wrong."""

    code: Annotated[str, Meta(description="One of the table of errors; stable.")]
    message: Annotated[str, Meta(description="For people; may change.")]
    field: Annotated[str | UnsetType, Meta(description="The part of the request that is wrong.")] = UNSET
    required: Annotated[Credits | UnsetType, Meta(description="Credits that the job costs.")] = UNSET
    available: Annotated[Credits | UnsetType, Meta(description="Credits that can be spent.")] = UNSET


class ErrorBody(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """Every error."""

    ok: Annotated[Literal[False], Meta(description="Always `false` on errors.")]
    error: ErrorDetail
    request_id: Annotated[
        str, Meta(description="Quote it when you ask for help; also the X-Request-Id header.")
    ]
