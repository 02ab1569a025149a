"""What outputs are called in the media store: `videos/2026/06/29/<job>.mp4`, by what they are and the day of their attempt.

A key follows from the record of an attempt alone, so that a collection that is repeated meets its own objects. Objects of
the first release are called `<job>/<role>.<extension>` and stay where they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Final

from services.provider_pool.adapters.interface import Kind, Role

_SHELVES: Final[Mapping[Kind, str]] = {
    Kind.IMAGE: "images",
    Kind.INFOGRAPHIC: "images",
    Kind.VIDEO: "videos",
    Kind.VOICE: "audio",
    Kind.MUSIC: "audio",
    Kind.TEXT: "texts",
}
# Stills lie beside each other, on a shelf of their own.
_STILLS: Final[Mapping[str, str]] = {
    "images": "image-posters",
    "videos": "video-posters",
    "audio": "audio-posters",
    "texts": "text-posters",
}
_ENDINGS: Final[Mapping[Role, str]] = {Role.PRIMARY: "", Role.PREVIEW: "", Role.LAST_FRAME: "-last"}

SHELVES: Final = frozenset({*_STILLS.keys(), *_STILLS.values()})
"""Top folders of the store; every other one is a job's of the first release."""

_DATED: Final = re.compile(r"([a-z-]{4,13})/[0-9]{4}/[0-9]{2}/[0-9]{2}/[A-Za-z0-9_-]{1,110}\.[a-z0-9]{2,5}")
_FIRST_EDITION: Final = re.compile(r"([A-Za-z0-9_-]{1,100})/(?:primary|preview|last_frame)\.[a-z0-9]{2,5}")


def key_of(kind: Kind, role: Role, job_id: str, began_at_ms: int, extension: str) -> str:
    """The key of one output of an attempt that began then."""
    shelf = _SHELVES[kind] if role is Role.PRIMARY else _STILLS[_SHELVES[kind]]
    day = datetime.fromtimestamp(began_at_ms / 1000, UTC)
    return f"{shelf}/{day:%Y/%m/%d}/{job_id}{_ENDINGS[role]}.{extension}"


def is_ours(key: str) -> bool:
    """Whether a key is one that this store gives, or gave; no other is ever opened for writing or deleted."""
    dated = _DATED.fullmatch(key)
    if dated is not None:
        return dated[1] in SHELVES
    first = _FIRST_EDITION.fullmatch(key)
    return first is not None and first[1] not in SHELVES


def day_of(year: str, month: str, day: str) -> date | None:
    """The day that three folders stand for, or None where they stand for none."""
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None
