"""Leonardo's calls beside the two roads: motion from an image, larger films, masks, backgrounds at once."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from services.simulator.drawings import Film, Picture
from services.simulator.field_rules import Field
from services.simulator.leonardo.answers import refused
from services.simulator.leonardo.v1_orders import Order, Reference
from services.simulator.leonardo.wording import first_fault
from services.simulator.tasks import Task

_FLAG: Final = Field("boolean")
_SVD: Final[Mapping[str, Field]] = {
    "imageId": Field("string", required=True),
    "isInitImage": _FLAG,
    "isVariation": _FLAG,
    "motionStrength": Field("integer", low=1, high=10),
    "isPublic": _FLAG,
}
_UPSCALE: Final[Mapping[str, Field]] = {
    "sourceGenerationId": Field("string", required=True),
    "resolution": Field("string", required=True, choices=("RESOLUTION_720", "RESOLUTION_1080")),
}
_SYNC: Final[Mapping[str, Field]] = {
    "model": Field("string", required=True, choices=("remove-bg",)),
    "public": _FLAG,
    "ephemeral": _FLAG,
    "base64": _FLAG,
    "parameters": Field("object", required=True),
}
_SYNC_IMAGE_TYPES: Final = frozenset({"UPLOADED", "GENERATED", "VARIATION", "URL", "BASE64"})
# How long a link lives of a result that is not kept.
EPHEMERAL_S: Final = 30 * 60.0
# Not in the documents: about what a second of motion costs, and a small picture.
_MOTION_USD: Final = Decimal("0.10")
_UPSCALE_USD: Final = Decimal("0.20")
_CUT_OUT_USD: Final = Decimal("0.01")
_SVD_SECONDS: Final = 4


def svd_order(body: Mapping[str, Any]) -> Order:
    """`POST /generations-motion-svd`. Raises Refused."""
    if fault := first_fault(body, _SVD):
        raise refused(*fault)
    film, still = Film(1024, 576, _SVD_SECONDS), Picture(1024, 576, "jpeg")
    reference = Reference(str(body["imageId"]), bool(body.get("isInitImage")))
    facts = {"modelId": None, "width": 1024, "height": 576, "public": body.get("isPublic", False)}
    return Order("video", "SVD", "", (film, still), _MOTION_USD, (reference,), facts)


def upscale_order(body: Mapping[str, Any], source: Task | None) -> Order:
    """`POST /generations-video-upscale`; `source` is the film that the body names. Raises Refused."""
    if fault := first_fault(body, _UPSCALE):
        raise refused(*fault)
    film = next((one for one in source.drawings if isinstance(one, Film)), None) if source else None
    if film is None:
        raise refused("invalid source generation id")
    width, height = (1280, 720) if body["resolution"] == "RESOLUTION_720" else (1920, 1080)
    drawings = (Film(width, height, film.seconds, film.has_sound), Picture(width, height, "jpeg"))
    facts = {"modelId": None, "width": width, "height": height, "public": False}
    return Order("video", "UPSCALE", "", drawings, _UPSCALE_USD, (), facts)


def upscale_source(body: Mapping[str, Any]) -> str:
    """The generation that is to be made larger; empty if none is named."""
    return str(body.get("sourceGenerationId") or "")


def cut_out_order(body: Mapping[str, Any]) -> Order:
    """`POST /v2/generationssync`. Raises Refused."""
    if fault := first_fault(body, _SYNC):
        raise refused(*fault)
    guidances = body["parameters"].get("guidances")
    given = guidances.get("image_reference") if isinstance(guidances, dict) else None
    image = (
        given[0].get("image") if isinstance(given, list) and given and isinstance(given[0], dict) else None
    )
    if not isinstance(image, dict) or str(image.get("type")) not in _SYNC_IMAGE_TYPES:
        raise refused("Invalid value for guidances.image_reference", "validation-failed")
    references: tuple[Reference, ...] = ()
    if image["type"] in {"UPLOADED", "GENERATED"}:
        references = (Reference(str(image.get("id")), image["type"] == "UPLOADED"),)
    picture = Picture(1024, 1024, is_transparent=True)
    facts = {"modelId": None, "width": 1024, "height": 1024, "public": body.get("public", False)}
    return Order("image", "remove-bg", "", (picture,), _CUT_OUT_USD, references, facts)
