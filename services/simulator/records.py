"""What was asked: every request to a provider, without the credentials it carried."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

# Of all bodies together; the oldest requests are forgotten first.
_KEPT_BYTES: Final = 64 * 1024 * 1024
_KEPT: Final = 50_000
# A form with a picture in it is recorded so far.
_BODY_BYTES: Final = 256 * 1024
_SECRET_HEADERS: Final = frozenset(
    {"authorization", "xi-api-key", "x-api-key", "cookie", "proxy-authorization"}
)


@dataclass(slots=True)
class Record:
    """One request and how it was answered: a status, or the fault that took its answer away."""

    provider: str
    key: str
    at_ms: int
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    answer: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "provider": self.provider,
            "key": self.key,
            "at_ms": self.at_ms,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "body": _shown(self.body),
            "answer": self.answer,
        }


class Records:
    """The last requests, oldest first."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque()
        self._bytes = 0

    def add(self, record: Record) -> None:
        record.body = record.body[:_BODY_BYTES]
        self._records.append(record)
        self._bytes += len(record.body)
        while len(self._records) > _KEPT or self._bytes > _KEPT_BYTES:
            self._bytes -= len(self._records.popleft().body)

    def matching(self, provider: str, key: str) -> Iterator[Record]:
        """Those of a provider and a key; an empty word is any."""
        for record in self._records:
            if provider in {"", record.provider} and key in {"", record.key}:
                yield record

    def clear(self) -> None:
        self._records.clear()
        self._bytes = 0


def without_credentials(headers: Mapping[str, str], key: str) -> dict[str, str]:
    """Headers by lower-case name; of a credential only its scheme is left."""
    shown = {}
    for name, value in headers.items():
        plain = value.replace(key, "[redacted]") if key else value
        if name.lower() in _SECRET_HEADERS and plain == value:
            plain = "[redacted]"
        shown[name.lower()] = plain
    return shown


def _shown(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
