"""The endpoints that the simulator of fal serves: their inputs, what they draw, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, cast

from services.simulator import seedance
from services.simulator.drawings import Drawing, Film, Picture, PictureFormat
from services.simulator.field_rules import Field, Flaw, flaws_of


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint. `unit_price` is in USD for one of `unit`."""

    id: str
    fields: Mapping[str, Field]
    drawings: Callable[[Mapping[str, object]], tuple[Drawing, ...]]
    units: Callable[[Mapping[str, object]], Decimal]
    unit: str
    unit_price: Decimal
    together: Callable[[Mapping[str, object]], Iterator[Flaw]] = lambda _: iter(())

    @property
    def app(self) -> str:
        """Owner and application: all that the returned addresses keep of the id."""
        return "/".join(self.id.split("/")[:2])

    def flaws(self, body: Mapping[str, object]) -> list[Flaw]:
        """What is wrong with an input; fields together are looked at when each one is right."""
        return list(flaws_of(body, self.fields)) or list(self.together(body))

    def price(self, body: Mapping[str, object]) -> Decimal:
        """In USD."""
        return self.units(body) * self.unit_price


REFERENCE_FIELDS: Final = (
    "image_url",
    "end_image_url",
    "image_urls",
    "video_urls",
    "audio_urls",
    "mask_url",
)
# On 2.0, of images, videos and recordings together.
_FILES_LIMIT: Final = 12
_RATIOS: Final = ("auto", *seedance.RATIOS)
# What "auto" becomes when there is no picture to look at.
_DEFAULT_RATIO: Final = "16:9"
_DEFAULT_DURATION_S: Final = 5

_COMMON_VIDEO: Final[Mapping[str, Field]] = {
    "prompt": Field("string", required=True, low=1),
    "aspect_ratio": Field("string", choices=_RATIOS),
    "generate_audio": Field("boolean"),
}
_BY_TASK: Final[Mapping[str, Mapping[str, Field]]] = {
    "text-to-video": {},
    "image-to-video": {"image_url": Field("string", required=True), "end_image_url": Field("string")},
    "reference-to-video": {
        "image_urls": Field("strings", high=9),
        "video_urls": Field("strings", high=3),
        "audio_urls": Field("strings", high=3),
    },
}
# USD for a thousand tokens; resolutions; longest clip.
_SEEDANCE: Final[Mapping[str, tuple[Decimal, tuple[str, ...], int]]] = {
    "bytedance/seedance-2.0": (Decimal("0.014"), ("480p", "720p", "1080p"), 15),
    "bytedance/seedance-2.0/fast": (Decimal("0.0112"), ("480p", "720p"), 15),
    "bytedance/seedance-2.0/mini": (Decimal("0.007"), ("480p", "720p"), 15),
    "bytedance/seedance-2.5": (Decimal("0.0219"), ("480p", "720p"), 30),
}


def _video_size(body: Mapping[str, object]) -> tuple[int, int]:
    ratio = cast("str", body.get("aspect_ratio") or "auto")
    sizes = seedance.SIZES[cast("str", body.get("resolution") or "720p")]
    return sizes[_DEFAULT_RATIO if ratio == "auto" else ratio]


def _video(body: Mapping[str, object]) -> tuple[Drawing, ...]:
    has_sound = body.get("generate_audio") is not False
    return (Film(*_video_size(body), _duration_s(body), has_sound),)


def _duration_s(body: Mapping[str, object]) -> int:
    duration = cast("str", body.get("duration") or "auto")
    return _DEFAULT_DURATION_S if duration == "auto" else int(duration)


def _video_units(body: Mapping[str, object]) -> Decimal:
    tokens = seedance.tokens(*_video_size(body), _duration_s(body))
    return (Decimal(str(tokens)) / 1000).quantize(Decimal("0.001"))


def _references_together(body: Mapping[str, object]) -> Iterator[Flaw]:
    counts = {
        name: len(cast("list[str]", body.get(name) or []))
        for name in ("image_urls", "video_urls", "audio_urls")
    }
    if not any(counts.values()):
        yield Flaw("missing", "image_urls", value=dict(body))
    elif sum(counts.values()) > _FILES_LIMIT:
        yield Flaw("long", "image_urls", limit=_FILES_LIMIT, value=body.get("image_urls"))
    elif counts["audio_urls"] and not (counts["image_urls"] or counts["video_urls"]):
        yield Flaw("missing", "image_urls", value=dict(body))


def _seedance_endpoints() -> Iterator[Endpoint]:
    for model, (price, resolutions, longest_s) in _SEEDANCE.items():
        is_new = model.endswith("2.5")
        durations = ("auto", *(str(seconds) for seconds in range(4, longest_s + 1)))
        extra = {"task": Field("string", choices=("reference", "editing", "extension"))} if is_new else {}
        seeded = {} if is_new else {"seed": Field("integer"), "end_user_id": Field("string")}
        for task, own in _BY_TASK.items():
            fields = {
                **_COMMON_VIDEO,
                "resolution": Field("string", choices=resolutions),
                "duration": Field("string", choices=durations),
                **own,
                **(extra if task == "reference-to-video" else {}),
                **seeded,
            }
            if is_new and task == "reference-to-video":
                fields["prompt"] = Field("string")
            together = _references_together if task == "reference-to-video" else (lambda _: iter(()))
            yield Endpoint(f"{model}/{task}", fields, _video, _video_units, "1000 tokens", price, together)


