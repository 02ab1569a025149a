"""Named points that the code passes, before and after every commit and every call: where a process may be made to die.

In production nobody listens and nothing can be armed: no setting and no request leads here, and passing a point is a
function call that compares one name with None. Tests start a service through an entry of their own, which listens.

A point's name says what is being done and on which side of it the code is:

- `commit.<what>.before`: every statement of the transaction has run, COMMIT has not been sent; `.after`: it is durable,
  and nobody has been answered.
- `call.<service>.<method>.before`: nothing has left; `.after`: the answer is there, and nobody has acted on it.
- `provider.<what>`, `media.<what>`, `references.<what>` and `webhook.<what>`: the same for what lies outside.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol, TypeVar

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)
T = TypeVar("T")

_INNER_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Listener(Protocol):
    """Told the name of a point, and whose it is: an id, or nothing. It may be called from any thread."""

    def __call__(self, point: str, subject: str) -> None: ...


class _Write(Protocol[C_co]):
    def __call__(self, work: Callable[[C_co], T]) -> Awaitable[T]: ...


_listener: Listener | None = None


def listen(listener: Listener) -> None:
    """Tell `listener` of every point that is passed from now on."""
    global _listener  # noqa: PLW0603 - one process, one listener, and one comparison where there is none
    _listener = listener


def reached(*name: str, subject: str = "") -> None:
    """The code is at this point. `name` is its parts, put together only if somebody listens."""
    if _listener is not None:
        _listener(".".join(name), subject)


def reached_by(items: Collection[T], kind: Callable[[T], str], side: str) -> None:
    """A transaction that carries all these items is at its COMMIT: one point for each kind among them."""
    if _listener is not None:
        for what in sorted({kind(item) for item in items}):
            _listener(f"commit.{what}.{side}", "")


async def committed(write: _Write[C], what: str, work: Callable[[C], T]) -> T:
    """`write(work)`, a transaction of its own, between its two points."""

    def whole(connection: C) -> T:
        result = work(connection)
        reached("commit", what, "before")
        return result

    result = await write(whole)
    reached("commit", what, "after")
    return result


def kind_of(item: object) -> str:
    """What an item is, by the name of its class: `GiveBack` is `give_back`."""
    return _spelled(type(item).__name__)


@functools.cache
def _spelled(name: str) -> str:
    return _INNER_CAPITAL.sub("_", name).lower()
