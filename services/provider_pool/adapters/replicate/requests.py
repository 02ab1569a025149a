"""Generations in Replicate's words: a model's input, and what surrounds it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

from services.chassis.settings import Secret
from services.provider_pool.adapters import mentions
from services.provider_pool.adapters.addresses import base_url
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Generation,
    InvalidRequest,
    ModelSpec,
    ReferenceRole,
    RemoteFile,
)

OFFICIAL: Final = "https://api.replicate.com"

_FRAMES: Final[Mapping[ReferenceRole, str]] = {
    ReferenceRole.FIRST_FRAME: "image",
    ReferenceRole.LAST_FRAME: "last_frame_image",
}
_LISTS: Final[Mapping[ReferenceRole, str]] = {
    ReferenceRole.IMAGE: "reference_images",
    ReferenceRole.VIDEO: "reference_videos",
    ReferenceRole.AUDIO: "reference_audios",
}


def input_of(generation: Generation, spec: ModelSpec) -> dict[str, object]:
    """The input without references. Everything that has to do with the price is said. Raises InvalidRequest."""
    sizes = () if spec.capability.sizes is None else spec.capability.sizes.possible(generation)
    if not sizes:
        raise InvalidRequest(f"{spec.upstream} has no such size")
    told: dict[str, object] = {
        "prompt": mentions.in_brackets(generation),
        "duration": generation.duration_s,
        "resolution": sizes[0].resolution,
        "aspect_ratio": "adaptive" if generation.adaptive_ratio else sizes[0].ratio,
        "generate_audio": generation.audio,
    }
    if generation.seed is not None and generation.seed >= 0:
        told["seed"] = generation.seed
    return told


def body_of(
    told: Mapping[str, object], generation: Generation, uploads: Sequence[RemoteFile], callback_url: str
) -> dict[str, object]:
    """The whole request: the input with the addresses of its references, and where to call when it is over."""
    body: dict[str, object] = {"input": _with_references(told, generation, uploads)}
    if callback_url:
        body |= {"webhook": callback_url, "webhook_events_filter": ["completed"]}
    return body


def is_this(
    listed: object, told: Mapping[str, object], generation: Generation, uploads: Sequence[RemoteFile]
) -> bool:
    """Whether the input of a listed prediction is what was sent: all of it, and these references and no others.

    Others may have sent the same words with pictures of their own: where it is not known what was uploaded, nothing is.
    """
    if not isinstance(listed, Mapping) or len(uploads) != len(generation.references):
        return False
    sent = _with_references(told, generation, uploads)
    empty = {*_FRAMES.values(), *_LISTS.values()} - sent.keys()
    return all(listed.get(name) == value for name, value in sent.items()) and not any(map(listed.get, empty))


def model_address(account: AccountAccess, spec: ModelSpec) -> str:
    """Where predictions of a model are begun."""
    return f"{base_url(account, OFFICIAL)}/v1/models/{quote(spec.upstream)}/predictions"


def prediction_address(account: AccountAccess, prediction_id: str) -> str:
    """Where one prediction is."""
    return f"{base_url(account, OFFICIAL)}/v1/predictions/{quote(prediction_id, safe='')}"


def headers_of(account: AccountAccess) -> dict[str, str | Secret]:
    """Credentials."""
    return {"authorization": Secret(f"Bearer {account.secrets['api_key'].reveal()}")}


def _with_references(
    told: Mapping[str, object], generation: Generation, uploads: Sequence[RemoteFile]
) -> dict[str, object]:
    whole = dict(told)
    lists: dict[str, list[str]] = {}
    for reference, upload in zip(generation.references, uploads, strict=True):
        if reference.role in _FRAMES:
            whole[_FRAMES[reference.role]] = upload.location
        else:
            lists.setdefault(_LISTS[reference.role], []).append(upload.location)
    return whole | lists
