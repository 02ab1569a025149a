"""Generations in Leonardo's words. Pure. What has a price is said, also where it is what is usual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.chassis.settings import Secret
from services.provider_pool.adapters import attempt_marks, mentions
from services.provider_pool.adapters.frames import Size
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Generation,
    InvalidRequest,
    Kind,
    ModelSpec,
    ReferenceFile,
    ReferenceRole,
    RemoteFile,
    Strength,
)

EXTENSIONS: Final[Mapping[str, str]] = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
"""What may be uploaded, by content type."""

V1_PATH: Final = "/api/rest/v1/generations"
V2_PATH: Final = "/api/rest/v2/generations"

_PROMPT_CHARACTERS: Final = 32_000
_FRAMES: Final[Mapping[ReferenceRole, str]] = {
    ReferenceRole.FIRST_FRAME: "start_frame",
    ReferenceRole.LAST_FRAME: "end_frame",
}
_STRENGTHS: Final[Mapping[Strength, str]] = {Strength.LOW: "LOW", Strength.MID: "MID", Strength.HIGH: "HIGH"}
_V1_STRENGTHS: Final[Mapping[Strength, float]] = {Strength.LOW: 0.3, Strength.MID: 0.5, Strength.HIGH: 0.8}


def headers_of(account: AccountAccess) -> dict[str, str | Secret]:
    """The credentials."""
    bearer = Secret(f"Bearer {account.secrets['api_key'].reveal()}")
    return {"authorization": bearer, "accept": "application/json"}


def path_of(spec: ModelSpec) -> str:
    """Where generations of this model are begun."""
    return V1_PATH if _is_v1(spec) else V2_PATH


def body_of(generation: Generation, spec: ModelSpec, size: Size | None) -> dict[str, object]:
    """What is asked for, without references. Raises InvalidRequest where the whole prompt is too long."""
    prompt = instructed(generation, spec.extras)
    if len(prompt) > _PROMPT_CHARACTERS:
        raise InvalidRequest(f"{spec.upstream} takes shorter prompts for this")
    if _is_v1(spec):
        return _v1_body(generation, spec, prompt)
    made = {Kind.VIDEO: _film, Kind.MUSIC: _music}.get(generation.kind, _picture)
    parameters = {"prompt": prompt, "quantity": 1, **made(generation, spec, size)}
    return {"model": spec.upstream, "public": False, "parameters": parameters}


def with_references(
    body: Mapping[str, object],
    spec: ModelSpec,
    references: Sequence[ReferenceFile],
    uploads: Sequence[RemoteFile],
    seed: int | None,
) -> Mapping[str, object]:
    """The body with what has been uploaded, and the seed by which the generation is told from others with the same words."""
    if not references:
        return body
    marked: Mapping[str, object] = {} if seed is None else {"seed": seed}
    pairs = list(zip(references, uploads, strict=True))
    if _is_v1(spec):
        (file, upload), *_ = pairs
        return {
            **body,
            **marked,
            "init_image_id": upload.location,
            "init_strength": _V1_STRENGTHS[file.strength],
        }
    guidances: dict[str, list[object]] = {}
    for order, (file, upload) in enumerate(pairs, 1):
        image = {"image": {"id": upload.location, "type": "UPLOADED"}}
        frame = _FRAMES.get(file.role)
        if frame is not None:
            guidances[frame] = [image]
        elif spec.kind is Kind.VIDEO:
            followed = {**image, "strength": _STRENGTHS[file.strength], "order": order}
            guidances.setdefault("image_reference", []).append(followed)
        else:
            guidances.setdefault("image_reference", []).append(image)
    parameters = body["parameters"]
    assert isinstance(parameters, Mapping)
    return {**body, "parameters": {**parameters, **marked, "guidances": guidances}}


def mark_of(generation: Generation, spec: ModelSpec, reference: str) -> int | None:
    """The attempt's own seed; None where the model takes none, or another was wished for."""
    if spec.capability.seeds is None or generation.seed is not None:
        return None
    return attempt_marks.seed_of(reference) % spec.capability.seeds.high


def instructed(generation: Generation, extras: Mapping[str, object]) -> str:
    """The prompt, with what the model file has to say before it to a model that was not made for this kind."""
    styles = extras.get("styles")
    style = styles.get(generation.style, "") if isinstance(styles, Mapping) else ""
    return "\n\n".join(
        part
        for part in (str(extras.get("instruction", "")), str(style), mentions.in_words(generation))
        if part
    )


def _is_v1(spec: ModelSpec) -> bool:
    return spec.extras.get("api") == "v1"


def _film(generation: Generation, spec: ModelSpec, size: Size | None) -> dict[str, object]:
    width, height = (size.width, size.height) if size else (generation.width, generation.height)
    return {
        "duration": generation.duration_s,
        "width": width,
        "height": height,
        "motion_has_audio": generation.audio,
        "seed": -1 if generation.seed is None else generation.seed,
    }


def _picture(generation: Generation, spec: ModelSpec, size: Size | None) -> dict[str, object]:
    quality = generation.quality or str(spec.extras.get("quality", "medium"))
    return {
        "width": generation.width,
        "height": generation.height,
        "quality": quality.upper(),
        "prompt_enhance": "OFF",
    }


def _music(generation: Generation, spec: ModelSpec, size: Size | None) -> dict[str, object]:
    return {"duration_minutes": generation.duration_s // 60, "force_instrumental": False}


def _v1_body(generation: Generation, spec: ModelSpec, prompt: str) -> dict[str, object]:
    body: dict[str, object] = {
        "prompt": prompt,
        "modelId": spec.upstream,
        "width": generation.width,
        "height": generation.height,
        # Four, if nothing is said.
        "num_images": 1,
        "public": False,
    }
    body |= {name: spec.extras[name] for name in ("contrast", "alchemy") if name in spec.extras}
    return body if generation.seed is None else {**body, "seed": generation.seed}
