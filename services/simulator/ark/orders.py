"""A task's request, field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from services.simulator.ark.content import Content, addresses_of, content_of
from services.simulator.ark.errors import error, invalid, missing
from services.simulator.ark.models import IMAGE_MODEL, MODELS, USD_PER_IMAGE, Model, size_of
from services.simulator.drawings import Drawing, Film, Picture
from services.simulator.field_rules import Field, flaws_of
from services.simulator.provider import Refused
from services.simulator.seedance import FRAMES_PER_S, RATIOS

_FLAG: Final = Field("boolean")
_TASK: Final[Mapping[str, Field]] = {
    "model": Field("string", required=True),
    "content": Field("any", required=True),
    "resolution": Field("string", choices=("480p", "720p", "1080p", "4k")),
    "ratio": Field("string", choices=(*RATIOS, "adaptive")),
    "duration": Field("integer"),
    "frames": Field("integer", low=29, high=289),
    "seed": Field("integer", low=-1, high=4_294_967_295),
    "watermark": _FLAG,
    "camera_fixed": _FLAG,
    "generate_audio": _FLAG,
    "return_last_frame": _FLAG,
    "draft": _FLAG,
    "callback_url": Field("string"),
    "service_tier": Field("string", choices=("default", "flex")),
    "execution_expires_after": Field("integer", low=3_600, high=259_200),
    "priority": Field("integer", low=0, high=9),
    "safety_identifier": Field("string", high=64),
    "tools": Field("objects"),
    "output_format": Field("string", choices=("mp4", "mov")),
    "omni_reference_task_type": Field("string", choices=("auto", "reference", "edit", "extend")),
}
_IMAGE: Final[Mapping[str, Field]] = {
    "model": Field("string", required=True),
    "prompt": Field("string", required=True, low=1),
    "image": Field("any"),
    "size": Field("string"),
    "response_format": Field("string", choices=("url", "b64_json")),
    "seed": Field("integer", low=-1, high=2_147_483_647),
    "watermark": _FLAG,
    "guidance_scale": Field("number", low=1, high=10),
    "optimize_prompt": _FLAG,
    "layer_decomposition": Field("any"),
    "sequential_image_generation": Field("string", choices=("auto", "disabled")),
    "sequential_image_generation_options": Field("object"),
    "optimize_prompt_options": Field("object"),
    "output_format": Field("string", choices=("png", "jpeg")),
    "stream": _FLAG,
    "tools": Field("objects"),
}
_EXPIRES_S: Final = 172_800
_DEFAULT_SECONDS: Final = 5
_NAMED_SIZES: Final = {"1K": (1024, 1024), "2K": (2048, 2048), "4K": (4096, 4096)}
_SIZE: Final = re.compile(r"(\d{3,4})x(\d{3,4})")
# The old models also read parameters from the end of the text, where they win over the fields.
_SUFFIX: Final = re.compile(r"\s--(resolution|rs|ratio|rt|duration|dur|seed)\s+(\S+)")
_SUFFIX_FIELDS: Final = {"rs": "resolution", "rt": "ratio", "dur": "duration"}


@dataclass(frozen=True, slots=True)
class Order:
    """A sound request, and what becomes of it."""

    model: str
    prompt: str
    drawings: tuple[Drawing, ...]
    tokens: int
    usd: Decimal
    expires_s: float
    shown: dict[str, Any]
    # The preview that this is the whole of.
    draft_id: str = ""


def task_order(body: Mapping[str, Any]) -> Order:
    """`POST /contents/generations/tasks`. Raises Refused."""
    body = _given(body)
    _check(body, _TASK)
    name = body["model"]
    model = MODELS.get(name)
    if model is None:
        text = f"The model or endpoint {name} does not exist or you do not have access to it."
        raise Refused(error(404, "InvalidEndpointOrModel.NotFound", text))
    content = content_of(body["content"], model)
    if not model.is_2x:
        body = {**body, **_in_text(content.text)}
        _check(body, _TASK)
    _check_model(body, model, content)
    resolution = body.get("resolution", "720p" if model.is_2x else "1080p")
    ratio = body.get("ratio", "adaptive" if content.roles else "16:9")
    width, height = size_of(resolution, ratio)
    seconds = _seconds(body, model)
    has_audio = model.has_audio and bool(body.get("generate_audio", model.is_2x))
    film = Film(width, height, seconds, has_audio, "mov" if body.get("output_format") == "mov" else "mp4")
    drawings: tuple[Drawing, ...] = (film,)
    if body.get("return_last_frame"):
        drawings = (film, Picture(width, height))
    tokens = _tokens(width, height, seconds, content)
    rate = model.rate(resolution, has_video=content.has_video, has_audio=has_audio)
    usd = rate * tokens / 1_000_000 / (2 if body.get("service_tier") == "flex" else 1)
    shown = _shown(body, resolution, ratio, seconds, has_audio)
    expires_s = body.get("execution_expires_after", _EXPIRES_S)
    cost = usd.quantize(Decimal("0.000001"))
    return Order(name, content.text, drawings, tokens, cost, expires_s, shown, content.draft_id)


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    # Ark's own client sends null for whatever was not given.
    return {name: value for name, value in body.items() if value is not None}


def _in_text(text: str) -> dict[str, Any]:
    found = {_SUFFIX_FIELDS.get(name, name): value for name, value in _SUFFIX.findall(text)}
    return {name: int(value) if value.lstrip("-").isdigit() else value for name, value in found.items()}


def _tokens(width: int, height: int, seconds: int, content: Content) -> int:
    # A clip has one frame more than its seconds. How long the reference videos are cannot be seen from their
    # addresses: they count as short as they may be.
    frames = FRAMES_PER_S * (seconds + 2 * content.roles["reference_video"]) + 1
    return frames * width * height // 1024


def _check(body: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    flaw = next(flaws_of(body, fields), None)
    if flaw is None:
        return
    if flaw.kind == "missing":
        raise missing(flaw.field)
    raise invalid(flaw.field, "unknown parameter" if flaw.kind == "unknown" else "the value is not allowed")


def _check_model(body: Mapping[str, Any], model: Model, content: Content) -> None:
    if body.get("resolution") not in {None, *model.resolutions}:
        raise invalid("resolution", f"the model offers {', '.join(model.resolutions)}")
    if "frames" in body and (model.generation != "1.0" or "duration" in body or (body["frames"] - 25) % 4):
        raise invalid("frames", "25 + 4n, on 1.0 models, instead of a duration")
    if model.is_2x and (body.get("service_tier") == "flex" or "camera_fixed" in body):
        raise invalid("service_tier" if body.get("service_tier") == "flex" else "camera_fixed", "not on 2.x")
    only_25 = {"output_format", "omni_reference_task_type"} & set(body)
    if model.generation != "2.5" and only_25:
        raise invalid(min(only_25), "on 2.5 only")
    if body.get("draft") and model.generation != "1.5":
        raise invalid("draft", "on 1.5 pro only")
    if not str(body.get("safety_identifier", "")).isascii():
        raise invalid("safety_identifier", "ASCII only")
    if model.generation == "2.5":
        _check_25(body, content)


def _check_25(body: Mapping[str, Any], content: Content) -> None:
    task = body.get("omni_reference_task_type", "auto")
    is_bound = content.is_of_frames or task in {"edit", "extend"}
    if is_bound and body.get("ratio", "adaptive") != "adaptive":
        raise invalid("ratio", "must be adaptive for this kind of task", ".TaskTypeConstraint")
    if task == "edit" and body.get("duration", -1) != -1:
        raise invalid("duration", "must be -1 for an edit", ".TaskTypeConstraint")


def _seconds(body: Mapping[str, Any], model: Model) -> int:
    if "frames" in body:
        return max(1, round(int(body["frames"]) / FRAMES_PER_S))
    seconds = int(body.get("duration", _DEFAULT_SECONDS))
    if seconds == -1 and model.may_choose_length:
        return _DEFAULT_SECONDS
    low, high = model.seconds
    if not low <= seconds <= high:
        raise invalid("duration", f"the model makes {low} to {high} seconds")
    return seconds


def _shown(
    body: Mapping[str, Any], resolution: str, ratio: str, seconds: int, has_audio: bool
) -> dict[str, Any]:
    shown = {
        "resolution": resolution,
        "ratio": "16:9" if ratio == "adaptive" else ratio,
        "framespersecond": FRAMES_PER_S,
        "service_tier": body.get("service_tier", "default"),
        "execution_expires_after": body.get("execution_expires_after", _EXPIRES_S),
        "generate_audio": has_audio,
        "draft": body.get("draft", False),
        "priority": body.get("priority", 0),
    }
    shown |= {"frames": body["frames"]} if "frames" in body else {"duration": seconds}
    if "safety_identifier" in body:
        shown["safety_identifier"] = body["safety_identifier"]
    return shown


def image_order(body: Mapping[str, Any]) -> Order:
    """`POST /images/generations`. Raises Refused."""
    body = _given(body)
    _check(body, _IMAGE)
    if not IMAGE_MODEL.fullmatch(body["model"]):
        text = f"The model or endpoint {body['model']} does not exist or you do not have access to it."
        raise Refused(error(404, "InvalidEndpointOrModel.NotFound", text))
    if "image" in body:
        addresses_of(body["image"])
    width, height = _image_size(str(body.get("size", "2K")))
    number = 1
    if body.get("sequential_image_generation") == "auto":
        options = body.get("sequential_image_generation_options") or {}
        number = options.get("max_images", 1)
        if type(number) is not int or not 1 <= number <= 15:
            raise invalid("sequential_image_generation_options.max_images", "1 to 15")
    format_ = "png" if body.get("output_format") == "png" else "jpeg"
    drawings = tuple(Picture(width, height, "png" if format_ == "png" else "jpeg", n) for n in range(number))
    tokens = width * height // 256 * number
    shown = {"size": f"{width}x{height}", "output_format": format_}
    return Order(body["model"], body["prompt"], drawings, tokens, USD_PER_IMAGE * number, _EXPIRES_S, shown)


def _image_size(text: str) -> tuple[int, int]:
    if text in _NAMED_SIZES:
        return _NAMED_SIZES[text]
    found = _SIZE.fullmatch(text)
    if found is None:
        raise invalid("size", "1K, 2K, 4K or WxH")
    return int(found[1]), int(found[2])
