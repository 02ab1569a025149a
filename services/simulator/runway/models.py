"""The models that the simulator of Runway serves: their bodies, sizes and prices in credits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from services.simulator import seedance
from services.simulator.drawings import Drawing, Film, Picture
from services.simulator.field_rules import Field, Flaw, flaws_of

Route = Literal["text_to_video", "image_to_video", "text_to_image"]


@dataclass(frozen=True, slots=True)
class VideoModel:
    """`credits_per_s` by resolution; a resolution without a price is not offered."""

    credits_per_s: Mapping[str, int]
    durations_s: tuple[int, int]
    prompt_limit: int
    images_limit: int
    is_new: bool = False

    def ratios(self) -> dict[str, str]:
        """Every `"W:H"` that may be asked for, with its resolution."""
        found = {
            f"{width_px}:{height_px}": resolution
            for resolution in self.credits_per_s
            for width_px, height_px in seedance.SIZES[resolution].values()
        }
        if self.is_new:
            # 2.5 alone has sizes of its own here.
            found |= {"854:480": "480p", "480:854": "480p"}
            del found["864:496"], found["496:864"]
        return found


@dataclass(frozen=True, slots=True)
class Order:
    """A body that is right: what to draw, and the credits that are taken at once."""

    model: str
    prompt: str
    drawings: tuple[Drawing, ...]
    credits: int


_DEFAULT_RATIO: Final = "1280:720"
_DEFAULT_DURATION_S: Final = 5
VIDEO_MODELS: Final[Mapping[str, VideoModel]] = {
    "seedance2": VideoModel({"480p": 16, "720p": 36, "1080p": 81, "4k": 160}, (4, 15), 3500, 9),
    "seedance2_fast": VideoModel({"480p": 13, "720p": 29}, (4, 15), 3500, 9),
    "seedance2_mini": VideoModel({"480p": 8, "720p": 18}, (4, 15), 3500, 9),
    "seedance2_5": VideoModel({"480p": 22, "720p": 47, "1080p": 106}, (4, 30), 15_000, 30, is_new=True),
}
# Credits for one picture.
_IMAGE_CREDITS: Final[Mapping[str, Mapping[str, int]]] = {
    "gpt_image_2": {"low": 2, "medium": 7, "high": 25, "auto": 25},
    "gpt_image_2_5_flare": {"low": 2, "medium": 5, "high": 15, "xhigh": 25, "max": 40},
    "gpt_image_2_5_sunburst": {"low": 3, "medium": 9, "high": 30, "xhigh": 45, "max": 60},
}
_IMAGE_RATIOS: Final = [
    "2048:880",
    "1920:1088",
    "1920:1280",
    "1920:1440",
    "1920:1536",
    "1920:1920",
    "1536:1920",
    "1440:1920",
    "1280:1920",
    "1088:1920",
    "2912:1248",
    "2560:1440",
    "2560:1712",
    "2560:1920",
    "2560:2048",
    "2560:2560",
    "2048:2560",
    "1920:2560",
    "1712:2560",
    "1440:2560",
    "3840:1648",
    "3840:2160",
    "3504:2336",
    "3264:2448",
    "3200:2560",
    "2880:2880",
    "2560:3200",
    "2448:3264",
    "2336:3504",
    "2160:3840",
    "auto",
]
_AUTO_RATIO: Final = "1920:1088"
MODELS: Final = (*VIDEO_MODELS, *_IMAGE_CREDITS)


def judge(route: Route, body: Mapping[str, object]) -> Order | list[Flaw]:
    """An order, or everything that is wrong with the body."""
    known = tuple(_IMAGE_CREDITS if route == "text_to_image" else VIDEO_MODELS)
    model = body.get("model")
    if not isinstance(model, str) or model not in known:
        kind: Literal["missing", "choice"] = "missing" if model is None else "choice"
        return [Flaw(kind, "model", Field("string", required=True, choices=known), value=model)]
    if route == "text_to_image":
        return _image(model, body)
    return _video(route, model, body)


def _video(route: Route, name: str, body: Mapping[str, object]) -> Order | list[Flaw]:
    model = VIDEO_MODELS[name]
    fields = _video_fields(route, model)
    if flaws := list(flaws_of(body, fields)) or list(_together(route, model, body)):
        return flaws
    ratio = cast("str", body.get("ratio") or _DEFAULT_RATIO)
    duration = body.get("duration")
    seconds = duration if isinstance(duration, int) else _DEFAULT_DURATION_S
    width_px, height_px = _pixels(ratio)
    drawing = Film(
        width_px,
        height_px,
        seconds,
        has_sound=body.get("audio") is not False,
        format="mov" if body.get("outputFormat") == "mov" else "mp4",
    )
    price = model.credits_per_s[model.ratios()[ratio]] * seconds
    return Order(name, str(body.get("promptText") or ""), (drawing,), price)


def _video_fields(route: Route, model: VideoModel) -> dict[str, Field]:
    low_s, high_s = model.durations_s
    is_text_needed = route == "text_to_video" and not model.is_new
    fields = {
        "model": Field("string", required=True),
        "promptText": Field("string", required=is_text_needed, low=1, high=model.prompt_limit),
        "ratio": Field("string", choices=tuple(model.ratios())),
        "duration": Field("integer", low=low_s, high=high_s, choices=("auto",)),
        "audio": Field("boolean"),
        "seed": Field("integer", low=0, high=4_294_967_295),
        "referenceAudio": Field("objects", high=10 if model.is_new else 3),
    }
    if route == "image_to_video":
        fields["promptImage"] = Field("any", required=True)
    else:
        fields["references"] = Field("objects", high=model.images_limit)
        fields["referenceVideos"] = Field("objects", high=10 if model.is_new else 3)
    if model.is_new:
        fields |= {"draft": Field("boolean"), "outputFormat": Field("string", choices=("mp4", "mov"))}
        if route == "text_to_video":
            fields["draftTaskId"] = Field("string")
    return fields


_REFERENCE: Final = {"type": Field("string"), "uri": Field("string", required=True, low=1)}
_AUDIO_REFERENCE: Final = {
    "type": Field("string", required=True, choices=("audio",)),
    "uri": Field("string", required=True, low=1),
}
_VIDEO_REFERENCE: Final = {
    "type": Field("string", required=True, choices=("video",)),
    "uri": Field("string", required=True, low=1),
}
_FRAME: Final = {
    "uri": Field("string", required=True, low=1),
    "position": Field("string", choices=("first", "last")),
}
_PICTURE: Final = {
    "uri": Field("string", required=True, low=1),
    "tag": Field("string", low=3, high=16),
}
_PARTS: Final[Mapping[str, Mapping[str, Field]]] = {
    "references": {**_REFERENCE, "type": Field("string", choices=("image",))},
    "referenceVideos": _VIDEO_REFERENCE,
    "referenceAudio": _AUDIO_REFERENCE,
    "referenceImages": _PICTURE,
}


def _together(route: Route, model: VideoModel, body: Mapping[str, object]) -> Iterator[Flaw]:
    yield from _parts(body)
    if route == "image_to_video":
        yield from _frames(model, body["promptImage"])
    elif body.get("referenceAudio") and not (body.get("references") or body.get("referenceVideos")):
        yield Flaw("missing", "references", value=None)


def _parts(body: Mapping[str, object]) -> Iterator[Flaw]:
    for name, fields in _PARTS.items():
        for number, part in enumerate(cast("list[dict[str, object]]", body.get(name) or [])):
            for flaw in flaws_of(part, fields):
                yield Flaw(flaw.kind, f"{name}.{number}.{flaw.field}", flaw.rule, flaw.limit, flaw.value)


def _frames(model: VideoModel, given: object) -> Iterator[Flaw]:
    """One address, or pictures that are all frames with a position or all references without one."""
    if isinstance(given, str):
        return
    if not isinstance(given, list) or not given or not all(isinstance(part, dict) for part in given):
        yield Flaw("type", "promptImage", Field("objects"), value=given)
        return
    for number, part in enumerate(given):
        for flaw in flaws_of(part, _FRAME):
            yield Flaw(flaw.kind, f"promptImage.{number}.{flaw.field}", flaw.rule, flaw.limit, flaw.value)
    positions = [part.get("position") for part in given]
    named = [position for position in positions if position is not None]
    if named and len(named) != len(positions):
        yield Flaw("choice", "promptImage", value="positions and references cannot be mixed")
    elif len(set(named)) != len(named):
        yield Flaw("choice", "promptImage", value="each position can be used once")
    elif not named and len(given) > model.images_limit:
        yield Flaw("long", "promptImage", limit=model.images_limit, value=given)


def _image(name: str, body: Mapping[str, object]) -> Order | list[Flaw]:
    backgrounds = ("opaque", "auto") if name == "gpt_image_2_5_flare" else ("transparent", "opaque", "auto")
    fields = {
        "model": Field("string", required=True),
        "promptText": Field("string", required=True, low=1, high=32_000),
        "ratio": Field("string", required=True, choices=_IMAGE_RATIOS),
        "background": Field("string", choices=backgrounds),
        "outputCount": Field("integer", low=1, high=10),
        "quality": Field("string", choices=tuple(_IMAGE_CREDITS[name])),
        "referenceImages": Field("objects", high=16),
    }
    if flaws := list(flaws_of(body, fields)) or list(_parts(body)):
        return flaws
    ratio = cast("str", body["ratio"])
    width_px, height_px = _pixels(_AUTO_RATIO if ratio == "auto" else ratio)
    count = cast("int", body.get("outputCount") or 1)
    is_transparent = body.get("background") == "transparent"
    drawings = tuple(
        Picture(width_px, height_px, "png", tint=number, is_transparent=is_transparent)
        for number in range(count)
    )
    each = _IMAGE_CREDITS[name][cast("str", body.get("quality") or "high")]
    # Four megapixels are one tile of the price.
    tiles = max(1, math.ceil(width_px * height_px / 4_200_000))
    return Order(name, cast("str", body["promptText"]), drawings, each * tiles * count)


def _pixels(ratio: str) -> tuple[int, int]:
    width_px, _, height_px = ratio.partition(":")
    return int(width_px), int(height_px)


def references_of(body: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Every address in a body that is right, with the field it stands in."""
    frames = body.get("promptImage")
    if isinstance(frames, str):
        yield "promptImage", frames
    for name in ("promptImage", *_PARTS):
        parts = body.get(name)
        if isinstance(parts, list):
            yield from ((f"{name}.{number}.uri", str(part["uri"])) for number, part in enumerate(parts))
