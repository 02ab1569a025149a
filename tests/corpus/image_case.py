"""One hostile, or suspiciously honest, image with what is to be said of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """`on_leonardo` and `elsewhere` are the rule that refuses it there; None: it is taken."""

    trick: str
    content: bytes
    on_leonardo: str | None
    elsewhere: str | None
    extension: str = "png"

    @property
    def expected(self) -> dict[str, str | None]:
        """By a contract of each kind."""
        return {"leonardo": self.on_leonardo, "seedancee2": self.elsewhere}


def refused(trick: str, content: bytes, rule: str, extension: str = "png") -> Case:
    """By everybody, for the same reason."""
    return Case(trick, content, rule, rule, extension)


def taken(trick: str, content: bytes, extension: str = "png") -> Case:
    return Case(trick, content, None, None, extension)


def taken_elsewhere(trick: str, content: bytes, extension: str = "png") -> Case:
    """A format that leonardo does not take."""
    return Case(trick, content, "format_not_taken", None, extension)


def refused_elsewhere(trick: str, content: bytes, rule: str, extension: str = "png") -> Case:
    """A format that leonardo does not take, and a file that nobody does."""
    return Case(trick, content, "format_not_taken", rule, extension)


def cut(name: str, content: bytes, places: int, extension: str) -> list[tuple[str, bytes, str]]:
    """`content` cut short at places all over it; the first is behind what tells its format."""
    last = len(content) - 1
    ends = sorted({16 + (last - 16) * number // (places - 1) for number in range(places)})
    return [(f"{name} cut at {end} of {len(content)}", content[:end], extension) for end in ends]
