"""Wire: exactly the public JSON of generations and credits."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

GenerationType = Literal["image", "video", "voice", "music", "infographic", "text"]
Status = Literal["pending", "processing", "completed", "failed"]
ModelName = Literal[
    "seedream-5.0-lite",
    "gpt-image-2",
    "seedance-2.0",
    "seedance-2.0-fast",
    "eleven-multilingual-v2",
    "eleven-music-v1",
    "infographic-1",
    "gpt-5-mini",
]
Credits = Annotated[int | float, Meta(description="Credits.")]
GenerationId = Annotated[
    int,
    Meta(
        description="Names the generation in every later request; random, below 2^53.",
        extra_json_schema={"minimum": 1, "maximum": 9007199254740991},
    ),
]
Moment = Annotated[str, Meta(description="UTC, whole seconds.", extra_json_schema={"format": "date-time"})]

PAGE_SIZE_LIMIT: Final = 100
# A page is found by leaving out what is in front of it; a million generations can be reached in pages of a hundred.
_PAGE_LIMIT: Final = 10_000


class GenerationRequest(msgspec.Struct, kw_only=True, frozen=True):
    """Something to generate."""

    generation_type: Annotated[GenerationType, Meta(description="What to make.")]
    model_name: Annotated[ModelName, Meta(description="One of `GET /generations/models`, of that type.")]
    prompt: Annotated[
        str,
        Meta(
            description="What to make, in words; for voice, what to say. 1 to 4,000 characters once white space around it is "
            "removed. Line breaks and tabs are kept; other control characters are refused.",
            extra_json_schema={"minLength": 1, "maxLength": 4000},
        ),
    ]
    settings: Annotated[
        dict[str, Any] | None,
        Meta(
            description="What the model lets you set: see its JSON Schema in `GET /generations/models`. Unknown settings are "
            "ignored.",
        ),
    ] = None
    project_id: Annotated[
        int | str | None,
        Meta(description="A grouping of your own: a number, or a text of up to 100 characters."),
    ] = None


class Output(msgspec.Struct, kw_only=True, frozen=True):
    """A finished medium, or a text."""

    type: Annotated[GenerationType, Meta(description="The generation's type.")]
    url: Annotated[
        str | UnsetType,
        Meta(description="Of everything but text. Needs no token for 24 hours; each read gives a fresh one."),
    ] = UNSET
    mime_type: Annotated[str | UnsetType, Meta(description="Of everything but text.")] = UNSET
    width: Annotated[int | UnsetType, Meta(description="Pixels, of what can be seen.")] = UNSET
    height: Annotated[int | UnsetType, Meta(description="Pixels, of what can be seen.")] = UNSET
    duration: Annotated[float | UnsetType, Meta(description="Seconds, of voice and music.")] = UNSET
    text: Annotated[str | UnsetType, Meta(description="Of a text.")] = UNSET


class Generation(msgspec.Struct, kw_only=True, frozen=True):
    """A generation as it stands."""

    id: GenerationId
    user_id: Annotated[int, Meta(description="Whose it is; 0 for an API key that belongs to no user.")]
    generation_type: GenerationType
    model_name: Annotated[str, Meta(description="The model.")]
    prompt: Annotated[str, Meta(description="As it was sent, without white space around it.")]
    status: Annotated[Status, Meta(description="It never goes back.")]
    credit_cost: Annotated[
        int | float, Meta(description="Reserved at first, charged in the end; 0 once it has failed.")
    ]
    created_at: Moment
    outputs: Annotated[list[Output], Meta(description="Empty until it has completed.")]
    error: Annotated[str | UnsetType, Meta(description="Why it failed, for people; only then.")] = UNSET


class GenerationStatus(msgspec.Struct, frozen=True):
    """How far a generation is."""

    id: GenerationId
    status: Annotated[Status, Meta(description="It never goes back.")]
    progress: Annotated[int, Meta(ge=0, le=100, description="Per cent; never goes backwards.")]


class HistoryQuery(msgspec.Struct, kw_only=True, frozen=True):
    """Which part of the history."""

    page: Annotated[int, Meta(ge=1, le=_PAGE_LIMIT, description="From 1.")] = 1
    page_size: Annotated[int, Meta(ge=1, le=PAGE_SIZE_LIMIT, description="At most 100.")] = 20
    generation_type: Annotated[
        GenerationType | Literal[""], Meta(description="Only generations of this type.")
    ] = ""
    status: Annotated[Status | Literal[""], Meta(description="Only generations that stand so.")] = ""
    project_id: Annotated[str, Meta(max_length=100, description="Only generations of this project.")] = ""


class History(msgspec.Struct, frozen=True):
    """A page of the history, newest first."""

    items: list[Generation]
    total: Annotated[int, Meta(ge=0, description="Of all pages.")]
    page: Annotated[int, Meta(ge=1, description="This page.")]
    page_size: Annotated[int, Meta(ge=1, le=PAGE_SIZE_LIMIT, description="How many a page has.")]


class ModelsQuery(msgspec.Struct, kw_only=True, frozen=True):
    """Which models."""

    generation_type: Annotated[
        GenerationType | Literal[""], Meta(description="Only models of this type.")
    ] = ""


class ModelView(msgspec.Struct, frozen=True):
    """A model that can be asked for."""

    name: ModelName
    generation_type: GenerationType
    credit_cost: Annotated[int | float, Meta(description="What one generation costs.")]
    settings: Annotated[dict[str, Any], Meta(description="JSON Schema of `settings`.")]


class Wallet(msgspec.Struct, frozen=True):
    """The wallet of the token's mode."""

    balance: Annotated[int | float, Meta(description="All credits, the reserved ones included.")]
    reserved: Annotated[int | float, Meta(description="Held for generations that have not ended.")]
    available: Annotated[int | float, Meta(description="What new generations can spend.")]


class PackageView(msgspec.Struct, frozen=True):
    """Credits that are sold in one go."""

    id: Annotated[str, Meta(description="Names the package.")]
    name: Annotated[str, Meta(description="For people.")]
    credits: Annotated[int | float, Meta(description="How many.")]
    price: Annotated[str, Meta(description="A decimal, as text.")]
    currency: Annotated[str, Meta(description="ISO 4217.")]


class ErrorBody(msgspec.Struct, frozen=True):
    """Every error."""

    detail: Annotated[str, Meta(description="One sentence for people; on 400 it names the field.")]
