"""Generations in Runway's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.chassis.settings import Secret
from services.provider_pool.adapters import mentions
from services.provider_pool.adapters.frames import Size
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Generation,
    ModelSpec,
    ReferenceFile,
    ReferenceRole,
    RemoteFile,
)

VERSION: Final = "2024-11-06"
"""Of the API; without it every call is refused."""

EXTENSIONS: Final[Mapping[str, str]] = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
}
"""What may be uploaded, by content type."""

_POSITIONS: Final[Mapping[ReferenceRole, str]] = {
    ReferenceRole.FIRST_FRAME: "first",
    ReferenceRole.LAST_FRAME: "last",
}


def headers_of(account: AccountAccess) -> dict[str, str | Secret]:
    """The credentials and the version."""
    bearer = Secret(f"Bearer {account.secrets['api_key'].reveal()}")
    return {"authorization": bearer, "x-runway-version": VERSION}


def path_of(references: Sequence[ReferenceFile]) -> str:
    """Where films that begin or end with a picture are begun, and where all others."""
    framed = any(file.role in _POSITIONS for file in references)
    return "/v1/image_to_video" if framed else "/v1/text_to_video"


def body_of(generation: Generation, spec: ModelSpec, size: Size) -> dict[str, object]:
    """What is asked for, without references."""
    body: dict[str, object] = {
        "model": spec.upstream,
        "promptText": mentions.in_words(generation),
        "ratio": f"{size.width}:{size.height}",
        "duration": generation.duration_s,
        "audio": generation.audio,
    }
    return body if generation.seed is None else {**body, "seed": generation.seed}


def with_references(
    body: Mapping[str, object], references: Sequence[ReferenceFile], uploads: Sequence[RemoteFile]
) -> dict[str, object]:
    """The body with what has been uploaded."""
    pairs = list(zip(references, uploads, strict=True))
    frames = [
        {"uri": upload.location, "position": _POSITIONS[file.role]}
        for file, upload in pairs
        if file.role in _POSITIONS
    ]
    videos = [_typed("video", upload) for file, upload in pairs if file.role is ReferenceRole.VIDEO]
    sounds = [_typed("audio", upload) for file, upload in pairs if file.role is ReferenceRole.AUDIO]
    images = [_typed("image", upload) for file, upload in pairs if file.role is ReferenceRole.IMAGE]
    given = {
        "promptImage": frames,
        "references": images,
        "referenceVideos": videos,
        "referenceAudio": sounds,
    }
    return {**body, **{name: each for name, each in given.items() if each}}


def _typed(kind: str, upload: RemoteFile) -> dict[str, str]:
    return {"type": kind, "uri": upload.location}
