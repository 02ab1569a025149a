"""References that a prompt speaks of by number, `@Image1`, `@Video2`, `@Audio1`, in the words of each provider's models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

from services.provider_pool.adapters.interface import Generation, ReferenceRole

# The end is told in ASCII: some languages write on without a space.
_MENTION: Final = re.compile(r"@(Image|Video|Audio)([1-9][0-9]?)(?![0-9A-Za-z_])")
_ROLES: Final = {
    "Image": ReferenceRole.IMAGE,
    "Video": ReferenceRole.VIDEO,
    "Audio": ReferenceRole.AUDIO,
}


def in_words(generation: Generation) -> str:
    """The prompt with `image 1` for `@Image1`."""
    return _spelled(generation, lambda medium, number: f"{medium.lower()} {number}")


def in_brackets(generation: Generation) -> str:
    """The prompt with `[Image1]` for `@Image1`."""
    return _spelled(generation, lambda medium, number: f"[{medium}{number}]")


def _spelled(generation: Generation, spell: Callable[[str, str], str]) -> str:
    """What is no reference of this generation stays as it was written."""
    counts = Counter(reference.role for reference in generation.references)

    def put(found: re.Match[str]) -> str:
        medium, number = found[1], found[2]
        return spell(medium, number) if int(number) <= counts[_ROLES[medium]] else found[0]

    return _MENTION.sub(put, generation.prompt) if counts else generation.prompt
