"""Generations in fal's words: which endpoint, and its input. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

from services.chassis.settings import Secret
from services.provider_pool.adapters.addresses import base_url
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Generation,
    InvalidRequest,
    Kind,
    ModelSpec,
    ReferenceRole,
    RemoteFile,
)

QUEUE: Final = "https://queue.fal.run"
REST: Final = "https://rest.fal.ai"
API: Final = "https://api.fal.ai"

API_KEY: Final = "api_key"
ADMIN_KEY: Final = "admin_key"
"""Tells the balance, and is not needed for anything else."""

OUTPUT_LIFETIME_S: Final = 86_400
"""Asked for with each request: outputs are copied within minutes, and lie in the open meanwhile."""

_FRAMES: Final[Mapping[ReferenceRole, str]] = {
    ReferenceRole.FIRST_FRAME: "image_url",
    ReferenceRole.LAST_FRAME: "end_image_url",
}
_LISTS: Final[Mapping[ReferenceRole, str]] = {
    ReferenceRole.IMAGE: "image_urls",
    ReferenceRole.VIDEO: "video_urls",
    ReferenceRole.AUDIO: "audio_urls",
}


def endpoint_of(generation: Generation, spec: ModelSpec) -> str:
    """Fal has an endpoint for each way to begin: words alone, a first frame, references."""
    roles = {reference.role for reference in generation.references}
    way = "text" if not roles else "frames" if roles & _FRAMES.keys() else "references"
    endpoint = spec.extras.get(way)
    if not isinstance(endpoint, str):
        raise InvalidRequest(f"{spec.upstream} cannot begin with that")
    return endpoint


def body_of(generation: Generation, spec: ModelSpec) -> dict[str, object]:
    """The input without references. Everything that has to do with the price is said."""
    return _film(generation, spec) if generation.kind is Kind.VIDEO else _picture(generation, spec)


def with_references(
    body: Mapping[str, object], generation: Generation, uploads: Sequence[RemoteFile]
) -> dict[str, object]:
    """The input with the addresses under which fal keeps the references, in their order."""
    whole = dict(body)
    lists: dict[str, list[str]] = {}
    for reference, upload in zip(generation.references, uploads, strict=True):
        if reference.role in _FRAMES:
            whole[_FRAMES[reference.role]] = upload.location
        else:
            lists.setdefault(_LISTS[reference.role], []).append(upload.location)
    return whole | lists


def is_this(
    told: object, body: Mapping[str, object], generation: Generation, uploads: Sequence[RemoteFile]
) -> bool:
    """Whether an input that fal lists is what was sent: all of it, and these references and no others.

    Others may have sent the same words with pictures of their own: where it is not known what was uploaded, nothing is.
    """
    if not isinstance(told, Mapping) or len(uploads) != len(generation.references):
        return False
    sent = with_references(body, generation, uploads)
    empty = {*_FRAMES.values(), *_LISTS.values()} - sent.keys()
    return all(told.get(name) == value for name, value in sent.items()) and not any(map(told.get, empty))


def queue_address(account: AccountAccess, endpoint: str) -> str:
    """Where a request for an endpoint is put in."""
    return f"{base_url(account, QUEUE)}/{quote(endpoint)}"


def task_addresses(account: AccountAccess, endpoint: str, request_id: str) -> dict[str, str]:
    """Where fal answers about a request, when it has not said: below the owner and the app alone."""
    app = "/".join(endpoint.split("/")[:2])
    address = f"{base_url(account, QUEUE)}/{quote(app)}/requests/{quote(request_id, safe='')}"
    return {
        "status_url": f"{address}/status",
        "response_url": address,
        "cancel_url": f"{address}/cancel",
    }


def headers_of(account: AccountAccess, credential: str = API_KEY) -> dict[str, str | Secret]:
    """Credentials."""
    return {"authorization": Secret(f"Key {account.secrets[credential].reveal()}")}


def lifetime_header() -> dict[str, str]:
    """How long fal is to keep what it makes."""
    return {"x-fal-object-lifecycle-preference": f'{{"expiration_duration_seconds": {OUTPUT_LIFETIME_S}}}'}


def _film(generation: Generation, spec: ModelSpec) -> dict[str, object]:
    sizes = () if spec.capability.sizes is None else spec.capability.sizes.possible(generation)
    if not sizes:
        raise InvalidRequest(f"{spec.upstream} has no such size")
    body: dict[str, object] = {
        "prompt": generation.prompt,
        "resolution": sizes[0].resolution,
        "duration": str(generation.duration_s),
        "aspect_ratio": "auto" if generation.adaptive_ratio else sizes[0].ratio,
        "generate_audio": generation.audio,
    }
    if generation.seed is not None and generation.seed >= 0:
        body["seed"] = generation.seed
    return body


def _picture(generation: Generation, spec: ModelSpec) -> dict[str, object]:
    instruction, styles = spec.extras.get("instruction", ""), spec.extras.get("styles")
    style = styles.get(generation.style, "") if isinstance(styles, Mapping) else ""
    return {
        "prompt": "\n\n".join(str(part) for part in (instruction, style, generation.prompt) if part),
        "image_size": {"width": generation.width, "height": generation.height},
        "quality": generation.quality or str(spec.extras.get("quality", "medium")),
        "num_images": 1,
        "output_format": "png",
    }
