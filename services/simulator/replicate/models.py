"""The official models that the simulator of Replicate serves: their inputs, outputs and fixed prices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, cast

from services.simulator import seedance
from services.simulator.drawings import Drawing, Film, Picture, PictureFormat
from services.simulator.field_rules import Field, Flaw, flaws_of


@dataclass(frozen=True, slots=True)
class Model:
    """One official model: `version` is what its predictions say, `price` is in USD for an input that is right.

    `is_list` says whether the output is a list of addresses or one address.
    """

    name: str
    fields: Mapping[str, Field]
    drawings: Callable[[Mapping[str, object]], tuple[Drawing, ...]]
    price: Callable[[Mapping[str, object]], Decimal]
    together: Callable[[Mapping[str, object]], Iterator[Flaw]]
    is_list: bool = False

    @property
    def version(self) -> str:
        """Official models keep theirs to themselves."""
        return "hidden"

    def flaws(self, given: Mapping[str, object]) -> list[Flaw]:
        """What is wrong with an input; fields together are looked at when each one is right."""
        return list(flaws_of(given, self.fields)) or list(self.together(given))

    def schema(self) -> dict[str, object]:
        """The live input schema, as `latest_version.openapi_schema` has it."""
        properties = {name: _schema_of(rule) for name, rule in self.fields.items()}
        required = [name for name, rule in self.fields.items() if rule.required]
        given = {"type": "object", "title": "Input", "required": required, "properties": properties}
        return {"openapi": "3.0.2", "components": {"schemas": {"Input": given}}}


REFERENCE_FIELDS: Final = (
    "image",
    "last_frame_image",
    "reference_images",
    "reference_videos",
    "reference_audios",
)
_JSON_TYPES: Final = {"strings": "array", "objects": "array", "any": "string"}
_DEFAULT_RATIO: Final = "16:9"
_DEFAULT_DURATION_S: Final = 5


def _schema_of(rule: Field) -> dict[str, object]:
    schema: dict[str, object] = {"type": _JSON_TYPES.get(rule.type, rule.type)}
    if rule.choices:
        schema["enum"] = list(rule.choices)
    return schema


# Resolutions, and USD for a second at 720p; other sizes cost by their pixels.
_SEEDANCE: Final[Mapping[str, tuple[tuple[str, ...], int, Decimal]]] = {
    "bytedance/seedance-2.5": (("480p", "720p"), 30, Decimal("0.45")),
    "bytedance/seedance-2.0": (("480p", "720p", "1080p"), 15, Decimal("0.28")),
    "bytedance/seedance-2.0-fast": (("480p", "720p"), 15, Decimal("0.22")),
    "bytedance/seedance-2.0-mini": (("480p", "720p"), 15, Decimal("0.14")),
}


def _duration_s(given: Mapping[str, object]) -> int:
    duration_s = cast("int", given.get("duration", _DEFAULT_DURATION_S))
    return _DEFAULT_DURATION_S if duration_s == -1 else duration_s


def _size(given: Mapping[str, object]) -> tuple[int, int]:
    ratio = cast("str", given.get("aspect_ratio") or _DEFAULT_RATIO)
    sizes = seedance.SIZES[cast("str", given.get("resolution") or "720p")]
    return sizes[_DEFAULT_RATIO if ratio == "adaptive" else ratio]


def _video(given: Mapping[str, object]) -> tuple[Drawing, ...]:
    has_sound = given.get("generate_audio") is not False
    return (Film(*_size(given), _duration_s(given), has_sound),)


def _seedance_together(given: Mapping[str, object]) -> Iterator[Flaw]:
    has_frames = bool(given.get("image") or given.get("last_frame_image"))
    has_pictures = bool(given.get("reference_images") or given.get("reference_videos"))
    if given.get("last_frame_image") and not given.get("image"):
        yield Flaw("missing", "image")
    if has_frames and given.get("reference_images"):
        yield Flaw("choice", "reference_images", value="cannot be used with image or last_frame_image")
    if given.get("reference_audios") and not (has_pictures or given.get("image")):
        yield Flaw("missing", "reference_images")
    duration_s = given.get("duration")
    if isinstance(duration_s, int) and -1 < duration_s < 4:
        yield Flaw("low", "duration", limit=4, value=duration_s)


def _seedance_models() -> Iterator[Model]:
    square_720p = Decimal(1280 * 720)
    for name, (resolutions, longest_s, usd_per_s) in _SEEDANCE.items():
        fields = {
            "prompt": Field("string", required=True, low=1),
            "image": Field("string"),
            "last_frame_image": Field("string"),
            "reference_images": Field("strings", high=9),
            "reference_videos": Field("strings", high=3),
            "reference_audios": Field("strings", high=3),
            "duration": Field("integer", low=-1, high=longest_s),
            "resolution": Field("string", choices=resolutions),
            "aspect_ratio": Field("string", choices=(*seedance.RATIOS, "adaptive")),
            "generate_audio": Field("boolean"),
            "seed": Field("integer"),
        }

        def price(given: Mapping[str, object], usd_per_s: Decimal = usd_per_s) -> Decimal:
            width_px, height_px = _size(given)
            return (usd_per_s * _duration_s(given) * width_px * height_px / square_720p).quantize(
                Decimal("0.001")
            )

        yield Model(name, fields, _video, price, _seedance_together)


_FLUX_SIZES: Final[Mapping[str, tuple[int, int]]] = {
    "1:1": (1024, 1024),
    "16:9": (1344, 768),
    "21:9": (1536, 640),
    "3:2": (1216, 832),
    "2:3": (832, 1216),
    "4:5": (896, 1088),
    "5:4": (1088, 896),
    "3:4": (896, 1152),
    "4:3": (1152, 896),
    "9:16": (768, 1344),
    "9:21": (640, 1536),
}
_FLUX_FORMATS: Final[Mapping[str, PictureFormat]] = {"webp": "webp", "jpg": "jpeg", "png": "png"}
_FLUX_USD: Final = Decimal("0.003")


def _flux_drawings(given: Mapping[str, object]) -> tuple[Drawing, ...]:
    size = _FLUX_SIZES[cast("str", given.get("aspect_ratio") or "1:1")]
    picture_format = _FLUX_FORMATS[cast("str", given.get("output_format") or "webp")]
    count = cast("int", given.get("num_outputs") or 1)
    return tuple(Picture(*size, picture_format, tint) for tint in range(count))


_FLUX: Final = Model(
    "black-forest-labs/flux-schnell",
    {
        "prompt": Field("string", required=True, low=1),
        "aspect_ratio": Field("string", choices=tuple(_FLUX_SIZES)),
        "num_outputs": Field("integer", low=1, high=4),
        "num_inference_steps": Field("integer", low=1, high=4),
        "seed": Field("integer"),
        "output_format": Field("string", choices=("webp", "jpg", "png")),
        "output_quality": Field("integer", low=0, high=100),
        "disable_safety_checker": Field("boolean"),
        "go_fast": Field("boolean"),
        "megapixels": Field("string", choices=("1", "0.25")),
    },
    _flux_drawings,
    lambda given: _FLUX_USD * cast("int", given.get("num_outputs") or 1),
    lambda _: iter(()),
    is_list=True,
)
MODELS: Final[Mapping[str, Model]] = {model.name: model for model in (*_seedance_models(), _FLUX)}
