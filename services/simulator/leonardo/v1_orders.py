"""v1: native images and motion, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from services.simulator.drawings import Drawing, Film, Picture
from services.simulator.field_rules import Field
from services.simulator.leonardo.answers import refused
from services.simulator.leonardo.wording import first_fault

DEFAULT_MODEL: Final = "b24e16ff-06e3-43eb-8d33-4416c2d75876"
NATIVE_MODELS: Final = {
    DEFAULT_MODEL: "Leonardo Diffusion XL",
    "7b592283-e8a7-4c5a-9ba6-d18c31f258b9": "Lucid Origin",
    "05ce0082-2d80-4a2d-8653-4d1c85e2418e": "Lucid Realism",
    "de7d3faf-762f-48e0-b3b7-9d0ac3a3fcf3": "Phoenix 1.0",
    "6b645e3a-d64f-4341-a6d8-7a3690fbf042": "Phoenix 0.9",
}
_PHOENIX: Final = {"de7d3faf-762f-48e0-b3b7-9d0ac3a3fcf3", "6b645e3a-d64f-4341-a6d8-7a3690fbf042"}
_STYLES: Final = [
    "ANIME",
    "BOKEH",
    "CINEMATIC",
    "CINEMATIC_CLOSEUP",
    "CREATIVE",
    "DYNAMIC",
    "ENVIRONMENT",
    "FASHION",
    "FILM",
    "FOOD",
    "GENERAL",
    "HDR",
    "ILLUSTRATION",
    "LEONARDO",
    "LONG_EXPOSURE",
    "MACRO",
    "MINIMALISTIC",
    "MONOCHROME",
    "MOODY",
    "NONE",
    "NEUTRAL",
    "PHOTOGRAPHY",
    "PORTRAIT",
    "RAYTRACED",
    "RENDER_3D",
    "RETRO",
    "SKETCH_BW",
    "SKETCH_COLOR",
    "STOCK_PHOTO",
    "VIBRANT",
    "UNPROCESSED",
]
_SCHEDULERS: Final = [
    "KLMS",
    "EULER_ANCESTRAL_DISCRETE",
    "EULER_DISCRETE",
    "DDIM",
    "DPM_SOLVER",
    "PNDM",
    "LEONARDO",
]
_VERSIONS: Final = [
    "v1_5",
    "v2",
    "v3",
    "SDXL_0_8",
    "SDXL_0_9",
    "SDXL_1_0",
    "SDXL_LIGHTNING",
    "PHOENIX",
    "FLUX",
    "FLUX_DEV",
    "KINO_2_0",
]
_CONTRASTS: Final = (1, 1.0, 1.3, 1.8, 2.5, 3, 3.0, 3.5, 4, 4.0, 4.5)
_FLAG: Final = Field("boolean")
_IMAGE_FIELDS: Final[Mapping[str, Field]] = {
    "prompt": Field("string", required=True, low=1, high=1500),
    "negative_prompt": Field("string", high=1500),
    "modelId": Field("string"),
    "width": Field("integer", low=32, high=1536),
    "height": Field("integer", low=32, high=1536),
    "num_images": Field("integer", low=1, high=8),
    "guidance_scale": Field("number", low=1, high=20),
    "num_inference_steps": Field("integer", low=10, high=60),
    "seed": Field("integer", low=0, high=9_999_999_998),
    "contrast": Field("number", choices=_CONTRASTS),
    "contrastRatio": Field("number", low=0, high=1),
    "presetStyle": Field("string", choices=_STYLES),
    "styleUUID": Field("string"),
    "photoRealVersion": Field("string", choices=("v1", "v2")),
    "photoRealStrength": Field("number", choices=(0.45, 0.5, 0.55)),
    "promptMagicVersion": Field("string", choices=("v2", "v3")),
    "promptMagicStrength": Field("number", low=0.1, high=1),
    "enhancePromptInstruction": Field("string"),
    "init_image_id": Field("string"),
    "init_generation_image_id": Field("string"),
    "init_strength": Field("number", low=0.1, high=0.9),
    "imagePrompts": Field("strings"),
    "imagePromptWeight": Field("number"),
    "controlnets": Field("objects"),
    "elements": Field("objects"),
    "userElements": Field("objects"),
    "scheduler": Field("string", choices=_SCHEDULERS),
    "sd_version": Field("string", choices=_VERSIONS),
    "transparency": Field("string", choices=("disabled", "foreground_only")),
    "canvasRequestType": Field("string", choices=("INPAINT", "OUTPAINT", "SKETCH2IMG", "IMG2IMG")),
    "canvasInitId": Field("string"),
    "canvasMaskId": Field("string"),
    **dict.fromkeys(
        (
            "alchemy",
            "ultra",
            "photoReal",
            "promptMagic",
            "highContrast",
            "highResolution",
            "expandedDomain",
            "enhancePrompt",
            "tiling",
            "public",
            "canvasRequest",
        ),
        _FLAG,
    ),
}
# 0.012 dollars buy the four images that are the default.
_USD_PER_IMAGE: Final = Decimal("0.003")
_SHARED_MOTION: Final[Mapping[str, Field]] = {
    "prompt": Field("string", required=True, low=1, high=1500),
    "model": Field("string", choices=("MOTION2", "MOTION2FAST", "VEO3", "VEO3FAST", "KLING2_1", "KLING2_5")),
    "resolution": Field("string", choices=("RESOLUTION_480", "RESOLUTION_720", "RESOLUTION_1080")),
    "duration": Field("integer", choices=(4, 5, 6, 8, 10)),
    "width": Field("integer"),
    "height": Field("integer"),
    "negativePrompt": Field("string"),
    "frameInterpolation": _FLAG,
    "promptEnhance": _FLAG,
    "promptEnhanceInstruction": Field("string"),
    "seed": Field("integer", low=0, high=9_999_999_998),
    "styleIds": Field("objects"),
    "elements": Field("objects"),
    "isPublic": _FLAG,
}
_FROM_IMAGE: Final[Mapping[str, Field]] = {
    **_SHARED_MOTION,
    "imageId": Field("string", required=True),
    "imageType": Field("string", required=True, choices=("GENERATED", "UPLOADED")),
    "endFrameImage": Field("object"),
}
_SECONDS: Final = {"VEO3": (4, 6, 8), "VEO3FAST": (4, 6, 8), "KLING2_1": (5, 10), "KLING2_5": (5, 10)}
_MOTION_SIZES: Final = {
    "RESOLUTION_480": (832, 480),
    "RESOLUTION_720": (1280, 720),
    "RESOLUTION_1080": (1920, 1080),
}
_USD_PER_MOTION_SECOND: Final = Decimal("0.05")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image that an order names: uploaded, or generated here."""

    id: str
    is_uploaded: bool


