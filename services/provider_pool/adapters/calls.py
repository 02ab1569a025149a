"""What an adapter is lent to reach its provider: calls with a deadline, and a place for results that arrive in the answer.

Adapters open no sockets and no files. That a billable call which broke off after it was sent leaves its attempt in doubt
is decided here, once for all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import msgspec

from services.chassis.settings import Secret
from services.provider_pool.adapters.provider_errors import ProtocolViolation

ANSWER_LIMIT_BYTES: Final = 4 * 1024 * 1024
"""Of an answer that is not an output: the longest list page any provider documents has a tenth of it."""


@dataclass(frozen=True, slots=True)
class FormPart:
    """One part of a multipart form, in its place: a text, or a file with a name and a type."""

    name: str
    text: str = field(default="", repr=False)
    path: Path | None = None
    file_name: str = ""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer, whatever its status. Header names are lower-case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def json(self) -> object:
        """The body as JSON. Raises ProtocolViolation, which quotes nothing of it."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ProtocolViolation(f"an answer of status {self.status} that is not JSON") from None


class Calls(Protocol):
    """HTTP to providers. Redirects are not followed; addresses outside an account's own provider get no credentials."""

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str | Secret] | None = None,
        query: Sequence[tuple[str, str]] = (),
        json: object | None = None,
        form: Sequence[FormPart] | None = None,
        file: Path | None = None,
        timeout_s: float,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
        billable: bool = False,
    ) -> HttpAnswer:
        """One call; at most one of `json`, `form` and `file` is its body.

        Nothing is repeated but a GET whose kept connection was closed as it was sent.

        Raises TransientFailure when nothing of it was sent, or, of a call that is not `billable`, when no whole answer came;
        SubmissionUnknown when a billable one may have been taken and no whole answer came; ProtocolViolation, of a call that
        is not billable, when the answer is larger than `limit_bytes`.
        """
        ...

    def fetch(
        self,
        url: str,
        *,
        headers: Mapping[str, str | Secret] | None = None,
        timeout_s: float,
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream an output. Without headers of the account's it may lie anywhere that customers' addresses may.

        Raises OutputUnavailable where it is gone (403, 404, 410) or the address is not allowed, TransientFailure else.
        """
        ...


class Results(Protocol):
    """Results that came in the answer to a submission, kept until they are collected. They survive the process."""

    async def keep(self, reference: str, name: str, content: bytes) -> str:
        """Store one output of the attempt `reference` under a short name; its location. Repeating it replaces it."""
        ...

    async def found(self, reference: str) -> Sequence[str]:
        """Locations of what was kept of this attempt, in the order of their names; all of it or nothing: see `seal`."""
        ...

    async def seal(self, reference: str) -> None:
        """Everything of this attempt is kept: from here on it is found."""
        ...

    def open(self, location: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream it. Raises OutputUnavailable."""
        ...

    async def forget(self, reference: str) -> None:
        """Let go of what was kept of this attempt."""
        ...


class NoCalls:
    """For providers that are reached by no call, as the sandbox."""

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str | Secret] | None = None,
        query: Sequence[tuple[str, str]] = (),
        json: object | None = None,
        form: Sequence[FormPart] | None = None,
        file: Path | None = None,
        timeout_s: float,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
        billable: bool = False,
    ) -> HttpAnswer:
        raise NotImplementedError

    def fetch(
        self, url: str, *, headers: Mapping[str, str | Secret] | None = None, timeout_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise NotImplementedError


class NoResults:
    """For providers whose submissions never answer with a result."""

    async def keep(self, reference: str, name: str, content: bytes) -> str:
        raise NotImplementedError

    async def found(self, reference: str) -> Sequence[str]:
        raise NotImplementedError

    async def seal(self, reference: str) -> None:
        raise NotImplementedError

    def open(self, location: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise NotImplementedError

    async def forget(self, reference: str) -> None:
        raise NotImplementedError
