"""Wire: exactly the public JSON."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Model = Literal["seedance_2_0", "seedance_2_0_fast"]
FunctionMode = Literal["omni_reference", "first_last_frames"]
Ratio = Literal["21:9", "16:9", "4:3", "1:1", "3:4", "9:16"]
Status = Literal["running", "succeeded", "failed"]
Code = Annotated[int, Meta(description="The HTTP status once more.")]
TraceId = Annotated[
    str,
    Meta(
        description="Names this answer; quote it when you ask for help. An `X-Request-Id` of 32 hexadecimal digits is taken "
        "as it is, any other one is hashed.",
        extra_json_schema={"pattern": "^[0-9a-f]{32}$"},
    ),
]
Success = Annotated[Literal["success"], Meta(description="Look at `code`; this is for people.")]
TaskId = Annotated[str, Meta(description="Names the task in every later request.")]
Moment = Annotated[str, Meta(description="UTC, whole seconds.", extra_json_schema={"format": "date-time"})]
# Decimals even where they are whole: clients of typed languages read a float.
Cost = Annotated[float, Meta(description="Always with a decimal point; 0.0 once the task has failed.")]


class VideoRequest(msgspec.Struct, kw_only=True, frozen=True):
    """One video to make."""

    model: Annotated[Model, Meta(description="`seedance_2_0_fast` is quicker and cheaper.")] = "seedance_2_0"
    prompt: Annotated[
        str,
        Meta(
            description="What to make, in words: 1 to 4,000 characters once white space around it is removed. "
            "Line breaks and tabs are kept; other control characters are refused.",
            extra_json_schema={"minLength": 1, "maxLength": 4000},
        ),
    ]
    function_mode: Annotated[
        FunctionMode,
        Meta(
            description="`omni_reference`: images, videos and audio are followed. `first_last_frames`: the first image begins "
            "the video and the second one, if there is one, ends it."
        ),
    ] = "omni_reference"
    ratio: Annotated[Ratio, Meta(description="Aspect ratio of the 720p video.")] = "16:9"
    duration: Annotated[int, Meta(ge=4, le=15, description="Seconds, as a whole number.")] = 5
    image_urls: Annotated[
        list[str],
        Meta(
            description="Up to 9, in `first_last_frames` up to 2: public HTTPS URLs, data URLs or base64. JPEG, PNG, WebP, BMP, "
            "TIFF or GIF, 20 MB at most each.",
            extra_json_schema={"maxItems": 9},
        ),
    ] = []
    audio_urls: Annotated[
        list[str],
        Meta(
            description="Up to 3 public HTTPS URLs. MP3, WAV, M4A or OGG, 20 MB and 60 seconds at most each. In "
            "`omni_reference` there must be an image or a video beside them.",
            extra_json_schema={"maxItems": 3},
        ),
    ] = []
    video_urls: Annotated[
        list[str],
        Meta(
            description="Up to 3 public HTTPS URLs. MP4, MOV or WebM, 100 MB and 60 seconds at most each.",
            extra_json_schema={"maxItems": 3},
        ),
    ] = []


class AcceptedTask(msgspec.Struct, frozen=True):
    """A task that was accepted and paid for."""

    task_id: TaskId
    status: Annotated[Status, Meta(description="`running`, unless the request was a repeat.")]
    created_at: Moment
    credits_cost: Annotated[
        float,
        Meta(description="Reserved now; returned in full if the task fails. Always with a decimal point."),
    ]


class TaskResult(msgspec.Struct, frozen=True):
    """How a task ended."""

    status: Annotated[Literal["succeeded", "failed"], Meta(description="The same as outside.")]
    video_url: Annotated[
        str | None,
        Meta(description="The MP4. Works without an API key for 24 hours; each read gives a fresh one."),
    ]
    error_message: Annotated[str | None, Meta(description="Why it failed, for people; null otherwise.")]
    finished_at: Moment


class Task(msgspec.Struct, frozen=True):
    """A task as it stands."""

    task_id: TaskId
    status: Annotated[Status, Meta(description="`running` until the end; it never goes back.")]
    model: Model
    created_at: Moment
    updated_at: Moment
    credits_cost: Cost
    result: Annotated[TaskResult | None, Meta(description="Null until the end.")]


class Credits(msgspec.Struct, frozen=True):
    """The wallet. Whole numbers are sent as integers."""

    api_available_credits: Annotated[int | float, Meta(description="What new tasks can spend.")]
    api_total_credits: Annotated[int | float, Meta(description="All credits that were ever bought.")]


class AcceptedAnswer(msgspec.Struct, frozen=True):
    """The answer to a task that was accepted."""

    code: Code
    trace_id: TraceId
    message: Success
    data: AcceptedTask


class TaskAnswer(msgspec.Struct, frozen=True):
    """The answer that tells of a task."""

    code: Code
    trace_id: TraceId
    message: Success
    data: Task


class CreditsAnswer(msgspec.Struct, frozen=True):
    """The answer that tells of the wallet."""

    code: Code
    trace_id: TraceId
    message: Success
    data: Credits


class ErrorBody(msgspec.Struct, frozen=True):
    """Every error."""

    code: Code
    trace_id: TraceId
    message: Annotated[str, Meta(description="What is wrong, for people; may change.")]
    data: Annotated[None, Meta(description="Always null on errors.")]
