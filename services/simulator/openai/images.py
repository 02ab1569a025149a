"""Requests for images, by JSON and by form, field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from services.simulator.drawings import Picture, PictureFormat
from services.simulator.field_rules import Field, Flaw, flaws_of
from services.simulator.forms import Part
from services.simulator.openai.errors import invalid
from services.simulator.openai.models import IMAGE_MODELS, Model, open_model
from services.simulator.provider import Refused

_FLAG: Final = Field("boolean")
_SHARED: Final[Mapping[str, Field]] = {
    "prompt": Field("string", required=True, low=1, high=32_000),
    "model": Field("string"),
    "n": Field("integer", low=1, high=10),
    "size": Field("string"),
    "quality": Field("string", choices=("auto", "low", "medium", "high", "xhigh", "max")),
    "background": Field("string", choices=("auto", "transparent", "opaque")),
    "output_format": Field("string", choices=("png", "webp", "jpeg", "gif")),
    "output_compression": Field("integer", low=0, high=100),
    "moderation": Field("string", choices=("auto", "low")),
    "stream": _FLAG,
    "partial_images": Field("integer", low=0, high=3),
    "user": Field("string"),
    "safety_identifier": Field("string"),
}
_GENERATE: Final[Mapping[str, Field]] = {
    **_SHARED,
    "frame_count": Field("integer", low=2, high=16),
    "frame_duration_ms": Field("integer", low=1),
    "complexity": Field("string", choices=("low", "medium", "high")),
}
_EDIT: Final[Mapping[str, Field]] = {
    **_SHARED,
    "input_fidelity": Field("string", choices=("high", "low")),
}
_FORMATS: Final[Mapping[str, PictureFormat]] = {"png": "png", "webp": "webp", "jpeg": "jpeg", "gif": "gif"}
_FILES: Final = frozenset({"image", "image[]", "mask", "markup"})
_INTEGERS: Final = frozenset({"n", "output_compression", "partial_images"})
_OLD_SIZES: Final = frozenset({"1024x1024", "1536x1024", "1024x1536"})
_SIZE: Final = re.compile(r"([1-9]\d{1,3})x([1-9]\d{1,3})")
_PX_LOW: Final = 655_360
_PX_HIGH: Final = 8_294_400
_IMAGES_LIMIT: Final = 16
_IMAGE_BYTES: Final = 50 * 1024 * 1024
_MASK_BYTES: Final = 4 * 1024 * 1024
_STARTS: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
# Output tokens of 1024 × 1024; a larger picture has more in proportion.
_TOKENS: Final = {"low": 272, "medium": 1_056, "high": 4_160, "xhigh": 6_240, "max": 8_320}
_TOKENS_AUTO: Final = "high"
_SQUARE_PX: Final = 1024 * 1024
# What an image counts as an input, always looked at closely.
_TOKENS_OF_INPUT: Final = 1_024


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """A sound request, and what becomes of it."""

    model: str
    prompt: str
    pictures: tuple[Picture, ...]
    shown: dict[str, Any]
    usage: dict[str, Any]
    usd: Decimal
    partial_images: int
    is_streamed: bool
    is_edit: bool


def generation_order(body: Mapping[str, Any], today: date) -> ImageOrder:
    """`POST /v1/images/generations`. Raises Refused."""
    if "response_format" in body:
        raise invalid("response_format", "Unknown parameter: 'response_format'.", "unknown_parameter")
    _check(body, _GENERATE)
    return _order(
        {name: value for name, value in body.items() if value is not None}, today, inputs=0, is_edit=False
    )


def edit_order(parts: Sequence[Part], today: date) -> ImageOrder:
    """`POST /v1/images/edits`. Raises Refused."""
    body: dict[str, Any] = {}
    for part in parts:
        if part.name not in _FILES:
            body[part.name] = _read(part)
    images = [part for part in parts if part.name in {"image", "image[]"}]
    if not images:
        raise invalid("image", "Missing required parameter: 'image'.", "missing_required_parameter")
    if len(images) > _IMAGES_LIMIT:
        raise invalid("image", f"Too many images: at most {_IMAGES_LIMIT}.")
    if sum(part.name == "image" for part in images) > 1:
        raise invalid(
            "image", "Duplicate parameter: 'image'. Use 'image[]' for several.", "duplicate_parameter"
        )
    for image in images:
        _check_file(image, _IMAGE_BYTES, _STARTS)
    for mask in (part for part in parts if part.name == "mask"):
        _check_file(mask, _MASK_BYTES, _STARTS[:1])
    _check(body, _EDIT)
    return _order(body, today, inputs=len(images), is_edit=True)


def _read(part: Part) -> Any:
    if part.name in _INTEGERS and part.text.isdigit():
        return int(part.text)
    if part.name == "stream" and part.text in {"true", "false"}:
        return part.text == "true"
    return part.text


def _check_file(part: Part, limit_bytes: int, starts: tuple[bytes, ...]) -> None:
    if not part.file_name or not part.content.startswith(starts):
        raise invalid(part.name, "Invalid file: unsupported mimetype.", "unsupported_file_mimetype")
    if len(part.content) >= limit_bytes:
        raise invalid(part.name, "Invalid file: too large.", "file_too_large")


def _check(body: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    flaw = next(flaws_of(body, fields), None)
    if flaw is not None:
        raise _refusal_of(flaw)


def _refusal_of(flaw: Flaw) -> Refused:
    match flaw.kind:
        case "missing":
            text = f"Missing required parameter: '{flaw.field}'."
            return invalid(flaw.field, text, "missing_required_parameter")
        case "unknown":
            return invalid(flaw.field, f"Unknown parameter: '{flaw.field}'.", "unknown_parameter")
        case "type":
            return invalid(flaw.field, f"Invalid type for '{flaw.field}'.", "invalid_type")
        case "long":
            text = f"Invalid '{flaw.field}': too long, maximum {flaw.limit:g}."
            return invalid(flaw.field, text, "string_above_max_length")
        case "low" | "high":
            return invalid(flaw.field, f"Invalid '{flaw.field}': out of range.", "integer_out_of_range")
        case _:
            return invalid(flaw.field, f"Invalid value for '{flaw.field}'.", "invalid_value")


def _order(body: Mapping[str, Any], today: date, *, inputs: int, is_edit: bool) -> ImageOrder:
    name = str(body.get("model") or "gpt-image-2")
    model = open_model(IMAGE_MODELS, name, today)
    width, height = _size(str(body.get("size") or "auto"), model)
    _check_model(body, model)
    output_format = body.get("output_format") or "png"
    background = body.get("background") or "auto"
    is_transparent = background == "transparent"
    if is_transparent and output_format not in {"png", "webp"}:
        raise invalid("background", "Transparent background needs png or webp.", "invalid_value")
    number = int(body.get("n") or 1)
    quality = body.get("quality") or "auto"
    quality = _TOKENS_AUTO if quality == "auto" else quality
    usage = _usage(body["prompt"], inputs, number * (_TOKENS[quality] * width * height // _SQUARE_PX))
    details = usage["input_tokens_details"]
    return ImageOrder(
        model=name,
        prompt=body["prompt"],
        pictures=tuple(
            Picture(width, height, _FORMATS[output_format], tint, is_transparent) for tint in range(number)
        ),
        shown={
            "background": "transparent" if is_transparent else "opaque",
            "output_format": output_format,
            "quality": quality,
            "size": f"{width}x{height}",
        },
        usage=usage,
        usd=model.rates.usd(details["text_tokens"], details["image_tokens"], usage["output_tokens"]),
        partial_images=int(body.get("partial_images") or 0),
        is_streamed=bool(body.get("stream")),
        is_edit=is_edit,
    )


def _size(text: str, model: Model) -> tuple[int, int]:
    if text == "auto":
        return 1024, 1024
    found = _SIZE.fullmatch(text)
    if found is None or (model.generation < 2 and text not in _OLD_SIZES):
        raise invalid("size", f"Invalid value: '{text}'.", "invalid_value")
    width, height = int(found[1]), int(found[2])
    is_whole = width % 16 == 0 and height % 16 == 0
    is_within = max(width, height) <= 3840 and min(width, height) <= 2160
    is_even = max(width, height) <= 3 * min(width, height)
    if not (is_whole and is_within and is_even and _PX_LOW <= width * height <= _PX_HIGH):
        raise invalid("size", f"Invalid size '{text}'.", "invalid_value")
    return width, height


def _check_model(body: Mapping[str, Any], model: Model) -> None:
    if body.get("quality") in {"xhigh", "max"} and model.generation < 2.5:
        raise invalid("quality", f"Invalid value: '{body['quality']}'.", "invalid_value")
    if "input_fidelity" in body and model.generation != 1.5:
        raise invalid("input_fidelity", "'input_fidelity' is not supported by this model.", "invalid_value")
    if "frame_count" in body and body.get("output_format") != "gif":
        raise invalid("frame_count", "'frame_count' is for gif only.", "invalid_value")


def _usage(prompt: str, inputs: int, out: int) -> dict[str, Any]:
    text, images = max(1, len(prompt) // 4), inputs * _TOKENS_OF_INPUT
    return {
        "input_tokens": text + images,
        "input_tokens_details": {"text_tokens": text, "image_tokens": images},
        "output_tokens": out,
        "output_tokens_details": {"image_tokens": out, "text_tokens": 0},
        "total_tokens": text + images + out,
    }
