"""A proxy before PostgreSQL that reads along just enough to know whose connection it is, and when COMMIT goes by.

Framing of https://www.postgresql.org/docs/15/protocol-message-formats.html: after the start, every message of a client
is one byte of type, four of length (which counts itself) and its body.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

from tests.faults.proxy import HOST, Direction, Link, Proxy
from tests.postgres import USER, Postgres

_STARTUP_CODE = 196608
_HEADER_BYTES = 5
# Simple Query, and Parse, whose statement follows its name.
_QUERY, _PARSE = b"Q", b"P"

# `request`: COMMIT itself is lost. `answer`: the server has committed, and its answer is lost.
Loss = Literal["request", "answer"]


@dataclass
class Frontend:
    """What one client has sent so far: bytes in, statements out."""

    application: str = ""
    started: bool = False
    _waiting: bytearray = field(default_factory=bytearray)

    def statements(self, chunk: bytes) -> Iterator[str]:
        """The statements whose last byte lies in `chunk`."""
        self._waiting += chunk
        while (message := self._message()) is not None:
            kind, body = message
            if kind == _QUERY:
                yield body.rstrip(b"\0").decode(errors="replace")
            elif kind == _PARSE:
                yield body.partition(b"\0")[2].partition(b"\0")[0].decode(errors="replace")

    def _message(self) -> tuple[bytes, bytes] | None:
        skip = 1 if self.started else 0
        if len(self._waiting) < skip + 4:
            return None
        (length,) = struct.unpack_from("!i", self._waiting, skip)
        if len(self._waiting) < skip + length:
            return None
        kind, body = bytes(self._waiting[:skip]), bytes(self._waiting[skip + 4 : skip + length])
        del self._waiting[: skip + length]
        if not self.started:
            self._start(body)
        return kind, body

    def _start(self, body: bytes) -> None:
        """The first message says who it is, unless it only asks whether there is encryption."""
        (code,) = struct.unpack_from("!i", body)
        if code != _STARTUP_CODE:
            return
        self.started = True
        words = body[4:].split(b"\0")
        parameters = dict(zip(words[::2], words[1::2], strict=False))
        self.application = parameters.get(b"application_name", b"").decode()


class DatabaseProxy(Proxy):
    """`lose` breaks connections at COMMIT; everything else is a Proxy's."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: Counter[tuple[str, Loss]] = Counter()
        self.commits: Counter[str] = Counter()
        self._frontends: dict[Link, Frontend] = {}
        self._doomed: set[Link] = set()
        self._orders: dict[str, tuple[Loss, int]] = {}

    def lose(self, application: str, what: Loss, *, times: int = 1) -> None:
        """The next so many COMMITs of this application lose their request or their answer, and their connection."""
        self._orders[application] = (what, times)

    def obeyed(self, application: str) -> bool:
        """Whether everything that `lose` asked for has happened."""
        return application not in self._orders

    def outgoing(self, link: Link, direction: Direction, chunk: bytes) -> bytes | None:
        if direction == "down":
            if link in self._doomed:
                self._note(link, "answer")
                return None
            return chunk
        frontend = self._frontends.setdefault(link, Frontend())
        committing = [one for one in frontend.statements(chunk) if one.upper().startswith("COMMIT")]
        if not committing:
            return chunk
        self.commits[frontend.application] += 1
        what = self._next_loss(frontend.application)
        if what == "request":
            self._note(link, what)
            return None
        if what == "answer":
            self._doomed.add(link)
        return chunk

    def _next_loss(self, application: str) -> Loss | None:
        what, times = self._orders.get(application, (None, 0))
        if times > 1 and what is not None:
            self._orders[application] = (what, times - 1)
        else:
            self._orders.pop(application, None)
        return what

    def _note(self, link: Link, what: Loss) -> None:
        self.lost[self._frontends[link].application, what] += 1
        self._doomed.discard(link)


class ProxiedPostgres(Postgres):
    """A server whose clients are sent through a proxy."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy
        proxy.lead_to(self.port)

    def __enter__(self) -> Self:
        return super().__enter__()

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@{HOST}:{self._proxy.port}/{database}"

    def direct_url(self, database: str) -> str:
        """Past the proxy."""
        return super().url(database)
