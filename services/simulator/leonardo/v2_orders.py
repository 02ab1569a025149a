"""v2: a model's slug and its parameters, of which none may be unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from services.simulator.drawings import Drawing, Film, Picture, Sound
from services.simulator.field_rules import Field
from services.simulator.leonardo.v1_orders import Order, Reference
from services.simulator.leonardo.wording import first_fault
from services.simulator.seedance import SIZES

_IMAGE_TYPES: Final = ("INIT", "GENERATION", "UPLOADED", "GENERATED", "VARIATION")
_MEDIA_TYPES: Final = ("UPLOADED", "GENERATED")
_UPLOADED_TYPES: Final = {"INIT", "UPLOADED"}
_SEED: Final = Field("integer", low=-1, high=4_294_967_295)
_PX_LOW: Final = 655_360
_PX_HIGH: Final = 8_294_400
# A guide's example: 8 seconds of 2.0 Fast at 1280 × 720 for 0.80 dollars. The others in the proportion of what their
# maker asks for a token.
_FAST_USD_PER_S: Final = Decimal("0.10")
_FAST_RATE: Final = Decimal("5.6")
_720P_PX: Final = 1280 * 720
_GPT_IMAGE_USD: Final = {"LOW": Decimal("0.02"), "MEDIUM": Decimal("0.06"), "HIGH": Decimal("0.21")}
_MUSIC_USD_PER_MINUTE: Final = Decimal("0.10")
_SPEECH_USD: Final = Decimal("0.02")
_FLUX_USD: Final = Decimal("0.004")


class ParametersRefused(Exception):
    """Parameters that v2 refuses, with its message."""


@dataclass(frozen=True, slots=True)
class _Guidance:
    """What may stand in one list of `guidances`: how many, and what an entry may hold."""

    most: int
    medium: str = "image"
    fields: Mapping[str, Field] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Model:
    """One slug."""

    kind: str
    fields: Mapping[str, Field]
    guidances: Mapping[str, _Guidance]
    draw: Callable[[Mapping[str, Any]], tuple[tuple[Drawing, ...], Decimal]]


_MEDIA_FIELDS: Final[Mapping[str, Mapping[str, Field]]] = {
    "image": {
        "id": Field("string", required=True),
        "type": Field("string", required=True, choices=_IMAGE_TYPES),
    },
    "video": {
        "id": Field("string", required=True),
        "type": Field("string", required=True, choices=_MEDIA_TYPES),
        "width": Field("integer"),
        "height": Field("integer"),
        "duration": Field("number"),
        "motion_has_audio": Field("boolean"),
    },
    "audio": {
        "id": Field("string", required=True),
        "type": Field("string", required=True, choices=_MEDIA_TYPES),
        "duration": Field("number"),
    },
}
_STRENGTH: Final = Field("string", choices=("LOW", "MID", "HIGH"))
_ORDER: Final = Field("integer", low=0)


def _seedance(rate: str, resolutions: tuple[str, ...], longest_s: int, *, mode: bool, images: int) -> _Model:
    is_25 = images > 4
    fields = {
        "prompt": Field("string", required=True, low=1, high=5000),
        "quantity": Field("integer", low=1, high=1),
        "duration": Field("integer", low=4, high=longest_s),
        "width": Field("integer"),
        "height": Field("integer"),
        "motion_has_audio": Field("boolean"),
        "seed": _SEED,
        "guidances": Field("object"),
    }
    if mode:
        names = [
            f"RESOLUTION_{resolution.removesuffix('p')}" for resolution in resolutions if resolution != "4k"
        ]
        fields["mode"] = Field("string", choices=names)
    reference = {"order": _ORDER} if is_25 else {"strength": _STRENGTH, "order": _ORDER}
    guidances = {
        "start_frame": _Guidance(1),
        "end_frame": _Guidance(1),
        "image_reference": _Guidance(images, "image", reference),
        "video_reference_base": _Guidance(10 if is_25 else 3, "video"),
        "audio_reference": _Guidance(10 if is_25 else 1, "audio"),
    }

    def draw(parameters: Mapping[str, Any]) -> tuple[tuple[Drawing, ...], Decimal]:
        width, height = _seedance_size(parameters, resolutions)
        seconds = int(parameters.get("duration", 8))
        film = Film(width, height, seconds, has_sound=parameters.get("motion_has_audio", True))
        share = Decimal(width * height) / _720P_PX
        usd = (_FAST_USD_PER_S * Decimal(rate) / _FAST_RATE * seconds * share).quantize(Decimal("0.0001"))
        return (film, Picture(width, height, "jpeg")), usd

    return _Model("video", fields, guidances, draw)


def _seedance_size(parameters: Mapping[str, Any], resolutions: tuple[str, ...]) -> tuple[int, int]:
    sizes = [size for name in resolutions for size in SIZES[name].values()]
    if "width" in parameters or "height" in parameters:
        size = (parameters.get("width"), parameters.get("height"))
        if size not in sizes:
            raise ParametersRefused(f"invalid dimensions: {size[0]}x{size[1]}")
        return next(known for known in sizes if known == size)
    mode = str(parameters.get("mode", "RESOLUTION_720")).removeprefix("RESOLUTION_")
    return SIZES[f"{mode}p"]["16:9"]


def _gpt_image(parameters: Mapping[str, Any]) -> tuple[tuple[Drawing, ...], Decimal]:
    width, height = int(parameters.get("width", 1024)), int(parameters.get("height", 1024))
    is_sound = width % 16 == 0 and height % 16 == 0 and _PX_LOW <= width * height <= _PX_HIGH
    if not is_sound or max(width, height) >= 3840 or max(width, height) > 3 * min(width, height):
        raise ParametersRefused(f"invalid dimensions: {width}x{height}")
    quantity = int(parameters.get("quantity", 1))
    usd = _GPT_IMAGE_USD[parameters.get("quality", "MEDIUM")] * quantity
    return tuple(Picture(width, height, "png", tint) for tint in range(quantity)), usd


def _flux(parameters: Mapping[str, Any]) -> tuple[tuple[Drawing, ...], Decimal]:
    width, height = int(parameters.get("width", 1024)), int(parameters.get("height", 1024))
    if width % 8 or height % 8:
        raise ParametersRefused(f"invalid dimensions: {width}x{height}")
    quantity = int(parameters.get("quantity", 4))
    return tuple(Picture(width, height, "jpeg", tint) for tint in range(quantity)), _FLUX_USD * quantity


def _music(parameters: Mapping[str, Any]) -> tuple[tuple[Drawing, ...], Decimal]:
    minutes, quantity = int(parameters.get("duration_minutes", 1)), int(parameters.get("quantity", 1))
    return (Sound(60 * minutes),) * quantity, _MUSIC_USD_PER_MINUTE * minutes * quantity


def _speech(parameters: Mapping[str, Any]) -> tuple[tuple[Drawing, ...], Decimal]:
    # About fifteen characters are spoken in a second.
    seconds = max(1, len(parameters["prompt"]) // 15)
    quantity = int(parameters.get("quantity", 1))
    return (Sound(seconds),) * quantity, _SPEECH_USD * quantity


_FRAMES: Final = Field("object")
_QUANTITY_4: Final = Field("integer", low=1, high=4)
_QUANTITY_8: Final = Field("integer", low=1, high=8)
_GPT_FIELDS: Final = {
    "prompt": Field("string", required=True, low=1, high=32_000),
    "quality": Field("string", choices=("LOW", "MEDIUM", "HIGH")),
    "quantity": _QUANTITY_8,
    "width": Field("integer"),
    "height": Field("integer"),
    "prompt_enhance": Field("string", choices=("ON", "OFF")),
    "guidances": _FRAMES,
}
_FLUX_FIELDS: Final = {
    "prompt": Field("string", required=True, low=1, high=9_999),
    "width": Field("integer", low=32, high=2048),
    "height": Field("integer", low=32, high=2048),
    "quantity": _QUANTITY_8,
    "seed": _SEED,
    "guidances": _FRAMES,
    "style_ids": Field("strings"),
    "prompt_enhance": Field("string", choices=("ON", "OFF")),
}
_MUSIC_FIELDS: Final = {
    "prompt": Field("string", required=True, low=1, high=9_999),
    "duration_minutes": Field("integer", low=1, high=10),
    "force_instrumental": Field("boolean"),
    "quantity": _QUANTITY_4,
}
_SPEECH_FIELDS: Final = {
    "prompt": Field("string", required=True, low=1, high=3_000),
    "voice_id": Field("string"),
    "language_code": Field("string"),
    "speed": Field("number", low=0.5, high=2),
    "pitch": Field("number", low=-12, high=12),
    "volume": Field("number", low=0.5, high=2),
    "quantity": _QUANTITY_4,
    "guidances": _FRAMES,
}
_GPT_IMAGE: Final = _Model("image", _GPT_FIELDS, {"image_reference": _Guidance(6)}, _gpt_image)
_SPEECH_GUIDANCES: Final = {"audio_reference": _Guidance(3, "audio"), "image_reference": _Guidance(1)}
MODELS: Final[Mapping[str, _Model]] = {
    "seedance-2.0": _seedance("7.0", ("480p", "720p", "1080p", "4k"), 15, mode=True, images=4),
    "seedance-2.0-fast": _seedance("5.6", ("480p", "720p"), 15, mode=True, images=4),
    "seedance-2.0-mini": _seedance("3.5", ("480p", "720p"), 15, mode=True, images=4),
    "bytedance/seedance-2.5": _seedance("10.7", ("480p", "720p", "1080p"), 30, mode=False, images=30),
    "gpt-image-2": _GPT_IMAGE,
    "openai/gpt-image-2.5-flare": _GPT_IMAGE,
    "openai/gpt-image-2.5-sunburst": _GPT_IMAGE,
    "flux-schnell": _Model("image", _FLUX_FIELDS, {"image_reference": _Guidance(6)}, _flux),
    "music-v1": _Model("music", _MUSIC_FIELDS, {}, _music),
    "seed-audio-1.0": _Model("voice", _SPEECH_FIELDS, _SPEECH_GUIDANCES, _speech),
}
_ENVELOPE: Final = {
    "model": Field("string", required=True),
    "public": Field("boolean"),
    "parameters": Field("object", required=True),
}


def order_of(body: Mapping[str, Any]) -> Order:
    """`POST /v2/generations`. Raises ParametersRefused."""
    if fault := first_fault(body, _ENVELOPE):
        raise ParametersRefused(fault[0])
    slug = body["model"]
    parameters = {name: value for name, value in body["parameters"].items() if value is not None}
    model = MODELS.get(slug)
    if model is None:
        raise ParametersRefused(f"{slug} is not supported within the Production API")
    if fault := first_fault(parameters, model.fields):
        raise ParametersRefused(fault[0])
    references = tuple(_references(parameters.get("guidances") or {}, model))
    drawings, usd = model.draw(parameters)
    first = drawings[0]
    size = (first.width, first.height) if isinstance(first, Film | Picture) else (None, None)
    facts = {"modelId": None, "width": size[0], "height": size[1], "public": body.get("public", False)}
    if parameters.get("seed", -1) >= 0:
        facts["seed"] = parameters["seed"]
    return Order(model.kind, slug, parameters["prompt"], drawings, usd, references, facts)


def _references(guidances: Mapping[str, Any], model: _Model) -> Iterator[Reference]:
    if unknown := sorted(set(guidances) - set(model.guidances)):
        raise ParametersRefused(f"Unexpected variable guidances.{unknown[0]}")
    given = {name: _entries(name, guidances[name], model.guidances[name]) for name in guidances}
    if given.get("end_frame") and not given.get("start_frame"):
        raise ParametersRefused("guidances.end_frame needs guidances.start_frame")
    if given.get("start_frame") and given.get("image_reference"):
        raise ParametersRefused("guidances.image_reference cannot be used with frames")
    for entries in given.values():
        yield from entries


def _entries(name: str, value: Any, rule: _Guidance) -> list[Reference]:
    if not isinstance(value, list) or len(value) > rule.most:
        raise ParametersRefused(f"guidances.{name} is a list of at most {rule.most}")
    fields = {rule.medium: Field("object", required=True), **rule.fields}
    found = []
    for entry in value:
        fault = first_fault(entry, fields) if isinstance(entry, dict) else ("Invalid value", "")
        fault = fault or first_fault(entry[rule.medium], _MEDIA_FIELDS[rule.medium])
        if fault:
            raise ParametersRefused(f"{fault[0]} in guidances.{name}")
        medium = entry[rule.medium]
        found.append(Reference(medium["id"], medium["type"] in _UPLOADED_TYPES))
    return found


def schema_of(slug: str) -> dict[str, Any]:
    """The JSON Schema of a model's parameters, as `GET /v2/models` lists it."""
    model = MODELS[slug]
    types = {"strings": "array", "objects": "array", "any": "string"}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, rule in model.fields.items() if rule.required],
        "properties": {
            name: {"type": types.get(rule.type, rule.type)} for name, rule in model.fields.items()
        },
    }
