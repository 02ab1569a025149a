"""Wire: exactly the public JSON."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Resolution = Literal["720x720", "720x960", "960x720", "1280x720", "720x1280"]
InputMode = Literal["keyframe", "reference"]
State = Literal["waiting", "generating", "success", "fail"]
Credits = int | float
TaskId = Annotated[str, Meta(description="Names the task in every later request.")]


class Inputs(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """What the video is to show, and how."""

    model: Annotated[
        str | UnsetType,
        Meta(
            description="What runs the task; `z video` where nothing is given.",
            extra_json_schema={
                "enum": ["z video", "sora2", "sora2 pro", "seedance-20", "grok-imagine-video"]
            },
        ),
    ] = UNSET
    prompt: Annotated[
        str,
        Meta(
            description="What to make, in words: 1 to 4,000 characters once white space around it is removed. `@1`, `@2` … "
            "refer to `urls` and then `videoUrls`, in their order.",
            extra_json_schema={"minLength": 1, "maxLength": 4000},
        ),
    ]
    resolution: Annotated[
        Resolution,
        Meta(
            description="Pixels of the video. Where a model has others of this ratio at 720p, these are made."
        ),
    ] = "1280x720"
    duration: Annotated[
        int | str,
        Meta(description='4 to 15 seconds: `"5s"`, `"5"` or `5`.'),
    ] = "5s"
    video_input_mode: Annotated[
        InputMode,
        Meta(
            description="Of `seedance-20`. `keyframe`: one of `urls` is the first frame, two are the first and the last. "
            "`reference`: up to 9 `urls` and 3 `videoUrls` to follow, at 90 credits a second."
        ),
    ] = "keyframe"
    urls: Annotated[
        list[str],
        Meta(
            description="Images: public HTTPS URLs, data URLs or base64 of JPEG, PNG, WebP, BMP, TIFF or GIF, 20 MB each.",
            extra_json_schema={"maxItems": 9},
        ),
    ] = []
    video_urls: Annotated[
        list[str],
        Meta(
            description="With `reference` only: public HTTPS URLs of MP4, MOV or WebM, 100 MB and 60 seconds each.",
            extra_json_schema={"maxItems": 3},
        ),
    ] = []


class TaskRequest(msgspec.Struct, kw_only=True, frozen=True):
    """One task to run."""

    model: Annotated[
        str,
        Meta(
            description="The workflow; with `seedance-20` there is no `inputs.model`.",
            extra_json_schema={"enum": ["wan22-video-generation", "seedance-20"]},
        ),
    ]
    inputs: Inputs
    callBackUrl: Annotated[  # noqa: N815 - as the contract spells it
        str | UnsetType, Meta(description="A public HTTPS address that is told when the task has ended.")
    ] = UNSET


class AcceptedTask(msgspec.Struct, rename="camel", frozen=True):
    """A task that was accepted."""

    task_id: TaskId


class TaskQuery(msgspec.Struct, rename="camel", frozen=True):
    """Which task is asked for."""

    task_id: TaskId


class TaskOutput(msgspec.Struct, frozen=True):
    """One finished video."""

    url: Annotated[
        str, Meta(description="Needs no API key; good for a day, and each read gives a fresh one.")
    ]
    width: Annotated[int, Meta(description="Pixels.")]
    height: Annotated[int, Meta(description="Pixels.")]


class TaskView(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """A task as it stands."""

    task_id: TaskId
    model: Annotated[str, Meta(description="What runs it: `seedance20-video-generation`.")]
    status: Annotated[State, Meta(description="Never goes backwards.")]
    state: Annotated[State, Meta(description="The same once more.")]
    credits_used: Annotated[
        Credits, Meta(description="Reserved until the task has ended, then charged; 0 if it failed.")
    ]
    output: Annotated[
        list[TaskOutput] | None,
        Meta(description="Of a task that succeeded; empty once its video is no longer kept."),
    ]
    error: Annotated[str | None, Meta(description="Of a task that failed.")]
    create_time: Annotated[int, Meta(description="Milliseconds since the epoch.")]
    complete_time: Annotated[
        int | None, Meta(description="Milliseconds since the epoch; null until the end.")
    ]


class ErrorBody(msgspec.Struct, kw_only=True, frozen=True):
    """Every error."""

    message: Annotated[str, Meta(description="What is wrong; may be followed by a colon and the details.")]
    required: Annotated[Credits | UnsetType, Meta(description="Credits that the task costs.")] = UNSET
    available: Annotated[Credits | UnsetType, Meta(description="Credits that can be spent.")] = UNSET
    limit: Annotated[int | UnsetType, Meta(description="Tasks that may be in progress at once.")] = UNSET
    current: Annotated[int | UnsetType, Meta(description="Tasks in progress now.")] = UNSET