@dataclass(frozen=True, slots=True)
class Order:
    """A sound request: what is made, and for how much."""

    kind: str
    model: str
    prompt: str
    drawings: tuple[Drawing, ...]
    usd: Decimal
    references: tuple[Reference, ...]
    facts: dict[str, Any]


def image_order(body: Mapping[str, Any]) -> Order:
    """`POST /generations`. Raises Refused."""
    if fault := first_fault(body, _IMAGE_FIELDS):
        raise refused(*fault)
    model = str(body.get("modelId") or DEFAULT_MODEL)
    if model not in NATIVE_MODELS:
        raise refused(f"{model} is not supported within the Production API")
    width, height = int(body.get("width") or 1024), int(body.get("height") or 768)
    number = int(body.get("num_images") or 4)
    if width % 8 or height % 8:
        raise refused("invalid dimensions: width and height must be multiples of 8", "validation-failed")
    if max(width, height) > 768 and number > 4:
        raise refused("Too many images: at most 4 where a side is over 768", "validation-failed")
    _check_contrast(model, body)
    drawings = tuple(Picture(width, height, "jpeg", tint) for tint in range(number))
    references = tuple(
        Reference(str(body[name]), is_uploaded)
        for name, is_uploaded in (("init_image_id", True), ("init_generation_image_id", False))
        if body.get(name)
    )
    facts = {
        "modelId": model,
        "width": width,
        "height": height,
        "public": body.get("public", False),
        "negativePrompt": body.get("negative_prompt", ""),
    }
    if body.get("seed") is not None:
        facts["seed"] = body["seed"]
    return Order("image", model, body["prompt"], drawings, _USD_PER_IMAGE * number, references, facts)


def _check_contrast(model: str, body: Mapping[str, Any]) -> None:
    contrast = body.get("contrast")
    if model in _PHOENIX and body.get("alchemy", True) and contrast is not None and contrast < 2.5:
        raise refused("contrast must be at least 2.5 for Phoenix with alchemy", "validation-failed")


def motion_order(body: Mapping[str, Any], *, has_image: bool) -> Order:
    """`POST /generations-text-to-video` and `-image-to-video`. Raises Refused."""
    if fault := first_fault(body, _FROM_IMAGE if has_image else _SHARED_MOTION):
        raise refused(*fault)
    model = str(body.get("model") or "MOTION2")
    if body.get("endFrameImage") and model != "KLING2_1":
        raise refused("endFrameImage is for KLING2_1 only", "validation-failed")
    seconds = int(body.get("duration") or (8 if model.startswith("VEO3") else 5))
    if "duration" in body and seconds not in _SECONDS.get(model, (5, 8)):
        raise refused(f"Invalid value for duration of {model}", "validation-failed")
    width, height = _MOTION_SIZES[str(body.get("resolution") or "RESOLUTION_720")]
    film = Film(width, height, seconds, has_sound=model.startswith("VEO3"))
    references = [Reference(str(body["imageId"]), body["imageType"] == "UPLOADED")] if has_image else []
    end = body.get("endFrameImage")
    if isinstance(end, dict):
        references.append(Reference(str(end.get("id")), end.get("type") == "UPLOADED"))
    facts = {"modelId": None, "width": width, "height": height, "public": body.get("isPublic", False)}
    usd = _USD_PER_MOTION_SECOND * seconds
    still = Picture(width, height, "jpeg")
    return Order("video", model, body["prompt"], (film, still), usd, tuple(references), facts)