_IMAGE_PRESETS: Final[Mapping[str, tuple[int, int]]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
_IMAGE_FORMATS: Final = ("jpeg", "png", "webp")
# USD for a picture of 1024 x 1024; larger ones cost in proportion.
_QUALITY_USD: Final[Mapping[str, Decimal]] = {
    "low": Decimal("0.006"),
    "medium": Decimal("0.053"),
    "high": Decimal("0.211"),
    "auto": Decimal("0.211"),
}
_GPT_IMAGE: Final[Mapping[str, Field]] = {
    "prompt": Field("string", required=True, low=1),
    "image_size": Field("any"),
    "quality": Field("string", choices=tuple(_QUALITY_USD)),
    "num_images": Field("integer", low=1, high=4),
    "output_format": Field("string", choices=_IMAGE_FORMATS),
    "sync_mode": Field("boolean"),
}
_GPT_IMAGE_EDIT: Final = {
    **_GPT_IMAGE,
    "image_urls": Field("strings", required=True, low=1, high=16),
    "mask_url": Field("string"),
}
_FLUX: Final[Mapping[str, Field]] = {
    "prompt": Field("string", required=True, low=1),
    "image_size": Field("any"),
    "num_images": Field("integer", low=1, high=4),
    "num_inference_steps": Field("integer", low=1, high=12),
    "seed": Field("integer"),
    "output_format": Field("string", choices=("jpeg", "png")),
    "enable_safety_checker": Field("boolean"),
    "sync_mode": Field("boolean"),
}


def _image_size(body: Mapping[str, object]) -> tuple[int, int]:
    size = body.get("image_size") or "landscape_4_3"
    if isinstance(size, dict):
        return int(size["width"]), int(size["height"])
    return _IMAGE_PRESETS.get(cast("str", size), (1024, 1024))


def _images(body: Mapping[str, object]) -> tuple[Drawing, ...]:
    picture_format = cast("PictureFormat", body.get("output_format") or "png")
    return tuple(Picture(*_image_size(body), picture_format, tint) for tint in range(_count(body)))


def _count(body: Mapping[str, object]) -> int:
    return cast("int", body.get("num_images") or 1)


def _area(body: Mapping[str, object]) -> int:
    width_px, height_px = _image_size(body)
    return width_px * height_px


def _gpt_image_units(body: Mapping[str, object]) -> Decimal:
    area = Decimal(_area(body)) / Decimal(1024 * 1024)
    usd = _QUALITY_USD[cast("str", body.get("quality") or "high")] * area * _count(body)
    # A unit is a thousandth of a dollar.
    return (usd * 1000).quantize(Decimal("0.001"))


def _megapixels(body: Mapping[str, object]) -> Decimal:
    return Decimal(-(-_area(body) // 1_000_000) * _count(body))


def _size_together(body: Mapping[str, object]) -> Iterator[Flaw]:
    """Multiples of 16, at most 3840, at most 3:1, and 655,360 to 8,294,400 pixels."""
    size = body.get("image_size")
    if size is None or size == "auto" or (isinstance(size, str) and size in _IMAGE_PRESETS):
        return
    if not _is_pair(size):
        yield Flaw("choice", "image_size", Field("any", choices=tuple(_IMAGE_PRESETS)), value=size)
        return
    width_px, height_px = _image_size(body)
    if width_px % 16 or height_px % 16 or max(width_px, height_px) > 3840:
        yield Flaw("high", "image_size", limit=3840, value=size)
    elif max(width_px, height_px) > 3 * min(width_px, height_px):
        yield Flaw("high", "image_size", limit=3, value=size)
    elif not 655_360 <= width_px * height_px <= 8_294_400:
        yield Flaw("high", "image_size", limit=8_294_400, value=size)


def _is_pair(size: object) -> bool:
    return (
        isinstance(size, dict)
        and set(size) == {"width", "height"}
        and all(type(side) is int and side > 0 for side in size.values())
    )


def _flux_size_together(body: Mapping[str, object]) -> Iterator[Flaw]:
    size = body.get("image_size")
    if size is not None and not (isinstance(size, str) and size in _IMAGE_PRESETS) and not _is_pair(size):
        yield Flaw("choice", "image_size", Field("any", choices=tuple(_IMAGE_PRESETS)), value=size)


def _image_endpoints() -> Iterator[Endpoint]:
    thousandth = Decimal("0.001")
    for model, edit, plain in (
        ("openai/gpt-image-2", "edit", ""),
        ("openai/gpt-image-2.5/flare", "edit", "text-to-image"),
        ("openai/gpt-image-2.5/sunburst", "edit", "text-to-image"),
    ):
        plain_id = f"{model}/{plain}".rstrip("/")
        for name, fields in ((plain_id, _GPT_IMAGE), (f"{model}/{edit}", _GPT_IMAGE_EDIT)):
            yield Endpoint(name, fields, _images, _gpt_image_units, "units", thousandth, _size_together)
    yield Endpoint(
        "fal-ai/flux/schnell",
        _FLUX,
        _images,
        _megapixels,
        "megapixels",
        Decimal("0.003"),
        _flux_size_together,
    )


ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    endpoint.id: endpoint for endpoint in (*_seedance_endpoints(), *_image_endpoints())
}
APPS: Final = frozenset(endpoint.app for endpoint in ENDPOINTS.values())
