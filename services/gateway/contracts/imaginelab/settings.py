"""What each type of generation may be set to, its models, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from services.gateway import reading
from services.gateway.contracts.imaginelab.wire import GenerationType, ModelName
from services.gen.jobs.v1 import jobs_pb2 as pb

AspectRatio = Literal["1:1", "16:9", "9:16", "4:3", "3:4"]

_PIXELS: Final[dict[AspectRatio, tuple[int, int]]] = {
    "1:1": (1024, 1024),
    "16:9": (1280, 720),
    "9:16": (720, 1280),
    "4:3": (1152, 864),
    "3:4": (864, 1152),
}
_FILM_PIXELS: Final[dict[AspectRatio, tuple[int, int]]] = {
    "1:1": (960, 960),
    "16:9": (1280, 720),
    "9:16": (720, 1280),
    "4:3": (1112, 834),
    "3:4": (834, 1112),
}


class ImageSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of an image."""

    aspect_ratio: Annotated[
        AspectRatio, Meta(description="1024×1024, 1280×720, 720×1280, 1152×864 or 864×1152 pixels.")
    ] = "1:1"


class VideoSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a video."""

    aspect_ratio: Annotated[
        AspectRatio, Meta(description="960×960, 1280×720, 720×1280, 1112×834 or 834×1112 pixels.")
    ] = "16:9"
    duration: Annotated[int, Meta(ge=4, le=15, description="Seconds, as a whole number.")] = 5
    generate_audio: Annotated[bool, Meta(description="Adds a sound track, at no extra cost.")] = False


class VoiceSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of speech."""

    voice: Annotated[
        Literal["alice", "brian", "charlotte", "daniel", "george", "lily"], Meta(description="Who speaks.")
    ] = "alice"
    format: Annotated[Literal["mp3", "wav"], Meta(description="The file's format.")] = "mp3"


class MusicSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a piece of music."""

    duration: Annotated[int, Meta(ge=5, le=60, description="Seconds, as a whole number.")] = 15


class InfographicSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of an infographic."""

    aspect_ratio: Annotated[
        AspectRatio, Meta(description="1024×1024, 1280×720, 720×1280, 1152×864 or 864×1152 pixels.")
    ] = "16:9"
    style: Annotated[
        Literal["clean", "bold", "dark", "paper"], Meta(description="The manner of drawing.")
    ] = "clean"


class TextSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a text."""

    max_words: Annotated[int, Meta(ge=1, le=2_000, description="The longest that the text may be.")] = 500


Settings = ImageSettings | VideoSettings | VoiceSettings | MusicSettings | InfographicSettings | TextSettings


@dataclass(frozen=True, slots=True)
class GenerationKind:
    """One type: what jobs call it, and what it may be set to."""

    name: GenerationType
    kind: pb.Kind.ValueType
    settings: type[Settings]


KINDS: Final[dict[GenerationType, GenerationKind]] = {
    each.name: each
    for each in (
        GenerationKind("image", pb.KIND_IMAGE, ImageSettings),
        GenerationKind("video", pb.KIND_VIDEO, VideoSettings),
        GenerationKind("voice", pb.KIND_VOICE, VoiceSettings),
        GenerationKind("music", pb.KIND_MUSIC, MusicSettings),
        GenerationKind("infographic", pb.KIND_INFOGRAPHIC, InfographicSettings),
        GenerationKind("text", pb.KIND_TEXT, TextSettings),
    )
}
MODELS: Final[dict[ModelName, GenerationType]] = {
    "seedream-5.0-lite": "image",
    "gpt-image-2": "image",
    "seedance-2.0": "video",
    "seedance-2.0-fast": "video",
    "eleven-multilingual-v2": "voice",
    "eleven-music-v1": "music",
    "infographic-1": "infographic",
    "gpt-5-mini": "text",
}
# Without a word the upstream model takes its dearest quality.
_QUALITIES: Final[dict[str, str]] = {"gpt-image-2": "medium"}


def sku_of(model: ModelName) -> str:
    """What one generation with the model is called in the price list."""
    return f"{MODELS[model]}.{model}"


def schema_of(model: ModelName) -> dict[str, Any]:
    """JSON Schema of the model's settings, without references."""
    settings = KINDS[MODELS[model]].settings
    _, components = msgspec.json.schema_components([settings])
    schema: dict[str, Any] = components[settings.__name__]
    return schema


def read_settings(generation_type: GenerationType, given: Mapping[str, Any]) -> Settings:
    """The settings with their defaults; unknown ones are ignored. Raises MALFORMED_REQUEST that names `settings.…`."""
    settings = KINDS[generation_type].settings
    try:
        return msgspec.convert(given, settings)
    except msgspec.ValidationError as fault:
        raise reading.explained(str(fault), settings, "settings") from None


def fill(generation: pb.Generation, settings: Settings) -> None:
    """Puts what was set into what is made."""
    generation.quality = _QUALITIES.get(generation.model, "")
    match settings:
        case ImageSettings() | InfographicSettings():
            generation.width, generation.height = _PIXELS[settings.aspect_ratio]
            if isinstance(settings, InfographicSettings):
                generation.style = settings.style
        case VideoSettings():
            generation.width, generation.height = _FILM_PIXELS[settings.aspect_ratio]
            generation.duration_s, generation.audio = settings.duration, settings.generate_audio
        case VoiceSettings():
            generation.voice, generation.format = settings.voice, settings.format
        case MusicSettings():
            generation.duration_s = settings.duration
        case TextSettings():
            generation.max_words = settings.max_words
